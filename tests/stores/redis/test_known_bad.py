"""The contract catches every fault that is planted in the scripts."""

from __future__ import annotations

import asyncio
import time

import pytest

from jobmill.clock import Clock
from jobmill.store import Store
from jobmill.stores.redis import Address, RedisStore
from jobmill.stores.redis.keys import tag
from jobmill.stores.redis.scripts import SCRIPTS
from jobmill.testing.contract import StoreContract, waiting
from jobmill.testing.contract.case import StillClock, a_want
from tests.servers import by_another, emptied
from tests.stores.catching import fails
from tests.stores.redis.known_bad import FAULTS, Fault

pytestmark = [pytest.mark.store("redis")]


class Suite(StoreContract):
    """The contract, and what a server can do to a store."""

    def __init__(self, address: Address) -> None:
        self.address = address

    async def open_store(self, clock: Clock) -> Store:
        store = RedisStore(await asyncio.to_thread(emptied, self.address))
        await store.open()
        return store

    async def test_no_version_comes_again_where_the_server_lost_all(self) -> None:
        store = await self.open_store(StillClock())
        first = await store.write("s", "k", b"1")
        await asyncio.to_thread(emptied, self.address)
        second = await store.write("s", "k", b"1")
        await store.close()
        assert first is not None
        assert second is not None
        assert second > first

    async def test_the_time_does_not_go_back_with_the_server(self) -> None:
        store = await self.open_store(StillClock())
        told = time.time() + 3_600.0
        with by_another(self.address) as server:
            server.hset(f"{tag(store.queue)}:meta", "clock", told)
        times = [(await store.claim(a_want())).now, (await store.counts()).now]
        await store.close()
        assert min(times) >= told


class ByClientClocks(Suite):
    """Whoever asks says what time it is."""

    async def open_store(self, clock: Clock) -> Store:
        class Client(RedisStore):
            def _instant(self, now: float | None) -> float:
                return clock.wall() if now is None else now

        store = Client(await asyncio.to_thread(emptied, self.address))
        await store.open()
        return store


@pytest.fixture
def suite(redis_address: Address) -> Suite:
    return Suite(redis_address)


@pytest.mark.parametrize("fault", FAULTS, ids=str)
async def test_a_planted_fault_is_caught(
    fault: Fault, suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "_SOON", 0.2)  # what is good may take longer
    for name, script in fault.scripts().items():
        monkeypatch.setitem(SCRIPTS, name, script)
    assert fault.by
    for name in fault.by:
        assert await fails(suite, name), f"{name} did not catch a store that {fault}"


async def test_a_store_by_client_clocks_is_caught(redis_address: Address) -> None:
    assert await fails(ByClientClocks(redis_address), "test_the_store_keeps_the_time_of_leases")


async def test_what_the_faults_are_planted_in_is_good(suite: Suite) -> None:
    for name in sorted({name for fault in FAULTS for name in fault.by}):
        assert not await fails(suite, name), name
