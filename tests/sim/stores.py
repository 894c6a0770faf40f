"""The stores that are simulated."""

from __future__ import annotations

from collections.abc import Callable

from jobmill.clock import Clock
from jobmill.store import Store
from jobmill.stores.memory import MemoryStore

MakeStore = Callable[[Clock], Store]


def open_memory(clock: Clock) -> Store:
    return MemoryStore(clock=clock)
