"""What administrators and poolers do to connections, and what other transactions do to calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
import pytest

from jobmill import ConfigError, PostgresQueue, Queue, StoreUnavailable, job
from jobmill.registry import isolated, lookup
from jobmill.states import Move
from jobmill.stores.postgresql import Address, PostgresStore
from jobmill.stores.postgresql.driver import connect
from jobmill.stores.postgresql.provision import (
    pooler,
    pooler_binary,
    server as postgres_server,
)
from jobmill.testing.contract.case import a_job, a_want, some_jobs
from tests.servers import missing

pytestmark = pytest.mark.store("postgresql")

_DEADLOCKS = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"


@pytest.fixture(scope="module")
def own(postgres_address: Address) -> Iterator[Address]:
    """A server whose roles the test may change, while it leaves them as they were."""
    # A deadlock has to be there when it is looked for, once, by who waits.
    with postgres_server(durable=False, settings=["deadlock_timeout=3s"]) as running:
        yield running.address


@pytest.fixture
async def plain(own: Address) -> AsyncIterator[Any]:
    """The database by a connection of the test's own."""
    connection = await connect(**own.options(), ssl=False)
    yield connection
    await connection.close()


@pytest.fixture
def schema(own: Address, request: pytest.FixtureRequest) -> Address:
    """A schema for one test."""
    return msgspec.structs.replace(own, schema=request.node.originalname)


@pytest.fixture
def ran() -> Iterator[list[int]]:
    """The runs of the job that `numbers` makes."""
    with isolated(empty=False):
        runs: list[int] = []

        @job(name="troubles.number", retries=20, retry_delay=0.01)
        async def number(n: int) -> None:
            runs.append(n)

        yield runs


def queue_on(address: Address, **options: Any) -> Queue:
    return PostgresQueue(
        host=address.host,
        port=address.port,
        username=address.username,
        database=address.database,
        schema=address.schema,
        listen=address.listen,
        statement_cache_size=address.statement_cache_size,
        sslmode="disable",
        **options,
    )


async def enqueued(queue: Queue, numbers: range) -> None:
    """Enqueue, and send again what was not answered, as a caller does."""
    number: Any = lookup("troubles.number")
    for n in numbers:
        async with asyncio.timeout(40):
            while True:
                try:
                    await queue.enqueue(number.call(n), job_id=f"n{n}")
                    break
                except StoreUnavailable:
                    await asyncio.sleep(0.01)


async def all_completed(queue: Queue, count: int) -> None:
    async with asyncio.timeout(40):
        while True:
            try:
                if (await queue.stats()).completed == count:
                    return
            except StoreUnavailable:
                pass
            await asyncio.sleep(0.02)


async def end_backends(plain: Any) -> int:
    ended: int = await plain.fetchval(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
        "WHERE pid <> pg_backend_pid() AND application_name = 'jobmill'"
    )
    return ended


async def test_a_deadlock_with_another_transaction_is_run_again(
    own: Address, schema: Address, plain: Any
) -> None:
    store = PostgresStore(schema)
    await store.open()
    await store.add([a_job("j1"), a_job("j2")])
    lock = f'SELECT id FROM "{schema.schema}".jobs WHERE id = $1 FOR UPDATE'
    first = await connect(**own.options(), ssl=False)
    other = await connect(**own.options(), ssl=False)
    before = await plain.fetchval(_DEADLOCKS)
    for each in (first, other):
        await each.execute("BEGIN")
    # The store closes the circle, and finds it: it stands before the other in the line for j1.
    await other.execute("SET LOCAL deadlock_timeout = '60s'")
    await first.fetch(lock, "j1")
    await other.fetch(lock, "j2")
    moving = asyncio.create_task(
        store.move([Move(event="cancel", job_id="j1"), Move(event="cancel", job_id="j2")])
    )
    await waiting(plain, 1)
    locking = asyncio.create_task(other.fetch(lock, "j1"))
    await waiting(plain, 2)
    await first.close()
    await locking
    await other.close()
    assert [moved.status for moved in await moving] == ["applied", "applied"]
    async with asyncio.timeout(40):
        while await plain.fetchval(_DEADLOCKS) == before:
            await asyncio.sleep(0.05)
    await store.close()


async def waiting(plain: Any, count: int) -> None:
    """Return once so many wait for another transaction."""
    asked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    async with asyncio.timeout(40):
        while await plain.fetchval(asked) != count:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
async def test_the_isolation_of_a_role_is_not_that_of_the_calls(
    schema: Address, plain: Any, level: str
) -> None:
    role = f"iso_{level[0]}"
    await plain.execute(f"CREATE ROLE {role} LOGIN SUPERUSER")
    await plain.execute(f"ALTER ROLE {role} SET default_transaction_isolation = '{level}'")
    address = msgspec.structs.replace(schema, username=role, schema=role)
    stores = [PostgresStore(address) for _ in range(4)]
    for store in stores:
        await store.open()
    await stores[0].add(some_jobs(200))

    async def take(store: PostgresStore, name: str) -> list[str]:
        got: list[str] = []
        for turn in range(20):
            claims = (await store.claim(a_want(f"{name}.{turn}", limit=5))).claims
            got += [each.id for each in claims]
            await store.move(
                [Move(event="succeed", job_id=each.id, token=each.token) for each in claims]
            )
        return got

    taken = await asyncio.gather(*[take(store, f"w{n}") for n, store in enumerate(stores)])
    all_taken = [each for some in taken for each in some]
    assert len(all_taken) == len(set(all_taken)) == 200
    assert (await stores[0].counts()).states == {"completed": 200}
    for store in stores:
        await store.close()
    # Behind a pooler the setting would be left to others: there it is refused.
    with pytest.raises(ConfigError, match="ALTER ROLE"):
        await PostgresStore(msgspec.structs.replace(address, statement_cache_size=0)).open()


async def test_a_worker_outlives_terminated_backends(
    schema: Address, plain: Any, ran: list[int]
) -> None:
    queue = queue_on(schema, poll_interval=0.2, lease=2.0)
    queue.process()
    ended = 0

    async def ends() -> None:
        nonlocal ended
        async with asyncio.timeout(40):
            while ended <= 15:
                ended += await end_backends(plain)
                await asyncio.sleep(0.05)

    await asyncio.gather(enqueued(queue, range(150)), ends())
    assert ended > 15
    await all_completed(queue, 150)
    assert set(ran) == set(range(150))
    await queue.shutdown()


async def test_timeouts_set_on_a_role_are_lived_with(
    schema: Address, plain: Any, ran: list[int]
) -> None:
    """Connections are ended as soon as they are idle; calls are not."""
    await plain.execute("CREATE ROLE hasty LOGIN SUPERUSER")
    for setting in (
        *("statement_timeout = '3s'", "idle_in_transaction_session_timeout = '100ms'"),
        *("idle_session_timeout = '150ms'", "lock_timeout = '1s'"),
    ):
        await plain.execute(f"ALTER ROLE hasty SET {setting}")
    queue = queue_on(
        msgspec.structs.replace(schema, username="hasty"), poll_interval=0.3, lease=3.0
    )
    queue.process()
    for n in range(2):
        await enqueued(queue, range(n, n + 1))
        await all_completed(queue, n + 1)
        seen = await plain.fetch("SELECT pid FROM pg_stat_activity WHERE usename = 'hasty'")
        async with asyncio.timeout(40):
            while await plain.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY ($1::int[])",
                [pid for (pid,) in seen],
            ):
                await asyncio.sleep(0.02)
    assert set(ran) == {0, 1}
    await queue.shutdown()


async def test_a_job_is_found_though_nobody_was_told(schema: Address, ran: list[int]) -> None:
    """As where a NOTIFY is lost."""
    queue = queue_on(schema, poll_interval=0.3)
    queue.process()
    await enqueued(queue, range(1))
    await all_completed(queue, 1)
    other = PostgresStore(schema)
    await other.open()
    await other.add([a_job("n1", name="troubles.number", payload=b'{"n":1}')], wake=False)
    await all_completed(queue, 2)
    assert ran == [0, 1]
    await other.close()
    await queue.shutdown()


@pytest.fixture
def pooled(schema: Address) -> Iterator[Address]:
    if pooler_binary() is None:
        missing("pgbouncer is not installed; apt-get install pgbouncer")
    with pooler(schema) as address:
        yield address


async def test_a_worker_drains_through_pgbouncer_in_transaction_mode(
    pooled: Address, ran: list[int]
) -> None:
    queue = queue_on(pooled, poll_interval=0.1, concurrency=20)
    queue.process()
    await asyncio.gather(*[enqueued(queue, range(n, n + 20)) for n in range(0, 200, 20)])
    await all_completed(queue, 200)
    assert sorted(ran) == list(range(200))
    await queue.shutdown()


async def test_a_setting_that_a_pooler_needs_is_told_where_it_is_missing(pooled: Address) -> None:
    careless = PostgresStore(msgspec.structs.replace(pooled, statement_cache_size=100))
    with pytest.raises(ConfigError, match="statement_cache_size=0"):
        await until_refused(careless)
    await careless.close()


async def until_refused(store: PostgresStore) -> None:
    """Calls from several connections, until two of them meet on one of the pooler's."""
    async with asyncio.timeout(40):
        await store.open()
        while True:
            await asyncio.gather(*[store.add([each]) for each in some_jobs(8)])
