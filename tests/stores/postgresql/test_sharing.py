"""All handles of one address, on one loop, share a few connections; each is as if alone."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import pytest

from jobmill.store import JOBS, Query
from jobmill.stores.postgresql import Address, PostgresStore, pool
from jobmill.testing.contract.case import a_want, some_jobs
from tests.callers import words
from tests.servers import cleared, own_postgres
from tests.waiting import INTERVAL, PATIENCE, eventually

pytestmark = pytest.mark.store("postgresql")

QUEUES = 200
_OURS = "FROM pg_stat_activity WHERE application_name = 'jobmill'"


@pytest.fixture(scope="module")
def narrow() -> Iterator[Address]:
    """A server that takes no more connections than PostgreSQL does by default."""
    with own_postgres("max_connections=100") as server:
        yield server.address


@pytest.fixture
async def address(postgres_address: Address) -> Address:
    return await cleared(postgres_address)


@pytest.fixture
async def plain(address: Address) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(**words(address))
    yield connection
    await connection.close()


@pytest.fixture
async def pair(address: Address) -> AsyncIterator[tuple[PostgresStore, PostgresStore]]:
    one = PostgresStore(address, "one")
    two = one.handle("two")
    await one.open()
    await two.open()
    yield one, two
    await one.close()
    await two.close()


async def ours(plain: Any) -> int:
    """How many connections of jobmill's the server has."""
    number: int = await plain.fetchval(f"SELECT count(*) {_OURS}")
    return number


async def come_down_to(number: int, plain: Any) -> None:
    """Return once the server has no more of them: it hears of an end a little later."""
    async with asyncio.timeout(PATIENCE):
        while await ours(plain) > number:
            await asyncio.sleep(INTERVAL)


async def test_two_hundred_queues_need_no_more_connections_than_a_pool(narrow: Address) -> None:
    plain = await asyncpg.connect(**words(narrow))
    first = PostgresStore(narrow, "q0")
    stores = [first, *(first.handle(f"q{number}") for number in range(1, QUEUES))]
    async with AsyncExitStack() as stack:
        stack.push_async_callback(plain.close)
        for store in stores:
            stack.push_async_callback(store.close)
        await asyncio.gather(*(store.open() for store in stores))
        # All at once: each listens, adds, looks and claims.
        await asyncio.gather(*(store.wait([JOBS], 0.0) for store in stores))
        waits = [asyncio.create_task(store.wait([JOBS], 60.0)) for store in stores]
        await asyncio.gather(*(store.add(some_jobs(3)) for store in stores))
        counted = await asyncio.gather(*(store.counts() for store in stores))
        found = await asyncio.gather(*(store.find(Query(), limit=5) for store in stores))
        claimed = await asyncio.gather(
            *(store.claim(a_want(f"t{number}")) for number, store in enumerate(stores))
        )
        await asyncio.gather(*waits)
        assert [dict(each.by_name) for each in counted] == [dict(counted[0].by_name)] * QUEUES
        assert [len(page.records) for page in found] == [3] * QUEUES
        assert [len(each.claims) for each in claimed] == [3] * QUEUES
        assert await ours(plain) <= pool.MOST + 1
        # Each hears what is told to its own queue, by the one connection that listens.
        for store in stores:
            await store.wait([JOBS], 0.0)  # what was told before
        waits = [asyncio.create_task(store.wait([JOBS], 60.0)) for store in stores]
        await asyncio.sleep(0)
        await stores[150].add(some_jobs(4)[3:])
        await waits[150]
        assert sum(task.done() for task in waits) == 1
        for task in waits:
            task.cancel()
        await asyncio.gather(*waits, return_exceptions=True)


async def test_a_queue_that_closes_leaves_the_others_theirs(
    pair: tuple[PostgresStore, PostgresStore], plain: Any
) -> None:
    one, two = pair
    await asyncio.gather(*(each.wait([JOBS], 0.0) for each in pair))
    waits = [asyncio.create_task(each.wait([JOBS], 60.0)) for each in pair]
    await asyncio.gather(*(each.add(some_jobs(1)) for each in pair))
    await asyncio.gather(*waits)
    under_way = asyncio.create_task(one.add(some_jobs(3)[1:]))
    await asyncio.sleep(0)
    await one.close()
    assert under_way.done()  # what was asked before is done
    assert [each.status for each in await two.add(some_jobs(2)[1:])] == ["added"]
    waiting = asyncio.create_task(two.wait([JOBS], 60.0))
    await two.add(some_jobs(3)[2:])
    await waiting
    assert await ours(plain)
    await two.close()
    await come_down_to(0, plain)
    await one.open()
    assert len((await one.claim(a_want("t", limit=9))).claims) == 3


async def test_connections_that_were_cut_are_replaced_for_all(
    pair: tuple[PostgresStore, PostgresStore], plain: Any
) -> None:
    for each in pair:
        await each.wait([JOBS], 0.0)
        waiting = asyncio.create_task(each.wait([JOBS], 60.0))
        await each.add(some_jobs(1))
        await waiting
    waits = [asyncio.create_task(each.wait([JOBS], 60.0)) for each in pair]
    await asyncio.sleep(0)
    await plain.execute(f"SELECT pg_terminate_backend(pid) {_OURS}")
    await eventually(lambda: all(each.is_closed() for each in pool_of(pair[0])._all))
    # Whoever waited is told, because something may have been missed, and hears again.
    await asyncio.gather(*waits)
    for each in pair:
        assert len((await each.claim(a_want(f"of {each.queue}"))).claims) == 1
        await each.wait([JOBS], 0.0)
        waiting = asyncio.create_task(each.wait([JOBS], 60.0))
        await each.add(some_jobs(3)[1:])
        await waiting
    assert await ours(plain) <= pool.MOST + 1


async def test_work_waits_neither_behind_another_queue_nor_behind_searches(
    pair: tuple[PostgresStore, PostgresStore], plain: Any
) -> None:
    """One queue asks what takes long, five times at once; searches of three more do so too."""
    one, two = pair
    more = [one.handle(f"more{number}") for number in range(3)]
    async with AsyncExitStack() as stack:
        for store in more:
            await store.open()
            stack.push_async_callback(store.close)
        await two.add(some_jobs(5))
        assert one._connection is not None
        # So long as this test holds the lock.
        await plain.execute("SELECT pg_advisory_lock(1)")
        long = "SELECT pg_advisory_lock_shared(1), pg_advisory_unlock_shared(1)"
        slow = [asyncio.create_task(one._connection.fetch(long)) for _ in range(5)]
        for store in more:
            assert store._connection is not None
            ask = store._connection.fetch
            slow += [asyncio.create_task(ask(long, looks=True)) for _ in range(3)]
        await asyncio.sleep(0)
        for number in range(5):
            claimed = await two.claim(a_want(f"t{number}", limit=1))
            assert len(claimed.claims) == 1
        assert not any(task.done() for task in slow)
        await plain.execute("SELECT pg_advisory_unlock(1)")
        await asyncio.gather(*slow)


async def test_each_loop_has_connections_of_its_own(
    pair: tuple[PostgresStore, PostgresStore], plain: Any
) -> None:
    one, _ = pair

    async def elsewhere() -> None:
        store = one.handle()
        await store.open()
        assert pool_of(store) is not pool_of(one)
        await store.add(some_jobs(1))  # and does not close it

    await asyncio.to_thread(asyncio.run, elsewhere())
    assert pool.POOLS.loops() == {asyncio.get_running_loop()}
    assert [each.status for each in await one.add(some_jobs(2))] == ["same", "added"]
    await come_down_to(len(pool_of(one)._all), plain)


FORK = """
import asyncio, os, sys
from jobmill import PostgresQueue

address = dict(host=sys.argv[1], port=int(sys.argv[2]), username=sys.argv[3])
async def parent():
    first, second = (PostgresQueue(name=name, **address) for name in ("one", "two"))
    for queue in (first, second):
        await queue.stats()
    child = os.fork()
    if not child:
        asyncio._set_running_loop(None)
        def work():
            async def ask():
                async with PostgresQueue(name="one", **address) as queue:
                    return (await queue.stats()).pending
            return asyncio.run(ask())
        try:
            os._exit(0 if work() == 0 and work() == 0 else 3)
        except BaseException:
            os._exit(4)
    ended = await asyncio.to_thread(os.waitpid, child, 0)
    assert ended[1] == 0, ended
    # The parent's connections are as they were.
    assert (await first.stats()).pending == (await second.stats()).pending == 0
    for queue in (first, second):
        await queue.close()
asyncio.run(parent())
print("both")
"""


async def test_a_forked_child_leaves_the_connections_to_its_parent(address: Address) -> None:
    where = [address.host, str(address.port), str(address.username)]
    told = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-W", "ignore", "-c", FORK, *where],
        capture_output=True,
        check=False,
        text=True,
        timeout=50,
    )
    assert told.returncode == 0, told.stderr
    assert told.stdout.strip() == "both"


def pool_of(store: PostgresStore) -> pool.Pool:
    assert store._connection is not None
    return store._connection._pool
