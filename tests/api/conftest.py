"""What every test of the public API gets: queues of each store, closed at its end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from jobmill import InMemoryQueue, Queue, SQLiteQueue
from jobmill.registry import isolated


class MakeQueue(Protocol):
    """Makes a queue; all of one test, but for their names, are the same queue."""

    def __call__(self, **options: Any) -> Queue: ...


def memory(place: Path, **options: Any) -> Queue:
    return InMemoryQueue(memory=str(place), **options)


def sqlite(place: Path, **options: Any) -> Queue:
    return SQLiteQueue(place / "jobs.db", **options)


STORES = [
    pytest.param(memory, marks=pytest.mark.store("memory"), id="memory"),
    pytest.param(sqlite, marks=pytest.mark.store("sqlite"), id="sqlite"),
]


@pytest.fixture(params=STORES)
async def make_queue(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[MakeQueue]:
    open_queue: Callable[..., Queue] = request.param
    made: list[Queue] = []

    def make(**options: Any) -> Queue:
        made.append(open_queue(tmp_path, **options))
        return made[-1]

    yield make
    for each in made:
        await each.shutdown(timeout=0)


@pytest.fixture
def queue(make_queue: MakeQueue) -> Queue:
    return make_queue()


@pytest.fixture
async def working(queue: Queue) -> Queue:
    """A queue with a worker."""
    queue.process()
    return queue


@pytest.fixture(autouse=True)
def definitions_of_one_test() -> Iterator[None]:
    with isolated(empty=False):
        yield
