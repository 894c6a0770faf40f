"""What every test of the public API gets: queues of each store, closed at its end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pytest

from jobmill import InMemoryQueue, PostgresQueue, Queue, RedisQueue, SQLiteQueue
from jobmill.registry import isolated
from jobmill.stores import postgresql
from jobmill.stores.redis import Address
from tests.servers import emptied, emptied_postgres


class MakeQueue(Protocol):
    """Makes a queue; all of one test, but for their names, are the same queue."""

    def __call__(self, **options: Any) -> Queue: ...


OpenQueue = Callable[..., Queue]


def memory(request: pytest.FixtureRequest, place: Path) -> OpenQueue:
    return partial(InMemoryQueue, memory=str(place))


def sqlite(request: pytest.FixtureRequest, place: Path) -> OpenQueue:
    return partial(SQLiteQueue, place / "jobs.db")


def redis(request: pytest.FixtureRequest, place: Path) -> OpenQueue:
    address: Address = emptied(request.getfixturevalue("redis_address"))
    return partial(RedisQueue, str(address))


def postgres(request: pytest.FixtureRequest, place: Path) -> OpenQueue:
    address: postgresql.Address = emptied_postgres(request.getfixturevalue("postgres_address"))
    return partial(
        PostgresQueue,
        host=address.host,
        port=address.port,
        username=address.username,
        password=address.password,
        database=address.database,
    )


STORES = [
    pytest.param(memory, marks=pytest.mark.store("memory"), id="memory"),
    pytest.param(sqlite, marks=pytest.mark.store("sqlite"), id="sqlite"),
    pytest.param(redis, marks=pytest.mark.store("redis"), id="redis"),
    pytest.param(postgres, marks=pytest.mark.store("postgresql"), id="postgresql"),
]


@pytest.fixture(params=STORES)
def open_queue(request: pytest.FixtureRequest, tmp_path: Path) -> OpenQueue:
    opener: OpenQueue = request.param(request, tmp_path)
    return opener


@pytest.fixture
async def make_queue(open_queue: OpenQueue) -> AsyncIterator[MakeQueue]:
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
