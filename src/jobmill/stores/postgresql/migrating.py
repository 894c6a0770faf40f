"""The schema: what is there, and how it is brought up to date."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from jobmill.errors import ConfigError, SchemaMismatch, StoreUnavailable
from jobmill.stores.postgresql.dialing import Dialer
from jobmill.stores.postgresql.faults import translated
from jobmill.stores.postgresql.patience import limited
from jobmill.stores.postgresql.programs import DIGEST, LATEST, migration, program, quoted

if TYPE_CHECKING:
    from jobmill.stores.postgresql.address import Address

Fetch: TypeAlias = Callable[..., Awaitable[Sequence[Any]]]

_OLDEST: Final = 130_000
_LOCK: Final = 0x6A6F626D_696C6C
_AT_LEISURE: Final = """\
SET LOCAL statement_timeout = 0;
SET LOCAL lock_timeout = 0;
SET LOCAL idle_in_transaction_session_timeout = 0;"""
"""The limits of a role are for calls, not for this."""
_UP: Final = "run the command: jobmill migrate up"

# The catalogs are asked as tables: what to_regclass and its like remember may be older than a
# lock that was waited for.
_ABOUT: Final = """\
SELECT
    current_setting('server_version_num')::integer AS version,
    current_setting('server_encoding') AS encoding,
    pg_is_in_recovery() AS standby,
    EXISTS (SELECT 1 FROM pg_namespace AS n WHERE n.nspname = $1) AS schema,
    EXISTS (
        SELECT 1 FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname = $1 AND c.relname = 'migrations'
    ) AS ours"""
_THERE: Final = """\
SELECT
    (SELECT coalesce(max(m.number), 0) FROM {schema}.migrations AS m),
    EXISTS (SELECT 1 FROM {schema}.programs AS p WHERE p.digest = $1)"""
_BOOKS: Final = """\
CREATE TABLE {schema}.migrations (
    number integer PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE {schema}.programs (
    digest text PRIMARY KEY,
    installed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
"""


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """What a database holds: the number of its last migration, 0 for none, and this release's.

    `programs`: whether the functions of this release are installed.
    """

    schema: str
    applied: int
    latest: int
    programs: bool

    @property
    def current(self) -> bool:
        """Whether this release can work with it."""
        return self.applied >= self.latest and self.programs


async def status(fetch: Fetch, address: Address) -> Status:
    """What the schema holds; `fetch` gives the rows of a statement.

    Raises: ConfigError and SchemaMismatch where the server is none for jobmill;
    StoreUnavailable where it is a standby.
    """
    schema = quoted(address.schema)
    (about,) = await fetch(_ABOUT, address.schema)
    if about["version"] < _OLDEST:
        message = f"{address} is PostgreSQL {about['version'] // 10_000}: take 13 or later"
        raise SchemaMismatch(message)
    if about["encoding"] != "UTF8":
        raise ConfigError(
            f"the database {address} has the encoding {about['encoding']}: take one with UTF8",
            field="url",
        )
    if about["standby"]:
        raise StoreUnavailable(
            f"the server {address} is a standby, which takes no writes: give the address of the "
            "primary"
        )
    applied, programs = 0, False
    if about["ours"]:
        ((applied, programs),) = await fetch(_THERE.format(schema=schema), DIGEST)
    return Status(schema=address.schema, applied=applied, latest=LATEST, programs=programs)


async def wants_migration(fetch: Fetch, address: Address) -> bool:
    """Whether the schema has to be brought up to date before it can be worked with.

    Raises: SchemaMismatch where it is there and older, unless the address says `auto_migrate`.
    """
    found = await status(fetch, address)
    if found.current:
        return False
    if found.applied and not address.auto_migrate:
        if found.applied > found.latest:
            raise SchemaMismatch(
                f"a newer release has brought the schema of {address} to {found.applied}, and the "
                f"functions of this release are not there: update jobmill, or {_UP}"
            )
        raise SchemaMismatch(
            f"the schema of {address} is older than this release (it is at {found.applied} of "
            f"{found.latest}{'' if found.programs else ', without its functions'}): {_UP}"
        )
    return True


async def up(connection: Any, address: Address) -> Status:
    """Bring the schema up to date, in one transaction; others wait, and find it done."""
    schema = quoted(address.schema)
    async with connection.transaction(isolation="read_committed"):
        await connection.execute(_AT_LEISURE)
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        found = await status(connection.fetch, address)
        if found.current:
            return found
        about = await connection.fetchrow(_ABOUT, address.schema)
        if not about["schema"]:
            await connection.execute(f"CREATE SCHEMA {schema}")
        if not about["ours"]:
            await connection.execute(_BOOKS.format(schema=schema))
        for number in range(found.applied + 1, LATEST + 1):
            await connection.execute(migration(address.schema, number))
            await connection.execute(
                f"INSERT INTO {schema}.migrations (number) VALUES ($1)",  # noqa: S608  quoted
                number,
            )
        if not found.programs:
            await connection.execute(program(address.schema))
            await connection.execute(
                f"INSERT INTO {schema}.programs (digest) VALUES ($1)",  # noqa: S608  quoted
                DIGEST,
            )
        return await status(connection.fetch, address)


def as_sql(schema: str, applied: int = 0, *, programs: bool = False) -> str:
    """The statements that `up` runs, for whoever runs them.

    They are for a schema that is at `applied`; `programs`: it has this release's functions.
    """
    name = quoted(schema)
    parts = ["BEGIN;", _AT_LEISURE, f"SELECT pg_advisory_xact_lock({_LOCK});"]
    if not applied:
        parts += [f"CREATE SCHEMA IF NOT EXISTS {name};", _BOOKS.format(schema=name)]
    for number in range(applied + 1, LATEST + 1):
        parts.append(migration(schema, number))
        parts.append(f"INSERT INTO {name}.migrations (number) VALUES ({number});")  # noqa: S608
    if not programs:
        parts.append(program(schema))
        parts.append(f"INSERT INTO {name}.programs (digest) VALUES ('{DIGEST}');")  # noqa: S608
    parts.append("COMMIT;")
    return "\n".join(parts) + "\n"


class Migrations:
    """The schema of one database, for whoever looks after it; each call connects anew.

    Raises: ConfigError, SchemaMismatch and StoreUnavailable, as opening the store does.
    """

    def __init__(self, address: Address) -> None:
        self._address = address

    async def status(self) -> Status:
        """What the schema holds, and what this release needs."""
        async with self._connected() as connection:

            async def fetch(statement: str, *words: object) -> Sequence[Any]:
                async with limited():
                    rows: Sequence[Any] = await connection.fetch(statement, *words)
                    return rows

            return await status(fetch, self._address)

    async def up(self) -> Status:
        """Bring the schema up to date, in one transaction; nothing where it is."""
        async with self._connected() as connection:
            return await up(connection, self._address)

    async def sql(self) -> str:
        """The statements that `up` would run now; none where the schema is up to date."""
        found = await self.status()
        return "" if found.current else as_sql(found.schema, found.applied, programs=found.programs)

    @asynccontextmanager
    async def _connected(self) -> AsyncGenerator[Any]:
        with translated(self._address):
            connection = await Dialer(self._address).connect()
            try:
                yield connection
            finally:
                connection.terminate()
