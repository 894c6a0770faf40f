"""`tx=`: a job that goes with what its caller writes, on the caller's own connection."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobmill import ConfigError, DuplicateJob, InMemoryQueue, SQLiteQueue, Unsupported
from tests.api.jobs import echo, statuses

# A sync connection is used from the thread that made it, here that of the loop.
pytestmark = [pytest.mark.store("sqlite"), pytest.mark.blocks_loop]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.db"


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(path)
    connection.execute("create table orders (n integer)")
    yield connection
    connection.close()


@pytest.fixture
async def queue(path: Path) -> Any:
    queue = SQLiteQueue(path)
    yield queue
    await queue.shutdown(timeout=0)


def orders(connection: sqlite3.Connection) -> int:
    return int(connection.execute("select count(*) from orders").fetchone()[0])


async def test_the_job_is_there_when_the_transaction_commits(
    queue: SQLiteQueue, connection: sqlite3.Connection
) -> None:
    connection.execute("insert into orders values (1)")
    handle = queue.enqueue_sync(echo.call(1), tx=connection, priority=2)
    assert connection.in_transaction
    connection.commit()
    info = await handle.info()
    assert (info.status, info.priority, info.payload) == ("pending", 2, {"value": 1})
    queue.process()
    assert await handle.result(30) == 1
    assert orders(connection) == 1


async def test_the_job_is_not_there_before_the_commit(
    queue: SQLiteQueue, connection: sqlite3.Connection
) -> None:
    await queue.stats()
    handle = queue.enqueue_sync(echo, tx=connection)
    assert await queue.get_job(handle.id) is None
    connection.commit()
    assert await queue.get_job(handle.id) is not None


async def test_the_job_goes_with_a_rollback(
    queue: SQLiteQueue, connection: sqlite3.Connection
) -> None:
    connection.execute("insert into orders values (1)")
    handle = queue.enqueue_sync(echo, tx=connection, unique_key="k", job_id="one")
    connection.rollback()
    assert await queue.get_job(handle.id) is None
    assert orders(connection) == 0
    assert not (await queue.enqueue(echo, unique_key="k", job_id="one")).deduplicated


async def test_what_is_refused_leaves_the_callers_own_writes(
    queue: SQLiteQueue, connection: sqlite3.Connection
) -> None:
    await queue.enqueue(echo.call(1), job_id="one")
    connection.execute("insert into orders values (1)")
    with pytest.raises(DuplicateJob):
        queue.enqueue_sync(echo.call(2), tx=connection, job_id="one")
    assert queue.enqueue_sync(echo.call(1), tx=connection, job_id="one").deduplicated
    connection.commit()
    assert orders(connection) == 1
    assert await statuses(queue) == {"pending": 1}


async def test_it_runs_in_the_callers_thread(queue: SQLiteQueue, path: Path) -> None:
    """sqlite3 refuses a connection in any thread but the one that made it."""

    def write() -> str:
        connection = sqlite3.connect(path)
        with connection:
            job_id = queue.enqueue_sync(echo, tx=connection).id
        connection.close()
        return job_id

    assert await queue.get_job(await asyncio.to_thread(write)) is not None


def test_it_starts_no_thread(queue: SQLiteQueue, connection: sqlite3.Connection) -> None:
    queue.enqueue_sync(echo, tx=connection)
    connection.commit()
    assert queue._sync._running is None


async def test_a_connection_to_another_file_is_refused(queue: SQLiteQueue, tmp_path: Path) -> None:
    await queue.stats()
    for place in (tmp_path / "other.db", ":memory:"):
        connection = sqlite3.connect(place)
        with pytest.raises(ConfigError) as refused:
            queue.enqueue_sync(echo, tx=connection)
        assert refused.value.field == "tx"
        connection.close()
    assert await statuses(queue) == {}


@pytest.mark.parametrize("tx", [object(), "jobs.db", 3, False])
async def test_what_is_no_connection_is_refused(queue: SQLiteQueue, tx: Any) -> None:
    with pytest.raises(ConfigError) as refused:
        queue.enqueue_sync(echo, tx=tx)
    assert refused.value.field == "tx"
    assert await statuses(queue) == {}


async def test_a_sync_connection_does_not_go_with_enqueue(
    queue: SQLiteQueue, connection: sqlite3.Connection
) -> None:
    with pytest.raises(Unsupported, match="enqueue_sync"):
        await queue.enqueue(echo, tx=connection)
    with pytest.raises(Unsupported):
        await queue.enqueue_many([echo.call(1), echo.call(2)], tx=connection)
    assert await statuses(queue) == {}


@pytest.mark.store("memory")
async def test_a_store_without_transactions_says_so(connection: sqlite3.Connection) -> None:
    queue = InMemoryQueue()
    with pytest.raises(Unsupported):
        queue.enqueue_sync(echo, tx=connection)
    with pytest.raises(Unsupported):
        await queue.enqueue(echo, tx=connection)
    with pytest.raises(Unsupported):
        await queue.enqueue_many([echo.call(1)], tx=connection)
    assert await statuses(queue) == {}
    await queue.close()
