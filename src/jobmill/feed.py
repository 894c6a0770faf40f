"""Feeds a worker from one queue: claims jobs, and settles what became of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Protocol

from jobmill.errors import StoreUnavailable
from jobmill.run import Run
from jobmill.store import Claim, Claimed, Move, Moved, Store, Want

if TYPE_CHECKING:
    from jobmill.queue import Queue
    from jobmill.runner import Runner

log: Final = logging.getLogger("jobmill.worker")

_FIRST_PAUSE: Final = 0.1
_MAX_PAUSE: Final = 2.0
"""Seconds between tries while the store cannot be reached."""
_SETTLED_AT_ONCE: Final = 1_000
_AT_ONCE: Final = 0.0


class Grant(NamedTuple):
    """How many jobs a feed may claim now, and what runs beside them."""

    limit: int
    room: Literal["busy", "idle", "alone"]


class Slots(Protocol):
    """What a feed asks of its worker."""

    @property
    def quiet(self) -> bool:
        """Whether nothing is to be claimed any more."""
        ...

    def grant(self, feed: Feed) -> Grant:
        """Reserve slots for a claim; they stay reserved until `give_back`."""
        ...

    def give_back(self, feed: Feed) -> None:
        """The claim is over: its reserved slots are taken by `start`, or free."""
        ...

    def start(self, feed: Feed, claim: Claim, claimed_at: float) -> None:
        """Run the claim."""
        ...

    def cancel(self, run: Run) -> None:
        """Tell the run that its job was asked to cancel."""
        ...

    def suspect_waits(self, feed: Feed, *, waits: bool) -> None:
        """Say whether this queue has a suspect that needs the worker for itself."""
        ...

    def boot(self) -> float:
        """The clock that counts suspended time."""
        ...

    def next_token(self) -> str:
        """A token that was never used before."""
        ...


class Feed:
    """One queue of a worker."""

    def __init__(
        self,
        queue: Queue,
        *,
        store: Store,
        runner: Runner,
        slots: Slots,
        worker: str,
        names: tuple[str, ...] | None,
    ) -> None:
        self.queue = queue
        self.store = store
        self.runner = runner
        self.wake = asyncio.Event()
        self.held: dict[str, Run] = {}
        """The runs whose leases this worker holds, from the claim until they are settled."""
        self._slots = slots
        self._worker = worker
        self._names = names
        self._outbox: list[tuple[Run | None, Move]] = []
        self._unsure: Want | None = None
        self._asked_at = float("-inf")
        self._next_due: float | None = None
        self._pause = _FIRST_PAUSE
        self._down = False

    @property
    def settled(self) -> bool:
        """Whether nothing is left to be told to the store."""
        return not self._outbox and self._unsure is None

    def settle(self, run: Run, move: Move | None) -> None:
        """Tell the store how the run ended; None where its lease is lost."""
        if move is None:
            self._forget(run)
            log.warning("the lease of %s was lost; its outcome is dropped", run.claim.id)
        else:
            self._outbox.append((run, move))
        self.wake.set()

    async def loop(self, finished: Callable[[], bool]) -> None:
        """Claim and settle until `finished`."""
        loop = asyncio.get_running_loop()
        while not finished():
            self.wake.clear()
            try:
                delay = await self._turn(loop)
            except StoreUnavailable as error:
                delay = self._unreachable(error)
                # Nothing can be done before the store is back, so no wake-up helps.
                await asyncio.sleep(delay)
                continue
            except Exception:
                log.exception("claiming from %s failed", self.queue.name)
                await asyncio.sleep(_MAX_PAUSE)
                continue
            self._reachable()
            if delay > 0 and not self.wake.is_set():
                timer = loop.call_later(delay, self.wake.set)
                await self.wake.wait()
                timer.cancel()

    async def flush(self) -> None:
        """Settle what is left, once."""
        await self._settle()

    async def listen(self) -> None:
        """Wake up whenever the store says that there may be something to do."""
        while True:
            try:
                await self.store.wait((JOBS,), self.queue.poll_interval)
            except StoreUnavailable:
                await asyncio.sleep(_MAX_PAUSE)
            self._hinted = True
            self.wake.set()
