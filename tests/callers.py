"""The programs that bring a transaction of their own, one for each driver that jobmill joins.

All of them are driven alike. Those that are sync block the loop of the test.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

import asyncpg
import psycopg
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import (
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from jobmill import Call, JobHandle, Queue
from jobmill.stores.postgresql import Address

_numbers = itertools.count()


class Caller(Protocol):
    """A connection in a transaction: `tx` is what goes to `enqueue`, or to `enqueue_sync`."""

    tx: Any
    sync: bool

    async def execute(self, statement: str) -> Any:
        """The first value of the first row; None where there are no rows."""
        ...

    async def commit(self) -> None: ...

    async def rollback(self) -> None: ...

    async def nested(self) -> Any:
        """Begin a transaction inside this one, as the driver does."""
        ...

    async def undo(self, nested: Any) -> None:
        """Roll back what `nested` began."""
        ...


OpenCaller = Callable[[Address], AbstractAsyncContextManager[Caller]]


async def enqueue(queue: Queue, caller: Caller, call: Call[Any], **options: Any) -> JobHandle[Any]:
    """Put a job into the queue, in the caller's transaction."""
    if caller.sync:
        return queue.enqueue_sync(call, tx=caller.tx, **options)
    return await queue.enqueue(call, tx=caller.tx, **options)


def words(address: Address) -> dict[str, Any]:
    """The address as the keywords of asyncpg."""
    return {**address.options(), "ssl": False}


def dsn(address: Address) -> str:
    """The address as libpq takes it."""
    host, port = address.host, address.port
    given = (("user", address.username), ("password", address.password))
    rest = " ".join(f"{key}={value}" for key, value in given if value)
    return f"host={host} port={port} dbname={address.database} {rest}"


def url(address: Address, driver: str) -> sa.URL:
    """The address as SQLAlchemy takes it."""
    return sa.URL.create(
        f"postgresql+{driver}",
        username=address.username,
        password=address.password,
        host=address.host,
        port=address.port,
        database=address.database,
    )


class Asyncpg:
    sync = False

    def __init__(self, tx: Any) -> None:
        self.tx = tx
        self._whole = tx.transaction()

    async def begin(self) -> None:
        await self._whole.start()

    async def execute(self, statement: str) -> Any:
        return await self.tx.fetchval(statement)

    async def commit(self) -> None:
        await self._whole.commit()

    async def rollback(self) -> None:
        await self._whole.rollback()

    async def nested(self) -> Any:
        inner = self.tx.transaction()
        await inner.start()
        return inner

    async def undo(self, nested: Any) -> None:
        await nested.rollback()


@asynccontextmanager
async def by_asyncpg(address: Address) -> AsyncIterator[Caller]:
    connection = await asyncpg.connect(**words(address))
    try:
        caller = Asyncpg(connection)
        await caller.begin()
        yield caller
    finally:
        await connection.close()


@asynccontextmanager
async def by_pool(address: Address) -> AsyncIterator[Caller]:
    pool = await asyncpg.create_pool(**words(address), min_size=1, max_size=1)
    try:
        async with pool.acquire() as connection:
            caller = Asyncpg(connection)
            await caller.begin()
            yield caller
    finally:
        await pool.close()


def first(cursor: Any) -> Any:
    row = cursor.fetchone() if cursor.description else None
    return None if row is None else row[0]


class Psycopg:
    sync = True

    def __init__(self, tx: Any) -> None:
        self.tx = tx

    async def execute(self, statement: str) -> Any:
        return first(self.tx.execute(statement))

    async def commit(self) -> None:
        self.tx.commit()

    async def rollback(self) -> None:
        self.tx.rollback()

    async def nested(self) -> Any:
        inner = self.tx.transaction(force_rollback=True)
        inner.__enter__()
        return inner

    async def undo(self, nested: Any) -> None:
        nested.__exit__(None, None, None)


@asynccontextmanager
async def by_psycopg(address: Address) -> AsyncIterator[Caller]:
    connection = psycopg.connect(dsn(address))
    try:
        yield Psycopg(connection)
    finally:
        connection.close()


class AsyncPsycopg:
    sync = False

    def __init__(self, tx: Any) -> None:
        self.tx = tx

    async def execute(self, statement: str) -> Any:
        cursor = await self.tx.execute(statement)
        row = await cursor.fetchone() if cursor.description else None
        return None if row is None else row[0]

    async def commit(self) -> None:
        await self.tx.commit()

    async def rollback(self) -> None:
        await self.tx.rollback()

    async def nested(self) -> Any:
        inner = self.tx.transaction(force_rollback=True)
        await inner.__aenter__()
        return inner

    async def undo(self, nested: Any) -> None:
        await nested.__aexit__(None, None, None)


@asynccontextmanager
async def by_async_psycopg(address: Address) -> AsyncIterator[Caller]:
    connection = await psycopg.AsyncConnection.connect(dsn(address))
    try:
        yield AsyncPsycopg(connection)
    finally:
        await connection.close()


class Sqlalchemy:
    sync = True

    def __init__(self, tx: Any) -> None:
        self.tx = tx

    async def execute(self, statement: str) -> Any:
        result = self.tx.execute(sa.text(statement))
        return result.scalar() if result.returns_rows else None

    async def commit(self) -> None:
        self.tx.commit()

    async def rollback(self) -> None:
        self.tx.rollback()

    async def nested(self) -> Any:
        return self.tx.begin_nested()

    async def undo(self, nested: Any) -> None:
        nested.rollback()


class AsyncSqlalchemy:
    sync = False

    def __init__(self, tx: Any) -> None:
        self.tx = tx

    async def execute(self, statement: str) -> Any:
        result = await self.tx.execute(sa.text(statement))
        return result.scalar() if result.returns_rows else None

    async def commit(self) -> None:
        await self.tx.commit()

    async def rollback(self) -> None:
        await self.tx.rollback()

    async def nested(self) -> Any:
        return await self.tx.begin_nested()

    async def undo(self, nested: Any) -> None:
        await nested.rollback()


def by_sqlalchemy(tx_of: Callable[[sa.Engine], Any]) -> OpenCaller:
    @asynccontextmanager
    async def opened(address: Address) -> AsyncIterator[Caller]:
        engine = sa.create_engine(url(address, "psycopg"))
        tx = tx_of(engine)
        try:
            yield Sqlalchemy(tx)
        finally:
            tx.close()
            engine.dispose()

    return opened


def by_async_sqlalchemy(driver: str, tx_of: Callable[[Any], Any]) -> OpenCaller:
    @asynccontextmanager
    async def opened(address: Address) -> AsyncIterator[Caller]:
        engine = create_async_engine(url(address, driver))
        tx = tx_of(engine)
        if hasattr(tx, "start"):
            await tx.start()
        try:
            yield AsyncSqlalchemy(tx)
        finally:
            await tx.close()
            await engine.dispose()

    return opened


class Django:
    sync = True

    def __init__(self, tx: Any) -> None:
        from django.db.transaction import Atomic

        self.tx = tx
        self._whole = Atomic(using=tx.alias, savepoint=True, durable=False)
        self._whole.__enter__()

    async def execute(self, statement: str) -> Any:
        with self.tx.cursor() as cursor:
            cursor.execute(statement)
            return first(cursor)

    async def commit(self) -> None:
        self._whole.__exit__(None, None, None)

    async def rollback(self) -> None:
        self.tx.set_rollback(True)
        self._whole.__exit__(None, None, None)

    async def nested(self) -> Any:
        return self.tx.savepoint()

    async def undo(self, nested: Any) -> None:
        self.tx.savepoint_rollback(nested)


def django_connection(address: Address) -> Any:
    """A connection of Django to the database, under an alias of its own; close it."""
    import django
    from django.conf import settings
    from django.db import connections

    if not settings.configured:
        settings.configure(DATABASES={})
        django.setup()
    alias = f"shop{next(_numbers)}"
    connections.databases[alias] = connections.configure_settings(
        {
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "HOST": address.host,
                "PORT": address.port,
                "USER": address.username,
                "PASSWORD": address.password or "",
                "NAME": address.database,
            }
        }
    )["default"]
    return connections[alias]


@asynccontextmanager
async def by_django(address: Address) -> AsyncIterator[Caller]:
    # Django refuses its sync side where a loop runs; the tests know what they do.
    connection = django_connection(address)
    try:
        yield Django(connection)
    finally:
        connection.close()


SYNC: dict[str, OpenCaller] = {
    "psycopg": by_psycopg,
    "sqlalchemy session": by_sqlalchemy(Session),
    "sqlalchemy scoped session": by_sqlalchemy(lambda engine: scoped_session(sessionmaker(engine))),
    "sqlalchemy connection": by_sqlalchemy(lambda engine: engine.connect()),
    "django": by_django,
}
ASYNC: dict[str, OpenCaller] = {
    "asyncpg": by_asyncpg,
    "asyncpg pool": by_pool,
    "async psycopg": by_async_psycopg,
    "sqlalchemy asyncpg session": by_async_sqlalchemy("asyncpg", AsyncSession),
    "sqlalchemy asyncpg scoped session": by_async_sqlalchemy(
        "asyncpg",
        lambda engine: async_scoped_session(async_sessionmaker(engine), scopefunc=lambda: None),
    ),
    "sqlalchemy asyncpg connection": by_async_sqlalchemy(
        "asyncpg", lambda engine: engine.connect()
    ),
    "sqlalchemy psycopg session": by_async_sqlalchemy("psycopg", AsyncSession),
    "sqlalchemy psycopg connection": by_async_sqlalchemy(
        "psycopg", lambda engine: engine.connect()
    ),
}
CALLERS: dict[str, OpenCaller] = {**SYNC, **ASYNC}
LIKE_OTHERS = {
    *("asyncpg pool", "sqlalchemy scoped session", "sqlalchemy asyncpg scoped session"),
    *("sqlalchemy connection", "sqlalchemy psycopg connection"),
}
"""Those that only wrap another of the list."""
