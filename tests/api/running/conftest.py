"""Queues on every store, for the tests of running jobs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from jobmill.clock import SystemClock
from jobmill.queue import Queue
from jobmill.seams import Seams
from jobmill.store import Store
from jobmill.stores import postgresql
from jobmill.stores.memory import MemoryStore
from jobmill.stores.redis import Address, RedisStore
from jobmill.stores.sqlite import SQLiteStore
from tests.servers import emptied, emptied_postgres

MakeQueue = Callable[..., Queue]


OpenStore = Callable[[str, Seams], Store]


def _memory(request: pytest.FixtureRequest, path: Path) -> OpenStore:
    return lambda queue, seams: MemoryStore(str(path), queue, clock=seams.clock)


def _sqlite(request: pytest.FixtureRequest, path: Path) -> OpenStore:
    file = path / "jobs.db"
    return lambda queue, seams: SQLiteStore(file, queue, synchronous="normal", clock=seams.clock)


def _redis(request: pytest.FixtureRequest, path: Path) -> OpenStore:
    address: Address = emptied(request.getfixturevalue("redis_address"))
    return lambda queue, seams: RedisStore(address, queue, clock=seams.clock)


def _postgresql(request: pytest.FixtureRequest, path: Path) -> OpenStore:
    address: postgresql.Address = emptied_postgres(request.getfixturevalue("postgres_address"))
    return lambda queue, seams: postgresql.PostgresStore(address, queue, clock=seams.clock)


IN_MEMORY: Any = pytest.param(_memory, marks=pytest.mark.store("memory"), id="memory")
"""For what no store has a part in: parametrize("open_store", [IN_MEMORY], indirect=True)."""

STORES: Any = [
    IN_MEMORY,
    pytest.param(_sqlite, marks=pytest.mark.store("sqlite"), id="sqlite"),
    pytest.param(_redis, marks=pytest.mark.store("redis"), id="redis"),
    pytest.param(_postgresql, marks=pytest.mark.store("postgresql"), id="postgresql"),
]


@pytest.fixture(params=STORES)
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> OpenStore:
    opened: OpenStore = request.param(request, tmp_path)
    return opened


@pytest.fixture
async def make_queue(open_store: OpenStore) -> AsyncIterator[MakeQueue]:
    """Makes queues on one store; two of one name are the same queue, seen twice."""
    made: list[Queue] = []

    def make(name: str = "default", *, clock: Any = None, **options: Any) -> Queue:
        seams = Seams(clock=clock or SystemClock())
        store = open_store(name, seams)
        queue = Queue(store, seams=seams, **{"poll_interval": 0.05, **options})
        made.append(queue)
        return queue

    yield make
    for queue in made:
        await queue.shutdown(timeout=0)


@pytest.fixture
def queue(make_queue: MakeQueue) -> Queue:
    return make_queue()
