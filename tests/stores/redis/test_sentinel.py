"""Under Sentinels: commands and wake-ups follow a promotion by themselves."""

from __future__ import annotations

import asyncio
import itertools

import msgspec
import pytest

from jobmill import ConfigError, StoreUnavailable
from jobmill.store import JOBS
from jobmill.stores.redis import RedisStore
from jobmill.stores.redis.provision import Watched
from jobmill.testing.contract.case import a_job, a_want
from tests.waiting import INTERVAL, PATIENCE, once_available

pytestmark = [pytest.mark.store("redis"), pytest.mark.alone]


async def woken_by(listening: RedisStore, telling: RedisStore) -> None:
    """Jobs are added until a wait, which outlasts all patience, is told of one.

    Meanwhile it asks for jobs, as a worker does.
    """
    await listening.wait([JOBS], 0.0)
    waiting = asyncio.create_task(listening.wait([JOBS], 600.0))
    numbers = itertools.count()
    async with asyncio.timeout(50):
        while not waiting.done():
            await once_available(lambda: telling.add([a_job(f"wake{next(numbers)}")]), within=40.0)
            await once_available(listening.counts)
            await asyncio.wait([waiting], timeout=0.05)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("fate", ["killed", "frozen"])
async def test_a_promotion_is_followed(sentinels: Watched, fate: str) -> None:
    address = msgspec.structs.replace(sentinels.address, wait_replicas=1)
    store, idle = RedisStore(address), RedisStore(address)
    await once_available(store.open)
    await once_available(idle.open)
    try:
        await once_available(lambda: store.add([a_job("before")]))
        await woken_by(idle, store)
        before = await asyncio.to_thread(sentinels.primary)
        if fate == "killed":
            await asyncio.to_thread(sentinels.servers[0].kill)
        else:
            sentinels.servers[0].freeze()
        with pytest.raises(StoreUnavailable):
            await store.add([a_job("during")])
        # A Sentinel that stood still for two seconds decides nothing for half a minute.
        await once_available(lambda: store.add([a_job("during")]), within=60.0)
        # The first of them may hear of it from the others.
        async with asyncio.timeout(PATIENCE):
            while await asyncio.to_thread(sentinels.primary) == before:
                await asyncio.sleep(INTERVAL)
        await woken_by(idle, store)
        claims = (await once_available(lambda: idle.claim(a_want(limit=100)))).claims
        assert {"before", "during"} <= {claim.id for claim in claims}
    finally:
        sentinels.servers[0].thaw()
        await store.close()
        await idle.close()


async def test_what_is_wrong_with_sentinels_is_told(sentinels: Watched) -> None:
    address = sentinels.address
    wrong = msgspec.structs.replace(address, sentinel_password="hunter2")
    with pytest.raises(ConfigError) as refused:
        await RedisStore(wrong).open()
    assert "hunter2" not in str(refused.value)
    with pytest.raises(StoreUnavailable, match="'other'"):
        await RedisStore(msgspec.structs.replace(address, service="other")).open()
    first = address.nodes[0]
    plain = msgspec.structs.replace(
        address, nodes=(), host=first.host, port=first.port, password=address.sentinel_password
    )
    with pytest.raises(ConfigError, match="sentinel"):
        await RedisStore(plain).open()
    # One of them is enough.
    for sentinel in sentinels.sentinels[:2]:
        await asyncio.to_thread(sentinel.kill)
    store = RedisStore(address)
    await store.open()
    await store.close()
