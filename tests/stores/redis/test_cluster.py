"""On a cluster: the whole contract, one slot for each queue, and slots that move."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import msgspec
import pytest

from jobmill import ConfigError, StoreUnavailable
from jobmill.clock import Clock
from jobmill.store import JOBS, Store, topic_of_job
from jobmill.stores.redis import Address, RedisStore
from jobmill.stores.redis.keys import QUEUES, slot_of, tag
from jobmill.stores.redis.line import Refusal
from jobmill.stores.redis.provision import Server
from jobmill.testing.contract import StoreContract
from jobmill.testing.contract.case import T0, a_job, a_want, move, some_jobs
from tests.servers import asked, by_another
from tests.stores.redis.conftest import RIGHTS
from tests.waiting import once_available

pytestmark = pytest.mark.store("redis")


def address_of(nodes: list[Server]) -> Address:
    return Address(nodes=tuple(node.place for node in nodes[:2]))


def emptied(nodes: list[Server]) -> Address:
    for node in nodes:
        with by_another(node.address) as connection:
            connection.flushall()
    return address_of(nodes)


class TestContract(StoreContract):
    @pytest.fixture(autouse=True)
    def _on(self, nodes: list[Server]) -> Iterator[None]:
        self._address = emptied(nodes)
        yield
        # Each key lies where the hash tag of its queue says, and is jobmill's.
        for node in nodes:
            with by_another(node.address) as connection:
                for key in map(bytes.decode, connection.keys()):
                    assert key == QUEUES or slot_of(key) == slot_of(key.partition("}")[0] + "}")

    async def open_store(self, clock: Clock) -> Store:
        store = RedisStore(self._address, clock=clock)
        await store.open()
        return store


@pytest.fixture
async def store(nodes: list[Server]) -> AsyncIterator[RedisStore]:
    store = RedisStore(emptied(nodes), "q")
    await store.open()
    yield store
    await store.close()


def test_slots_are_counted_as_the_cluster_counts_them(nodes: list[Server]) -> None:
    for key in ("", "a", "{jobmill:q}:job:1", "{}x", "a{b}c{d}", "a{b", "é", QUEUES):
        assert slot_of(key) == nodes[0].ask("CLUSTER", "KEYSLOT", key), key


async def test_the_queues_of_all_nodes_are_listed(store: RedisStore, nodes: list[Server]) -> None:
    names = [f"q{number}" for number in range(12)]
    for name in names:
        handle = store.handle(name)
        await handle.open()
        await handle.add([a_job()])
        await handle.close()
    holders = {
        node.place.port
        for node in nodes
        for name in names
        if await node_holds(node, f"{tag(name)}:meta")
    }
    assert len(holders) == 3
    assert await store.queues() == sorted(names)


async def node_holds(node: Server, key: str) -> bool:
    try:
        return bool(await asked(node, "EXISTS", key))
    except Refusal:
        return False


async def test_a_wake_up_comes_from_any_node(store: RedisStore, nodes: list[Server]) -> None:
    for number in range(6):
        waiting, telling = store.handle(f"q{number}"), store.handle(f"q{number}")
        await waiting.open()
        await telling.open()
        async with asyncio.timeout(10):
            await waiting.wait([JOBS], 0.0)
            woken = asyncio.create_task(waiting.wait([JOBS], 60.0))
            await telling.add([a_job()])
            await woken
            claims = (await telling.claim(a_want())).claims
            ended = asyncio.create_task(waiting.wait([topic_of_job("j1")], 60.0))
            await move(telling, "succeed", token=claims[0].token, now=None)
            await ended
        await waiting.close()
        await telling.close()


async def test_a_queue_whose_slot_moves_waits_and_then_goes_on_elsewhere(
    store: RedisStore, nodes: list[Server]
) -> None:
    """Half a queue must never be worked on, so nothing follows an ASK."""
    await store.add([*some_jobs(20), a_job("late", delay=1e6)])
    slot = slot_of(tag("q"))
    (source,) = [node for node in nodes if await node_holds(node, f"{tag('q')}:meta")]
    target = next(node for node in nodes if node is not source)
    ids = {node.place: await asked(node, "CLUSTER", "MYID") for node in nodes}
    await asked(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source.place])
    await asked(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target.place])
    keys = await asked(source, "CLUSTER", "GETKEYSINSLOT", slot, 1_000)
    for moved, key in enumerate(keys):
        if moved in {0, 1, len(keys) // 2}:
            for call in (
                *(store.claim(a_want()), store.add([a_job("new")]), store.counts()),
                *(store.renew([], 30.0), store.get(["late"])),
            ):
                with pytest.raises(StoreUnavailable, match="moves the slot"):
                    await call
        await asked(source, "MIGRATE", target.place.host, target.place.port, key, 0, 5_000)
    for node in (target, source, *nodes):
        await asked(node, "CLUSTER", "SETSLOT", slot, "NODE", ids[target.place])
    assert (await store.counts()).states == {"pending": 20, "delayed": 1}
    assert len((await store.claim(a_want(limit=50))).claims) == 20
    assert not await node_holds(source, f"{tag('q')}:meta")
    # A store that opens now finds its way at once, and so does a map that is out of date.
    other = store.handle()
    await other.open()
    assert (await other.counts()).states == {"processing": 20, "delayed": 1}
    await other.close()


async def test_a_node_that_is_down_holds_up_its_own_queues_only_and_comes_back(
    nodes: list[Server],
) -> None:
    for node in nodes:
        await asked(node, "CONFIG", "SET", "cluster-require-full-coverage", "no")
    names = [f"q{number}" for number in range(8)]
    stores = [RedisStore(emptied(nodes), name) for name in names]
    for each in stores:
        await each.open()
        await each.add([a_job()])
    await asyncio.to_thread(nodes[0].kill)  # the first of the address, too
    dead = [name for name in names if slot_of(tag(name)) < 16_384 // 3]
    assert 0 < len(dead) < len(names)
    for each in stores:
        if each.queue in dead:
            with pytest.raises(StoreUnavailable):
                await each.counts()
        else:
            assert (await each.counts()).states == {"pending": 1}
    await asyncio.to_thread(nodes[0].start)
    for each in stores:
        if each.queue in dead:  # it kept nothing, as nothing told it to
            assert (await once_available(each.counts)).states == {}
        await each.close()


async def test_a_cluster_and_a_single_server_are_told_apart(
    nodes: list[Server], redis_address: Address
) -> None:
    node = nodes[0].place
    with pytest.raises(ConfigError, match=r"redis\+cluster://"):
        await RedisStore(Address(host=node.host, port=node.port)).open()
    with pytest.raises(ConfigError, match="redis://"):
        await RedisStore(Address(nodes=(redis_address.place,))).open()
    with pytest.raises(ConfigError, match="database 0"):
        Address(nodes=(node,), db=1)
    with pytest.raises(StoreUnavailable, match="no node"):
        await RedisStore(Address(nodes=(node._replace(port=1),))).open()


async def test_a_user_of_few_rights_gets_along(nodes: list[Server]) -> None:
    subcommands = "redis_version:6." not in await asked(nodes[0], "INFO", "server")
    rights = [*RIGHTS.split(), "+cluster|slots" if subcommands else "+cluster", "+info"]
    for node in nodes:
        await asked(node, "ACL", "SETUSER", "few", "on", ">pw", *rights)
    address = msgspec.structs.replace(emptied(nodes), username="few", password="pw")
    for name in ("q1", "q2", "q3"):
        store = RedisStore(address, name)
        await store.open()
        await store.add([a_job()])
        await store.wait([JOBS], 0.0)
        await store.close()


async def test_every_command_of_a_script_is_in_the_slot_of_its_key(
    nodes: list[Server], store: RedisStore
) -> None:
    """What MONITOR shows, beside what the keys that are left show after each test."""
    (holder,) = [node for node in nodes if slot_of(tag("q")) in range(*await slots_of(node))]
    with by_another(holder.address) as connection, connection.monitor() as monitor:
        await store.add([a_job("a", unique_key="u"), a_job("b", delay=5.0)], now=T0)
        claims = (await store.claim(a_want(), now=T0)).claims
        await move(store, "succeed", "a", claims[0].token)
        await store.prune(10, now=T0 + 1e9)
        await store.write("pauses", "*", b"{}")
        await asked(holder, "ECHO", "over and out")
        seen = 0
        while "over and out" not in (told := monitor.next_command())["command"]:
            words = told["command"].split(" ")
            if told["client_type"] == "lua" and len(words) > 1 and words[0] != "PUBLISH":
                assert slot_of(words[1]) == slot_of(tag("q")), told
                seen += 1
        assert seen > 50


async def slots_of(node: Server) -> tuple[int, int]:
    myself = await asked(node, "CLUSTER", "MYID")
    for low, high, *owners in await asked(node, "CLUSTER", "SLOTS"):
        if owners[0][2] == myself:
            return low, high + 1
    raise AssertionError(node)
