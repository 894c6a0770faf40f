"""The store in an SQLite file: durable, for the processes of one machine."""

from __future__ import annotations

from jobmill.stores.sqlite.store import SQLiteStore

__all__ = ["SQLiteStore"]
