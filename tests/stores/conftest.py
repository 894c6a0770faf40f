"""The stores under test. One line in STORES puts a store through everything in this folder."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeAlias

import pytest

from jobmill.clock import Clock
from jobmill.store import Store
from jobmill.stores import postgresql
from jobmill.stores.memory import MemoryStore
from jobmill.stores.redis import Address, RedisStore
from jobmill.stores.sqlite import SQLiteStore
from tests.servers import cleared, emptied

pytest.register_assert_rewrite("jobmill.testing.contract")

Opener: TypeAlias = Callable[[Path, Clock], Awaitable[Store]]
Maker: TypeAlias = Callable[[pytest.FixtureRequest], Opener]


def memory(request: pytest.FixtureRequest) -> Opener:
    async def opened(folder: Path, clock: Clock) -> Store:
        store = MemoryStore(clock=clock)
        await store.open()
        return store

    return opened


def sqlite(request: pytest.FixtureRequest) -> Opener:
    async def opened(folder: Path, clock: Clock) -> Store:
        store = SQLiteStore(folder / "jobs.db", clock=clock)
        await store.open()
        return store

    return opened


def redis(request: pytest.FixtureRequest) -> Opener:
    address: Address = emptied(request.getfixturevalue("redis_address"))

    async def opened(folder: Path, clock: Clock) -> Store:
        store = RedisStore(address)
        await store.open()
        return store

    return opened


def postgres(request: pytest.FixtureRequest) -> Opener:
    address: postgresql.Address = request.getfixturevalue("postgres_address")

    async def opened(folder: Path, clock: Clock) -> Store:
        store = postgresql.PostgresStore(await cleared(address))
        await store.open()
        return store

    return opened


STORES: Final[dict[str, Maker]] = {
    "memory": memory,
    "sqlite": sqlite,
    "redis": redis,
    "postgresql": postgres,
}


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.store(name)) for name in STORES])
def opener(request: pytest.FixtureRequest) -> Opener:
    """How to open a new, empty store in a folder."""
    return STORES[request.param](request)
