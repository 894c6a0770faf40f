"""What a worker and its child processes say to each other: JSON, each after its length."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Literal

import msgspec

from jobmill.context import AbortReason, JobContext
from jobmill.executors.origin import Origin
from jobmill.records import JobError

HEAD: Final = 4
"""Bytes of the length, the most significant first."""


class ContextFields(msgspec.Struct, frozen=True, kw_only=True):
    """What a JobContext tells about a run, apart from its payload."""

    job_id: str
    job_name: str
    queue_name: str
    attempt: int
    max_attempts: int
    enqueued_at: datetime
    started_at: datetime
    metadata: Mapping[str, str]

    @classmethod
    def of(cls, ctx: JobContext[Any]) -> ContextFields:
        """The fields of this context."""
        return cls(
            job_id=ctx.job_id,
            job_name=ctx.job_name,
            queue_name=ctx.queue_name,
            attempt=ctx.attempt,
            max_attempts=ctx.max_attempts,
            enqueued_at=ctx.enqueued_at,
            started_at=ctx.started_at,
            metadata=dict(ctx.metadata),
        )


class Start(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Run a job. `number` tells the child's jobs apart; `limit` is for the result's bytes."""

    number: int
    origin: Origin
    name: str
    handler: str
    payload: bytes
    fields: ContextFields
    limit: int | None


class Abort(msgspec.Struct, frozen=True, tag=True):
    """Send the job's signal."""

    number: int
    reason: AbortReason


class Began(msgspec.Struct, frozen=True, tag=True):
    """The child is about to load and run the job."""


class Progressed(msgspec.Struct, frozen=True, tag=True):
    """The job says how far it is."""

    value: float
    note: str | None


class Logged(msgspec.Struct, frozen=True, tag=True):
    """The job logs a line."""

    message: str
    fields: dict[str, bool | int | float | str | None]


class Returned(msgspec.Struct, frozen=True, tag=True):
    """The handler returned; `result` is JSON."""

    result: bytes


class Raised(msgspec.Struct, frozen=True, tag=True):
    """The handler raised; the fields are those of a ChildFailure."""

    error: JobError
    types: tuple[str, ...]
    place: str


class Steered(msgspec.Struct, frozen=True, tag=True):
    """The handler said by what it raised how its run ends."""

    end: Literal["retry", "snooze", "cancel", "fail", "interrupt"]
    reason: str = ""
    delay: float | None = None


class Refused(msgspec.Struct, frozen=True, tag=True):
    """The payload does not decode in the child, or the result does not encode.

    `size` and `limit` are given where it is too large.
    """

    message: str
    path: str
    size: int | None = None
    limit: int | None = None


class Unfit(msgspec.Struct, frozen=True, tag=True):
    """The job cannot be run in a child process; nothing of it ran."""

    message: str


ToChild = Start | Abort
Answer = Returned | Raised | Steered | Refused | Unfit
"""How a job ended."""
ToParent = Began | Progressed | Logged | Answer

_ENCODER: Final = msgspec.json.Encoder()
TO_CHILD: Final[msgspec.json.Decoder[ToChild]] = msgspec.json.Decoder(ToChild)
TO_PARENT: Final[msgspec.json.Decoder[ToParent]] = msgspec.json.Decoder(ToParent)


def frame(message: ToChild | ToParent) -> bytes:
    """The bytes that carry the message."""
    body = _ENCODER.encode(message)
    return len(body).to_bytes(HEAD, "big") + body
