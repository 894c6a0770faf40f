"""A job goes with the caller's transaction, on the caller's own connection."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobmill.errors import ConfigError, StoreUnavailable, Unsupported
from jobmill.store import JOBS, Features
from jobmill.stores.sqlite import SQLiteStore
from tests.stores.sqlite.conftest import a_job

# The caller's connection blocks, as it is to.
pytestmark = [pytest.mark.store("sqlite"), pytest.mark.blocks_loop]


@pytest.fixture
def tx(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(path, timeout=0.1)
    yield connection
    connection.close()


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SQLiteStore]:
    store = SQLiteStore(path, busy_timeout=0.1)
    yield store
    await store.close()


async def due(store: SQLiteStore) -> int:
    await store.open()
    return (await store.counts()).due


async def test_it_is_there_with_the_commit(store: SQLiteStore, tx: sqlite3.Connection) -> None:
    assert Features.TRANSACTIONS in store.features
    await store.open()
    tx.execute("CREATE TABLE orders (id)")
    tx.execute("INSERT INTO orders VALUES (1)")
    (added,) = store.add_with_sync(tx, [a_job("j1")])
    assert (added.status, added.job_id) == ("added", "j1")
    assert await due(store) == 0
    assert tx.in_transaction
    tx.commit()
    assert await due(store) == 1
    assert (await store.counts()).by_name == {"a": {"pending": 1}}


async def test_it_is_gone_with_the_rollback(store: SQLiteStore, tx: sqlite3.Connection) -> None:
    await store.open()
    store.add_with_sync(tx, [a_job("j1", unique_key="k")])
    tx.rollback()
    assert await due(store) == 0
    (added,) = await store.add([a_job("j1", unique_key="k")])
    assert added.status == "added"


async def test_it_begins_a_transaction_where_none_is_open(
    store: SQLiteStore, tx: sqlite3.Connection
) -> None:
    await store.open()
    assert not tx.in_transaction
    store.add_with_sync(tx, [a_job("j1")])
    assert tx.in_transaction
    with pytest.raises(StoreUnavailable):
        await store.add([a_job("j2")])
    tx.commit()
    assert await due(store) == 1


async def test_the_schema_is_made_within_the_transaction(
    store: SQLiteStore, tx: sqlite3.Connection, path: Path
) -> None:
    store.add_with_sync(tx, [a_job("j1")])
    tx.rollback()
    assert tx.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    store.add_with_sync(tx, [a_job("j1")])
    tx.commit()
    assert await due(store) == 1


async def test_answers_are_those_of_add(store: SQLiteStore, tx: sqlite3.Connection) -> None:
    await store.open()
    await store.add([a_job("there"), a_job("holder", unique_key="k")])
    jobs = [a_job("there"), a_job("there", "b"), a_job("j1", unique_key="k"), a_job("j2")]
    answers = store.add_with_sync(tx, jobs)
    assert [(answer.status, answer.job_id) for answer in answers] == [
        ("same", "there"),
        ("conflict", "there"),
        ("held", "holder"),
        ("added", "j2"),
    ]
    tx.commit()


@pytest.mark.parametrize("text_factory", [bytes, str, bytearray])
@pytest.mark.parametrize("row_factory", [None, sqlite3.Row, lambda cursor, row: {"row": row}])
async def test_the_caller_may_have_any_factory(
    store: SQLiteStore, tx: sqlite3.Connection, row_factory: Any, text_factory: Any
) -> None:
    await store.open()
    await store.add([a_job("holder", unique_key="k")])
    tx.row_factory, tx.text_factory = row_factory, text_factory
    answers = store.add_with_sync(tx, [a_job("j1", unique_key="k"), a_job("holder")])
    assert [(answer.status, answer.job_id) for answer in answers] == [
        ("held", "holder"),
        ("same", "holder"),
    ]
    assert (tx.row_factory, tx.text_factory) == (row_factory, text_factory)


async def test_an_attached_file_is_found(store: SQLiteStore, tmp_path: Path, path: Path) -> None:
    """Another file of jobs is the main one: the job does not go there."""
    other = SQLiteStore(tmp_path / "other.db")
    await other.open()
    await store.open()
    tx = sqlite3.connect(tmp_path / "other.db")
    tx.execute('ATTACH ? AS "my ""jobs"', (str(path),))
    store.add_with_sync(tx, [a_job("j1", unique_key="k")])
    assert store.add_with_sync(tx, [a_job("j2", unique_key="k")])[0].status == "held"
    tx.commit()
    tx.close()
    assert await due(store) == 1
    assert await due(other) == 0
    await other.close()


async def test_an_attached_file_gets_its_schema(
    store: SQLiteStore, tmp_path: Path, path: Path
) -> None:
    tx = sqlite3.connect(tmp_path / "app.db")
    tx.execute("ATTACH ? AS jobs", (str(path),))
    store.add_with_sync(tx, [a_job("j1")])
    tx.commit()
    assert tx.execute("SELECT count(*) FROM main.sqlite_master").fetchone() == (0,)
    tx.close()
    assert await due(store) == 1


@pytest.mark.parametrize("target", [":memory:", "", "other.db"])
async def test_another_file_is_refused(store: SQLiteStore, tmp_path: Path, target: str) -> None:
    await store.open()
    tx = sqlite3.connect(tmp_path / target if target.endswith(".db") else target)
    with pytest.raises(ConfigError, match=str(store.path)) as caught:
        store.add_with_sync(tx, [a_job("j1")])
    assert caught.value.field == "tx"
    assert not tx.in_transaction
    tx.close()


async def test_a_link_to_the_file_is_the_file(
    store: SQLiteStore, tmp_path: Path, path: Path
) -> None:
    await store.open()
    (tmp_path / "link.db").symlink_to(path)
    tx = sqlite3.connect(tmp_path / "link.db")
    store.add_with_sync(tx, [a_job("j1")])
    tx.commit()
    tx.close()
    assert await due(store) == 1


async def test_what_is_no_connection_is_refused(store: SQLiteStore) -> None:
    with pytest.raises(ConfigError) as caught:
        store.add_with_sync(object(), [a_job("j1")])
    assert caught.value.field == "tx"


async def test_a_connection_that_commits_by_itself_is_refused(
    store: SQLiteStore, path: Path
) -> None:
    await store.open()
    tx = sqlite3.connect(path, isolation_level=None)
    with pytest.raises(ConfigError, match="BEGIN"):
        store.add_with_sync(tx, [a_job("j1")])
    tx.execute("BEGIN")
    store.add_with_sync(tx, [a_job("j1")])
    tx.execute("COMMIT")
    tx.close()
    assert await due(store) == 1


async def test_a_failed_add_leaves_the_rest_of_the_transaction(
    store: SQLiteStore, tx: sqlite3.Connection
) -> None:
    await store.open()
    tx.execute("CREATE TABLE orders (id)")
    tx.execute("INSERT INTO orders VALUES (1)")
    with pytest.raises(Exception, match="refused"):
        store.add_with_sync(tx, [a_job("j1"), a_job("j2", priority=2**80)])
    tx.commit()
    assert await due(store) == 0
    assert tx.execute("SELECT count(*) FROM orders").fetchone() == (1,)


async def test_a_closed_connection_is_told(store: SQLiteStore, tx: sqlite3.Connection) -> None:
    tx.close()
    with pytest.raises(Exception, match="closed") as caught:
        store.add_with_sync(tx, [a_job("j1")])
    assert not isinstance(caught.value, sqlite3.Error)


async def test_the_commit_wakes_a_worker(store: SQLiteStore, tx: sqlite3.Connection) -> None:
    await store.open()
    store.add_with_sync(tx, [a_job("j1")])
    await store.wait([JOBS], 0.0)
    waiting = asyncio.create_task(store.wait([JOBS], 30.0))
    await asyncio.sleep(0)
    tx.commit()
    async with asyncio.timeout(5):
        await waiting
    assert await due(store) == 1


async def test_an_async_call_is_unsupported(store: SQLiteStore, tx: sqlite3.Connection) -> None:
    with pytest.raises(Unsupported, match="enqueue_sync"):
        await store.add_with(tx, [a_job("j1")])
