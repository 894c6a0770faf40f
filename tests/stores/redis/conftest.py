"""Servers of every make-up, started at their first use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

import pytest
import trustme

from jobmill.errors import StoreUnavailable
from jobmill.stores.redis import Address, Tls
from jobmill.stores.redis.provision import Server, Watched, cluster, running, watched
from tests.faults.places import RedisPlace
from tests.servers import missing, need_a_server

T = TypeVar("T")
PATIENCE = 0.4
RIGHTS = (
    "~{jobmill:* ~jobmill:queues resetchannels &{jobmill:* "
    "-@all +@read +@write +@pubsub +@scripting +time"
)
"""What docs/redis.md says that a user needs."""


def provided(make: Callable[[], AbstractContextManager[T]]) -> Iterator[T]:
    need_a_server()
    with make() as provision:
        yield provision


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less patience, so that the tests need less of it, too.

    A busy server that is not to fail may be slower: it is asked by `once_available`.
    """
    for module in ("line", "dialing"):
        monkeypatch.setattr(f"jobmill.stores.redis.{module}.PATIENCE", PATIENCE)
    monkeypatch.setattr("jobmill.stores.redis.listening._SILENCE", PATIENCE)


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[Server]]:
    """Three nodes of a cluster."""
    yield from provided(cluster)


@pytest.fixture
def sentinels() -> Iterator[Watched]:
    """A primary and two replicas, under the eyes of three Sentinels with a password."""
    yield from provided(lambda: watched(2, sentinel_password="of-the-sentinels"))


@pytest.fixture
def private() -> Iterator[Server]:
    """A server that the test may treat as it likes."""
    need_a_server()
    with RedisPlace.made() as place:
        yield place.server


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """An authority, and a certificate for 127.0.0.1 that it signed."""
    folder: Path = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    one = authority.issue_cert("127.0.0.1")
    one.private_key_pem.write_to_path(folder / "key.pem")
    one.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    return Tls(
        ssl_ca_certs=str(folder / "ca.pem"),
        ssl_certfile=str(folder / "cert.pem"),
        ssl_keyfile=str(folder / "key.pem"),
    )


@pytest.fixture(scope="session")
def secured(certificates: Tls) -> Iterator[Server]:
    """A server that speaks TLS only, asks for a certificate, and wants a password."""
    need_a_server()
    try:
        with running(
            {"tls-auth-clients": "optional"}, password="secret/word", tls=certificates
        ) as server:
            yield server
    except StoreUnavailable as error:
        if "tls" not in str(error).lower():
            raise
        missing("this server is built without TLS")


@pytest.fixture(scope="session")
def on_socket() -> Iterator[Address]:
    """A server on a Unix socket."""
    need_a_server()
    with running(on_socket=True) as server:
        yield server.address
