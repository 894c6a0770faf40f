"""`tx=` on PostgreSQL: a job that goes with what its caller writes, by each driver."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import asyncpg
import msgspec
import psycopg
import pytest
import sqlalchemy as sa
from django.db.transaction import Atomic
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from jobmill import ConfigError, DuplicateJob, Queue, StoreUnavailable, Unsupported
from jobmill.factory import PostgresQueue
from jobmill.stores.postgresql import Address, callers
from tests.api.jobs import echo, statuses
from tests.callers import (
    CALLERS,
    LIKE_OTHERS,
    Caller,
    OpenCaller,
    django_connection,
    dsn,
    enqueue,
    url,
    words,
)
from tests.servers import cleared
from tests.waiting import eventually

# A sync connection is used from the thread that made it, here that of the loop.
pytestmark = [pytest.mark.store("postgresql"), pytest.mark.blocks_loop]


@pytest.fixture(autouse=True)
def django_on_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")


@pytest.fixture
async def address(postgres_address: Address) -> AsyncIterator[Address]:
    plain = await asyncpg.connect(**words(await cleared(postgres_address)))
    await plain.execute("DROP TABLE IF EXISTS orders; CREATE TABLE orders (n integer)")
    yield postgres_address
    await plain.execute("DROP TABLE IF EXISTS orders")
    await plain.close()


def to(address: Address, **options: Any) -> Queue:
    return PostgresQueue(
        host=address.host,
        port=address.port,
        username=address.username,
        password=address.password,
        database=address.database,
        **options,
    )


@pytest.fixture
async def queue(address: Address) -> AsyncIterator[Queue]:
    queue = to(address)
    yield queue
    await queue.shutdown(timeout=0)


@pytest.fixture(params=[name for name in CALLERS if name not in LIKE_OTHERS])
async def caller(request: pytest.FixtureRequest, address: Address) -> AsyncIterator[Caller]:
    async with CALLERS[request.param](address) as opened:
        yield opened


every_caller = pytest.mark.parametrize("caller", CALLERS, indirect=True)
one_of_each_kind = pytest.mark.parametrize(
    "caller", ["asyncpg", "django", "sqlalchemy asyncpg session"], indirect=True
)


async def order(caller: Caller, number: int = 1) -> None:
    await caller.execute(f"INSERT INTO orders VALUES ({number})")


async def orders(address: Address) -> list[int]:
    plain = await asyncpg.connect(**words(address))
    try:
        return [row["n"] for row in await plain.fetch("SELECT n FROM orders ORDER BY n")]
    finally:
        await plain.close()


async def refuses_the_other_call(queue: Queue, caller: Caller) -> None:
    """A sync connection goes with `enqueue_sync` only, and an async one with `enqueue` only."""
    if caller.sync:
        with pytest.raises(Unsupported, match="enqueue_sync"):
            await queue.enqueue(echo.call(1), tx=caller.tx)
        with pytest.raises(Unsupported, match="enqueue_sync"):
            await queue.enqueue_many([echo.call(1), echo.call(2)], tx=caller.tx)
    else:
        with pytest.raises(Unsupported, match="await enqueue"):
            queue.enqueue_sync(echo.call(1), tx=caller.tx)


@every_caller
async def test_the_job_is_there_with_the_commit_and_not_before(
    queue: Queue, caller: Caller, address: Address
) -> None:
    await order(caller)
    await refuses_the_other_call(queue, caller)
    options: dict[str, Any] = {"priority": 2, "metadata": {"a": "b"}, "unique_key": "k"}
    handle = await enqueue(queue, caller, echo.call("x\0y"), **options)
    assert not handle.deduplicated
    assert await queue.get_job(handle.id) is None
    assert await caller.execute("SELECT count(*) FROM orders") == 1  # its transaction goes on
    await caller.commit()
    info = await handle.info()
    assert (info.status, info.priority, info.unique_key) == ("pending", 2, "k")
    assert (info.payload, info.metadata) == ({"value": "x\0y"}, {"a": "b"})
    assert await orders(address) == [1]
    assert await statuses(queue) == {"pending": 1}


async def test_the_job_goes_with_a_rollback(queue: Queue, caller: Caller, address: Address) -> None:
    await order(caller)
    handle = await enqueue(queue, caller, echo.call(1), unique_key="k", job_id="one")
    await caller.rollback()
    assert await queue.get_job(handle.id) is None
    assert await orders(address) == []
    assert not (await queue.enqueue(echo.call(2), unique_key="k", job_id="one")).deduplicated


async def test_the_job_goes_with_a_nested_transaction(
    queue: Queue, caller: Caller, address: Address
) -> None:
    await order(caller, 1)
    kept = await enqueue(queue, caller, echo.call(1), delay=60)
    nested = await caller.nested()
    await order(caller, 2)
    gone = await enqueue(queue, caller, echo.call(2), unique_key="k")
    await caller.undo(nested)
    after = await enqueue(queue, caller, echo.call(3), unique_key="k")
    await caller.commit()
    assert not after.deduplicated
    assert await queue.get_job(gone.id) is None
    assert [(await each.info()).status for each in (kept, after)] == ["delayed", "pending"]
    assert await orders(address) == [1]


async def test_what_is_refused_leaves_the_callers_own_writes(
    queue: Queue, caller: Caller, address: Address
) -> None:
    await queue.enqueue(echo.call(1), job_id="one", unique_key="k")
    await order(caller)
    with pytest.raises(DuplicateJob, match="one"):
        await enqueue(queue, caller, echo.call(2), job_id="one")
    with pytest.raises(ConfigError):
        await enqueue(queue, caller, echo.call(2), priority=0.5)
    assert (await enqueue(queue, caller, echo.call(1), job_id="one")).deduplicated
    held = await enqueue(queue, caller, echo.call(3), unique_key="k")
    assert (held.id, held.deduplicated) == ("one", True)
    await caller.commit()
    assert await orders(address) == [1]
    assert await statuses(queue) == {"pending": 1}


@one_of_each_kind
async def test_a_worker_finds_the_job_within_poll_interval(
    address: Address, caller: Caller
) -> None:
    async with to(address, poll_interval=0.2) as queue:
        queue.process()
        assert await (await queue.enqueue(echo.call(1))).result(30) == 1
        handle = await enqueue(queue, caller, echo.call(2))
        await caller.commit()
        assert await handle.result(30) == 2


async def somebody_listens(address: Address) -> None:
    """Return once the worker hears what is told to its queue."""
    plain = await asyncpg.connect(**words(address))
    try:
        async with asyncio.timeout(30):
            while not await plain.fetchval(
                "SELECT EXISTS (SELECT 1 FROM pg_stat_activity "
                "WHERE state = 'idle' AND query LIKE 'LISTEN \"jobmill\\_%\\_ends\"')"
            ):
                await asyncio.sleep(0.01)
    finally:
        await plain.close()


@one_of_each_kind
async def test_wake_tells_a_worker_with_the_commit(address: Address, caller: Caller) -> None:
    """One that would look again in an hour."""
    async with to(address, poll_interval=3600.0) as queue:
        queue.process()
        await somebody_listens(address)
        handle = await enqueue(queue, caller, echo.call(2), wake=True)
        await caller.commit()
        assert await handle.result(30) == 2


@pytest.mark.parametrize("caller", ["asyncpg", "async psycopg"], indirect=True)
async def test_many_jobs_go_together(queue: Queue, caller: Caller) -> None:
    handles = await queue.enqueue_many([echo.call(n) for n in range(1_500)], tx=caller.tx)
    assert len({handle.id for handle in handles}) == 1_500
    assert await statuses(queue) == {}
    await caller.commit()
    assert await statuses(queue) == {"pending": 1_500}


async def test_a_session_of_an_async_engine_goes_where_it_is_sync(
    queue: Queue, address: Address
) -> None:
    engine = create_async_engine(url(address, "asyncpg"))
    async with AsyncSession(engine) as session, session.begin():
        handle = await session.run_sync(lambda sync: queue.enqueue_sync(echo.call(1), tx=sync))
    await engine.dispose()
    assert (await handle.info()).status == "pending"


async def test_what_is_unavailable_tells_the_ids(queue: Queue, address: Address) -> None:
    sync = psycopg.connect(dsn(address))
    sync.close()
    plain = await asyncpg.connect(**words(address))
    await plain.close()
    with pytest.raises(StoreUnavailable) as gone:
        queue.enqueue_sync(echo.call(1), tx=sync, job_id="one")
    assert gone.value.job_ids == ("one",)
    with pytest.raises(StoreUnavailable) as gone:
        await queue.enqueue(echo.call(1), tx=plain, job_id="one")
    assert gone.value.job_ids == ("one",)


async def test_it_starts_no_lasting_thread(queue: Queue, address: Address) -> None:
    before = set(threading.enumerate())
    with psycopg.connect(dsn(address)) as sync:
        queue.enqueue_sync(echo.call(1), tx=sync)
    await eventually(lambda: set(threading.enumerate()) <= before)
    assert queue._sync._running is None


@pytest.fixture(scope="module")
def elsewhere(postgres_address: Address) -> Iterator[Address]:
    """Another database of the same server, with a queue's schema of its own."""
    with psycopg.connect(dsn(postgres_address), autocommit=True) as plain:
        plain.execute("DROP DATABASE IF EXISTS elsewhere")
        plain.execute("CREATE DATABASE elsewhere")
    other = msgspec.structs.replace(postgres_address, database="elsewhere")

    async def make() -> None:
        async with to(other):
            pass

    asyncio.run(make())
    yield other
    with psycopg.connect(dsn(postgres_address), autocommit=True) as plain:
        plain.execute("DROP DATABASE elsewhere WITH (FORCE)")


@pytest.mark.parametrize("opener", [CALLERS[name] for name in CALLERS if name not in LIKE_OTHERS])
async def test_another_database_is_refused(
    queue: Queue, elsewhere: Address, opener: OpenCaller
) -> None:
    async with opener(elsewhere) as caller:
        await caller.execute("CREATE TABLE mine (n integer)")
        for _ in range(2):
            with pytest.raises(ConfigError, match="does not lead to the database") as refused:
                await enqueue(queue, caller, echo.call(1))
            assert refused.value.field == "tx"
        assert await caller.execute("SELECT count(*) FROM mine") == 0
        await caller.rollback()
    assert await statuses(queue) == {}


async def test_another_kind_of_database_is_refused(queue: Queue) -> None:
    with (
        Session(sa.create_engine("sqlite://")) as session,
        pytest.raises(ConfigError, match="sqlite") as refused,
    ):
        queue.enqueue_sync(echo.call(1), tx=session)
    assert refused.value.field == "tx"
    assert await statuses(queue) == {}


@pytest.mark.parametrize("tx", [sqlite3.connect, object(), "postgresql://", 3, False])
async def test_what_is_no_connection_is_refused(queue: Queue, tx: Any) -> None:
    tx = tx(":memory:") if callable(tx) else tx
    with pytest.raises(ConfigError, match="give a connection") as refused:
        await queue.enqueue(echo.call(1), tx=tx)
    assert refused.value.field == "tx"
    with pytest.raises(ConfigError, match="give a connection") as refused:
        queue.enqueue_sync(echo.call(1), tx=tx)
    assert refused.value.field == "tx"
    if isinstance(tx, sqlite3.Connection):
        tx.close()
    assert await statuses(queue) == {}


async def test_a_connection_that_commits_each_statement_by_itself_is_refused(
    queue: Queue, address: Address
) -> None:
    plain = await asyncpg.connect(**words(address))
    alone = await psycopg.AsyncConnection.connect(dsn(address), autocommit=True)
    sync = psycopg.connect(dsn(address), autocommit=True)
    django = django_connection(address)
    engine = sa.create_engine(url(address, "psycopg"), isolation_level="AUTOCOMMIT")
    lonely = create_async_engine(url(address, "asyncpg"), isolation_level="AUTOCOMMIT")
    try:
        for tx in (plain, alone):
            with pytest.raises(ConfigError, match="no open transaction") as refused:
                await queue.enqueue(echo.call(1), tx=tx)
            assert refused.value.field == "tx"
            async with tx.transaction():
                await queue.enqueue(echo.call(1), tx=tx)
        for tx in (sync, django):
            with pytest.raises(ConfigError, match="no open transaction"):
                queue.enqueue_sync(echo.call(1), tx=tx)
            with sync.transaction() if tx is sync else Atomic(django.alias, True, False):
                queue.enqueue_sync(echo.call(1), tx=tx)
        with engine.connect() as tx, pytest.raises(ConfigError, match="AUTOCOMMIT"):
            queue.enqueue_sync(echo.call(1), tx=tx)
        async with lonely.connect() as tx:
            with pytest.raises(ConfigError, match="AUTOCOMMIT"):
                await queue.enqueue(echo.call(1), tx=tx)
    finally:
        await plain.close()
        await alone.close()
        sync.close()
        django.close()
        engine.dispose()
        await lonely.dispose()
    assert await statuses(queue) == {"pending": 4}


async def test_a_transaction_that_is_to_be_rolled_back_is_refused(
    queue: Queue, address: Address
) -> None:
    async with CALLERS["django"](address) as caller:
        caller.tx.set_rollback(True)
        with pytest.raises(ConfigError, match="has failed") as refused:
            queue.enqueue_sync(echo.call(1), tx=caller.tx)
        assert refused.value.field == "tx"
        await caller.rollback()
    async with CALLERS["psycopg"](address) as caller:
        with pytest.raises(psycopg.Error):
            await caller.execute("SELECT 1 / 0")
        with pytest.raises(ConfigError, match="has failed") as refused:
            queue.enqueue_sync(echo.call(1), tx=caller.tx)
        assert refused.value.field == "tx"
        await caller.rollback()
    assert await statuses(queue) == {}


def test_a_driver_that_is_not_taken_says_which_are() -> None:
    """As SQLAlchemy and Django look where they use psycopg 2."""
    dialect = SimpleNamespace(name="postgresql", driver="psycopg2")
    with pytest.raises(Unsupported, match=r"psycopg2.*postgresql\+psycopg://"):
        callers._checked_sqlalchemy(dialect, None)
    django: Any = SimpleNamespace(
        vendor="postgresql",
        in_atomic_block=True,
        needs_rollback=False,
        connection=object(),
        ensure_connection=lambda: None,
    )
    with pytest.raises(Unsupported, match="install psycopg 3"):
        callers._of_django(django)
