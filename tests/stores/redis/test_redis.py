"""What is Redis' own: addresses, errors, scripts that the server forgot, lost connections."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import (
    AuthenticationError,
    ConnectionError as Disconnected,
    ResponseError,
    TimeoutError as TimedOut,
)

from jobmill import ConfigError, StoreError, StoreUnavailable, create_queue
from jobmill.factory import RedisQueue
from jobmill.store import JOBS, Query
from jobmill.stores.redis import Address, RedisStore
from jobmill.stores.redis.faults import outward
from jobmill.testing.contract.case import a_job, a_want, some_jobs
from jobmill.urls import StoreURL
from tests.servers import emptied

SECRET = "hunter2"
GOOD = {
    "redis://localhost": Address(),
    "redis://": Address(),
    f"redis://:{SECRET}@h:1/2": Address(host="h", port=1, db=2, password=SECRET),
    "redis://u%40:p%2F@h/?db=3": Address(host="h", db=3, username="u@", password="p/"),
    "redis://[::1]:7/": Address(host="::1", port=7),
    "rediss://h/1?ssl_ca_certs=ca": Address(
        host="h", db=1, tls=True, tls_files={"ssl_ca_certs": "ca"}
    ),
    f"unix://u:{SECRET}@/run/r.sock?db=4": Address(
        path="/run/r.sock", db=4, username="u", password=SECRET
    ),
    "redis://h?allow_eviction=true": Address(host="h", allow_eviction=True),
}
BAD = [
    *("redis://h/x", "redis://h/-1", "redis://h:0", "redis://h:99999", "redis://h:a/"),
    *("redis://h/1?db=2", "redis://h?what=1", "redis://h?allow_eviction=1", "unix://h/x"),
    *("unix://", "redis://h?ssl_ca_certs=x", "redis+sentinel://h/m", "redis+cluster://h"),
]


@pytest.mark.parametrize("url", GOOD)
def test_a_url_names_a_server(url: str) -> None:
    address = Address.from_url(StoreURL.parse(url))
    assert address == GOOD[url]
    queue = create_queue(url)
    for shown in (repr(address), str(address), repr(queue.store), repr(queue)):
        assert SECRET not in shown


@pytest.mark.parametrize("url", BAD)
def test_a_url_that_will_not_do_is_refused(url: str) -> None:
    with pytest.raises(ConfigError) as refused:
        create_queue(url.replace("://h", f"://u:{SECRET}@h"))
    assert SECRET not in str(refused.value)
    with pytest.raises(ConfigError):
        create_queue(url)


def test_a_server_by_its_arguments() -> None:
    queue = RedisQueue(host="h", port=1, password=SECRET, db=2, queue_name="q")
    assert isinstance(queue.store, RedisStore)
    assert queue.store.address == Address(host="h", port=1, db=2, password=SECRET)
    assert queue.store.queue == "q"
    wrong: list[dict[str, Any]] = [
        *({"port": "1"}, {"port": 0}, {"db": -1}, {"host": ""}, {"password": 3}, {"db": True}),
        *({"url": "redis://h", "port": 1}, {"url": "memory://"}),
    ]
    for arguments in wrong:
        with pytest.raises(ConfigError):
            RedisQueue(**arguments)


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (Disconnected("refused"), StoreUnavailable, "cannot be reached"),
        (TimedOut("x"), StoreUnavailable, "in time"),
        (OSError("x"), StoreUnavailable, "cannot be reached"),
        (ResponseError("BUSY Redis is busy"), StoreUnavailable, "script"),
        (ResponseError("OOM command not allowed"), StoreUnavailable, "maxmemory"),
        (ResponseError("LOADING x"), StoreUnavailable, "loading"),
        (ResponseError("READONLY x"), StoreUnavailable, "primary"),
        (ResponseError("NOAUTH x"), ConfigError, "login"),
        (AuthenticationError("invalid username-password pair"), ConfigError, "login"),
        (ResponseError("NOPERM x"), ConfigError, "may not"),
        (ResponseError("WRONGTYPE x"), StoreError, "did not write"),
        (ResponseError("ERR x"), StoreError, "refused"),
    ],
)
def test_errors_say_what_to_do(error: Exception, kind: type[Exception], says: str) -> None:
    told = outward(error, Address(password=SECRET))
    assert type(told) is kind
    assert says in str(told)
    assert SECRET not in str(told)


async def test_nobody_there_is_unavailable(unused_tcp_port: int) -> None:
    with pytest.raises(StoreUnavailable):
        await RedisStore(Address(host="127.0.0.1", port=unused_tcp_port)).open()


@pytest.fixture
def server(redis_address: Address) -> Address:
    return emptied(redis_address)


@pytest.fixture
def plain(server: Address) -> Iterator[Any]:
    """The server by another client."""
    with Redis(**server.options()) as client:
        yield client


@pytest.mark.store("redis")
async def test_a_wrong_password_is_told_without_it(server: Address) -> None:
    store = RedisStore(Address(host=server.host, port=server.port, password=SECRET))
    with pytest.raises(ConfigError) as refused:
        await store.open()
    assert SECRET not in str(refused.value)
    await store.close()


@pytest.mark.store("redis")
async def test_a_server_that_may_evict_is_refused(server: Address, plain: Any) -> None:
    plain.config_set("maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(ConfigError, match="noeviction"):
            await RedisStore(server).open()
    finally:
        plain.config_set("maxmemory-policy", "noeviction")


@pytest.mark.store("redis")
async def test_forgotten_scripts_and_an_emptied_server(server: Address, plain: Any) -> None:
    store = RedisStore(server)
    await store.open()
    try:
        await store.add([a_job()])
        plain.script_flush()
        assert len((await store.claim(a_want())).claims) == 1
        plain.flushdb()
        assert (await store.claim(a_want("t2"))).claims == ()
        assert await store.queues() == []
        await store.add([a_job()])
        assert await store.queues() == ["default"]
    finally:
        await store.close()


@pytest.mark.store("redis")
async def test_a_lost_connection_comes_back(server: Address, plain: Any) -> None:
    store = RedisStore(server)
    await store.open()
    try:
        await store.wait([JOBS], 0.0)
        plain.client_kill_filter(_type="pubsub")
        async with asyncio.timeout(10):
            await store.wait([JOBS], 60.0)  # told, because something may have been missed
            await store.add([a_job()])
            await store.wait([JOBS], 60.0)
    finally:
        await store.close()


@pytest.mark.store("redis")
async def test_steps_pass_nothing_over(server: Address) -> None:
    """More jobs than one step looks at."""
    store = RedisStore(server)
    await store.open()
    try:
        await store.add([a_job("first", unique_key="k"), *some_jobs(4_500)])
        page = await store.find(Query(unique_key="k"), limit=1)
        assert [record.id for record in page.records] == ["first"]
        assert page.cursor is None
        assert (await store.counts(Query(unique_key="k"))).states == {"pending": 1}
        assert await store.drop(Query(unique_key="none"), limit=9) == 0
        assert await store.drop(Query(), limit=4_400) == 4_400
        page = await store.find(Query(), limit=1_000)
        assert (len(page.records), page.cursor) == (101, None)
    finally:
        await store.close()


@pytest.mark.store("redis")
async def test_what_runs_is_finished_though_its_caller_is_cancelled(server: Address) -> None:
    store = RedisStore(server)
    await store.open()
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
