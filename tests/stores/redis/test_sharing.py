"""All handles of one address, on one loop, share their lines to the server."""

from __future__ import annotations

import asyncio

import pytest

from jobmill.stores.redis import Address, RedisStore
from jobmill.stores.redis.connection import CONNECTIONS
from jobmill.testing.contract.case import a_want, some_jobs
from tests.servers import by_another, emptied

pytestmark = pytest.mark.store("redis")

QUEUES = 50


async def test_fifty_queues_share_a_line(redis_address: Address) -> None:
    address = await asyncio.to_thread(emptied, redis_address)
    first = RedisStore(address, "q0")
    stores = [first, *(first.handle(f"q{number}") for number in range(1, QUEUES))]
    before = await asyncio.to_thread(clients, address)
    await asyncio.gather(*(store.open() for store in stores))
    await asyncio.gather(*(store.add(some_jobs(3)) for store in stores))
    claimed = await asyncio.gather(*(store.claim(a_want("t")) for store in stores))
    assert [len(each.claims) for each in claimed] == [3] * QUEUES
    assert await asyncio.to_thread(clients, address) == before + 1
    under_way = [asyncio.create_task(first.counts()) for _ in range(20)]
    await asyncio.sleep(0)
    await first.close()
    assert len(await asyncio.gather(*under_way)) == 20
    # The others go on, and the last one ends the line.
    assert [each.status for each in await stores[1].add(some_jobs(4)[3:])] == ["added"]
    await asyncio.gather(*(store.close() for store in stores))
    assert CONNECTIONS.loops() == set()
    await first.open()
    assert sum((await first.counts()).states.values()) == 3
    await first.close()


async def test_a_loop_that_ends_leaves_nothing_to_the_next(redis_address: Address) -> None:
    async def elsewhere() -> None:
        await RedisStore(redis_address).open()  # and does not close it

    await asyncio.to_thread(asyncio.run, elsewhere())
    await asyncio.to_thread(asyncio.run, elsewhere())
    assert CONNECTIONS.loops() == set()


def clients(address: Address) -> int:
    """How many the server has, without the one that asks."""
    with by_another(address) as connection:
        return len(connection.client_list(_type="normal")) - 1
