"""The store in Redis or Valkey: durable as the server is, for processes on many machines."""

from __future__ import annotations

from jobmill.clock import Clock
from jobmill.errors import ConfigError
from jobmill.stores.redis.address import Address
from jobmill.urls import StoreURL

try:
    from jobmill.stores.redis.store import RedisStore
except ModuleNotFoundError as _error:
    if _error.name != "redis":
        raise
    raise ConfigError(
        "redis:// needs the package redis: install jobmill[redis]", field="url"
    ) from _error

__all__ = ["Address", "RedisStore", "from_url"]


def from_url(url: StoreURL, queue: str, clock: Clock) -> RedisStore:
    """The store of `redis://`, `rediss://` or `unix://`."""
    return RedisStore(Address.from_url(url), queue, clock=clock)
