"""What can be read about jobs and queues."""

from __future__ import annotations

import traceback as tracebacks
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeAlias

import msgspec

from jobmill.errors import PayloadError

JobStatus: TypeAlias = Literal[
    "pending", "delayed", "processing", "completed", "failed", "cancelled"
]

MAX_MESSAGE = 10_000
MAX_TRACEBACK = 16 * 1024

_PACKAGE = str(Path(__file__).parent)
_EPOCH = datetime.fromtimestamp(0, UTC)
_CUT = "\n… {} characters left out …\n"


@dataclass(frozen=True, slots=True)
class JobError:
    """Why one attempt of a job failed."""

    type: str
    module: str
    message: str
    traceback: str
    attempt: int
    at: datetime

    @classmethod
    def from_exception(cls, error: BaseException, attempt: int, at: datetime) -> JobError:
        """What is kept of an exception: text only, bounded, whatever the exception does."""
        return cls(
            type=_sayable(str(type(error).__name__)),
            module=_sayable(str(type(error).__module__)),
            message=_head(_message(error)),
            traceback=_head_and_tail(_traceback(error)),
            attempt=attempt,
            at=at,
        )

    def to_json(self) -> bytes:
        """The error as JSON; `at` in Unix seconds."""
        return msgspec.json.encode(
            _Wire(
                self.type,
                self.module,
                self.message,
                self.traceback,
                self.attempt,
                self.at.timestamp(),
            )
        )

    @classmethod
    def from_json(cls, data: bytes | str, *, at: datetime | None = None) -> JobError:
        """The error that to_json wrote; `at` is taken where the JSON has none.

        Raises: PayloadError where it is no such error.
        """
        try:
            wire = _WIRE.decode(data)
            moment = at or _EPOCH if wire.at is None else datetime.fromtimestamp(wire.at, UTC)
        except (ValueError, OverflowError, OSError, RecursionError) as problem:
            message = f"the job's error does not decode: {problem}"
            raise PayloadError(message) from problem
        return cls(wire.type, wire.module, wire.message, wire.traceback, wire.attempt, moment)


class _Wire(msgspec.Struct, frozen=True):
    type: str
    module: str = ""
    message: str = ""
    traceback: str = ""
    attempt: int = 0
    at: float | None = None


_WIRE = msgspec.json.Decoder(_Wire)


def cancellation(reason: str) -> bytes:
    """The JSON of the JobError of a job that is cancelled for `reason`; the store dates it."""
    return msgspec.json.encode(_Wire("JobCancelled", "jobmill.errors", _head(reason)))


@dataclass(frozen=True, slots=True, kw_only=True)
class JobInfo:
    """One job, as its store has it at the moment of asking."""

    id: str
    name: str
    queue: str
    status: JobStatus
    payload: Any = None
    result: Any = None
    error: JobError | None = None
    errors: list[JobError] = field(default_factory=list[JobError])
    attempts: int = 0
    max_attempts: int = 1
    lapses: int = 0
    priority: int = 0
    progress: float | None = None
    progress_note: str | None = None
    logs: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    unique_key: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    raw_payload: bytes | None = None
    enqueued_at: datetime
    run_at: datetime
    started_at: datetime | None = None
    completed_at: datetime | None = None
    worker: str | None = None

    @property
    def created_at(self) -> datetime:
        """The same as enqueued_at."""
        return self.enqueued_at

    @property
    def duration(self) -> float | None:
        """Seconds from the start of the last run to the job's end; None before both are there."""
        if self.started_at is None or self.completed_at is None:
            return None
        return max(0.0, (self.completed_at - self.started_at).total_seconds())


@dataclass(frozen=True, slots=True)
class JobPage:
    """Some jobs of a list, and where the list goes on."""

    jobs: list[JobInfo]
    next_cursor: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStats:
    """How many jobs of a queue are in each state now."""

    pending: int = 0
    processing: int = 0
    completed: int = 0
    failed: int = 0
    delayed: int = 0
    cancelled: int = 0
    total: int = field(init=False)

    def __post_init__(self) -> None:
        total = (
            self.pending
            + self.processing
            + self.completed
            + self.failed
            + self.delayed
            + self.cancelled
        )
        object.__setattr__(self, "total", total)


def _message(error: BaseException) -> str:
    try:
        # As a str and no subclass, whose methods are the user's again.
        return str.__str__(str(error))
    except BaseException as problem:  # noqa: BLE001 - it is the user's, and may raise an exit
        return f"<no message: its __str__ raised {type(problem).__name__}>"


def _traceback(error: BaseException) -> str:
    try:
        frames = _from_user_code(error.__traceback__)
        return "".join(tracebacks.format_exception(type(error), error, frames))
    except BaseException as problem:  # noqa: BLE001 - as above, for every exception in the chain
        return f"<no traceback: formatting it raised {type(problem).__name__}>"


def _from_user_code(frames: TracebackType | None) -> TracebackType | None:
    """The frames without the leading ones of jobmill; all of them where it has no others."""
    rest = frames
    while rest is not None and rest.tb_frame.f_code.co_filename.startswith(_PACKAGE):
        rest = rest.tb_next
    return rest or frames


def _head(text: str) -> str:
    return _sayable(text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 1] + "…")


def _head_and_tail(text: str) -> str:
    text = _sayable(text)
    if len(text.encode()) <= MAX_TRACEBACK:
        return text
    data = text.encode()
    half = (MAX_TRACEBACK - 100) // 2
    head = data[:half].decode(errors="ignore")
    tail = data[-half:].decode(errors="ignore")
    return head + _CUT.format(len(text) - len(head) - len(tail)) + tail


def _sayable(text: str) -> str:
    return text.encode(errors="replace").decode()
