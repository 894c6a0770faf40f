"""One claim in the hands of a worker."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Awaitable, Callable, Collection, Coroutine
from typing import Any, Final

import msgspec

from jobmill.clock import Clock
from jobmill.context import AbortSignal, Told
from jobmill.logs import job_fields
from jobmill.states import Claim, Note
from jobmill.store import KEPT_LINES, Lease

_REPORTING: Final = threading.Lock()
"""Held while a run reports, which a handler may do from its thread, or from several.

One for all runs: it is held for next to nothing, and a lock for each run is not free.
"""


class Abandoned(BaseException):
    """The run's thread goes on, but its loop ends: nothing is to be settled."""


class Run:
    """A claim from the moment it is claimed to the moment it is settled.

    There is one for each job, so what most runs never change stands here, and is free.
    """

    asyncio_task: asyncio.Task[None] | None = None
    entered: bool = False
    """Whether its asyncio task has taken its first step."""
    begun: bool = False
    """Whether anything of the attempt has started; until then it is handed back at once."""
    cuttable: bool = False
    """Whether the attempt goes on, so that it may be cancelled."""
    abandoned: bool = False
    """Whether nobody waits any more for a thread of it to end."""
    missed: bool = False
    """Whether it was told that the store has no record of the job."""
    dirty: bool = False
    """Whether there is something to be told to the store."""
    telling: Collection[asyncio.Future[None] | concurrent.futures.Future[None]] = ()
    """The calls of `on_progress` that have not ended."""
    _progress: tuple[float, str | None] | None = None
    _lines: tuple[tuple[int, bytes], ...] = ()
    _lines_before: int = 0

    def __init__(self, claim: Claim, clock: Clock, born: float, queue: str) -> None:
        self.claim: Claim = claim
        self.queue: str = queue
        self.signal: AbortSignal = AbortSignal()
        self.renewed: float = born
        """Since when its lease holds, by the clock that counts suspended time."""
        self._clock = clock
        self._born = born

    @property
    def lease(self) -> Lease:
        """What fences it."""
        return Lease(self.claim.id, self.claim.token)

    @property
    def fields(self) -> dict[str, Any]:
        """What a log record says of it."""
        return job_fields(self.claim, self.queue)

    def now(self) -> float:
        """The store's time, as far as this process can tell."""
        return self.claim.started_at + self._clock.boot() - self._born

    def cut(self) -> None:
        """Cancel the attempt, if it still goes on or has not begun.

        What has not even entered looks at its signal first, and must get the chance to.
        """
        if self.entered and (self.cuttable or not self.begun) and self.asyncio_task is not None:
            self.asyncio_task.cancel()

    def report(self, progress: float, note: str | None) -> None:
        """Keep a new progress until it is stored."""
        with _REPORTING:
            self._progress = (progress, note)
            self.dirty = True

    def say(self, progress: float, note: str | None) -> Awaitable[None]:
        """Keep a new progress; there is nothing to wait for."""
        self.report(progress, note)
        return Told()

    def add_line(self, message: str, fields: dict[str, Any]) -> None:
        """Keep a log line until it is stored; the last ones, where they are many."""
        line: dict[str, Any] = {
            "at": self.now(),
            "attempt": self.claim.attempt,
            "message": str(message).encode(errors="replace").decode(),
        }
        if fields:
            line["fields"] = {
                str(key): value if isinstance(value, bool | int | float) else _text(value)
                for key, value in fields.items()
            }
        data = msgspec.json.encode(line)
        with _REPORTING:
            self._lines_before += 1
            # Rises over all runs of a job, since each is claimed later than the one before.
            number = int(self.claim.started_at * 1_000) * 1_000 + self._lines_before
            self._lines = (*self._lines, (number, data))[-KEPT_LINES:]
            self.dirty = True

    def note(self) -> Note | None:
        """What is to be told to the store, None where there is nothing."""
        if not self.dirty:
            return None
        with _REPORTING:
            progress, text = self._progress or (None, None)
            return Note(progress=progress, progress_note=text, lines=self._lines)

    def noted(self, note: Note) -> None:
        """Forget what the store knows now."""
        with _REPORTING:
            if note.lines:
                last = note.lines[-1][0]
                self._lines = tuple(line for line in self._lines if line[0] > last)
            if self._progress == (note.progress, note.progress_note):
                self._progress = None
            self.dirty = bool(self._lines) or self._progress is not None


class Telling:
    """Keeps the progress of a run, and tells each to a hook, in order, from any thread."""

    def __init__(self, run: Run, hook: Callable[[float], Coroutine[Any, Any, None]]) -> None:
        self._run = run
        self._telling: set[asyncio.Future[None] | concurrent.futures.Future[None]] = set()
        run.telling = self._telling
        self._hook = hook
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._turns = asyncio.Lock()

    def __call__(self, progress: float, note: str | None) -> Awaitable[None]:
        """Keep it and tell it; on the loop, what is given waits until it was told."""
        self._run.report(progress, note)
        telling = self._telling
        if threading.get_ident() == self._thread:
            here = self._loop.create_task(self._tell(progress))
            telling.add(here)
            here.add_done_callback(telling.discard)
            return here
        there = asyncio.run_coroutine_threadsafe(self._tell(progress), self._loop)
        telling.add(there)
        there.add_done_callback(telling.discard)
        return Told()

    async def _tell(self, progress: float) -> None:
        async with self._turns:
            await self._hook(progress)


def _text(value: object) -> str:
    return str(value).encode(errors="replace").decode()
