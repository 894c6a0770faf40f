from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from jobmill import InMemoryQueue, Queue
from jobmill.dashboard import create_app, users
from jobmill.registry import isolated
from tests.api.conftest import STORES, MakeQueue, OpenQueue
from tests.dashboard.kit import Asker, asking, fill

HASHING: Final = users._N
"""How hard it is to try a password, where no test wants to be fast."""


@pytest.fixture(scope="session", autouse=True)
def cheap_passwords() -> Iterator[None]:
    """Passwords of these tests cost little: their number is what the tests are about."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(users, "_N", 1 << 8)
        yield


@pytest.fixture(autouse=True)
def definitions_of_one_test() -> Iterator[None]:
    with isolated(empty=False):
        yield


@pytest.fixture
async def queue() -> AsyncIterator[Queue]:
    """A queue in memory."""
    async with InMemoryQueue() as made:
        yield made


@pytest.fixture
async def ids(queue: Queue) -> dict[str, str]:
    """The jobs of the queue, which is filled."""
    return await fill(queue)


@pytest.fixture
async def asker(queue: Queue) -> AsyncIterator[Asker]:
    """Asks the dashboard of the queue, over loopback, without a login."""
    async with asking(create_app(queue)) as made:
        yield made


@pytest.fixture(params=STORES)
def open_queue(request: pytest.FixtureRequest, tmp_path: Path) -> OpenQueue:
    opener: OpenQueue = request.param(request, tmp_path)
    return opener


@pytest.fixture
async def make_queue(open_queue: Callable[..., Queue]) -> AsyncIterator[MakeQueue]:
    """Makes queues of each store, closed at the end."""
    made: list[Queue] = []

    def make(**options: object) -> Queue:
        made.append(open_queue(**options))
        return made[-1]

    yield make
    for each in made:
        await each.shutdown(timeout=0)
