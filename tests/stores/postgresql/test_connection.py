"""Connections: none outlives its loop, and only a silent server is given up."""

from __future__ import annotations

import asyncio
import gc
import time
import warnings
from collections.abc import AsyncIterator

import pytest

from jobmill.store import JOBS
from jobmill.stores.postgresql import Address, PostgresStore, connection
from jobmill.stores.postgresql.patience import bounded, limited
from jobmill.testing.contract.case import a_want, some_jobs
from tests.servers import cleared

pytestmark = pytest.mark.store("postgresql")


@pytest.fixture
async def store(postgres_address: Address) -> AsyncIterator[PostgresStore]:
    opened = PostgresStore(await cleared(postgres_address))
    await opened.open()
    yield opened
    await opened.close()


async def abandoned(address: Address, turns: int) -> None:
    """Leave the loop in the middle of everything that a store does."""
    store = PostgresStore(address, "abandoned")
    await store.open()
    under_way = [
        asyncio.create_task(store.wait([JOBS], 60.0)),
        *[asyncio.create_task(store.add([job])) for job in some_jobs(12)],
        *[asyncio.create_task(store.claim(a_want(f"t{n}"))) for n in range(4)],
    ]
    for _ in range(turns):
        await asyncio.sleep(0.001)
    assert under_way


@pytest.mark.parametrize("turns", range(0, 24, 2))
async def test_a_loop_that_ends_in_the_middle_leaves_no_connection(
    postgres_address: Address, turns: int
) -> None:
    address = await cleared(postgres_address)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        await asyncio.to_thread(asyncio.run, abandoned(address, turns))
        gc.collect()
    assert [str(each.message) for each in told] == []


async def test_a_loop_that_stands_still_is_no_silence() -> None:
    given_up: list[float] = []
    with bounded(lambda: given_up.append(time.monotonic()), 0.5):
        for _ in range(3):
            time.sleep(0.6)  # noqa: ASYNC251  the point
            await asyncio.sleep(0)
    assert given_up == []
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        async with limited(0.1):
            await asyncio.sleep(60)
    assert 0.1 <= time.monotonic() - began < 10


async def test_progress_renews_the_patience() -> None:
    done = 0
    began = time.monotonic()

    async def goes_on_and_stops() -> None:
        nonlocal done
        async with limited(0.2, lambda: done):
            for _ in range(10):
                done += 1
                await asyncio.sleep(0.1)
            await asyncio.sleep(60)

    with pytest.raises(TimeoutError):
        await goes_on_and_stops()
    assert done == 10
    assert time.monotonic() - began >= 1.0


async def test_calls_outlast_a_blocked_loop(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a handler blocks it: the server has answered, and nobody could hear it."""
    monkeypatch.setattr(connection, "PATIENCE", 3.0)
    calls = [asyncio.create_task(store.add([job])) for job in some_jobs(12)]
    await asyncio.sleep(0.001)
    time.sleep(4.0)  # noqa: ASYNC251  the point
    added = await asyncio.gather(*calls)
    assert [each.status for (each,) in added] == ["added"] * 12


async def test_waiting_behind_others_is_no_silence(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty calls of 0.8 s on four connections: the last waits 3.2 s for its turn."""
    monkeypatch.setattr(connection, "PATIENCE", 3.0)
    assert store._connection is not None
    wait = store._connection.fetch
    answers = await asyncio.gather(*[wait("SELECT pg_sleep(0.8)") for _ in range(20)])
    assert len(answers) == 20
