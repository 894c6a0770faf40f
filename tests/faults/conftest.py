"""A store, processes on it, and a witness, for each store that outlives a process."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from jobmill import Queue, create_queue
from tests.faults.jobs import Gate
from tests.faults.processes import Process, Processes
from tests.faults.witness import Witness


class SQLitePlace:
    """A new SQLite file."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "jobs.db"
        self.url = f"sqlite:///{self.path}"

    def holds_nothing(self, frozen: Process) -> bool:
        """Whether the frozen process keeps no lock on the store."""
        if not self.path.exists():
            return True
        with closing(sqlite3.connect(self.path, timeout=0.2, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return False
            connection.execute("ROLLBACK")
        return True

    def freeze(self, process: Process) -> None:
        """Freeze the process, but not inside a transaction: that would freeze all others."""
        process.freeze()
        while not self.holds_nothing(process):
            process.thaw()
            process.freeze()


@pytest.fixture(params=[pytest.param(SQLitePlace, marks=pytest.mark.store("sqlite"), id="sqlite")])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> SQLitePlace:
    made: SQLitePlace = request.param(tmp_path)
    return made


@pytest.fixture
def witness(tmp_path: Path) -> Witness:
    return Witness(tmp_path / "witness.jsonl")


@pytest.fixture
def processes(place: SQLitePlace, tmp_path: Path, witness: Witness) -> Iterator[Processes]:
    with Processes(place.url, tmp_path, witness) as some:
        yield some


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    folder = tmp_path / "gate"
    folder.mkdir()
    return Gate(str(folder))


@pytest.fixture
async def queue(place: SQLitePlace) -> AsyncIterator[Queue]:
    """The queue as the test's own process uses it; no worker runs there."""
    async with create_queue(place.url, poll_interval=0.2) as made:
        yield made
