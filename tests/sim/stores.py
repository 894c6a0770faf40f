"""The stores that are simulated."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from jobmill.clock import Clock
from jobmill.store import Store
from jobmill.stores import postgresql
from jobmill.stores.memory import MemoryStore
from jobmill.stores.postgresql.programs import quoted
from jobmill.stores.redis import Address
from tests.sim import inline_postgres
from tests.sim.inline import InlineRedisStore, wire_to

MakeStore = Callable[[Clock], Store]


def open_memory(clock: Clock) -> Store:
    return MemoryStore(clock=clock)


@contextlib.contextmanager
def open_redis(address: Address) -> Iterator[MakeStore]:
    """How to open a store on an emptied server."""
    with wire_to(address) as wire:

        def make(clock: Clock) -> Store:
            wire.ask("FLUSHDB")
            return InlineRedisStore(address, wire, clock=clock)

        yield make


@contextlib.contextmanager
def open_postgres(address: postgresql.Address) -> Iterator[MakeStore]:
    """How to open a store in an emptied schema; nothing but this may change what is there."""
    with inline_postgres.wire_to(address) as wire:
        rows = wire.fetch(
            "SELECT tablename FROM pg_tables WHERE schemaname = $1 "
            "AND tablename NOT IN ('migrations', 'programs', 'clock')",
            address.schema,
        )
        schema = quoted(address.schema)
        tables = ", ".join(f"{schema}.{table}" for (table,) in rows)

        def make(clock: Clock) -> Store:
            # Also what the order of rows may come from: where they lie, and their numbers.
            wire.execute(f"TRUNCATE {tables} RESTART IDENTITY")
            return inline_postgres.InlinePostgresStore(wire, clock=clock)

        yield make
