"""The log of a worker: lines for people, or a JSON object in each line for programs."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Any, Final, Literal

import msgspec

from jobmill.cli.text import clean, escaped, span
from jobmill.context import JobContext
from jobmill.errors import ControlFlow
from jobmill.executors import ChildFailure
from jobmill.job import JobMiddleware
from jobmill.middleware import create_logging_middleware
from jobmill.records import JobError

LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]

FIELDS: Final = ("job_id", "job_name", "queue", "attempt", "duration", "error")
"""Attributes of a record that a line of JSON has, where the record has them."""

TRACEBACK: Final = "traceback"
"""The attribute of a record that has a job's own traceback, as text."""

log: Final = logging.getLogger("jobmill.job")


def start_log(form: LogFormat, level: LogLevel, *, pids: bool = False) -> None:
    """Let all that is logged go to stderr. The program may set up its own log after it."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else Lines(pids=pids))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(level.upper())


class Lines(logging.Formatter):
    """Time, level and what is said; nothing that a terminal would obey."""

    def __init__(self, *, pids: bool = False) -> None:
        who = "%(process)d " if pids else ""
        super().__init__(f"%(asctime)s {who}%(levelname)-7s %(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """The record, cleaned."""
        text = super().format(record)
        frames = getattr(record, TRACEBACK, "")
        return clean(f"{text}\n{frames.rstrip()}" if frames else text)


class JsonLines(logging.Formatter):
    """One JSON object in a line: time, level, logger, message, and what is known of the job."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
            "message": _message(record),
        }
        for field in FIELDS:
            value = getattr(record, field, None)
            if isinstance(value, str | int | float):
                line[field] = value
        if frames := getattr(record, TRACEBACK, ""):
            line[TRACEBACK] = frames
        elif record.exc_info and record.exc_info[0] is not None:
            line[TRACEBACK] = self.formatException(record.exc_info)
        return escaped(msgspec.json.encode(_sayable(line)).decode())


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001  a wrong call of the program's must not silence its log
        return str(record.msg)


def _sayable(line: dict[str, Any]) -> dict[str, Any]:
    return {
        key: each.encode(errors="replace").decode() if isinstance(each, str) else each
        for key, each in line.items()
    }


def log_jobs(*, completed: bool) -> JobMiddleware:
    """Middleware that logs runs that fail, and those that do not where `completed` says so.

    Never their payloads and results.
    """
    return create_logging_middleware(
        on_complete=_completed if completed else None, on_error=_failed
    )


def _completed(ctx: JobContext[Any], _: Any, seconds: float) -> None:
    log.info("%s completed in %s", _named(ctx), span(seconds), extra=_extra(ctx, seconds))


def _failed(ctx: JobContext[Any], error: BaseException, seconds: float) -> None:
    extra = _extra(ctx, seconds)
    if isinstance(error, ControlFlow):
        log.info("%s: %s %s", _named(ctx), type(error).__name__, error.reason, extra=extra)
        return
    if ctx.signal.reason is not None:
        log.warning("%s was aborted: %s", _named(ctx), ctx.signal.reason, extra=extra)
        return
    kept = error.error if isinstance(error, ChildFailure) else None
    kept = kept or JobError.from_exception(error, ctx.attempt, datetime.now(UTC))
    attempt = f"attempt {ctx.attempt} of {ctx.max_attempts}"
    extra |= {"error": kept.type, TRACEBACK: kept.traceback}
    message = kept.message.partition("\n")[0]
    log.warning("%s failed, %s: %s: %s", _named(ctx), attempt, kept.type, message, extra=extra)


def _named(ctx: JobContext[Any]) -> str:
    return f"{ctx.job_name} {ctx.job_id}"


def _extra(ctx: JobContext[Any], seconds: float) -> dict[str, Any]:
    return {
        "job_id": ctx.job_id,
        "job_name": ctx.job_name,
        "queue": ctx.queue_name,
        "attempt": ctx.attempt,
        "duration": seconds,
    }
