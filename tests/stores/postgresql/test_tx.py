"""A job goes with the caller's transaction, whatever that transaction is like."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import msgspec
import psycopg
import pytest

from jobmill.errors import ConfigError, SchemaMismatch, StoreUnavailable
from jobmill.states import Move, Note
from jobmill.store import Added, Features, Lease, Query, Window
from jobmill.stores.postgresql import Address, PostgresStore
from jobmill.stores.postgresql.channels import channels
from jobmill.stores.postgresql.programs import DIGEST, quoted
from jobmill.testing.contract.case import T0, a_job, a_want
from tests.callers import dsn, words
from tests.stores.postgresql.conftest import waits_for_a_lock
from tests.waiting import eventually

pytestmark = pytest.mark.store("postgresql")


async def due(store: PostgresStore) -> int:
    return (await store.counts()).due


async def test_answers_are_those_of_add(store: PostgresStore, plain: Any) -> None:
    assert Features.TRANSACTIONS in store.features
    await store.add([a_job("there"), a_job("holder", unique_key="k")])
    jobs = [a_job("there"), a_job("there", "b"), a_job("j1", unique_key="k"), a_job("j2")]
    async with plain.transaction():
        assert await store.add_with(plain, []) == []
        answers = await store.add_with(plain, jobs)
    assert [(answer.status, answer.job_id) for answer in answers] == [
        ("same", "there"),
        ("conflict", "there"),
        ("held", "holder"),
        ("added", "j2"),
    ]
    assert await due(store) == 3


async def test_one_wake_up_goes_with_the_commit_where_something_was_added(
    store: PostgresStore, plain: Any, other: Any
) -> None:
    heard: list[str] = []
    channel = channels(store.address.schema, store.queue).jobs
    await other.add_listener(channel, lambda *_: heard.append("jobs"))
    await other.add_listener("end", lambda *_: heard.append("end"))
    async with plain.transaction():
        await store.add_with(plain, [a_job("quiet")])
    async with plain.transaction():
        await store.add_with(plain, [a_job("quiet")], wake=True)
    transaction = plain.transaction()
    await transaction.start()
    await store.add_with(plain, [a_job("j1")], wake=True)
    await transaction.rollback()
    await plain.execute('NOTIFY "end"')
    await eventually(lambda: heard == ["end"], 30)
    async with plain.transaction():
        await store.add_with(plain, [a_job("j2")], wake=True)
        await store.add_with(plain, [a_job("j3")], wake=True)
        await other.fetchval("SELECT 1")
        assert heard == ["end"]
    await plain.execute('NOTIFY "end"')
    await eventually(lambda: heard == ["end", "jobs", "end"], 30)


# ------------------------------------------------------------ beside other transactions


@pytest.mark.parametrize("how", ["unique_key", "job_id"])
@pytest.mark.parametrize("ends", ["COMMIT", "ROLLBACK"])
async def test_who_holds_the_same_uncommitted_is_waited_for(
    store: PostgresStore, plain: Any, other: Any, how: str, ends: str
) -> None:
    first = a_job("first", unique_key="k" if how == "unique_key" else None)
    second = a_job("second" if how == "unique_key" else "first", unique_key=first.unique_key)
    await other.execute("BEGIN")
    await store.add_with(other, [first])
    async with plain.transaction():
        adding = asyncio.create_task(store.add_with(plain, [second]))
        await waits_for_a_lock(plain, other)
        assert not adding.done()
        await other.execute(ends)
        async with asyncio.timeout(30):
            (added,) = await adding
    if ends == "ROLLBACK":
        assert added == Added("added", second.id)
    else:
        assert added == Added("held" if how == "unique_key" else "same", "first")
    assert await due(store) == 1


async def test_it_waits_as_long_as_the_callers_settings_say_and_leaves_what_was_written(
    store: PostgresStore, plain: Any, other: Any
) -> None:
    await other.execute("BEGIN")
    await store.add_with(other, [a_job("first", unique_key="k")])
    await plain.execute("CREATE TEMPORARY TABLE orders (n integer)")
    async with plain.transaction():
        await plain.execute("INSERT INTO orders VALUES (1); SET LOCAL lock_timeout = '50ms'")
        with pytest.raises(StoreUnavailable, match="another transaction"):
            await store.add_with(plain, [a_job("second", unique_key="k")])
        await store.add_with(plain, [a_job("third")])
        assert await plain.fetchval("SHOW lock_timeout") == "50ms"
    await other.execute("ROLLBACK")
    assert await plain.fetchval("SELECT count(*) FROM orders") == 1
    assert [each is not None for each in await store.get(["first", "second", "third"])] == [
        *(False, False, True)
    ]


async def test_a_statement_timeout_ends_the_transaction_and_says_so(
    store: PostgresStore, plain: Any, other: Any
) -> None:
    await other.execute("BEGIN")
    await store.add_with(other, [a_job("first", unique_key="k")])
    await plain.execute("BEGIN; SET LOCAL statement_timeout = '50ms'")
    with pytest.raises(StoreUnavailable, match="cancelled the statement"):
        await store.add_with(plain, [a_job("second", unique_key="k")])
    with pytest.raises(ConfigError, match="failed already") as refused:
        await store.add_with(plain, [a_job("third")])
    assert refused.value.field == "tx"
    await plain.execute("ROLLBACK")
    await other.execute("ROLLBACK")
    assert await due(store) == 0


@pytest.mark.parametrize("isolation", ["repeatable_read", "serializable"])
async def test_a_key_that_a_snapshot_cannot_see_says_to_begin_anew(
    store: PostgresStore, plain: Any, isolation: str
) -> None:
    async with plain.transaction(isolation=isolation):
        await plain.fetchval("SELECT count(*) FROM jobmill.jobs")
        await store.add([a_job("first", unique_key="k")])
        with pytest.raises(StoreUnavailable, match="run it again from its beginning"):
            await store.add_with(plain, [a_job("second", unique_key="k")])
        (added,) = await store.add_with(plain, [a_job("third", unique_key="other")])
        assert added.status == "added"
    assert await due(store) == 2


async def test_a_deadlock_says_to_begin_anew(store: PostgresStore, plain: Any, other: Any) -> None:
    for connection, key in ((plain, "a"), (other, "b")):
        await connection.execute("BEGIN; SET LOCAL deadlock_timeout = '50ms'")
        await store.add_with(connection, [a_job(f"first {key}", unique_key=key)])

    async def add(connection: Any, key: str) -> str:
        try:
            await store.add_with(connection, [a_job(f"second {key}", unique_key=key)])
        except StoreUnavailable as error:
            await connection.execute("ROLLBACK")
            return str(error)
        await connection.execute("COMMIT")
        return "added"

    answers = await asyncio.gather(add(plain, "b"), add(other, "a"))
    assert sorted(answer == "added" for answer in answers) == [False, True]
    assert any("run it again from its beginning" in answer for answer in answers)
    assert await due(store) == 2


# ------------------------------------------------------------ whatever the caller has chosen


async def test_the_callers_search_path_does_not_matter(
    store: PostgresStore, plain: Any, address: Address
) -> None:
    """Functions of the same names stand before PostgreSQL's own."""
    await plain.execute("""
        DROP SCHEMA IF EXISTS hostile CASCADE;
        CREATE SCHEMA hostile;
        CREATE TABLE hostile.jobs (id text);
        CREATE FUNCTION hostile.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS
            $$ BEGIN RAISE 'hostile'; END $$;
        CREATE FUNCTION hostile.array_length(anyarray, integer) RETURNS integer
            LANGUAGE plpgsql AS $$ BEGIN RAISE 'hostile'; END $$;
        CREATE FUNCTION hostile.pg_postmaster_start_time() RETURNS timestamptz
            LANGUAGE plpgsql AS $$ BEGIN RAISE 'hostile'; END $$;
    """)
    try:
        async with plain.transaction():
            await plain.execute("SET LOCAL search_path = hostile, pg_catalog")
            (added,) = await store.add_with(plain, [a_job("j1", unique_key="k")])
            (held,) = await store.add_with(plain, [a_job("j2", unique_key="k")])
        # asyncpg's own questions would not get by these.
        await plain.execute("""
            CREATE DOMAIN hostile.text AS pg_catalog.int4;
            CREATE FUNCTION hostile.unnest(anyarray) RETURNS SETOF integer
                LANGUAGE plpgsql AS $$ BEGIN RAISE 'hostile'; END $$;
        """)
        async with await psycopg.AsyncConnection.connect(dsn(address)) as connection:
            await connection.execute("SET LOCAL search_path = hostile, pg_catalog")
            (same,) = await store.add_with(connection, [a_job("j1", unique_key="k")])
        assert [added.status, held.status, same.status] == ["added", "held", "same"]
    finally:
        await plain.execute("DROP SCHEMA hostile CASCADE")


@pytest.mark.blocks_loop
async def test_the_caller_may_have_any_factory_and_settings(
    store: PostgresStore, address: Address
) -> None:
    await store.add([a_job("holder", unique_key="k")])
    jobs = [a_job("j1", unique_key="k"), a_job("holder", unique_key="k")]
    wanted = [Added("held", "holder"), Added("same", "holder")]
    with psycopg.connect(
        dsn(address), row_factory=psycopg.rows.dict_row, cursor_factory=psycopg.ClientCursor
    ) as sync:
        sync.execute(
            "SET LOCAL bytea_output = 'escape'; SET LOCAL extra_float_digits = -15;"
            "SET LOCAL DateStyle = 'German'; SET LOCAL standard_conforming_strings = off"
        )
        assert store.add_with_sync(sync, jobs) == wanted
        store.add_with_sync(sync, [a_job("j3", payload=b'"\xc3\xa4\\\\"', run_at=T0 + 0.123456)])
    (record,) = await store.get(["j3"])
    assert record is not None
    assert record.payload == b'"\xc3\xa4\\\\"'

    class Own(asyncpg.Record):  # type: ignore[misc]
        pass

    connection = await asyncpg.connect(**words(address), record_class=Own)
    async with connection.transaction():
        assert await store.add_with(connection, jobs) == wanted
    await connection.close()


@pytest.fixture
async def roles(store: PostgresStore, other: Any) -> AsyncIterator[None]:
    """As the page grants them."""
    await drop_roles(other)
    await other.execute("""
        CREATE ROLE shop LOGIN; CREATE ROLE miller LOGIN; CREATE ROLE stranger LOGIN;
        GRANT USAGE ON SCHEMA jobmill TO shop, miller;
        GRANT SELECT, INSERT ON jobmill.jobs TO shop;
        GRANT SELECT ON jobmill.clock, jobmill.migrations, jobmill.programs TO shop;
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA jobmill TO miller;
    """)
    yield
    await drop_roles(other)


async def drop_roles(plain: Any) -> None:
    for role in ("shop", "miller", "stranger"):
        if await plain.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role):
            await plain.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.usefixtures("roles")
async def test_a_role_needs_no_more_than_the_page_says(
    store: PostgresStore, plain: Any, address: Address
) -> None:
    async with plain.transaction():
        await plain.execute("SET LOCAL ROLE shop")
        (added,) = await store.add_with(plain, [a_job("j1", unique_key="k")])
        (held,) = await store.add_with(plain, [a_job("j2", unique_key="k")])
        assert [added.status, held.status] == ["added", "held"]
    await plain.execute("BEGIN; SET LOCAL ROLE stranger")
    with pytest.raises(ConfigError, match="grant it") as refused:
        await store.add_with(plain, [a_job("j3")])
    assert refused.value.field == "tx"
    await plain.execute("ROLLBACK")
    shop = PostgresStore(msgspec.structs.replace(address, username="shop"))
    await shop.open()
    try:
        jobs = [a_job("j4"), a_job("j5", unique_key="k")]
        assert [each.status for each in await shop.add(jobs)] == ["added", "held"]
        with pytest.raises(ConfigError, match="grant it"):
            await shop.drop(Query(), limit=1)
    finally:
        await shop.close()
    assert await due(store) == 2


@pytest.mark.usefixtures("roles")
@pytest.mark.parametrize("role", ["shop", "miller"])
async def test_no_such_role_changes_the_schema(plain: Any, role: str) -> None:
    for statement in (
        "CREATE TABLE jobmill.mine ()",
        "ALTER TABLE jobmill.jobs ADD COLUMN mine text",
        "DROP INDEX jobmill.jobs_ready",
        "TRUNCATE jobmill.jobs",
        *(["SELECT * FROM jobmill.docs", "DELETE FROM jobmill.jobs"] if role == "shop" else []),
    ):
        transaction = plain.transaction()
        await transaction.start()
        await plain.execute(f"SET LOCAL ROLE {role}")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await plain.execute(statement)
        await transaction.rollback()


@pytest.mark.usefixtures("roles")
async def test_a_role_that_works_needs_no_more_than_the_page_says(
    store: PostgresStore, address: Address
) -> None:
    miller = PostgresStore(msgspec.structs.replace(address, username="miller"))
    await miller.open()
    try:
        await miller.add([a_job("j1"), a_job("j2"), a_job("j3", delay=60.0)])
        claims = (await miller.claim(a_want("t1", limit=2))).claims
        assert await miller.renew([Lease("j1", "t1")], 30.0, {"j1": Note(progress=1.0)}) == ["ok"]
        moves = [
            Move(event="fail", job_id=claims[0].id, token="t1", error=b"1", fingerprint="f"),
            Move(event="succeed", job_id=claims[1].id, token="t1", result=b"1"),
            Move(event="hasten", job_id="j3"),
        ]
        assert {moved.status for moved in await miller.move(moves)} == {"applied"}
        assert await miller.reserve("k", "j3", "t2", [Window(1, 60.0)]) == 0
        version = await miller.write("schedules", "s", b"1")
        assert version
        ticked = await miller.tick("s", version, b"2", [("1", b"{}")], [a_job("j4")])
        assert ticked.version
        assert len(await miller.events(0, 9)) == 2
        assert len(await miller.errors(9)) == 1
        assert await miller.metrics(0)
        assert await miller.drop(Query(name=claims[0].name), limit=9) == 4
        await miller.prune(9)
    finally:
        await miller.close()


async def test_a_transaction_that_may_not_write_is_refused(
    store: PostgresStore, plain: Any
) -> None:
    async with plain.transaction(readonly=True):
        with pytest.raises(ConfigError, match="read-only") as refused:
            await store.add_with(plain, [a_job()])
        assert refused.value.field == "tx"


# ------------------------------------------------------------------ connections and schemas


@pytest.mark.blocks_loop
async def test_a_closed_or_lost_connection_is_told(
    store: PostgresStore, plain: Any, other: Any, address: Address
) -> None:
    sync = psycopg.connect(dsn(address))
    pid = sync.execute("SELECT pg_backend_pid()").fetchone()
    transaction = plain.transaction()
    await transaction.start()
    pids = [plain.get_server_pid(), pid[0] if pid else 0]
    for each in pids:
        await other.fetchval("SELECT pg_terminate_backend($1, 30000)", each)
    for _ in range(2):  # lost, then closed
        with pytest.raises(StoreUnavailable, match=r"anew|ended the connection"):
            await store.add_with(plain, [a_job()])
        with pytest.raises(StoreUnavailable, match=r"anew|ended the connection"):
            store.add_with_sync(sync, [a_job()])
    sync.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        store.add_with_sync(sync, [a_job()])
    assert await due(store) == 0


async def test_a_server_that_was_restarted_is_the_same(store: PostgresStore, plain: Any) -> None:
    async with plain.transaction():
        store._joining._place = (1, 1)
        await store.add_with(plain, [a_job()])
    assert await due(store) == 1


async def test_a_connection_is_looked_at_once(store: PostgresStore, plain: Any) -> None:
    asked: list[str] = []
    plain.add_query_logger(lambda record: asked.append(record.query))
    for n in range(3):
        async with plain.transaction():
            await store.add_with(plain, [a_job(f"j{n}")])
    ours = [query for query in asked if "pg_postmaster" in query or "join_" in query]
    assert ["join_" in query for query in ours] == [False, True, True, True]


@pytest.fixture
async def fresh(address: Address, plain: Any) -> AsyncIterator[Address]:
    """A schema that is not there yet, whose name is hard to write."""
    schema = "Tx \"%s\" 100% 'x' jobmill.y"
    yield msgspec.structs.replace(address, schema=schema)
    await plain.execute(f"DROP SCHEMA IF EXISTS {quoted(schema)} CASCADE")


@pytest.mark.blocks_loop
async def test_the_schema_is_made_at_first_use(fresh: Address) -> None:
    store = PostgresStore(fresh)
    with psycopg.connect(dsn(fresh)) as sync:
        assert store.add_with_sync(sync, [a_job("j1")]) == [Added("added", "j1")]
    async with await psycopg.AsyncConnection.connect(dsn(fresh)) as connection:
        assert await store.add_with(connection, [a_job("j2")]) == [Added("added", "j2")]
    await store.open()
    assert await due(store) == 2
    await store.close()


async def test_a_schema_of_another_release_is_told(fresh: Address, plain: Any) -> None:
    made = PostgresStore(fresh)
    await made.open()
    await made.close()
    await plain.execute(f"DELETE FROM {quoted(fresh.schema)}.programs")
    async with plain.transaction():
        with pytest.raises(SchemaMismatch, match="jobmill migrate up"):
            await PostgresStore(fresh).add_with(plain, [a_job()])
        assert await plain.fetchval("SELECT 1") == 1  # it goes on
    assert DIGEST
