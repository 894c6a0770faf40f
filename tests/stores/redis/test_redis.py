"""What is Redis' own: addresses, errors, scripts that the server forgot, lost connections."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
import traceback
from collections.abc import Iterator
from typing import Any

import pytest

from jobmill import ConfigError, SchemaMismatch, StoreError, StoreUnavailable, create_queue
from jobmill.factory import RedisQueue
from jobmill.store import JOBS, Query
from jobmill.stores.redis import Address, Place, RedisStore, Tls
from jobmill.stores.redis.faults import outward
from jobmill.stores.redis.keys import tag
from jobmill.stores.redis.line import Refusal
from jobmill.stores.redis.scripts import LAYOUT
from jobmill.testing.contract.case import a_job, a_want, some_jobs
from jobmill.urls import StoreURL
from tests.servers import by_another, emptied
from tests.waiting import PATIENCE

SECRET = "hunter2"
GOOD = {
    "redis://localhost": Address(),
    "redis://": Address(),
    f"redis://:{SECRET}@h:1/2": Address(host="h", port=1, db=2, password=SECRET),
    "redis://u%40:p%2F@h/?db=3": Address(host="h", db=3, username="u@", password="p/"),
    "redis://[::1]:7/": Address(host="::1", port=7),
    "rediss://h/1?ssl_ca_certs=ca": Address(host="h", db=1, tls=Tls(ssl_ca_certs="ca")),
    f"unix://u:{SECRET}@/run/r.sock?db=4": Address(
        path="/run/r.sock", db=4, username="u", password=SECRET
    ),
    "redis://h?allow_eviction=true": Address(host="h", allow_eviction=True),
    "redis://h?wait_replicas=2": Address(host="h", wait_replicas=2),
    "rediss://h?ssl_cert_reqs=none&ssl_check_hostname=false": Address(
        host="h", tls=Tls(ssl_cert_reqs="none", ssl_check_hostname=False)
    ),
    f"redis+sentinel://u:{SECRET}@a,b:2/m/3?sentinel_password={SECRET}2": Address(
        nodes=(Place("a", 26_379), Place("b", 2)),
        service="m",
        db=3,
        username="u",
        password=SECRET,
        sentinel_password=f"{SECRET}2",
    ),
    "rediss+sentinel://[::1],[::2]:2/m": Address(
        nodes=(Place("::1", 26_379), Place("::2", 2)), service="m", tls=Tls()
    ),
    f"redis+cluster://:{SECRET}@a:1,b": Address(
        nodes=(Place("a", 1), Place("b", 6_379)), password=SECRET
    ),
}
BAD = [
    *("redis://h/x", "redis://h/-1", "redis://h:0", "redis://h:99999", "redis://h:a/"),
    *("redis://h/1?db=2", "redis://h?what=1", "redis://h?allow_eviction=1", "unix://h/x"),
    *("unix://", "redis://h?ssl_ca_certs=x", "redis+sentinel://h", "redis+cluster://h/1"),
    *("redis://h?wait_replicas=x", "redis://h?sentinel_password=x", "redis+what://h/m"),
    *("redis://h,i", "redis+cluster://h,", "redis+sentinel://h:x/m", "redis+sentinel://h/m/n"),
    *("rediss://h?ssl_cert_reqs=what", "rediss://h?ssl_check_hostname=1"),
    *("unix+cluster:///h", f"redis://{'h' * 64}", "redis://h..i", "rediss://h?ssl_keyfile=x"),
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


@pytest.mark.parametrize("mark", "/?#@:%[&")
@pytest.mark.parametrize("head", ["", "u", "12"])
@pytest.mark.parametrize("scheme", ["redis", "redis+sentinel", "redis+cluster", "unix"])
def test_a_password_that_is_not_quoted_is_not_shown(mark: str, head: str, scheme: str) -> None:
    for password in (f"{SECRET}{mark}", f"{mark}{SECRET}", f"1{mark}{SECRET}={mark}{SECRET}"):
        for rest in ("h:1/m", "/run/redis.sock", "h?db=1", "h"):
            try:
                queue = create_queue(f"{scheme}://{head}:{password}@{rest}")
            except ConfigError as refused:
                shown = "".join(traceback.format_exception(refused))
                assert SECRET not in shown.replace(f"{head}:{password}@", "")
            else:
                assert SECRET not in repr(queue.store)


def test_a_server_by_its_arguments() -> None:
    queue = RedisQueue(host="h", port=1, password=SECRET, db=2, queue_name="q")
    assert isinstance(queue.store, RedisStore)
    assert queue.store.address == Address(host="h", port=1, db=2, password=SECRET)
    assert queue.store.queue == "q"
    wrong: list[dict[str, Any]] = [
        *({"port": "1"}, {"port": 0}, {"db": -1}, {"host": ""}, {"password": 3}, {"db": True}),
        *({"url": "redis://h", "port": 1}, {"url": "memory://"}, {"ssl_ca_certs": "ca"}),
        *({"ssl": 1}, {"ssl": True, "ssl_ca_certs": 3}, {"wait_replicas": "1"}),
        *({"url": "redis://h?wait_replicas=1", "wait_replicas": 2}, {"allow_eviction": 1}),
        *({"password": "\ud800"}, {"username": "\ud800"}, {"host": "\ud800"}),
    ]
    for arguments in wrong:
        with pytest.raises(ConfigError):
            RedisQueue(**arguments)


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (ConnectionError("refused"), StoreUnavailable, "cannot be reached"),
        (TimeoutError("x"), StoreUnavailable, "in time"),
        (OSError("x"), StoreUnavailable, "cannot be reached"),
        (ssl.SSLCertVerificationError(1, "CERTIFICATE_VERIFY_FAILED"), ConfigError, "ssl_"),
        (Refusal("BUSY Redis is busy"), StoreUnavailable, "script"),
        (Refusal("OOM command not allowed"), StoreUnavailable, "maxmemory"),
        (Refusal("ERR Error running script: @x:1: -OOM no"), StoreUnavailable, "maxmemory"),
        (Refusal("LOADING x"), StoreUnavailable, "loading"),
        (Refusal("READONLY x"), StoreUnavailable, "primary"),
        (Refusal("MASTERDOWN x"), StoreUnavailable, "lost its primary"),
        (Refusal("NOREPLICAS x"), StoreUnavailable, "replicas"),
        (Refusal("MISCONF x"), StoreUnavailable, "disk"),
        (Refusal("CLUSTERDOWN x"), StoreUnavailable, "cluster"),
        (Refusal("TRYAGAIN x"), StoreUnavailable, "slot"),
        (Refusal("ASK 1 h:1"), StoreUnavailable, "slot"),
        (Refusal("ERR max number of clients reached"), StoreUnavailable, "maxclients"),
        (Refusal("NOAUTH x"), ConfigError, "login"),
        (Refusal("WRONGPASS x"), ConfigError, "login"),
        (Refusal("NOPERM x"), ConfigError, "may not"),
        (Refusal("DENIED x"), ConfigError, "protected"),
        (Refusal("WRONGTYPE x"), StoreError, "did not write"),
        (Refusal("ERR unknown command 'EVALSHA'"), StoreError, "lacks a command"),
        (Refusal("ERR user_script:9: keys of layout 1, not 2"), SchemaMismatch, "another version"),
        (Refusal("ERR x"), StoreError, "refused"),
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
    with by_another(server) as client:
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
async def test_a_queue_of_another_layout_is_refused(server: Address, plain: Any) -> None:
    meta = f"{tag('default')}:meta"
    store = RedisStore(server)
    await store.open()
    try:
        await store.add([a_job()])
        assert plain.hget(meta, "listed") == LAYOUT.encode()
        plain.hset(meta, "listed", "1")
        for asked in (store.add([a_job("b")]), store.claim(a_want()), store.get(["a"])):
            with pytest.raises(SchemaMismatch, match="another version"):
                await asked
        assert plain.exists(f"{tag('default')}:job:b") == 0
    finally:
        await store.close()


@pytest.mark.store("redis")
async def test_a_lost_connection_comes_back(server: Address, plain: Any) -> None:
    store = RedisStore(server)
    await store.open()
    try:
        await store.wait([JOBS], 0.0)
        plain.client_kill_filter(_type="pubsub")
        async with asyncio.timeout(PATIENCE):
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
    try:
        await store.add([a_job("first")])  # the server knows the script from here on
        adding = asyncio.create_task(store.add(some_jobs(500)))
        await asyncio.sleep(0)
        adding.cancel()
        # Each answer goes to whom it is for.
        counts, (record,) = await asyncio.gather(store.counts(), store.get(["first"]))
        assert counts.states == {"pending": 501}
        assert record is not None
        assert record.id == "first"
        with pytest.raises(asyncio.CancelledError):
            await adding
        adding = asyncio.create_task(store.add([a_job("last")]))
        await asyncio.sleep(0)
        adding.cancel()
    finally:
        await store.close()
    other = store.handle()
    await other.open()
    try:
        assert (await other.counts()).states == {"pending": 502}
    finally:
        await other.close()


DROPPED = """
import gc, sys
from jobmill import RedisQueue, job
@job(name="greet")
def greet() -> None: ...
host, port, db, password = sys.argv[1:]
queue = RedisQueue(
    host=host, port=int(port), db=int(db), password=password or None, queue_name="dropped"
)
queue.enqueue_sync(greet.call())
del queue
gc.collect()
print("done")
"""


@pytest.mark.store("redis")
def test_a_queue_that_a_script_drops_unclosed_ends_without_a_word(redis_address: Address) -> None:
    at = redis_address
    words = [at.host, str(at.port), str(at.db), at.password or ""]
    ran = subprocess.run(
        [sys.executable, "-c", DROPPED, *words],
        capture_output=True,
        check=False,
        text=True,
        timeout=100,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "done\n", "")
