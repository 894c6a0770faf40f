"""TLS, a Unix socket, users with few rights: how a server is reached and what it lets one do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from jobmill import ConfigError, StoreUnavailable, create_queue
from jobmill.clock import Clock
from jobmill.store import Store
from jobmill.stores.redis import Address, RedisStore, Tls
from jobmill.stores.redis.provision import Server, ask
from jobmill.testing.contract.documents import DocumentContract
from jobmill.testing.contract.sharing import ShareContract
from jobmill.testing.contract.waiting import WaitContract
from tests.servers import asked, emptied
from tests.stores.redis.conftest import RIGHTS

pytestmark = pytest.mark.store("redis")


class Reached(WaitContract, ShareContract, DocumentContract):
    """What leans on the connection most: wake-ups, several handles and loops, text of all kinds."""

    address: Address

    async def open_store(self, clock: Clock) -> Store:
        store = RedisStore(self.address, clock=clock)
        await store.open()
        return store


class TestBySocket(Reached):
    @pytest.fixture(autouse=True)
    def _on(self, on_socket: Address) -> None:
        self.address = emptied(on_socket)


class TestByTls(Reached):
    @pytest.fixture(autouse=True)
    def _on(self, secured: Server) -> None:
        self.address = emptied(secured.address)


class TestByAUserOfFewRights(Reached):
    @pytest.fixture(autouse=True)
    def _on(self, redis_address: Address) -> Iterator[None]:
        emptied(redis_address)
        ask(redis_address, "ACL", "SETUSER", "few", "on", ">secret", *RIGHTS.split(), "+info")
        self.address = msgspec.structs.replace(redis_address, username="few", password="secret")
        page = Path(__file__, "../../../../docs/redis.md").resolve().read_text()
        assert f"{RIGHTS} +info\n" in page
        yield
        ask(redis_address, "ACL", "DELUSER", "few")


async def test_a_certificate_has_to_be_trusted_and_to_fit(secured: Server) -> None:
    address = secured.address
    for tls in (Tls(), Tls(ssl_check_hostname=False)):
        with pytest.raises(ConfigError, match="ssl_"):
            await RedisStore(msgspec.structs.replace(address, tls=tls)).open()
    other_name = msgspec.structs.replace(address, host="localhost")
    with pytest.raises(ConfigError, match="ssl_"):
        await RedisStore(other_name).open()
    assert address.tls is not None
    for tls, host in (
        (Tls(ssl_cert_reqs="none"), address.host),
        (msgspec.structs.replace(address.tls, ssl_check_hostname=False), "localhost"),
    ):
        store = RedisStore(msgspec.structs.replace(address, tls=tls, host=host))
        await store.open()
        await store.close()


async def test_a_server_may_ask_for_a_certificate(secured: Server, certificates: Tls) -> None:
    await asked(secured, "CONFIG", "SET", "tls-auth-clients", "yes")
    try:
        with pytest.raises((ConfigError, StoreUnavailable), match="ssl_"):
            await RedisStore(secured.address).open()
        store = RedisStore(msgspec.structs.replace(secured.address, tls=certificates))
        await store.open()
        await store.close()
        files = "&".join(
            f"{name}={value}"
            for name, value in msgspec.structs.asdict(certificates).items()
            if name.endswith(("certs", "file"))
        )
        place = secured.place
        queue = create_queue(f"rediss://:secret%2Fword@{place}/0?{files}", name="by-url")
        assert (await queue.stats()).total == 0
        await queue.close()
    finally:
        with_one = msgspec.structs.replace(secured.address, tls=certificates)
        await asked(with_one, "CONFIG", "SET", "tls-auth-clients", "optional")


async def test_files_that_will_not_do_are_named(secured: Server, certificates: Tls) -> None:
    for tls, field in (
        (Tls(ssl_ca_certs="/nowhere"), "ssl_ca_certs"),
        (Tls(ssl_ca_certs=certificates.ssl_keyfile), "ssl_ca_certs"),
        (Tls(ssl_certfile="/nowhere"), "ssl_certfile"),
        (Tls(ssl_certfile=certificates.ssl_certfile, ssl_keyfile="/nowhere"), "ssl_certfile"),
    ):
        with pytest.raises(ConfigError, match=field) as refused:
            await RedisStore(msgspec.structs.replace(secured.address, tls=tls)).open()
        assert refused.value.field == field


async def test_tls_and_plain_are_told_apart(
    secured: Server, redis_address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobmill.stores.redis.dialing.PATIENCE", 0.5)
    with pytest.raises(StoreUnavailable, match="speak TLS"):
        await RedisStore(msgspec.structs.replace(redis_address, tls=Tls())).open()
    plain = msgspec.structs.replace(secured.address, tls=None)
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        await RedisStore(plain).open()
