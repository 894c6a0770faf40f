"""What is PostgreSQL's own: addresses, errors, durability, the clock, hints, lost connections."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jobmill import ConfigError, PostgresQueue, StoreError, StoreUnavailable, create_queue
from jobmill.errors import SchemaMismatch
from jobmill.states import Move
from jobmill.store import JOBS, Added, Features, Query, Want, topic_of_job
from jobmill.stores.postgresql import Address, PostgresStore
from jobmill.stores.postgresql.driver import PostgresError, connect
from jobmill.stores.postgresql.faults import outward
from jobmill.stores.postgresql.programs import DIGEST, call as calling
from jobmill.stores.postgresql.provision import Server, server as postgres_server
from jobmill.stores.postgresql.wire import told_moves
from jobmill.testing.contract.case import T0, a_job, a_want, claim, ids, move, some_jobs
from jobmill.urls import StoreURL
from tests.servers import cleared
from tests.waiting import INTERVAL, PATIENCE

SECRET = "hunter2"
GOOD = {
    "postgresql://localhost": Address(),
    "postgres://": Address(),
    f"postgresql://u:{SECRET}@h:1/app": Address(
        host="h", port=1, database="app", username="u", password=SECRET
    ),
    "postgres://u%40:p%2F@h/a%20b": Address(host="h", database="a b", username="u@", password="p/"),
    "postgresql://[::1]:7/": Address(host="::1", port=7),
    "postgresql:///app?host=/run/postgresql": Address(host="/run/postgresql", database="app"),
    "postgresql://h/?schema=mill&listen=false&statement_cache_size=0": Address(
        host="h", schema="mill", listen=False, statement_cache_size=0
    ),
    "postgresql://h/?sslmode=verify-full&sslrootcert=ca.pem&auto_migrate=true": Address(
        host="h", sslmode="verify-full", sslrootcert="ca.pem", auto_migrate=True
    ),
}
BAD = [
    *("postgresql://h:0", "postgresql://h:99999", "postgresql://h:a/", "postgresql://h?what=1"),
    *("postgresql://h?listen=1", "postgresql://h?sslmode=maybe", "postgresql://h?schema="),
    *("postgresql://h?statement_cache_size=-1", "postgresql://h?host=i", "postgresql+x://h"),
    f"postgresql://h?schema={'x' * 64}",
]


@pytest.mark.parametrize("url", GOOD)
def test_a_url_names_a_database(url: str) -> None:
    address = Address.from_url(StoreURL.parse(url))
    assert address == GOOD[url]
    queue = create_queue(url)
    for shown in (repr(address), str(address), repr(queue.store), repr(queue)):
        assert SECRET not in shown


@pytest.mark.parametrize("host", ["h", "::1", "/run/postgresql"])
@pytest.mark.parametrize("schema", ["jobmill", "mill", "a&b=c? %/#+é"])
def test_its_place_says_which_data_are_meant(host: str, schema: str) -> None:
    address = Address(host=host, port=7, database="app", schema=schema)
    assert Address.from_url(StoreURL.parse(PostgresStore(address).place)) == address


@pytest.mark.parametrize("url", BAD)
def test_a_url_that_will_not_do_is_refused(url: str) -> None:
    with pytest.raises(ConfigError) as refused:
        create_queue(url.replace("://h", f"://u:{SECRET}@h"))
    assert SECRET not in str(refused.value)
    with pytest.raises(ConfigError):
        create_queue(url)


def test_a_database_by_its_arguments() -> None:
    queue = PostgresQueue(
        host="h", port=1, username="u", password=SECRET, database="d", queue_name="q", schema="s"
    )
    assert isinstance(queue.store, PostgresStore)
    assert queue.store.address == Address(
        host="h", port=1, username="u", password=SECRET, database="d", schema="s"
    )
    assert queue.store.queue == "q"
    both = PostgresQueue("postgresql://h/d", listen=False, auto_migrate=True).store
    assert isinstance(both, PostgresStore)
    assert both.address == Address(host="h", database="d", listen=False, auto_migrate=True)
    assert Features.PUSH not in both.features
    pooled = PostgresQueue(host="h", sslmode="disable", statement_cache_size=0).store
    assert isinstance(pooled, PostgresStore)
    assert pooled.address == Address(host="h", sslmode="disable", statement_cache_size=0)
    wrong: list[dict[str, Any]] = [
        *({"port": "1"}, {"port": 0}, {"host": ""}, {"password": 3}, {"schema": ""}),
        *({"dsn": "postgresql://h", "port": 1}, {"dsn": "memory://"}, {"listen": "no"}),
        *({"sslmode": "maybe"}, {"statement_cache_size": -1}),
        {"dsn": "postgresql://h?schema=a", "schema": "b"},
    ]
    for arguments in wrong:
        with pytest.raises(ConfigError):
            PostgresQueue(**arguments)


def said(sqlstate: str) -> Exception:
    """What the driver raises for a code of the server."""
    kind: Any = PostgresError
    error: Exception = kind.new({"C": sqlstate, "M": "as the server says"})
    return error


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (said("57P01"), StoreUnavailable, "ended the connection"),
        (said("57P03"), StoreUnavailable, "not ready"),
        (said("40P01"), StoreUnavailable, "try again"),
        (said("40001"), StoreUnavailable, "try again"),
        (said("25006"), StoreUnavailable, "primary"),
        (said("26000"), ConfigError, "statement_cache_size=0"),
        (said("42P05"), ConfigError, "statement_cache_size=0"),
        (said("53100"), StoreUnavailable, "disk"),
        (said("53300"), StoreUnavailable, "too many connections"),
        (said("55P03"), StoreUnavailable, "another transaction"),
        (said("57014"), StoreUnavailable, "cancelled"),
        (said("08006"), StoreUnavailable, "cannot be reached"),
        (ConnectionRefusedError("x"), StoreUnavailable, "cannot be reached"),
        (TimeoutError("x"), StoreUnavailable, "in time"),
        (said("28P01"), ConfigError, "login"),
        (said("28000"), ConfigError, "login"),
        (said("42501"), ConfigError, "may not"),
        (said("3D000"), ConfigError, "no such database"),
        (said("42P01"), SchemaMismatch, "jobmill migrate up"),
        (said("42883"), SchemaMismatch, "jobmill migrate up"),
        (said("XX000"), StoreError, "refused"),
    ],
)
def test_errors_say_what_to_do(error: Exception, kind: type[Exception], says: str) -> None:
    told = outward(error, Address(password=SECRET))
    assert type(told) is kind
    assert says in str(told)
    assert SECRET not in str(told)


async def test_nobody_there_is_unavailable(unused_tcp_port: int) -> None:
    for sslmode in ("disable", "prefer"):
        with pytest.raises(StoreUnavailable):
            await PostgresStore(
                Address(host="127.0.0.1", port=unused_tcp_port, username="u", sslmode=sslmode)
            ).open()


@pytest.fixture
async def store(postgres_address: Address) -> AsyncIterator[PostgresStore]:
    opened = PostgresStore(await cleared(postgres_address))
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
async def plain(postgres_address: Address) -> AsyncIterator[Any]:
    """The database by a connection of the test's own."""
    connection = await connect(**postgres_address.options(), ssl=False)
    yield connection
    await connection.close()


async def end_backends(connection: Any) -> None:
    """As an administrator does: every connection but this one."""
    await connection.fetch(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE pid <> pg_backend_pid() AND application_name = 'jobmill'"
    )


@pytest.mark.store("postgresql")
async def test_a_server_without_tls_is_spoken_to_without_where_tls_is_only_preferred(
    postgres_address: Address,
) -> None:
    store = PostgresStore(msgspec.structs.replace(postgres_address, sslmode="prefer"))
    await store.open()
    await store.close()
    with pytest.raises(StoreUnavailable):
        await PostgresStore(msgspec.structs.replace(postgres_address, sslmode="require")).open()


@pytest.mark.store("postgresql")
async def test_ended_backends_are_replaced(store: PostgresStore, plain: Any) -> None:
    await store.add([a_job()])
    await end_backends(plain)
    try:
        await store.add([a_job("j2")])
    except StoreUnavailable:
        await store.add([a_job("j2")])
    assert (await store.counts()).states == {"pending": 2}


@pytest.mark.store("postgresql")
async def test_a_listener_that_lost_its_connection_comes_back(
    store: PostgresStore, plain: Any
) -> None:
    await store.wait([JOBS], 0.0)
    await end_backends(plain)
    async with asyncio.timeout(PATIENCE):
        await store.wait([JOBS], 60.0)  # told, because something may have been missed
        try:
            await store.add([a_job()])
        except StoreUnavailable:
            await store.add([a_job("j2")])
        await store.wait([JOBS], 60.0)


@pytest.mark.store("postgresql")
async def test_what_runs_is_finished_though_its_caller_is_cancelled(store: PostgresStore) -> None:
    adding = asyncio.create_task(store.add(some_jobs(500)))
    await asyncio.sleep(0)
    adding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await adding
    await store.close()
    other = store.handle()
    await other.open()
    try:
        assert (await other.counts()).states == {"pending": 500}
    finally:
        await other.close()


@pytest.mark.store("postgresql")
async def test_many_calls_at_once_leave_no_transaction_open(
    store: PostgresStore, plain: Any
) -> None:
    calls = [asyncio.create_task(store.add([job])) for job in some_jobs(100)]
    await asyncio.sleep(0.01)
    for call in calls[::2]:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    assert (await store.counts()).states == {"pending": 100}
    async with asyncio.timeout(30):  # a wake-up may be under way
        while await plain.fetchval(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE application_name = 'jobmill' AND state <> 'idle'"
        ):
            await asyncio.sleep(0.01)


@pytest.mark.store("postgresql")
async def test_it_works_without_prepared_statements_and_without_listening(
    postgres_address: Address,
) -> None:
    address = msgspec.structs.replace(postgres_address, statement_cache_size=0, listen=False)
    store = PostgresStore(await cleared(address))
    await store.open()
    try:
        await store.add(some_jobs(3), now=T0)
        assert ids((await claim(store)).claims) == ["j1", "j2", "j3"]
        assert (await move(store, "succeed", "j2", "t1")).status == "applied"
        await store.wait([JOBS, topic_of_job("j1")], 0.01)
        assert (await store.counts(now=T0)).states == {"processing": 2, "completed": 1}
    finally:
        await store.close()


@pytest.mark.store("postgresql")
async def test_only_what_may_be_lost_does_not_wait_for_the_disk(
    store: PostgresStore, plain: Any
) -> None:
    """A claim alone and a renewal; not an add, nor moves, wherever they ride."""
    moves = (None, ["succeed"], ["j1"], ["t1"], *(None,) * 12)
    calls: dict[str, tuple[str, tuple[Any, ...]]] = {
        "claim": ("off", ("default", None, "w", "t1", 1, 30.0, None, "idle", False, *(None,) * 16)),
        "settling claim": (
            "on",
            ("default", None, "w", "t2", 1, 30.0, None, "idle", False, *moves),
        ),
        "move": ("on", ("default", None, *moves)),
        "renew": ("off", ("default", None, 30.0, ["j1"], ["t1"], *(None,) * 5)),
        "add": (
            "on",
            (
                *("default", None, False, ["j9"], ["a"], [b"1"], [b"{}"], [0]),
                *(*(None,) * 4, [1.0], [1.0]),
            ),
        ),
    }
    for name, (wanted, arguments) in calls.items():
        function = name.rpartition(" ")[2]
        marks = ", ".join(f"${n}" for n in range(1, len(arguments) + 1))
        transaction = plain.transaction()
        await transaction.start()
        await plain.fetch(f"SELECT * FROM jobmill.{function}_{DIGEST}({marks})", *arguments)
        assert await plain.fetchval("SHOW synchronous_commit") == wanted, name
        await transaction.rollback()


@pytest.mark.store("postgresql")
async def test_time_does_not_go_back_with_the_servers_clock(
    store: PostgresStore, plain: Any
) -> None:
    """As after the clock was set back by an hour: what was told then stands in the table."""
    before = (await store.claim(a_want())).now
    assert abs(before - time.time()) < 60
    try:
        await plain.execute("UPDATE jobmill.clock SET at = at + 3600")
        told = [(await store.claim(a_want(f"t{n}"))).now for n in range(9)]
        assert told == sorted(told)
        assert told[0] >= before + 3_599
        assert told[-1] < before + 3_700
        assert (await store.counts()).now >= told[-1]
    finally:
        await plain.execute("UPDATE jobmill.clock SET at = 0, wall = 0")


@pytest.mark.store("postgresql")
async def test_a_lost_race_is_run_again(store: PostgresStore) -> None:
    """Revives of one key against adds of it, from two handles at once: one holds it."""
    other = store.handle()
    await other.open()
    try:
        for turn in range(20):
            first, second = f"a{turn}", f"b{turn}"
            await store.add([a_job(first, unique_key="k")], now=T0)
            await move(store, "cancel", first)
            moved, added = await asyncio.gather(
                store.move([Move(event="revive", job_id=first)], now=T0),
                other.add([a_job(second, unique_key="k")], now=T0),
            )
            won = [moved[0].status == "applied", added == [Added("added", second)]]
            assert sorted(won) == [False, True]
            await store.drop(Query(), limit=9, now=T0)
    finally:
        await other.close()


@pytest.mark.store("postgresql")
async def test_who_loses_a_race_leaves_the_winner_time(store: PostgresStore) -> None:
    """On a busy machine it is not there at once to take what the loser let go of."""
    winner = asyncio.create_task(asyncio.sleep(0.05))

    async def ask(_connection: Any) -> str:
        if not winner.done():
            raise said("40P01")
        return "done"

    assert store._connection is not None
    assert await store._connection._again(ask, looks=False) == "done"


@pytest.mark.store("postgresql")
async def test_no_number_is_given_twice_where_the_last_writes_are_gone(
    store: PostgresStore, plain: Any
) -> None:
    """As on a standby that was promoted and had not received them."""

    async def numbers(job_id: str) -> list[int]:
        version = await store.write("notes", "one", job_id.encode())
        await store.add([a_job(job_id)])
        (moved,) = await store.move([Move(event="cancel", job_id=job_id)])
        assert moved.status == "applied"
        (ending,) = await store.events(None, 1)
        assert version is not None
        return [version, ending.seq]

    before = await numbers("first")
    await plain.execute(
        "TRUNCATE jobmill.numbers, jobmill.event_numbers, jobmill.docs, jobmill.events"
    )
    after = await numbers("second")
    assert all(new > old for new, old in zip(after, before, strict=True))


@pytest.mark.store("postgresql")
async def test_a_client_that_takes_no_answer_keeps_what_it_claimed_from_nobody(
    store: PostgresStore, plain: Any, postgres_address: Address
) -> None:
    """As one that is frozen in the middle of a claim, before the claim is committed."""
    for job in some_jobs(20):
        await store.add([msgspec.structs.replace(job, payload=b'"' + b"x" * 1_000_000 + b'"')])
    deaf = await connect(**postgres_address.options(), ssl=False)
    words = ("default", None, "deaf", "deaf.1", 20, 1.0, None, "idle", False, *told_moves(()))
    statement = await deaf.prepare(calling(postgres_address.schema, "claim", len(words)))
    asked = asyncio.create_task(statement.fetch(*words))
    transport = deaf._transport
    transport.pause_reading()
    transport.resume_reading = lambda: None
    stuck = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'ClientWrite'"
    async with asyncio.timeout(PATIENCE):
        while not await plain.fetchval(stuck, deaf.get_server_pid()):
            await asyncio.sleep(INTERVAL)
    tokens = count(1)
    handed_out: set[str] = set()
    held_back = False
    try:
        async with asyncio.timeout(40):
            while len(handed_out) < 20:
                want = Want(worker="other", token=f"other.{next(tokens)}", limit=1, lease=60.0)
                claims = (await store.claim(want)).claims
                handed_out |= {each.id for each in claims}
                held_back |= not claims
                await asyncio.sleep(0.01)
    finally:
        deaf.terminate()
        await asyncio.wait([asked])
    assert held_back, "the claim was whole, so that the fault was none"


# ------------------------------------------------------------------ a server of one's own


@pytest.fixture(scope="module")
def own(postgres_address: Address) -> Iterator[Server]:
    """A server that the test may spoil, while it leaves it as it was."""
    with postgres_server(durable=False) as running:
        yield running


async def on_own(own: Server) -> Any:
    return await connect(**own.address.options(), ssl=False)


def of(own: Server, **fields: Any) -> Address:
    return msgspec.structs.replace(own.address, **fields)


def lock_out(hba: Path) -> None:
    """Ask the role "locked" for its password."""
    hba.write_text("host all locked 127.0.0.1/32 scram-sha-256\n" + hba.read_text())


async def open_until_refused(address: Address) -> None:
    """The server reads its file anew in a moment: until then a wrong password does."""
    while True:
        store = PostgresStore(address)
        await store.open()
        await store.close()
        await asyncio.sleep(0.01)


@pytest.mark.store("postgresql")
async def test_logins_that_will_not_do_are_told_without_the_password(own: Server) -> None:
    plain = await on_own(own)
    await asyncio.to_thread(lock_out, own.folder / "pg_hba.conf")
    await plain.execute(f"CREATE ROLE locked LOGIN PASSWORD '{SECRET}'")
    await plain.execute("CREATE ROLE bare LOGIN")
    await plain.fetch("SELECT pg_reload_conf()")
    try:
        for address, says in (
            (of(own, username="locked", password=f"{SECRET}!"), "login"),
            (of(own, username="locked"), "login"),
            (of(own, database="nowhere"), "no such database"),
            (of(own, username="bare", schema="fresh"), "may not"),
        ):
            async with asyncio.timeout(20):
                with pytest.raises(ConfigError, match=says) as refused:
                    await open_until_refused(address)
            assert SECRET not in str(refused.value)
    finally:
        await plain.close()


@pytest.mark.store("postgresql")
async def test_a_read_only_database_is_unavailable(own: Server) -> None:
    store = PostgresStore(of(own, schema="readonly"))
    await store.open()
    plain = await on_own(own)
    try:
        await plain.execute("ALTER DATABASE postgres SET default_transaction_read_only = on")
        await end_backends(plain)
        async with asyncio.timeout(20):
            while True:
                try:
                    await store.add([a_job()])
                except StoreUnavailable as error:
                    if "primary" in str(error):
                        break
    finally:
        await plain.execute("SET default_transaction_read_only = off")
        await plain.execute("ALTER DATABASE postgres RESET default_transaction_read_only")
        await plain.close()
        await store.close()


@pytest.mark.store("postgresql")
async def test_a_frozen_server_holds_up_nobody_for_long(own: Server) -> None:
    store = PostgresStore(of(own, schema="frozen"))
    await store.open()
    await store.add([a_job()])
    await asyncio.to_thread(own.freeze)
    try:
        began = time.monotonic()
        calls = [store.add([job]) for job in some_jobs(12)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(answer) for answer in answers} == {StoreUnavailable}
        assert time.monotonic() - began < 20
    finally:
        await asyncio.to_thread(own.thaw)
    async with asyncio.timeout(20):
        while True:
            try:
                await store.add(some_jobs(12))
                break
            except StoreUnavailable:
                await asyncio.sleep(0.05)
    assert (await store.counts()).states == {"pending": 12}
    await store.close()


@pytest.mark.store("postgresql")
async def test_a_transaction_on_another_server_is_refused(
    own: Server, store: PostgresStore
) -> None:
    """Though database and schema have the same names there."""
    theirs = PostgresStore(of(own))
    await theirs.open()
    plain = await on_own(own)
    try:
        async with plain.transaction():
            for _ in range(2):
                with pytest.raises(ConfigError, match="does not lead to the database") as refused:
                    await store.add_with(plain, [a_job()])
                assert refused.value.field == "tx"
            assert (await theirs.add_with(plain, [a_job()]))[0].status == "added"
        assert (await theirs.counts()).states == {"pending": 1}
    finally:
        await plain.close()
        await theirs.close()
    assert (await store.counts()).states == {}
