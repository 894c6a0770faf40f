"""Any interleaving: each store beside the store in memory, step by step."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from jobmill.clock import Clock
from jobmill.store import Store
from jobmill.stores import postgresql
from jobmill.stores.memory import MemoryStore
from jobmill.stores.redis import Address, RedisStore
from jobmill.stores.sqlite import SQLiteStore
from jobmill.testing.machine import StoreMachine
from tests.conftest import SOAK
from tests.servers import cleared, emptied


def _settings(quick: int) -> settings:
    """So many examples in the quick form: fewer where a step costs more."""
    return settings(
        max_examples=5_000 if SOAK else quick,
        stateful_step_count=50,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


class MemoryMachine(StoreMachine):
    """The oracle beside another of its kind: the machine's own invariants are the test."""

    async def open_store(self, clock: Clock) -> Store:
        return MemoryStore(clock=clock)


class SQLiteMachine(StoreMachine):
    async def open_store(self, clock: Clock) -> Store:
        self._folder = await asyncio.to_thread(tempfile.TemporaryDirectory)
        path = Path(self._folder.name) / "jobs.db"
        store = SQLiteStore(path, clock=clock, synchronous="normal")
        await store.open()
        return store

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            self._folder.cleanup()


class RedisMachine(StoreMachine):
    address: ClassVar[Address]

    async def open_store(self, clock: Clock) -> Store:
        store = RedisStore(await asyncio.to_thread(emptied, self.address))
        await store.open()
        return store


class PostgresMachine(StoreMachine):
    address: ClassVar[postgresql.Address]

    async def open_store(self, clock: Clock) -> Store:
        store = postgresql.PostgresStore(await cleared(self.address))
        await store.open()
        return store


@pytest.mark.store("memory")
@pytest.mark.timeout(7_200 if SOAK else 900)
def test_memory() -> None:
    run_state_machine_as_test(MemoryMachine, settings=_settings(100))


@pytest.mark.store("sqlite")
@pytest.mark.timeout(7_200 if SOAK else 900)
def test_sqlite() -> None:
    run_state_machine_as_test(SQLiteMachine, settings=_settings(100))


@pytest.mark.store("redis")
@pytest.mark.timeout(7_200 if SOAK else 900)
def test_redis(redis_address: Address) -> None:
    RedisMachine.address = redis_address
    run_state_machine_as_test(RedisMachine, settings=_settings(100))


@pytest.mark.store("postgresql")
@pytest.mark.timeout(7_200 if SOAK else 900)
def test_postgresql(postgres_address: postgresql.Address) -> None:
    PostgresMachine.address = postgres_address
    run_state_machine_as_test(PostgresMachine, settings=_settings(60))
