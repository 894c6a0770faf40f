"""Where the jobs of a test are: one place for each store that outlives a process."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol, Self

import pytest

from jobmill.stores.postgresql.provision import Server as PostgresServer, room
from jobmill.stores.redis.provision import Server as RedisServer
from tests.faults.processes import PATIENCE, Process
from tests.servers import ask_postgres, need_a_server, own_postgres


class Place(Protocol):
    """A new store."""

    @classmethod
    @contextmanager
    def made(cls) -> Generator[Self]:
        """The place, for as long as the test goes."""
        ...

    @property
    def url(self) -> str: ...

    def freeze(self, process: Process) -> None:
        """Freeze the process, but not where that would freeze all others."""
        ...

    def kill(self, process: Process) -> None:
        """Kill the process, and return when nothing that it asked for is under way."""
        ...


class Server(Protocol):
    """A server that is harmed; what it had answered for is there after a restart."""

    def kill(self) -> None: ...
    def start(self) -> None: ...
    def freeze(self) -> None: ...
    def thaw(self) -> None: ...


class ServerPlace(Place, Protocol):
    """A new store in a server of its own."""

    forgets: float
    """The last seconds before a crash of the server whose claims it may not remember."""

    @property
    def server(self) -> Server: ...

    @property
    def port(self) -> int: ...

    def url_at(self, port: int) -> str:
        """The store, as it is reached through another port."""
        ...

    def word(self, text: str) -> bytes:
        """This argument as it stands in a request, where it is not taken for anything else."""
        ...

    def empty(self) -> None:
        """Take everything out of the store, as an operator in error does."""
        ...


class _OneByOne:
    """Where calls are made one by one: what comes after a death comes after all its calls."""

    def kill(self, process: Process) -> None:
        process.kill()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the file's write lock, as a program with an open transaction does."""
    with closing(sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


class SQLitePlace(_OneByOne):
    """A new SQLite file."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "jobs.db"
        self.url = f"sqlite:///{self.path}"

    @classmethod
    @contextmanager
    def made(cls) -> Generator[Self]:
        # What outlives a process is in the system's memory as well; a busy disk holds up leases.
        with room(in_memory=True) as folder:
            yield cls(folder)

    def freeze(self, process: Process) -> None:
        """Freeze the process, but not inside a transaction: that would freeze all others."""
        with locked(self.path):
            process.freeze()


class RedisPlace(_OneByOne):
    """A new Redis server, which has every write on the disk before it answers."""

    forgets = 0.0

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self.port = server.place.port
        self.url = self.url_at(self.port)

    @classmethod
    @contextmanager
    def made(cls) -> Generator[Self]:
        need_a_server()
        with room(in_memory=True) as folder:
            server = RedisServer(folder, {"appendonly": "yes", "appendfsync": "always"})
            try:
                server.start()
                yield cls(server)
            finally:
                server.kill()

    def url_at(self, port: int) -> str:
        return f"redis://127.0.0.1:{port}/0"

    def freeze(self, process: Process) -> None:
        process.freeze()

    def word(self, text: str) -> bytes:
        # Scripts are told their arguments in MessagePack: a short text has its length before it.
        return bytes([0xA0 + len(text)]) + text.encode()

    def empty(self) -> None:
        assert self.server.ask("FLUSHALL") == "OK"


def postgres_url(port: int) -> str:
    """The URL of one of our servers, as it is reached through this port."""
    return f"postgresql://postgres@127.0.0.1:{port}/postgres?sslmode=disable"


class PostgresPlace:
    """A new PostgreSQL server."""

    # It writes down what nobody waits for after three times wal_writer_delay, which is 0.2 s.
    forgets = 0.6

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self.port = server.address.port
        self.url = self.url_at(self.port)

    @classmethod
    @contextmanager
    def made(cls) -> Generator[Self]:
        with own_postgres() as server:
            yield cls(server)

    def url_at(self, port: int) -> str:
        return postgres_url(port)

    def freeze(self, process: Process) -> None:
        process.freeze()

    def kill(self, process: Process) -> None:
        process.freeze()
        ports = ", ".join(map(str, process.ports))
        process.kill()
        # A backend whose client is gone ends when it has done what it was asked.
        asked = f"SELECT count(*) FROM pg_stat_activity WHERE client_port IN ({ports or 0})"
        deadline = time.monotonic() + PATIENCE
        while int(ask_postgres(self.server.address, asked)):
            assert time.monotonic() < deadline, "a dead process still has connections"

    def word(self, text: str) -> bytes:
        # An element of an array has its length before it.
        return len(text).to_bytes(4, "big") + text.encode()

    def empty(self) -> None:
        told = ask_postgres(
            self.server.address,
            "SELECT tablename FROM pg_tables WHERE schemaname = 'jobmill' "
            "AND tablename NOT IN ('migrations', 'programs')",
        )
        tables = ", ".join(f"jobmill.{table}" for table in told.split())
        ask_postgres(self.server.address, f"TRUNCATE {tables}")


_SQLITE: Any = pytest.param(SQLitePlace, marks=pytest.mark.store("sqlite"), id="sqlite")
_REDIS: Any = pytest.param(RedisPlace, marks=pytest.mark.store("redis"), id="redis")
_POSTGRES: Any = pytest.param(PostgresPlace, marks=pytest.mark.store("postgresql"), id="postgresql")
PLACES = (_SQLITE, _REDIS, _POSTGRES)
SERVERS = (_REDIS, _POSTGRES)
"""Those that are a server, which can be killed, frozen, cut off and emptied."""
