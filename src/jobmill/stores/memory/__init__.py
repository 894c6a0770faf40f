"""The store in memory: the reference, and the oracle of every other store's tests."""

from __future__ import annotations

from jobmill.stores.memory.store import MemoryStore

__all__ = ["MemoryStore"]
