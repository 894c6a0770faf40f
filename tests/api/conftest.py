"""What every test of the public API gets: queues of each store, closed at its end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pytest

from jobmill import InMemoryQueue, Queue, RedisQueue, SQLiteQueue
from jobmill.registry import isolated
from tests.servers import emptied


class MakeQueue(Protocol):
    """Makes a queue; all of one test, but for their names, are the same queue."""

    def __call__(self, **options: Any) -> Queue: ...


def memory(request: pytest.FixtureRequest, place: Path) -> MakeQueue:
    return partial(InMemoryQueue, memory=str(place))


def sqlite(request: pytest.FixtureRequest, place: Path) -> MakeQueue:
    return partial(SQLiteQueue, place / "jobs.db")


def redis(request: pytest.FixtureRequest, place: Path) -> MakeQueue:
    address = emptied(request.getfixturevalue("redis_address"))
    return partial(RedisQueue, str(address))


STORES = [
    pytest.param(memory, marks=pytest.mark.store("memory"), id="memory"),
    pytest.param(sqlite, marks=pytest.mark.store("sqlite"), id="sqlite"),
    pytest.param(redis, marks=pytest.mark.store("redis"), id="redis"),
]


@pytest.fixture(params=STORES)
def open_queue(request: pytest.FixtureRequest, tmp_path: Path) -> MakeQueue:
    opened: MakeQueue = request.param(request, tmp_path)
    return opened


@pytest.fixture
async def make_queue(open_queue: MakeQueue) -> AsyncIterator[MakeQueue]:
    made: list[Queue] = []

    def make(**options: Any) -> Queue:
        made.append(open_queue(**options))
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
