"""What all handles of one address share, in a process and an event loop."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Hashable
from typing import Final, Generic, Protocol, TypeVar

A = TypeVar("A", bound=Hashable)


class Closed(Protocol):
    """What is shared: it is closed once, by the last of its holders."""

    def close(self) -> Awaitable[None]:
        """Let go of everything."""
        ...


T = TypeVar("T", bound=Closed)


class Shared(Generic[A, T]):
    """One thing for each pair of address and running loop, counted by its holders.

    A loop that ends without a `release` has to be told of by `forget`. In a forked child there is
    nothing of the parent's: that is neither closed nor finalized there, since the sockets and
    the selector of its loop are the parent's too.
    """

    def __init__(self, make: Callable[[A], T]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._things: dict[tuple[asyncio.AbstractEventLoop, A], T] = {}
        self._holders: dict[int, int] = {}
        self._left: Final[list[T]] = []
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._leave_to_parent)

    def acquire(self, address: A) -> T:
        """That of this address on the running loop; `release` it once."""
        key = asyncio.get_running_loop(), address
        with self._lock:
            # Of a loop that was closed without an end of its tasks, nobody else would see to it.
            for ended in [other for other in self._things if other[0].is_closed()]:
                del self._holders[id(self._things.pop(ended))]
            if key not in self._things:
                self._things[key] = self._make(address)
                self._holders[id(self._things[key])] = 0
            thing = self._things[key]
            self._holders[id(thing)] += 1
            return thing

    async def release(self, thing: T) -> bool:
        """One holder is done with it; True where it was the last, and it is closed."""
        with self._lock:
            holders = self._holders.get(id(thing), 1) - 1
            if holders:
                self._holders[id(thing)] = holders
        if not holders:
            self.forget(thing)
            await thing.close()
        return not holders

    def forget(self, thing: T) -> None:
        """Give it to nobody any more."""
        with self._lock:
            for key in [key for key, other in self._things.items() if other is thing]:
                del self._things[key], self._holders[id(thing)]

    def loops(self) -> set[asyncio.AbstractEventLoop]:
        """The loops on which something is held."""
        with self._lock:
            return {loop for loop, _ in self._things}

    def _leave_to_parent(self) -> None:
        self._lock = threading.Lock()  # another thread may have held it at the fork
        self._left.extend(self._things.values())
        self._things.clear()
        self._holders.clear()
