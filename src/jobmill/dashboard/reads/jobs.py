"""Jobs: found by a filter, and one with its whole life."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import msgspec

from jobmill.dashboard.board import Board, Watched
from jobmill.dashboard.filters import Filter
from jobmill.dashboard.masking import Mask, without_passwords
from jobmill.dashboard.views import Failed, Happened, JobList, JobRow, JobView, LogLine, Moment
from jobmill.errors import ConfigError, PayloadError
from jobmill.infos import info_of, instant_of
from jobmill.options import is_job_id
from jobmill.records import JobError
from jobmill.states import ENDED, UNFINISHED
from jobmill.store import Page, Query, Record, Store

LIMIT: Final = 50
MOST: Final = 200
"""Jobs on one page, at most."""
_WITHIN: Final = 0.15
"""Seconds that a search takes where no index leads to its jobs; the cursor goes on."""
_SHOWN_ERROR: Final = 200
_SHOWN_PAYLOAD: Final = 120
_SHORT_PAYLOAD: Final = 4_096
_RAW_BYTES: Final = 4_096
_GROUPS: Final = 1_000
_ENDS: Final[Mapping[str, Moment]] = {
    "completed": "completed",
    "failed": "failed",
    "cancelled": "cancelled",
}
_Cursors = dict[str, str | None]


async def job_list(
    board: Board, mask: Mask, wanted: Filter, *, limit: int = LIMIT, cursor: str | None = None
) -> JobList:
    """The jobs that a filter finds, newest first.

    Cost: three statements at most for each queue that is asked.

    Raises: StoreError; ConfigError for a cursor that is none.
    """
    limit = max(1, min(limit, MOST))
    if wanted.queue is not None and board.get(wanted.queue) is None:
        return JobList(jobs=(), problems=(*wanted.problems, f"no queue is called {wanted.queue}"))
    if wanted.id is not None:
        return await _by_id(board, mask, wanted)
    after: _Cursors | None = None if cursor is None else _read_cursor(cursor)

    async def find(each: Watched) -> Page:
        if after is not None and each.label not in after:
            return Page(records=())
        return await each.ask(partial(_find, wanted, limit, (after or {}).get(each.label)))

    answers = await board.ask(find, wanted.queue)
    merged = sorted(
        ((record, each) for each, found in answers.found for record in found.records),
        key=lambda pair: -pair[0].enqueued_at,
    )[:limit]
    left: _Cursors = {}
    for each, found in answers.found:
        taken = sum(one is each for _, one in merged)
        before = (after or {}).get(each.label)
        if taken == len(found.records):
            if found.cursor is not None:
                left[each.label] = found.cursor
        elif taken == 0:
            left[each.label] = before
        else:
            # Where that page ends that has just what was taken of it.
            part = await each.ask(partial(_find, wanted, taken, before))
            left[each.label] = part.cursor
    return JobList(
        jobs=tuple(row_of(record, each, mask) for record, each in merged),
        cursor=_cursor(left) if left else None,
        complete=not left or len(merged) == limit,
        problems=wanted.problems,
        unanswered=answers.silent,
    )


async def job_view(
    board: Board, mask: Mask, job_id: str, queue: str | None = None
) -> tuple[Watched, JobView] | None:
    """The job of this id, in the queue of this label or in any; None where there is none.

    Cost: one statement for each queue that is asked.

    Raises: StoreError.
    """
    if not _is_id(job_id):
        return None
    answers = await board.ask(lambda each: each.ask(partial(_get, job_id)), queue)
    for each, record in answers.found:
        if record is not None:
            return each, _view(record, each, mask)
    return None


async def matching(store: Store, wanted: Filter) -> Query | None:
    """The query of a filter, on one store, but for its id; None where nothing can match.

    Cost: one statement where the filter has an error, else none.
    """
    fingerprint = None
    if wanted.error is not None:
        fingerprint = await _fingerprint(store, wanted.error)
        if fingerprint is None:
            return None
    return Query(
        states=wanted.states or None,
        name=wanted.name,
        unique_key=wanted.unique_key,
        fingerprint=fingerprint,
    )


async def job_of(store: Store, job_id: str, query: Query) -> Record | None:
    """The job of this id, where all that the query says holds of it, too. Cost: one statement."""
    record = await _get(job_id, store) if _is_id(job_id) else None
    if (
        record is not None
        and (query.states is None or record.state in query.states)
        and query.name in {None, record.name}
        and query.unique_key in {None, record.unique_key}
        and query.fingerprint in {None, record.fingerprint}
    ):
        return record
    return None


def row_of(record: Record, watched: Watched, mask: Mask) -> JobRow:
    """The record as a row; its result is not decoded, nor a payload that is long."""
    error = None
    if record.errors and record.state != "completed":
        last = _error(record.errors[-1])
        error = mask.text(f"{last.type}: {last.message}".strip(": "))
        error = error if len(error) <= _SHOWN_ERROR else error[: _SHOWN_ERROR - 1] + "…"
    started, ended = record.started_at, record.ended_at
    return JobRow(
        id=record.id,
        name=record.name,
        queue=watched.label,
        status=record.state,
        attempts=record.attempts,
        max_attempts=record.policy.max_attempts,
        lapses=record.lapses,
        priority=record.priority,
        unique_key=record.unique_key,
        payload=_begins(record.payload, mask),
        progress=record.progress,
        progress_note=record.progress_note,
        error=error,
        worker=record.worker,
        enqueued_at=instant_of(record.enqueued_at),
        run_at=instant_of(record.run_at),
        started_at=_moment(started),
        ended_at=_moment(ended),
        duration=None if started is None or ended is None else max(0.0, ended - started),
    )


async def _by_id(board: Board, mask: Mask, wanted: Filter) -> JobList:
    async def look(store: Store) -> Record | None:
        query = await matching(store, wanted)
        return None if query is None else await job_of(store, wanted.id or "", query)

    answers = await board.ask(lambda each: each.ask(look), wanted.queue)
    rows = [row_of(record, each, mask) for each, record in answers.found if record is not None]
    return JobList(jobs=tuple(rows), problems=wanted.problems, unanswered=answers.silent)


async def _find(wanted: Filter, limit: int, cursor: str | None, store: Store) -> Page:
    query = await matching(store, wanted)
    if query is None:
        return Page(records=())
    return await store.find(query, limit=limit, cursor=cursor, within=_WITHIN)


async def _get(job_id: str, store: Store) -> Record | None:
    (record,) = await store.get([job_id])
    return record


async def _fingerprint(store: Store, text: str) -> str | None:
    """The fingerprint that was given, or that of the last error that has the text."""
    groups = await store.errors(_GROUPS)
    if any(group.fingerprint == text for group in groups):
        return text
    folded = text.casefold()
    for group in groups:
        error = _error(group.last_error)
        # What is not shown is not found either: nobody tries out a password letter by letter.
        if folded in without_passwords(f"{error.type}: {error.message}").casefold():
            return group.fingerprint
    return None


def _begins(payload: bytes, mask: Mask) -> str | None:
    """How a payload begins, without its secrets; None where it is long, or cannot be read."""
    if len(payload) > _SHORT_PAYLOAD:
        return None
    try:
        shown = msgspec.json.encode(mask.value(msgspec.json.decode(payload))).decode()
    except (ValueError, RecursionError):
        return None
    return shown if len(shown) <= _SHOWN_PAYLOAD else shown[: _SHOWN_PAYLOAD - 1] + "…"


def _view(record: Record, watched: Watched, mask: Mask) -> JobView:
    info = info_of(record, watched.label)
    raw = info.raw_payload
    return JobView(
        row=row_of(record, watched, mask),
        payload=mask.value(info.payload),
        raw_payload=None if raw is None else raw[:_RAW_BYTES].hex(),
        result=mask.value(info.result),
        errors=tuple(_failed(error, mask) for error in info.errors),
        logs=tuple(_line(line, mask) for line in info.logs),
        metadata=mask.value(dict(record.metadata)),
        schedule=record.metadata.get("schedule"),
        timeline=_timeline(record, info.errors),
        timeout=record.policy.timeout,
        generation=record.generation,
        suspect=record.suspect,
        asked=record.asked,
        lease_until=_moment(record.lease_until),
        expires_at=_moment(record.expires_at),
        commands={
            verb: shlex.join(
                [
                    *("jobmill", "jobs", verb, record.id, "--queue", watched.queue.name),
                    *("--store", watched.place),
                ]
            )
            for verb in ("show", "logs", "retry", "cancel", "delete", "run-now")
        },
        actions=_possible(record),
    )


def _possible(record: Record) -> tuple[str, ...]:
    can: list[str] = []
    if record.state in ENDED:
        can.append("retry")
    if record.state == "delayed":
        can.append("run_now")
    if record.state in UNFINISHED and not record.asked:
        can.append("cancel")
    if record.state != "processing":
        can.append("delete")
    return tuple(can)


def _timeline(record: Record, errors: Sequence[JobError]) -> tuple[Happened, ...]:
    found = [Happened(at=instant_of(record.enqueued_at), what="enqueued")]
    for error in errors:
        if error.type != "JobCancelled":
            text = f"attempt {error.attempt}: {error.type}"
            found.append(Happened(at=error.at, what="failed_attempt", text=text))
    if record.started_at is not None:
        text = f"attempt {record.attempts}" + (f", by {record.worker}" if record.worker else "")
        found.append(Happened(at=instant_of(record.started_at), what="started", text=text))
    if record.state in {"pending", "delayed"} and record.run_at != record.enqueued_at:
        coming = record.state == "delayed"
        found.append(Happened(at=instant_of(record.run_at), what="due", coming=coming))
    if record.ended_at is not None and record.state in _ENDS:
        found.append(Happened(at=instant_of(record.ended_at), what=_ENDS[record.state]))
    if record.expires_at is not None:
        text = "the record is removed"
        found.append(
            Happened(at=instant_of(record.expires_at), what="expires", text=text, coming=True)
        )
    return tuple(sorted(found, key=lambda each: each.at))


def _failed(error: JobError, mask: Mask) -> Failed:
    return Failed(
        type=error.type,
        message=mask.text(error.message),
        traceback=mask.text(error.traceback),
        attempt=error.attempt,
        at=error.at,
    )


def _line(line: dict[str, Any], mask: Mask) -> LogLine:
    fields = line.get("fields")
    return LogLine(
        at=line.get("at"),
        message=mask.text(str(line.get("message", ""))),
        fields=mask.value(fields if isinstance(fields, dict) else {}),
    )


def _error(data: bytes) -> JobError:
    try:
        return JobError.from_json(data)
    except PayloadError as error:
        return JobError("PayloadError", "", str(error), "", 0, datetime.fromtimestamp(0, UTC))


def _is_id(job_id: str) -> bool:
    try:
        return is_job_id("id", job_id)
    except (ConfigError, TypeError):
        return False


def _cursor(left: _Cursors) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(left)).decode().rstrip("=")


def _read_cursor(text: str) -> _Cursors:
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        return _CURSORS.decode(data)
    except (ValueError, msgspec.MsgspecError) as error:
        message = "cursor: it is none of this dashboard's; start again without"
        raise ConfigError(message, field="cursor") from error


_CURSORS: Final = msgspec.json.Decoder(_Cursors)


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else instant_of(seconds)
