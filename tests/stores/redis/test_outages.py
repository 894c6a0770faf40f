"""Servers that end, freeze and come back: every call is bounded, and a store heals by itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest
import uvloop

from jobmill import StoreUnavailable
from jobmill.store import JOBS, Lease
from jobmill.stores.redis import Address, RedisStore
from jobmill.stores.redis.provision import Server, replicated
from jobmill.testing.contract.case import a_job, a_want, move, some_jobs
from tests.servers import asked
from tests.stores.redis.conftest import PATIENCE, RIGHTS, provided
from tests.stores.redis.scripted import INFO, bulk, scripted
from tests.waiting import once_available

pytestmark = pytest.mark.store("redis")

BUSY = 10.0
"""Seconds that a machine may take more, on which much else goes on."""


@pytest.fixture(scope="module")
def pair() -> Iterator[list[Server]]:
    """A primary and its replica."""
    yield from provided(replicated)


@pytest.mark.usefixtures("hasty")
async def test_every_call_on_a_frozen_server_is_bounded(private: Server) -> None:
    store = RedisStore(private.address)
    await once_available(store.open)
    await once_available(lambda: store.add([a_job("first")]))
    await store.wait([JOBS], 0.0)
    private.freeze()
    try:
        for _ in range(2):  # on the old connection, and on one that is never answered
            began = time.monotonic()
            calls = (
                *(store.add(some_jobs(5)), store.claim(a_want()), store.counts()),
                *(store.renew([Lease("first", "t")], 30.0), store.queues(), store.get(["j1"])),
            )
            for told in await asyncio.gather(*calls, return_exceptions=True):
                assert isinstance(told, StoreUnavailable)
                assert "in time" in str(told)
            assert time.monotonic() - began < PATIENCE * 3 + BUSY
        with pytest.raises(StoreUnavailable):
            await store.handle().open()
        began = time.monotonic()
        await store.close()
        assert time.monotonic() - began < PATIENCE * 3 + BUSY
    finally:
        private.thaw()
    await once_available(store.open)
    # What was sent to the frozen server may have been done when it woke.
    assert (await once_available(store.counts)).states["pending"] in {1, 6}
    await store.close()


@pytest.mark.usefixtures("hasty")
async def test_a_server_that_swallows_all_is_given_up() -> None:
    swallowing = False

    def answer(command: list[bytes]) -> bytes | None:
        if swallowing:
            return None
        return bulk(INFO) if command[0] == b"INFO" else b"*0\r\n"

    async with scripted(answer) as address:
        store = RedisStore(address)
        await store.open()
        assert await store.errors(1) == []
        swallowing = True
        with pytest.raises(StoreUnavailable, match="in time"):
            await store.errors(1)
        swallowing = False
        assert await store.errors(1) == []
        await store.close()


@pytest.mark.usefixtures("hasty")
async def test_an_answer_that_comes_bit_by_bit_is_waited_for() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65_536)
        writer.write(bulk(INFO))
        await reader.read(65_536)
        for byte in b"*0\r\n":
            await asyncio.sleep(PATIENCE / 2)
            writer.write(bytes([byte]))
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    store = RedisStore(Address(host="127.0.0.1", port=port))
    await store.open()
    assert await store.errors(1) == []
    await store.close()
    server.close()


@pytest.mark.blocks_loop
@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("policy", ["asyncio", "uvloop"])
def test_a_loop_that_is_blocked_does_not_lose_its_answers(private: Server, policy: str) -> None:
    async def blocking() -> None:
        store = RedisStore(private.address)
        await once_available(store.open)
        asking = asyncio.create_task(store.counts())
        await asyncio.sleep(0)
        time.sleep(PATIENCE * 2)  # noqa: ASYNC251  it is what the test is about
        assert (await asking).states == {}
        await store.close()

    if policy == "uvloop":
        uvloop.run(blocking())
    else:
        asyncio.run(blocking())


async def test_a_restart_costs_only_what_was_under_way(private: Server) -> None:
    """No connection is kept that the server has closed."""
    stores = [RedisStore(private.address), RedisStore(private.address)]
    for store in stores:
        await store.open()
        await store.wait([JOBS], 0.0)
    await asyncio.gather(*(stores[0].add([a_job(f"a{n}")]) for n in range(20)))
    await asyncio.to_thread(private.kill)
    for store in stores:
        with pytest.raises(StoreUnavailable):
            await store.counts()
    await asyncio.to_thread(private.start)
    # Not one call more fails, not even of many at once; what was accepted is there.
    await asyncio.gather(*(stores[0].add([a_job(f"b{n}")]) for n in range(20)))
    assert (await stores[1].counts()).states == {"pending": 40}
    # Its wake-ups are back as well.
    waiting = asyncio.create_task(stores[1].wait([JOBS], 60.0))
    while not waiting.done():
        await stores[0].write("space", "key", b"1")
        await asyncio.wait([waiting], timeout=0.02)
    for store in stores:
        await store.close()


async def test_a_connection_that_the_server_closes_is_not_noticed_by_callers(
    private: Server,
) -> None:
    store = RedisStore(private.address)
    await store.open()
    for number in range(20):
        await asked(private, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await asked(private, "PING")  # by now the loop has heard of it
        await store.add([a_job("j")])
        assert (await store.counts()).states == {"pending": 1}, number
    await store.close()


async def test_connections_do_not_pile_up(private: Server) -> None:
    store = RedisStore(private.address)
    await store.open()
    await asyncio.gather(*(store.add([a_job(f"j{n}")]) for n in range(50)))
    await store.wait([JOBS], 0.0)
    for _ in range(5):
        await asked(private, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await asked(private, "CLIENT", "KILL", "TYPE", "pubsub")
        await once_available(store.counts)
        await store.wait([JOBS], 0.5)
    clients = (await asked(private, "CLIENT", "LIST")).splitlines()
    assert len(clients) <= 3  # commands, wake-ups, and the one that asks
    await store.close()


async def test_a_store_that_nobody_closes_leaves_no_connection_behind(private: Server) -> None:
    async def careless() -> None:
        store = RedisStore(private.address)
        await store.open()
        await store.add([a_job()])
        await store.wait([JOBS], 0.0)

    await asyncio.to_thread(lambda: asyncio.run(careless()))
    before = len((await asked(private, "CLIENT", "LIST")).splitlines())
    assert before == 1


async def test_an_accepted_job_is_on_as_many_replicas_as_wanted(pair: list[Server]) -> None:
    primary, replica = pair
    rights = [*RIGHTS.split(), "+wait", "+select", "+info"]
    await asked(primary, "ACL", "SETUSER", "copier", "on", ">pw", *rights)
    address = msgspec.structs.replace(
        primary.address, wait_replicas=1, username="copier", password="pw"
    )
    store = RedisStore(address, "copied")
    await store.open()
    await asyncio.gather(*(store.add([a_job(f"j{n}")]) for n in range(20)))
    assert await asked(replica, "ZCARD", "{jobmill:copied}:ready") == 20
    schedule = await store.write("schedules", "s", b"1")
    assert schedule is not None
    await store.tick("s", schedule, b"2", [], [a_job("ticked")])
    assert await asked(replica, "EXISTS", "{jobmill:copied}:job:ticked") == 1
    await store.close()


@contextmanager
def waiting_for_copies(seconds: float) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("jobmill.stores.redis.connection.COPIES_WITHIN", seconds)
        yield


async def test_too_few_copies_are_told_and_sending_again_is_harmless(pair: list[Server]) -> None:
    primary, replica = pair
    store = RedisStore(msgspec.structs.replace(primary.address, wait_replicas=1), "few")
    await store.open()
    await store.add([a_job("first")])
    replica.freeze()
    try:
        with waiting_for_copies(0.2):
            with pytest.raises(StoreUnavailable, match="only 0 of 1 replicas"):
                await store.add([a_job("second")])
            with pytest.raises(StoreUnavailable, match="only 0 of 1 replicas"):
                await store.add([a_job("second")])  # it is there, and still on one server only
        # What keeps no promise of acceptance does not wait.
        claimed = await store.claim(a_want())
        assert [claim.id for claim in claimed.claims] == ["first", "second"]
        moved = await move(store, "succeed", "first", "t1", now=None)
        assert moved.status == "applied"
    finally:
        replica.thaw()
    (again,) = await once_available(lambda: store.add([a_job("second")]))
    assert again.status == "same"
    await store.close()
    wanting = RedisStore(msgspec.structs.replace(primary.address, wait_replicas=2), "few")
    await wanting.open()
    with waiting_for_copies(1.0), pytest.raises(StoreUnavailable, match="only 1 of 2 replicas"):
        await wanting.add([a_job("third")])
    await wanting.close()
