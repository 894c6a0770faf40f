"""Many deadlines behind one timer of the loop."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from contextvars import Context
from itertools import count
from typing import Final

_COMPACT_ABOVE: Final = 64


async def happens(event: asyncio.Event, seconds: float) -> bool:
    """Wait until the event is set, for `seconds` at most; whether it is set then.

    Also in an asyncio task that was cancelled and goes on: there, on the first releases of
    Python 3.11, asyncio.timeout cannot tell its own end from that cancellation.
    """
    if not event.is_set():
        waiting = asyncio.get_running_loop().create_task(event.wait(), context=Context())
        try:
            await asyncio.wait([waiting], timeout=seconds)
        finally:
            waiting.cancel()
    return event.is_set()


class Deadline:
    """A callback that is due at an instant of the loop's clock, unless it is lifted first."""

    __slots__ = ("_owner", "at", "callback", "order")

    def __init__(
        self, owner: Deadlines, at: float, order: int, callback: Callable[[], None]
    ) -> None:
        self._owner = owner
        self.at: float = at
        self.order: int = order
        self.callback: Callable[[], None] | None = callback

    def __lt__(self, other: Deadline) -> bool:
        return (self.at, self.order) < (other.at, other.order)

    def lift(self) -> None:
        """Forget the callback; doing it twice, or too late, does nothing."""
        if self.callback is not None:
            self.callback = None
            self._owner.lifted()


class Deadlines:
    """A heap of deadlines of one loop. Cost: O(log n) each, one timer in all."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._heap: list[Deadline] = []
        self._dead = 0
        self._order = count()
        self._timer: asyncio.TimerHandle | None = None
        # A timer outlives the run that set it, and must not keep the run's context alive.
        self._context = Context()

    def add(self, at: float, callback: Callable[[], None]) -> Deadline:
        """Call back at the instant `at` of the loop's clock, or soon after."""
        deadline = Deadline(self, at, next(self._order), callback)
        heapq.heappush(self._heap, deadline)
        if self._heap[0] is deadline:
            self._arm()
        return deadline

    def lifted(self) -> None:
        """Count a lifted deadline; where most are, drop them."""
        self._dead += 1
        if self._dead > _COMPACT_ABOVE and self._dead * 2 > len(self._heap):
            self._heap = [deadline for deadline in self._heap if deadline.callback]
            heapq.heapify(self._heap)
            self._dead = 0

    def close(self) -> None:
        """Forget all."""
        self._heap.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._heap:
            at = self._heap[0].at
            self._timer = self._loop.call_at(at, self._fire, context=self._context)

    def _fire(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self._heap and self._heap[0].at <= now:
            deadline = heapq.heappop(self._heap)
            if deadline.callback is None:
                self._dead -= 1
            else:
                callback, deadline.callback = deadline.callback, None
                callback()
        if self._timer is None:
            self._arm()
