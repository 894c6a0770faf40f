"""What a running job is told and can say."""

from __future__ import annotations

import reprlib
import threading
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeAlias, TypeVar, assert_never

from jobmill.errors import ConfigError, JobCancelled, JobsError, JobTimeout, LeaseLost

if TYPE_CHECKING:
    import asyncio

    from jobmill.queue import Queue
    from jobmill.states import Claim

AbortReason: TypeAlias = Literal["cancelled", "timeout", "shutdown", "lease_lost"]
ProgressSink: TypeAlias = Callable[[float, str | None], Awaitable[None]]
LogSink: TypeAlias = Callable[[str, dict[str, Any]], None]

P_co = TypeVar("P_co", covariant=True)

MAX_LINE = 10_000
MAX_FIELD = 1_000
MAX_FIELDS = 50
MAX_NOTE = 1_000

_FULL = 100.0
_ABORTING = threading.Lock()
"""One for all signals: it is held for next to nothing, and a lock for each run is not free."""


class Told:
    """An awaitable with nothing to wait for."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, None]:
        yield from ()


class AbortSignal:
    """Tells a run that it should stop, and why; any thread may ask it or send it."""

    # There is one for each run, so what most runs never need is the class's own.
    _reason: AbortReason | None = None
    _waiters: tuple[asyncio.Future[None], ...] = ()

    @property
    def aborted(self) -> bool:
        """Whether the run should stop."""
        return self._reason is not None

    @property
    def reason(self) -> AbortReason | None:
        """Why the run should stop; None while it may go on."""
        return self._reason

    def abort(self, reason: AbortReason) -> bool:
        """Ask the run to stop; the first reason stays. False where one was given before."""
        with _ABORTING:
            if self._reason is not None:
                return False
            self._reason = reason
            waiters, self._waiters = self._waiters, ()
        for waiter in waiters:
            try:
                waiter.get_loop().call_soon_threadsafe(_release, waiter)
            except RuntimeError:
                # The waiter's loop is closed, so nobody waits there any more.
                continue
        return True

    async def wait(self) -> None:
        """Return as soon as the run should stop."""
        from asyncio import get_running_loop

        waiter: asyncio.Future[None] = get_running_loop().create_future()
        with _ABORTING:
            if self._reason is not None:
                return
            self._waiters = (*self._waiters, waiter)
        try:
            await waiter
        finally:
            with _ABORTING:
                self._waiters = tuple(each for each in self._waiters if each is not waiter)

    def raise_if_aborted(self) -> None:
        """Raise where the run should stop: JobTimeout, LeaseLost or JobCancelled, by the reason.

        A shutdown raises JobCancelled too, with the reason "shutdown"; the job is handed back,
        not cancelled.
        """
        match self._reason:
            case None:
                return
            case "timeout":
                raise JobTimeout
            case "lease_lost":
                raise LeaseLost
            case "cancelled" | "shutdown":
                message = f"the run was aborted: {self._reason}"
                raise JobCancelled(message, reason=self._reason)
            case _:
                assert_never(self._reason)

    def __repr__(self) -> str:
        return f"AbortSignal(reason={self._reason!r})"


def _release(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class Listens(Protocol):
    """What a run is told by, and what it says goes to."""

    signal: AbortSignal

    def say(self, progress: float, note: str | None) -> Awaitable[None]:
        """Take a progress."""
        ...

    def add_line(self, message: str, fields: dict[str, Any]) -> None:
        """Take a log line."""
        ...


class JobContext(Generic[P_co]):
    """One run of one job, as its handler sees it."""

    __slots__ = (
        "_enqueued_at",
        "_log_sink",
        "_progress_sink",
        "_started_at",
        "_starts",
        "attempt",
        "job_id",
        "job_name",
        "max_attempts",
        "metadata",
        "payload",
        "queue",
        "queue_name",
        "signal",
        "state",
        "token",
    )

    def __init__(
        self,
        *,
        job_id: str,
        job_name: str,
        queue_name: str,
        payload: P_co,
        attempt: int,
        max_attempts: int,
        enqueued_at: datetime | float,
        started_at: datetime | float,
        signal: AbortSignal,
        metadata: Mapping[str, str],
        queue: Queue,
        state: Any,
        progress_sink: ProgressSink,
        log_sink: LogSink,
        token: str = "",
    ) -> None:
        self.job_id: str = job_id
        self.job_name: str = job_name
        self.queue_name: str = queue_name
        self.payload: P_co = payload
        self.attempt: int = attempt
        self.max_attempts: int = max_attempts
        self._enqueued_at = enqueued_at
        self._started_at = started_at
        self.signal: AbortSignal = signal
        self.metadata: Mapping[str, str] = metadata
        self.queue: Queue = queue
        self.state: Any = state
        self._progress_sink = progress_sink
        self._log_sink = log_sink
        self._starts: tuple[str, ...] = ()
        self.token: str = token

    @classmethod
    def of(
        cls,
        claim: Claim,
        payload: Any,
        queue: Queue,
        state: Any,
        told: Listens,
    ) -> JobContext[Any]:
        """For engines: the context of a claim. Cost: less than that of many keywords."""
        self = cls.__new__(cls)
        self.job_id = claim.id
        self.job_name = claim.name
        self.queue_name = queue.name
        self.payload = payload
        self.attempt = claim.attempt
        self.max_attempts = claim.policy.max_attempts
        self._enqueued_at = claim.enqueued_at
        self._started_at = claim.started_at
        self.signal = told.signal
        self.metadata = claim.metadata
        self.queue = queue
        self.state = state
        self._progress_sink = told.say
        self._log_sink = told.add_line
        self._starts = ()
        self.token = claim.token
        return self

    @property
    def enqueued_at(self) -> datetime:
        """When the job was accepted."""
        return _instant(self._enqueued_at)

    @property
    def started_at(self) -> datetime:
        """When this attempt began."""
        return _instant(self._started_at)

    def tell_progress_to(self, sink: ProgressSink) -> None:
        """For engines: let `sink` have the progress from now on."""
        self._progress_sink = sink

    def note_start(self, key: str) -> None:
        """For engines: a start was recorded under the rate limit `key`."""
        self._starts = (*self._starts, key)

    def take_starts(self) -> tuple[str, ...]:
        """For engines: the rate limits under which a start was recorded since the last call."""
        starts, self._starts = self._starts, ()
        return starts

    def update_progress(self, value: float, note: str | None = None) -> Awaitable[None]:
        """Say how far the job is, from 0 to 100; stored at most once a second and at the end.

        It is said by the call, so that a plain `def` can say it too; to await it waits for the
        hook `on_progress`.
        """
        return self._progress_sink(_progress(value), _note(note))

    def log(self, message: str, /, **fields: Any) -> None:
        """Keep a line with the job; the last 100 are kept.

        Of a long message 10,000 characters are kept, of each field 1,000, and 50 fields.
        """
        some = list(fields.items())[:MAX_FIELDS]
        kept = {
            name: value if isinstance(value, bool | int | float | None) else _said(value, MAX_FIELD)
            for name, value in some
        }
        self._log_sink(_said(message, MAX_LINE), kept)

    def __repr__(self) -> str:
        return f"JobContext(job_id={self.job_id!r}, job_name={self.job_name!r})"


def _instant(at: datetime | float) -> datetime:
    # Only where somebody asks, which most handlers do not.
    return at if isinstance(at, datetime) else datetime.fromtimestamp(at, UTC)


def _progress(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _FULL:
        return float(value)
    message = f"value: {reprlib.repr(value)} is no progress; give a number from 0 to 100"
    raise ConfigError(message, field="value")


def _note(note: object) -> str | None:
    if note is None:
        return None
    if not isinstance(note, str):
        message = f"note: {type(note).__name__} is no text; give a string or None"
        raise ConfigError(message, field="note")
    return _said(note, MAX_NOTE)


def _said(value: object, most: int) -> str:
    """The value as text that can be kept; what goes wrong with it must not fail the job."""
    try:
        text = value if isinstance(value, str) else str(value)
    except Exception as error:  # noqa: BLE001  the value is the user's; its text may raise
        text = f"<no text: its __str__ raised {type(error).__name__}>"
    if len(text) > most:
        text = f"{text[: most - 1]}…"
    return text.encode(errors="replace").decode()


CURRENT: ContextVar[JobContext[Any]] = ContextVar("jobmill_current")


def current_context() -> JobContext[Any]:
    """The context of the job that is running here."""
    try:
        return CURRENT.get()
    except LookupError:
        message = "no job is running here; current_context() works inside a job's handler only"
        raise JobsError(message) from None
