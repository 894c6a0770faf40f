"""The stores under test. One line in STORES puts a store through everything in this folder."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeAlias

import pytest

from jobmill.clock import Clock
from jobmill.store import Store
from jobmill.stores.memory import MemoryStore
from jobmill.stores.sqlite import SQLiteStore

pytest.register_assert_rewrite("jobmill.testing.contract")

Opener: TypeAlias = Callable[[Path, Clock], Awaitable[Store]]


async def open_memory(folder: Path, clock: Clock) -> Store:
    store = MemoryStore(clock=clock)
    await store.open()
    return store


async def open_sqlite(folder: Path, clock: Clock) -> Store:
    store = SQLiteStore(folder / "jobs.db", clock=clock)
    await store.open()
    return store


STORES: Final[dict[str, Opener]] = {
    "memory": open_memory,
    "sqlite": open_sqlite,
}


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.store(name)) for name in STORES])
def opener(request: pytest.FixtureRequest) -> Opener:
    """How to open a new, empty store in a folder."""
    return STORES[request.param]
