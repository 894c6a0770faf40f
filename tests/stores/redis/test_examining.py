"""What the doctor is told of a server: what it keeps, what it throws away, whether it has room."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from jobmill.store import Examined, Finding
from jobmill.stores.redis import Address, RedisStore
from jobmill.stores.redis.examining import _disk, _eviction, _memory, _replicas, _version
from jobmill.stores.redis.provision import Server, running
from tests.servers import asked, need_a_server

pytestmark = pytest.mark.store("redis")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server whose settings the tests may change."""
    need_a_server()
    with running() as one:
        yield one


async def found(address: Address) -> dict[str, Finding]:
    store = RedisStore(address)
    assert isinstance(store, Examined)
    await store.open()
    try:
        findings = await store.examine()
    finally:
        await store.close()
    assert all(each.advice for each in findings if each.level != "ok")
    return {each.code: each for each in findings}


async def test_a_server_is_seen_as_it_is_set_up(server: Server) -> None:
    seen = await found(server.address)
    assert seen["version"].level == seen["eviction"].level == seen["memory"].level == "ok"
    assert seen["persistence"].level == "bad", "throwaway servers keep nothing on disk"

    await asked(server, "CONFIG", "SET", "save", "3600 1")
    assert (await found(server.address))["persistence"].level == "note"
    await asked(server, "CONFIG", "SET", "appendonly", "yes")
    assert "a second at most" in (await found(server.address))["persistence"].text
    await asked(server, "CONFIG", "SET", "appendfsync", "always")
    assert "loses nothing" in (await found(server.address))["persistence"].text
    await asked(server, "CONFIG", "SET", "appendfsync", "no")
    assert (await found(server.address))["persistence"].level == "note"

    await asked(server, "CONFIG", "SET", "maxmemory", "100mb")
    assert (await found(server.address))["memory"].level == "ok"
    await asked(server, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    told = await found(msgspec.structs.replace(server.address, allow_eviction=True))
    assert told["eviction"].level == "note"
    assert "noeviction" in told["eviction"].advice
    await asked(server, "CONFIG", "SET", "maxmemory-policy", "noeviction")
    told = await found(msgspec.structs.replace(server.address, wait_replicas=2))
    assert (told["replicas"].level, told["replicas"].text[:10]) == ("bad", "0 replicas")


async def test_a_user_without_the_right_to_ask_is_told_so(server: Server) -> None:
    rights = ("on", "nopass", "~*", "&*", "+@all", "-info", "-config")
    await asked(server, "ACL", "SETUSER", "clerk", *rights)
    clerk = msgspec.structs.replace(
        server.address, username="clerk", password="any", allow_eviction=True
    )
    seen = await found(clerk)
    assert {code: each.level for code, each in seen.items()} == {"info": "note"}


@pytest.mark.parametrize(
    ("used", "limit", "level"),
    [(10, 100, "ok"), (75, 100, "note"), (90, 100, "bad"), (10, 0, "ok"), (600, 0, "note")],
)
def test_memory_is_told_before_it_is_full(used: int, limit: int, level: str) -> None:
    info = {"used_memory": f"{used}", "maxmemory": f"{limit}", "total_system_memory": "1000"}
    assert _memory(info).level == level


def test_a_disk_that_fails_is_told_first() -> None:
    info = {"rdb_last_bgsave_status": "err", "aof_last_write_status": "err", "aof_enabled": "1"}
    seen = list(_disk(info, {"appendfsync": "everysec", "save": ""}, 0.0))
    assert [each.level for each in seen] == ["bad", "bad", "ok"]
    assert all("refuse all writes" in each.text for each in seen[:2])


def test_valkey_and_replicas_are_named() -> None:
    info = {"redis_version": "7.2.4", "valkey_version": "8.1.0", "connected_slaves": "1"}
    assert _version(info).text.startswith("Valkey 8.1.0")
    (replicas,) = _replicas(info, Address(host="h", wait_replicas=1))
    assert replicas.level == "ok"
    assert _eviction(None).level == "note"
