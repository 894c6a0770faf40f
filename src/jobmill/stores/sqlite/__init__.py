"""The store in an SQLite file: durable, for the processes of one machine."""

from __future__ import annotations

from collections.abc import Mapping

from jobmill.clock import Clock
from jobmill.errors import ConfigError
from jobmill.stores.sqlite.connection import Synchronous
from jobmill.stores.sqlite.store import SQLiteStore
from jobmill.urls import StoreURL

__all__ = ["SQLiteStore", "from_url"]

_SYNCHRONOUS: Mapping[str, Synchronous] = {"full": "full", "normal": "normal"}


def from_url(url: StoreURL, queue: str, clock: Clock) -> SQLiteStore:
    """The store of `sqlite:///relative.db` or `sqlite:////absolute.db`.

    `?synchronous=normal` trades the last jobs before a power cut for speed.
    """
    url.refuse_settings_but("synchronous")
    chosen = url.settings.get("synchronous", "full")
    synchronous = _SYNCHRONOUS.get(chosen)
    if synchronous is None:
        message = f"url: synchronous={chosen} is neither full nor normal"
        raise ConfigError(message, field="url")
    if url.place or not url.path:
        message = "url: a relative path takes three slashes, sqlite:///jobs.db; an absolute four"
        raise ConfigError(message, field="url")
    return SQLiteStore(url.path, queue, synchronous=synchronous, clock=clock)
