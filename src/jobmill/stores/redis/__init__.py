"""The store in Redis or Valkey: durable as the server is, for processes on many machines."""

from __future__ import annotations

from jobmill.clock import Clock
from jobmill.errors import ConfigError
from jobmill.stores.redis.address import Address, Place, Tls, address_of
from jobmill.urls import StoreURL

try:
    from jobmill.stores.redis.store import RedisStore
except ModuleNotFoundError as _error:
    if _error.name != "hiredis":
        raise
    raise ConfigError(
        "redis:// needs the package hiredis: install jobmill[redis]", field="url"
    ) from _error

__all__ = ["Address", "Place", "RedisStore", "Tls", "address_of", "from_url"]


def from_url(url: StoreURL, queue: str, clock: Clock) -> RedisStore:
    """The store of `redis://`, `unix://`, `redis+sentinel://`, `redis+cluster://`, or with TLS."""
    return RedisStore(Address.from_url(url), queue, clock=clock)
