"""A store, and connections beside it that are not jobmill's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from jobmill.stores.postgresql import Address, PostgresStore
from tests.callers import words
from tests.servers import cleared


@pytest.fixture
async def address(postgres_address: Address) -> Address:
    return await cleared(postgres_address)


@pytest.fixture
async def store(address: Address) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(address)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def plain(store: PostgresStore) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(**words(store.address))
    yield connection
    await connection.close()


@pytest.fixture
async def other(store: PostgresStore) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(**words(store.address))
    yield connection
    await connection.close()


async def waits_for_a_lock(waiter: Any, plain: Any) -> None:
    """Return once the backend of `waiter` waits for another transaction."""
    async with asyncio.timeout(30):
        while not await plain.fetchval(
            "SELECT EXISTS (SELECT 1 FROM pg_locks AS l WHERE l.pid = $1 AND NOT l.granted)",
            waiter.get_server_pid(),
        ):
            await asyncio.sleep(0.01)
