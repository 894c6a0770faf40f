"""Who waits for what, among the handles of one file in this process."""

from __future__ import annotations

import threading
from itertools import islice
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable, Set as AbstractSet

Topic: TypeAlias = tuple[str, str]
"""A queue and a topic of it."""

_REMEMBERED: Final = 1_000


class Seen:
    """What one handle has been told so far: the number of the telling, by topic."""

    def __init__(self) -> None:
        self.numbers: dict[Topic, int] = {}


class Waiter:
    """One call of `wait`."""

    def __init__(self, topics: frozenset[Topic], loop: asyncio.AbstractEventLoop) -> None:
        self.topics = topics
        self.loop = loop
        self.woken: asyncio.Future[None] = loop.create_future()

    def wake(self) -> None:
        """Let it return; on its own loop."""
        if not self.woken.done():
            self.woken.set_result(None)


class Wakes:
    """Tells topics to those who wait; the last ones are remembered for who comes late.

    Safe from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiters: set[Waiter] = set()
        self._number = 0
        self._told: dict[Topic, int] = {}
        self._all_told = 0

    def __bool__(self) -> bool:
        """Whether somebody waits."""
        return bool(self._waiters)

    def enter(
        self, topics: frozenset[Topic], seen: Seen, loop: asyncio.AbstractEventLoop
    ) -> Waiter | None:
        """Begin to wait; None where one of the topics was told since it was last seen."""
        with self._lock:
            if any(self._news(topic) > seen.numbers.get(topic, 0) for topic in topics):
                self._see(topics, seen)
                return None
            waiter = Waiter(topics, loop)
            self._waiters.add(waiter)
            return waiter

    def leave(self, waiter: Waiter, seen: Seen) -> None:
        """End to wait."""
        with self._lock:
            self._waiters.discard(waiter)
            self._see(waiter.topics, seen)

    def tell(self, topics: AbstractSet[Topic]) -> None:
        """Wake those who wait for one of the topics."""
        if not topics:
            return
        with self._lock:
            self._number += 1
            # Taken out first, so that the order of the dict is that of the tellings.
            for topic in self._told.keys() & topics:
                del self._told[topic]
            self._told.update(dict.fromkeys(topics, self._number))
            for topic in list(islice(self._told, max(0, len(self._told) - _REMEMBERED))):
                del self._told[topic]
            woken = [waiter for waiter in self._waiters if not waiter.topics.isdisjoint(topics)]
        _wake(woken)

    def tell_all(self) -> None:
        """Wake everybody: another process changed something."""
        with self._lock:
            self._number += 1
            self._all_told = self._number
            woken = list(self._waiters)
        _wake(woken)

    def _news(self, topic: Topic) -> int:
        return max(self._told.get(topic, 0), self._all_told)

    def _see(self, topics: frozenset[Topic], seen: Seen) -> None:
        numbers = seen.numbers
        numbers.update(dict.fromkeys(topics, self._number))
        if len(numbers) > 2 * _REMEMBERED:
            seen.numbers = {topic: n for topic, n in numbers.items() if topic in self._told}


def _wake(waiters: Iterable[Waiter]) -> None:
    for waiter in waiters:
        try:
            waiter.loop.call_soon_threadsafe(waiter.wake)
        except RuntimeError:
            # Its loop was closed: nobody waits there any more.
            continue
