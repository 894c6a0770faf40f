"""What the simulations share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from jobmill.stores import postgresql
from jobmill.stores.redis import Address
from jobmill.stores.sqlite import SQLiteStore
from tests.servers import own_postgres
from tests.sim.stores import MakeStore, open_postgres, open_redis


@pytest.fixture
def open_sqlite() -> Iterator[MakeStore]:
    # In memory where the system offers that: what the disk costs is not the point here.
    shm = Path("/dev/shm")
    with TemporaryDirectory(dir=shm if shm.is_dir() else None) as folder:
        yield lambda clock: SQLiteStore(
            Path(folder, "jobs.db"), synchronous="normal", clock=clock, inline=True
        )


@pytest.fixture
def open_on_redis(redis_address: Address) -> Iterator[MakeStore]:
    with open_redis(redis_address) as make:
        yield make


@pytest.fixture(scope="session")
def still_postgres() -> Iterator[postgresql.Address]:
    """A server that does nothing by itself, so that it answers the same in each run."""
    with own_postgres("autovacuum=off", "fsync=off") as server:
        yield server.address


@pytest.fixture
def open_on_postgres(still_postgres: postgresql.Address) -> Iterator[MakeStore]:
    with open_postgres(still_postgres) as make:
        yield make
