"""The connections that callers bring: one statement on each, whatever its driver.

Nothing is imported for them. Where the module of a driver is not loaded, `tx` is none of its.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from jobmill.errors import ConfigError, StoreUnavailable, Unsupported

Marks = Callable[[int, str], str]
"""How a statement writes its nth argument, from 1, which is of that type."""

_TAKEN: Final = (
    "a connection of asyncpg, psycopg 3 or Django, or a connection or session of SQLAlchemy"
)


class SyncCaller(Protocol):
    """A sync connection with its transaction; `driver` is the driver's own object."""

    driver: Any
    marks: Marks

    def row(self, statement: str, words: Sequence[object]) -> Sequence[Any]:
        """The one row that the statement answers with. Raises what the driver raises."""
        ...


class AsyncCaller(Protocol):
    """The same, of an async connection."""

    driver: Any
    marks: Marks

    async def row(self, statement: str, words: Sequence[object]) -> Sequence[Any]:
        """The one row that the statement answers with. Raises what the driver raises."""
        ...


_Kinds = tuple[tuple[str, str], ...]
"""Classes, by module and name."""
_ASYNCPG: Final[_Kinds] = (
    ("asyncpg.connection", "Connection"),
    ("asyncpg.pool", "PoolConnectionProxy"),
)
_PSYCOPG: Final[_Kinds] = (("psycopg", "Connection"),)
_ASYNC_PSYCOPG: Final[_Kinds] = (("psycopg", "AsyncConnection"),)
_SESSION: Final[_Kinds] = (("sqlalchemy.orm", "Session"), ("sqlalchemy.orm", "scoped_session"))
_ENGINE: Final[_Kinds] = (("sqlalchemy.engine", "Connection"),)
_ASYNC_SESSION: Final[_Kinds] = (
    ("sqlalchemy.ext.asyncio", "AsyncSession"),
    ("sqlalchemy.ext.asyncio", "async_scoped_session"),
)
_ASYNC_ENGINE: Final[_Kinds] = (("sqlalchemy.ext.asyncio", "AsyncConnection"),)
_DJANGO: Final[_Kinds] = (
    ("django.utils.connection", "ConnectionProxy"),
    ("django.db.backends.base.base", "BaseDatabaseWrapper"),
)


def sync_caller(tx: object) -> SyncCaller:
    """The sync connection `tx`.

    Raises: Unsupported where it is async, or by a driver that is not taken; ConfigError where it
    is none, or has no transaction; StoreUnavailable where it is closed.
    """
    if _is(tx, _PSYCOPG):
        return _Psycopg(tx)
    if _is(tx, _SESSION):
        return _Sqlalchemy(_any(tx).connection())
    if _is(tx, _ENGINE):
        return _Sqlalchemy(tx)
    if _is(tx, _DJANGO):
        return _of_django(tx)
    if _is(tx, _ASYNCPG + _ASYNC_PSYCOPG + _ASYNC_SESSION + _ASYNC_ENGINE):
        raise Unsupported(f"tx is async, {_kind(tx)}: await enqueue(..., tx=...) with it")
    raise _foreign(tx)


async def async_caller(tx: object) -> AsyncCaller:
    """The async connection `tx`; raises as `sync_caller` does."""
    if _is(tx, _ASYNCPG):
        return _Asyncpg(tx)
    if _is(tx, _ASYNC_PSYCOPG):
        return _AsyncPsycopg(tx)
    if _is(tx, _ASYNC_SESSION):
        tx = await _any(tx).connection()
    if _is(tx, _ASYNC_ENGINE):
        return _AsyncSqlalchemy(tx, await _any(tx).get_raw_connection())
    if _is(tx, _PSYCOPG + _SESSION + _ENGINE + _DJANGO):
        raise Unsupported(f"tx is sync, {_kind(tx)}: call enqueue_sync(..., tx=...) with it")
    raise _foreign(tx)


def _is(tx: object, kinds: _Kinds) -> bool:
    return isinstance(
        tx, tuple(getattr(sys.modules.get(module), name, ()) for module, name in kinds)
    )


def _any(tx: object) -> Any:
    return tx


def _kind(tx: object) -> str:
    return f"{type(tx).__module__}.{type(tx).__qualname__}"


def _foreign(tx: object) -> ConfigError:
    return refused(f"tx is no connection that can be joined, but {_kind(tx)}: give {_TAKEN}")


def refused(message: str) -> ConfigError:
    """What is wrong with `tx`."""
    return ConfigError(message, field="tx")


def _commits_by_itself(how: str) -> ConfigError:
    return refused(
        f"tx has no open transaction and commits each statement by itself: {how} first, so that "
        "the job can go with what you write"
    )


def _closed() -> StoreUnavailable:
    return StoreUnavailable("tx is closed: begin your transaction anew, on another connection")


def _dollars(number: int, type_: str, /) -> str:
    return f"${number}::pg_catalog.{type_}"


def _percents(_: int, type_: str, /) -> str:
    # As text, psycopg spoils bytes in arrays where standard_conforming_strings is off.
    return f"%{'b' if type_ == 'bytea[]' else 's'}::pg_catalog.{type_}"


class _Asyncpg:
    marks = staticmethod(_dollars)

    def __init__(self, tx: Any) -> None:
        # A pool wraps the connection anew each time that it lends it.
        self.driver = getattr(tx, "_con", None) or tx
        self._tx = tx
        if tx.is_closed():
            raise _closed()
        if not tx.is_in_transaction():
            raise _commits_by_itself("enter connection.transaction()")

    async def row(self, statement: str, words: Sequence[object]) -> Sequence[Any]:
        found: Sequence[Any] = await self._tx.fetchrow(statement, *words)
        return found


class _AsyncPsycopg:
    marks = staticmethod(_percents)

    def __init__(self, tx: Any) -> None:
        self.driver = tx
        self._psycopg = _checked_psycopg(tx)

    async def row(self, statement: str, words: Sequence[object]) -> Sequence[Any]:
        rows = self._psycopg.rows
        async with self._psycopg.AsyncCursor(self.driver, row_factory=rows.tuple_row) as cursor:
            await cursor.execute(statement, words or None)
            found: Sequence[Any] = await cursor.fetchone()
        return found


class _Psycopg:
    marks = staticmethod(_percents)

    def __init__(self, tx: Any) -> None:
        self.driver = tx
        self._psycopg = _checked_psycopg(tx)

    def row(self, statement: str, words: Sequence[object]) -> Sequence[Any]:
        # A cursor of its own kind, whatever the caller has chosen for the others.
        rows = self._psycopg.rows
        with self._psycopg.Cursor(self.driver, row_factory=rows.tuple_row) as cursor:
            cursor.execute(statement, words or None)
            found: Sequence[Any] = cursor.fetchone()
        return found


def _checked_psycopg(tx: Any) -> Any:
    psycopg = importlib.import_module("psycopg")
    if tx.closed:
        raise _closed()
    # Without autocommit it begins a transaction before the first statement, by itself.
    if tx.autocommit and tx.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
        raise _commits_by_itself("enter connection.transaction()")
    return psycopg


def _of_django(tx: Any) -> SyncCaller:
    if tx.vendor != "postgresql":
        raise refused(f"tx leads to a database of {tx.vendor}, not to that of the queue")
    if not tx.in_atomic_block and tx.get_autocommit():
        raise _commits_by_itself("enter transaction.atomic()")
    if tx.needs_rollback:
        raise refused("the transaction of tx has failed: leave its atomic block first")
    tx.ensure_connection()
    if not _is(tx.connection, _PSYCOPG):
        raise Unsupported("tx is Django's by psycopg2: install psycopg 3, which Django prefers")
    return _Psycopg(tx.connection)


_MARKS: Final[dict[str, Marks]] = {
    "asyncpg": _dollars,
    "psycopg": _percents,
    "psycopg_async": _percents,
}


def _checked_sqlalchemy(dialect: Any, pooled: Any) -> Marks:
    if dialect.name != "postgresql":
        raise refused(f"tx leads to a database of {dialect.name}, not to that of the queue")
    marks = _MARKS.get(dialect.driver)
    if marks is None:
        raise Unsupported(
            f"tx is SQLAlchemy's by {dialect.driver}: give the engine a URL that begins with "
            "postgresql+psycopg:// or postgresql+asyncpg://"
        )
    if pooled.dbapi_connection.autocommit:
        raise _commits_by_itself("give it another isolation level than AUTOCOMMIT")
    return marks


class _Sqlalchemy:
    """By SQLAlchemy itself, which begins the transaction where none is open."""

    def __init__(self, connection: Any) -> None:
        pooled = connection.connection
        self.marks = _checked_sqlalchemy(connection.dialect, pooled)
        self.driver = pooled.driver_connection
        self._connection = connection

    def row(self, statement: str, words: Sequence[object]) -> Sequence[Any]:
        result = self._connection.exec_driver_sql(statement, tuple(words) or None)
        found: Sequence[Any] = result.one()
        return found


class _AsyncSqlalchemy:
    def __init__(self, connection: Any, pooled: Any) -> None:
        self.marks = _checked_sqlalchemy(connection.dialect, pooled)
        self.driver = pooled.driver_connection
        self._connection = connection

    async def row(self, statement: str, words: Sequence[object]) -> Sequence[Any]:
        result = await self._connection.exec_driver_sql(statement, tuple(words) or None)
        found: Sequence[Any] = result.one()
        return found
