"""The servers that tests run on: thrown away afterwards, or named by the environment."""

from __future__ import annotations

import asyncio
import atexit
import functools
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from jobmill.stores import postgresql
from jobmill.stores.postgresql.driver import connect
from jobmill.stores.postgresql.migrating import as_sql
from jobmill.stores.postgresql.programs import quoted
from jobmill.stores.postgresql.provision import (
    Server as PostgresServer,
    binaries,
    copy_data,
    make_data,
    room,
    running,
    server as postgres_server,
)
from jobmill.stores.redis import Address
from jobmill.stores.redis.provision import Server, ask, binary, server
from jobmill.urls import StoreURL


def redis_address() -> Iterator[Address]:
    """A Redis server whose database may be emptied."""
    url = os.environ.get("JOBMILL_TEST_REDIS_URL")
    if url:
        yield Address.from_url(StoreURL.parse(url))
        return
    need_a_server()
    with server() as address:
        yield address


def need_a_server() -> None:
    """Go on only where there is a program to start."""
    if binary() is None:
        missing("redis-server is not installed; apt-get install redis-server")


def missing(what: str) -> None:
    """Skip on a laptop, fail where all has to be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


def emptied(address: Address) -> Address:
    """The server, its database emptied."""
    with by_another(address) as connection:
        connection.flushdb()
    return address


def postgres_address() -> Iterator[postgresql.Address]:
    """A PostgreSQL database whose schema jobmill may be emptied. It does not wait for the disk."""
    url = os.environ.get("JOBMILL_TEST_POSTGRES_URL")
    if url:
        yield postgresql.Address.from_url(StoreURL.parse(url))
        return
    need_postgres()
    with postgres_server(durable=False) as running:
        yield running.address


def need_postgres() -> None:
    """Go on only where there are programs to start."""
    if binaries() is None:
        missing("postgresql is not installed; apt-get install postgresql")


@functools.cache
def _with_schema() -> Path:
    """The data of a server with jobmill's schema in it, for copies; made once in a process."""
    stack = ExitStack()
    atexit.register(stack.close)
    data = stack.enter_context(room(in_memory=True)) / "data"
    make_data(data)
    with running(data, durable=False) as server:
        ask_postgres(server.address, as_sql(server.address.schema))
        server.stop()
    return data


@contextmanager
def own_postgres(*settings: str) -> Iterator[PostgresServer]:
    """A server for one test, which may do with it what it likes; jobmill's schema is there.

    Beside its folder there is room for those of others.
    """
    need_postgres()
    with room(in_memory=True) as folder:
        copy_data(_with_schema(), folder / "data")
        with running(folder / "data", settings=settings) as server:
            yield server


def ask_postgres(address: postgresql.Address, statements: str) -> str:
    """What a server says to these statements, told by psql: a row is a line."""
    folder = binaries()
    assert folder is not None
    where = ["-h", address.host, "-p", str(address.port), "-U", str(address.username)]
    done = subprocess.run(
        [str(folder / "psql"), *where, "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"],
        input=statements,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.returncode, done.stderr
    return done.stdout


async def cleared(address: postgresql.Address) -> postgresql.Address:
    """The database, its tables emptied where they are there."""
    connection = await connect(**address.options(), ssl=False)
    try:
        tables = await connection.fetch(
            "SELECT tablename FROM pg_tables WHERE schemaname = $1 "
            "AND tablename NOT IN ('migrations', 'programs', 'clock')",
            address.schema,
        )
        schema = quoted(address.schema)
        for (table,) in tables:
            await connection.execute(f"DELETE FROM {schema}.{table}")
    finally:
        await connection.close()
    return address


def emptied_postgres(address: postgresql.Address) -> postgresql.Address:
    """The same, for who has no loop."""
    thread = threading.Thread(target=lambda: asyncio.run(cleared(address)))
    thread.start()
    thread.join()
    return address


def by_another(address: Address) -> Any:
    """The one server of an address, by a client that is not jobmill's."""
    return Redis(**address.options())


async def asked(server: Server | Address, *words: str | int) -> Any:
    """The answer of a server to a command; a Refusal is raised."""
    address = server if isinstance(server, Address) else server.address
    return await asyncio.to_thread(ask, address, *words)
