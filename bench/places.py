"""Where is measured: a store, empty for each measurement, and what a peer finds there."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

import msgspec
import redis as driver

from bench.bare import (
    drain_memory,
    drain_redis,
    drain_sqlite,
    enqueue_memory,
    enqueue_postgresql,
    enqueue_redis,
    enqueue_sqlite,
)
from bench.postgresql import drain_postgresql
from jobmill import Queue, create_queue
from jobmill.stores import postgresql
from jobmill.stores.postgresql.driver import connect
from jobmill.stores.postgresql.provision import binaries, server as postgres_server
from jobmill.stores.redis import Address
from jobmill.stores.redis.provision import binary, server


class Place(Protocol):
    """One store."""

    name: str

    def fresh(self) -> str:
        """The URL of an empty store."""
        ...

    async def bare(self, url: str, batch: int, jobs: int) -> float:
        """Jobs a second of the loop without a library, over what was enqueued there."""
        ...

    async def bare_enqueue(self, url: str, batch: int, jobs: int) -> float:
        """Jobs a second of a loop without a library that puts them there, by `batch`."""
        ...

    def statements(self) -> float | None:
        """What the server was asked so far, where that can be told."""
        ...


class Memory:
    """Jobs in this process."""

    name = "memory"

    def fresh(self) -> str:
        """A store of its own."""
        return "memory://"

    async def bare(self, url: str, batch: int, jobs: int) -> float:  # noqa: ARG002  no store is read
        """Decode and create an asyncio task for each."""
        return await drain_memory([b'{"number":%d}' % n for n in range(jobs)], batch)

    async def bare_enqueue(self, url: str, batch: int, jobs: int) -> float:  # noqa: ARG002  no store is written
        """Into a dict."""
        return enqueue_memory(jobs, batch)

    def statements(self) -> float | None:
        """There is no server."""
        return None


class SQLite:
    """A file on the disk, synchronous=FULL."""

    name = "sqlite"

    def __init__(self, folder: Path) -> None:
        self._files = (folder / f"{number}.db" for number in itertools.count())

    def fresh(self) -> str:
        """A new file."""
        return f"sqlite:///{next(self._files)}"

    async def bare(self, url: str, batch: int, jobs: int) -> float:  # noqa: ARG002  all that is there
        """Its statements, by the driver alone."""
        return drain_sqlite(Path(url.removeprefix("sqlite:///")), batch)

    async def bare_enqueue(self, url: str, batch: int, jobs: int) -> float:
        """Its statement, by the driver alone."""
        return enqueue_sqlite(Path(url.removeprefix("sqlite:///")), jobs, batch)

    def statements(self) -> float | None:
        """There is no server."""
        return None


class Redis:
    """A server of its own, without persistence, as all who are measured find it."""

    name = "redis"

    def __init__(self, address: Address) -> None:
        self._address = address

    def fresh(self) -> str:
        """The server, emptied."""
        with driver.Redis(**self._address.options()) as connection:
            connection.flushall()
        return str(self._address)

    async def bare(self, url: str, batch: int, jobs: int) -> float:  # noqa: ARG002  all that is there
        """Its script, by the driver alone."""
        return await drain_redis(self._address, batch)

    async def bare_enqueue(self, url: str, batch: int, jobs: int) -> float:  # noqa: ARG002  the server that was emptied
        """Its script, by the driver alone."""
        return await enqueue_redis(self._address, jobs, batch)

    def statements(self) -> float | None:
        """What clients sent; the server does not tell it apart from what scripts run.

        So only what no script runs is counted. The asking itself is none of it.
        """
        with driver.Redis(**self._address.options()) as connection:
            stats: Any = connection.info("commandstats")
        sent = ("evalsha", "eval", "ping", "subscribe", "wait")
        return float(sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in sent))


class PostgreSQL:
    """A server of its own that waits for its disk; a database for each measurement."""

    name = "postgresql"

    def __init__(self, address: postgresql.Address) -> None:
        self._address = address
        self._numbers = itertools.count(1)
        self._database = ""

    def fresh(self) -> str:
        """A new database, which the server tidies as ever."""
        asyncio.run(self._ask("ALTER SYSTEM RESET autovacuum"))
        asyncio.run(self._ask("SELECT pg_reload_conf()"))
        self._database = f"bench{next(self._numbers)}"
        asyncio.run(self._ask(f"CREATE DATABASE {self._database}"))
        there = self._address
        return f"postgresql://{there.username}@{there.host}:{there.port}/{self._database}"

    async def bare(self, url: str, batch: int, jobs: int) -> float:  # noqa: ARG002  all that is there
        """A statement like its own, by the driver alone."""
        address = msgspec.structs.replace(self._address, database=self._database)
        return await drain_postgresql(address, "default", batch)

    async def bare_enqueue(self, url: str, batch: int, jobs: int) -> float:  # noqa: ARG002  the database that was made
        """A statement like its own, by the driver alone."""
        address = msgspec.structs.replace(self._address, database=self._database)
        return await enqueue_postgresql(address, jobs, batch)

    def statements(self) -> float | None:
        """Transactions of the database; until the next one those of its clients alone."""
        asyncio.run(self._ask("ALTER SYSTEM SET autovacuum = off"))
        asyncio.run(self._ask("SELECT pg_reload_conf()"))
        ask = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = '%s'"
        return float(asyncio.run(self._ask(ask % self._database)))

    async def _ask(self, statement: str) -> Any:
        connection = await connect(**self._address.options(), ssl=False)
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()


@contextmanager
def places(chosen: set[str]) -> Generator[list[Place]]:
    """The stores that are chosen and can be had here; their servers end with the block."""
    with ExitStack() as stack:
        found: list[Place] = []
        if "memory" in chosen:
            found.append(Memory())
        if "sqlite" in chosen:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            found.append(SQLite(Path(folder)))
        if "redis" in chosen and binary() is not None:
            found.append(Redis(stack.enter_context(server())))
        if "postgresql" in chosen and binaries() is not None:
            found.append(PostgreSQL(stack.enter_context(postgres_server()).address))
        for name in chosen - {each.name for each in found}:
            print(f"{name}: not measured, because its server is not installed")
        yield found


def queue(url: str, concurrency: int = 100) -> Queue:
    """The queue at the URL."""
    return create_queue(url, concurrency=concurrency)
