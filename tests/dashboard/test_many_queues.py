"""Very many queues of one server: every page answers, by a few connections."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from jobmill import PostgresQueue
from jobmill.dashboard import create_app
from jobmill.dashboard.board import MOST
from jobmill.stores.postgresql import Address
from jobmill.stores.postgresql.pool import MOST as CONNECTIONS
from tests.dashboard.kit import HTML, asking, later
from tests.servers import ask_postgres, own_postgres

PATHS = (
    *("/", "/jobs", "/jobs?q=job:shop", "/jobs?state=delayed", "/queues", "/queues/q007"),
    *("/schedules", "/workers", "/errors", "/audit"),
    *("/api/overview", "/api/jobs", "/metrics", "/readyz", "/scale/q007"),
)
COUNT = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'jobmill'"


@pytest.fixture
def narrow() -> Iterator[Address]:
    """A server that takes no more connections than PostgreSQL does by default."""
    with own_postgres("max_connections=100") as server:
        yield server.address


@pytest.mark.store("postgresql")
async def test_every_page_of_two_hundred_queues_in_postgresql(narrow: Address) -> None:
    first = PostgresQueue(name="q000", host=narrow.host, port=narrow.port, username=narrow.username)
    names = [f"q{number:03d}" for number in range(MOST)]
    await first.enqueue(later, delay=3_600)
    for name in names[1:]:
        store = first.store.handle(name)
        await store.open()
        await store.write("pauses", "*", b"")
        await store.close()
    app = create_app(first, discover=True)
    async with asking(app) as asker:
        for path in PATHS:
            answer = await asker.get(path, headers=HTML)
            assert (answer.status_code, path) == (200, path)
        board = app.state.desk.board
        assert sorted(board.labels) == names
        counted = await asyncio.to_thread(ask_postgres, narrow, COUNT)
        assert 0 < int(counted) <= CONNECTIONS
        await board.close()
    await first.close()
