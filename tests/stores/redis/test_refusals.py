"""What a server refuses, provoked on real servers: what is worth trying again, and what to do."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator, Iterator

import msgspec
import pytest

from jobmill import ConfigError, SchemaMismatch, StoreError, StoreUnavailable
from jobmill.limits import Window
from jobmill.states import Move
from jobmill.store import Lease, Query
from jobmill.stores.redis import RedisStore
from jobmill.stores.redis.line import Refusal
from jobmill.stores.redis.provision import Server, replicated
from jobmill.testing.contract.case import a_job, a_want
from tests.servers import asked
from tests.stores.redis.conftest import provided
from tests.stores.redis.scripted import bulk, refusing, scripted

pytestmark = pytest.mark.store("redis")


@pytest.fixture
async def store(private: Server) -> AsyncIterator[RedisStore]:
    store = RedisStore(private.address)
    await store.open()
    await store.add([a_job("first")])
    yield store
    await store.close()


@pytest.fixture(scope="module")
def pair() -> Iterator[list[Server]]:
    """A primary and its replica."""
    yield from provided(replicated)


async def test_a_full_memory_is_told_and_passes(private: Server, store: RedisStore) -> None:
    await asked(private, "CONFIG", "SET", "maxmemory", 1)
    with pytest.raises(StoreUnavailable, match="maxmemory"):
        await store.add([a_job()])
    await asked(private, "CONFIG", "SET", "maxmemory", 0)
    await store.add([a_job()])


async def test_with_a_full_memory_the_work_goes_on_and_what_ended_can_be_deleted(
    private: Server, store: RedisStore
) -> None:
    await asked(private, "CONFIG", "SET", "maxmemory", 1)
    (claim,) = (await store.claim(a_want(limit=1))).claims
    lease = Lease(claim.id, claim.token)
    assert await store.renew([lease], 30.0) == ["ok"]
    assert await store.reserve("key", claim.id, claim.token, [Window(1, 1.0)]) == 0.0
    move = Move(event="succeed", job_id=claim.id, token=claim.token, result=b"1")
    (moved,) = await store.move([move])
    assert moved.status == "applied"
    assert await store.prune(10) == 0
    assert await store.drop(Query(), limit=10) == 1
    assert (await store.counts()).states == {}
    await asked(private, "CONFIG", "SET", "maxmemory", 0)


async def test_a_busy_script_is_told_and_passes(private: Server, store: RedisStore) -> None:
    await asked(private, "CONFIG", "SET", "lua-time-limit", 1)
    busy = asyncio.create_task(asked(private, "EVAL", "while true do end", 0))
    told = ""
    while "busy with a script" not in told:
        assert not told
        try:
            await store.counts()
        except StoreUnavailable as error:
            told = str(error)
    await asked(private, "SCRIPT", "KILL")
    with pytest.raises(Refusal):
        await busy
    assert (await store.counts()).states == {"pending": 1}


async def test_forgotten_scripts_are_sent_again(private: Server, store: RedisStore) -> None:
    await asked(private, "SCRIPT", "FLUSH")
    assert len((await store.claim(a_want())).claims) == 1


async def test_a_replica_is_told(pair: list[Server]) -> None:
    _, replica = pair
    with pytest.raises(StoreUnavailable, match="primary"):
        await RedisStore(replica.address).open()


async def test_a_primary_that_becomes_a_replica_is_told(
    pair: list[Server], private: Server, store: RedisStore
) -> None:
    primary = pair[0].place
    await asked(private, "REPLICAOF", primary.host, primary.port)
    with pytest.raises(StoreUnavailable, match="replica"):
        await store.add([a_job()])
    await asked(private, "CONFIG", "SET", "replica-serve-stale-data", "no")
    await asked(private, "REPLICAOF", "127.0.0.1", 1)
    with pytest.raises(StoreUnavailable, match="lost its primary"):
        await store.counts()
    await asked(private, "REPLICAOF", "NO", "ONE")
    await store.add([a_job()])


async def test_too_few_replicas_are_told(private: Server, store: RedisStore) -> None:
    await asked(private, "CONFIG", "SET", "min-replicas-to-write", 1)
    if "redis_version:6." in await asked(private, "INFO", "server"):
        await store.add([a_job()])  # it has no eye on scripts yet
        return
    with pytest.raises(StoreUnavailable, match="misses replicas"):
        await store.add([a_job()])


async def test_too_many_connections_are_told(private: Server, store: RedisStore) -> None:
    await asked(private, "CONFIG", "SET", "maxclients", 1)
    with pytest.raises(StoreUnavailable, match=r"maxclients|cannot be reached"):
        # With the same address it would share the connection that is there.
        await RedisStore(msgspec.structs.replace(private.address, db=1)).open()
    assert (await store.counts()).states == {"pending": 1}


async def test_a_login_that_is_wrong_is_told_without_it(private: Server) -> None:
    await asked(private, "ACL", "SETUSER", "worker", "on", ">right", "~*", "&*", "+@all")
    await asked(private, "CONFIG", "SET", "requirepass", "hunter1")
    address = private.address
    private.address = msgspec.structs.replace(address, password="hunter1")
    wrongs = [
        {},
        {"password": "hunter2"},
        {"username": "worker", "password": "hunter2"},
        {"username": "nobody", "password": "hunter2"},
    ]
    for wrong in wrongs:
        with pytest.raises(ConfigError, match="login") as refused:
            await RedisStore(msgspec.structs.replace(address, **wrong)).open()
        assert "hunter" not in "".join(traceback.format_exception(refused.value))
    store = RedisStore(msgspec.structs.replace(address, username="worker", password="right"))
    await store.open()
    await store.add([a_job()])
    # A user whose rights go while it works.
    await asked(private, "ACL", "SETUSER", "worker", "-evalsha")
    with pytest.raises(ConfigError, match="may not"):
        await store.add([a_job("j2")])
    await store.close()


async def test_a_user_who_may_not_ask_has_to_say(private: Server) -> None:
    rights = ["~*", "&*", "+@all", "-info", "-config"]
    await asked(private, "ACL", "SETUSER", "few", "on", ">pw", *rights)
    address = msgspec.structs.replace(private.address, username="few", password="pw")
    with pytest.raises(ConfigError, match="neither INFO nor CONFIG GET") as refused:
        await RedisStore(address).open()
    assert refused.value.field == "allow_eviction"
    store = RedisStore(msgspec.structs.replace(address, allow_eviction=True))
    await store.open()
    await store.add([a_job()])
    await store.close()


async def test_a_database_that_is_not_there_is_told(private: Server) -> None:
    with pytest.raises(ConfigError, match="db"):
        await RedisStore(msgspec.structs.replace(private.address, db=99)).open()


@pytest.mark.parametrize(
    ("refusal", "kind", "says"),
    [
        (b"LOADING Redis is loading the dataset in memory", StoreUnavailable, "wait"),
        (b"TRYAGAIN Multiple keys request during rehashing", StoreUnavailable, "wait"),
        (b"CLUSTERDOWN The cluster is down", StoreUnavailable, "nodes"),
        (b"MISCONF Errors writing to the AOF file", StoreUnavailable, "disk"),
        (b"MOVED 1 10.0.0.1:6379", ConfigError, "redis+cluster://"),
        (b"ASK 1 10.0.0.1:6379", StoreUnavailable, "wait"),
        (b"WRONGTYPE Operation against a key", StoreError, "remove it"),
        (b"ERR unknown command 'EVALSHA'", StoreError, "lacks a command"),
    ],
)
async def test_what_no_server_can_be_brought_to_say(
    refusal: bytes, kind: type[Exception], says: str
) -> None:
    async with scripted(refusing(refusal)) as address:
        store = RedisStore(address)
        await store.open()
        with pytest.raises(kind) as refused:
            await store.counts()
        assert type(refused.value) is kind
        assert says in str(refused.value)
        await store.close()


@pytest.mark.parametrize(
    ("info", "kind", "says"),
    [
        (b"redis_version:6.0.16", SchemaMismatch, "6.2"),
        (b"redis_version:7.0.0\r\nredis_mode:cluster", ConfigError, "redis+cluster://"),
        (b"redis_version:7.2.4\r\nserver_mode:cluster", ConfigError, "redis+cluster://"),
        (b"redis_version:7.0.0\r\nredis_mode:sentinel", ConfigError, "redis+sentinel://"),
        (b"redis_version:7.0.0\r\nmaxmemory_policy:volatile-lru", ConfigError, "noeviction"),
        (b"server_name:something", ConfigError, "neither INFO nor CONFIG"),
    ],
)
async def test_a_server_that_will_not_do_is_refused(
    info: bytes, kind: type[Exception], says: str
) -> None:
    async with scripted(refusing(b"ERR unknown command", info=info)) as address:
        with pytest.raises(kind) as refused:
            await RedisStore(address).open()
        assert says in str(refused.value)


async def test_valkey_is_known_by_the_version_that_it_stands_in_for() -> None:
    info = b"redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.0.1\r\nrole:master"
    info += b"\r\nmaxmemory_policy:noeviction"
    async with scripted(refusing(b"ERR no", info=info)) as address:
        store = RedisStore(address)
        await store.open()
        await store.close()


async def test_a_server_that_repeats_the_password_is_not_quoted() -> None:
    def answer(command: list[bytes]) -> bytes:
        return b"-ERR unknown command 'AUTH', with args beginning with: 'hunter2'\r\n"

    async with scripted(answer) as address:
        store = RedisStore(msgspec.structs.replace(address, password="hunter2"))
        with pytest.raises(ConfigError) as refused:
            await store.open()
    assert "hunter2" not in "".join(traceback.format_exception(refused.value))
    assert "***" in str(refused.value)


async def test_what_is_no_redis_is_told() -> None:
    async with scripted(lambda command: b"HTTP/1.1 400 Bad Request\r\n\r\n") as address:
        with pytest.raises(StoreUnavailable, match="does not speak as a Redis server"):
            await RedisStore(address).open()


async def test_an_unforeseen_answer_does_not_harm_the_next() -> None:
    said = iter([bulk(b"redis_version:7.0.0\r\nmaxmemory_policy:noeviction"), b"-ERR what\r\n"])
    async with scripted(lambda command: next(said, b"*0\r\n")) as address:
        store = RedisStore(address)
        await store.open()
        with pytest.raises(StoreError, match="refused"):
            await store.errors(1)
        assert await store.errors(1) == []
        await store.close()
