"""What the store keeps, as people read it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final, cast

import msgspec

from jobmill.errors import PayloadError
from jobmill.records import JobError, JobInfo, QueueStats
from jobmill.store import Counts, Record


def info_of(record: Record, queue: str) -> JobInfo:
    """The record, decoded; a payload that is no JSON stays bytes, in `raw_payload`."""
    payload, raw = _plain(record.payload)
    result, _ = _plain(record.result)
    at = _moment(record.ended_at) or _moment(record.started_at) or _moment(record.enqueued_at)
    errors = [_error(each, at) for each in record.errors]
    return JobInfo(
        id=record.id,
        name=record.name,
        queue=queue,
        status=record.state,
        payload=payload,
        raw_payload=raw,
        result=result,
        error=errors[-1] if errors and record.state != "completed" else None,
        errors=errors,
        attempts=record.attempts,
        max_attempts=record.policy.max_attempts,
        lapses=record.lapses,
        priority=record.priority,
        progress=record.progress,
        progress_note=record.progress_note,
        logs=[_line(each) for each in record.logs],
        unique_key=record.unique_key,
        metadata=record.metadata,
        enqueued_at=instant_of(record.enqueued_at),
        run_at=instant_of(record.run_at),
        started_at=_moment(record.started_at),
        completed_at=_moment(record.ended_at),
        worker=record.worker,
    )


def stats_of(counts: Counts) -> QueueStats:
    """The counts by state."""
    of = counts.states.get
    return QueueStats(
        pending=of("pending", 0),
        processing=of("processing", 0),
        completed=of("completed", 0),
        failed=of("failed", 0),
        delayed=of("delayed", 0),
        cancelled=of("cancelled", 0),
    )


def _plain(data: bytes | None) -> tuple[Any, bytes | None]:
    if data is None:
        return None, None
    try:
        return msgspec.json.decode(data), None
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None, data


def _error(data: bytes, at: datetime | None) -> JobError:
    try:
        return JobError.from_json(data, at=at)
    except PayloadError as error:
        moment = at or datetime.fromtimestamp(0, UTC)
        return JobError("PayloadError", "jobmill.errors", str(error), "", 0, moment)


def _line(data: bytes) -> dict[str, Any]:
    line, raw = _plain(data)
    if not isinstance(line, dict):
        return {"message": repr(raw)}
    fields = cast("dict[str, Any]", line)
    at = fields.get("at")
    return {**fields, "at": _moment(at) if isinstance(at, int | float) else None}


def instant_of(seconds: float) -> datetime:
    """The instant; one beyond what a datetime can say is the last, or the first, that it can.

    So a record that is kept "for ever", as some number of seconds, is shown like any other.
    """
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return _LAST if seconds > 0 else _FIRST


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else instant_of(seconds)


_FIRST: Final = datetime.min.replace(tzinfo=UTC)
_LAST: Final = datetime.max.replace(tzinfo=UTC)
