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
from jobmill.stores.memory import MemoryStore
from jobmill.stores.sqlite import SQLiteStore

MakeQueue = Callable[..., Queue]


def _memory(path: Path, queue: str, seams: Seams) -> Store:
    return MemoryStore(str(path), queue, clock=seams.clock)


def _sqlite(path: Path, queue: str, seams: Seams) -> Store:
    return SQLiteStore(path / "jobs.db", queue, synchronous="normal", clock=seams.clock)


@pytest.fixture(
    params=[
        pytest.param(_memory, marks=pytest.mark.store("memory"), id="memory"),
        pytest.param(_sqlite, marks=pytest.mark.store("sqlite"), id="sqlite"),
    ]
)
async def make_queue(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[MakeQueue]:
    """Makes queues on one store; two of one name are the same queue, seen twice."""
    made: list[Queue] = []

    def make(name: str = "default", *, clock: Any = None, **options: Any) -> Queue:
        seams = Seams(clock=clock or SystemClock())
        store = request.param(tmp_path, name, seams)
        queue = Queue(store, seams=seams, **{"poll_interval": 0.05, **options})
        made.append(queue)
        return queue

    yield make
    for queue in made:
        await queue.shutdown(timeout=0)


@pytest.fixture
def queue(make_queue: MakeQueue) -> Queue:
    return make_queue()
