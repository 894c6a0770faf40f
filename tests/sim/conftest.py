"""What the simulations share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from jobmill.stores.sqlite import SQLiteStore
from tests.sim.stores import MakeStore


@pytest.fixture
def open_sqlite() -> Iterator[MakeStore]:
    # In memory where the system offers that: what the disk costs is not the point here.
    shm = Path("/dev/shm")
    with TemporaryDirectory(dir=shm if shm.is_dir() else None) as folder:
        yield lambda clock: SQLiteStore(
            Path(folder, "jobs.db"), synchronous="normal", clock=clock, inline=True
        )
