"""The servers that tests run on: thrown away afterwards, or named by the environment."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from redis import Redis

from jobmill.stores.redis import Address
from jobmill.stores.redis.provision import binary, server
from jobmill.urls import StoreURL


def redis_address() -> Iterator[Address]:
    """A Redis server whose database may be emptied."""
    url = os.environ.get("JOBMILL_TEST_REDIS_URL")
    if url:
        yield Address.from_url(StoreURL.parse(url))
        return
    if binary() is None:
        missing = "redis-server is not installed; apt-get install redis-server"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    with server() as address:
        yield address


def emptied(address: Address) -> Address:
    """The server, its database emptied."""
    with Redis(**address.options()) as connection:
        connection.flushdb()
    return address
