"""The store in memory: the reference, and the oracle of every other store's tests."""

from __future__ import annotations

from jobmill.clock import Clock
from jobmill.errors import ConfigError
from jobmill.stores.memory.store import MemoryStore
from jobmill.urls import StoreURL

__all__ = ["MemoryStore", "from_url"]


def from_url(url: StoreURL, queue: str, clock: Clock) -> MemoryStore:
    """The store of `memory://`, private, or `memory://name`, shared in the process."""
    url.refuse_settings_but()
    if url.path:
        message = f"url: memory:// takes one name, as in memory://shared; {url.path!r} is too much"
        raise ConfigError(message, field="url")
    return MemoryStore(url.place or None, queue, clock=clock)
