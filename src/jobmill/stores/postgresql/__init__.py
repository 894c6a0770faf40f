"""The store in PostgreSQL: durable, for processes on many machines, joining transactions."""

from __future__ import annotations

from jobmill.clock import Clock
from jobmill.errors import ConfigError
from jobmill.urls import StoreURL

try:
    from jobmill.stores.postgresql.store import PostgresStore
except ModuleNotFoundError as _error:
    if _error.name != "asyncpg":
        raise
    raise ConfigError(
        "postgresql:// needs the package asyncpg: install jobmill[postgres]", field="url"
    ) from _error

from jobmill.stores.postgresql.address import Address
from jobmill.stores.postgresql.migrating import Migrations

__all__ = ["Address", "Migrations", "PostgresStore", "from_url", "migrations_of"]


def from_url(url: StoreURL, queue: str, clock: Clock) -> PostgresStore:
    """The store of `postgresql://` or `postgres://`."""
    return PostgresStore(Address.from_url(url), queue, clock=clock)


def migrations_of(target: StoreURL | PostgresStore) -> Migrations:
    """The schema of a database, to look at and bring up to date: `jobmill migrate`."""
    address = target.address if isinstance(target, PostgresStore) else Address.from_url(target)
    return Migrations(address)
