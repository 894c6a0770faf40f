"""A store, processes on it, and a witness, for each store that outlives a process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from jobmill import Queue, create_queue
from tests.faults.jobs import Gate
from tests.faults.places import PLACES, Place
from tests.faults.processes import Processes
from tests.faults.witness import Witness


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    with request.param.made() as made:
        yield made


@pytest.fixture
def witness(tmp_path: Path) -> Witness:
    return Witness(tmp_path / "witness.jsonl")


@pytest.fixture
def processes(place: Place, tmp_path: Path, witness: Witness) -> Iterator[Processes]:
    with Processes(place.url, tmp_path, witness) as some:
        yield some


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    folder = tmp_path / "gate"
    folder.mkdir()
    return Gate(str(folder))


@pytest.fixture
async def queue(place: Place) -> AsyncIterator[Queue]:
    """The queue as the test's own process uses it; no worker runs there."""
    async with create_queue(place.url, poll_interval=0.2) as made:
        yield made
