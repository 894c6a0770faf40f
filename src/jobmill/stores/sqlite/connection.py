"""Connections to the file: how they are opened, and what their errors mean to a caller."""

from __future__ import annotations

import ctypes
import os
import random
import sqlite3
import time
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, TypeVar
from urllib.parse import quote

from jobmill.errors import ConfigError, SchemaMismatch, StoreUnavailable, Unsupported
from jobmill.stores.sqlite.faults import is_busy, translated
from jobmill.stores.sqlite.statements import migrations, statements

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

T = TypeVar("T")
Synchronous: TypeAlias = Literal["full", "normal"]

OLDEST: Final = (3, 37, 0)
"""The oldest SQLite that is known to run every statement here."""
PATIENCE: Final = 5.0
"""Seconds for which a locked file is tried again."""

# The WAL is written back into the file at 16 MB of it, and is cut to 64 MB where a long
# reader made it grow. No mmap: a page that cannot be read would kill the process by a signal.
_PRAGMAS: Final = (
    "PRAGMA wal_autocheckpoint = 4000",
    "PRAGMA journal_size_limit = 67108864",
    "PRAGMA cache_size = -8000",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA foreign_keys = OFF",
    "PRAGMA recursive_triggers = OFF",
)
_LONGEST_NAP: Final = 0.01


def connect(path: Path, synchronous: Synchronous, *, create: bool, patience: float) -> Connected:
    """Open the file, and make its schema the one of this release.

    Raises: ConfigError where the path is unusable; SchemaMismatch; StoreUnavailable.
    """
    if sqlite3.sqlite_version_info < OLDEST:
        message = (
            f"SQLite {'.'.join(map(str, OLDEST))} or newer is needed; "
            f"this Python has {sqlite3.sqlite_version}"
        )
        raise Unsupported(message)
    _check_path(path, create=create)
    connection = None
    try:
        with translated(path):
            connection = _open(path, "rwc" if create else "rw")
            _retrying(lambda: _prepare(connection, synchronous), patience)
            # Not one exclusive transaction for every start: only where there is work.
            if _retrying(lambda: schema_of(connection), patience) != len(migrations()):
                begin(connection, patience)
                migrate(connection, path)
                connection.execute("COMMIT")
            return Connected(connection, path)
    except BaseException:
        if connection is not None:
            connection.close()
        raise


def connect_reader(path: Path, patience: float) -> Connected:
    """Open the file, which is there and has its schema, for reading."""
    with translated(path):
        connection = _open(path, "rw")
        connection.execute(f"PRAGMA busy_timeout = {int(patience * 1000)}")
        connection.execute("PRAGMA cache_size = -4000")
        connection.execute("PRAGMA query_only = ON")
        return Connected(connection, path)


class Connected:
    """A connection, and the file that it was opened on: the path may come to lead elsewhere."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self.connection = connection
        self._path = path
        self._inode = _inode(path)

    def check(self) -> None:
        """Raise StoreUnavailable where the path no longer leads to the file that is open."""
        if _inode(self._path) != self._inode:
            message = (
                f"the file {self._path} was removed or replaced while it was in use; nothing was "
                "written. Put the file back with its -wal, or restart every program that uses it"
            )
            raise StoreUnavailable(message)


def abandon(connection: sqlite3.Connection) -> None:
    """Never close this connection, not even when the interpreter ends.

    Closing would write back and delete a -wal that may belong to another file by now, and in
    a forked child it would wait for locks of threads that do not exist there.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


def begin(connection: sqlite3.Connection, patience: float) -> None:
    """Take the write lock; tried again while another process has it.

    Short naps with some randomness: SQLite's own waiting grows to 100 ms and lets a busy
    process starve an idle one.
    """
    _retrying(lambda: connection.execute("BEGIN IMMEDIATE"), patience)


def roll_back(connection: sqlite3.Connection) -> None:
    """End the transaction if there still is one; SQLite ends it by itself on some errors."""
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def schema_of(connection: sqlite3.Connection | sqlite3.Cursor, schema: str = "main") -> int:
    """How many migrations the file has had."""
    sql = statements("meta", schema)
    if connection.execute(sql["there"]).fetchone() is None:
        return 0
    return int(connection.execute(sql["schema"]).fetchone()[0])


def migrate(
    connection: sqlite3.Connection | sqlite3.Cursor, path: object, schema: str = "main"
) -> None:
    """Run, in the open transaction, the migrations that the file has not had.

    Raises: SchemaMismatch where it has had more than this release knows.
    """
    steps = migrations(schema)
    had = schema_of(connection, schema)
    if had > len(steps):
        message = (
            f"the file {path} was written by a newer jobmill (schema {had}, this one knows "
            f"{len(steps)}): update jobmill in this program"
        )
        raise SchemaMismatch(message)
    for number, step in enumerate(steps[had:], had + 1):
        for statement in step:
            connection.execute(statement)
        connection.execute(statements("meta", schema)["migrated"], (number,))


def _check_path(path: Path, *, create: bool) -> None:
    """Say what is wrong with a path in words that SQLite's own errors lack."""
    if path.is_dir():
        message = f"the path {path} is a directory: give the path of a file in it"
        raise ConfigError(message, field="path")
    if not path.parent.is_dir():
        message = f"there is no directory {path.parent} to put the file {path.name} into: create it"
        raise ConfigError(message, field="path")
    there = path.exists()
    if not there and not create:
        message = f"the file {path} is gone: put it back, or restart this program to start anew"
        raise StoreUnavailable(message)
    if there and not os.access(path, os.R_OK | os.W_OK):
        message = (
            f"the file {path} cannot be written: give this user the right to read and write it"
        )
        raise ConfigError(message, field="path")
    if not os.access(path.parent, os.W_OK):
        message = (
            f"the directory {path.parent} cannot be written: give this user the right to, since "
            f"SQLite keeps its -wal and -shm beside the file {path.name}"
        )
        raise ConfigError(message, field="path")


def _open(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"file:{quote(str(path))}?mode={mode}",
        uri=True,
        timeout=0,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
    )


def _prepare(connection: sqlite3.Connection, synchronous: Synchronous) -> None:
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        message = f"the file cannot use SQLite's WAL (its mode is {mode}): put it on a local disk"
        raise ConfigError(message, field="path")
    for pragma in _PRAGMAS:
        connection.execute(pragma)
    connection.execute(f"PRAGMA synchronous = {synchronous}")


def _retrying(act: Callable[[], T], patience: float) -> T:
    deadline = time.monotonic() + patience
    nap = 0.0005
    while True:
        try:
            return act()
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() >= deadline:
                raise
        time.sleep(nap * random.uniform(0.5, 1.0))
        nap = min(nap * 1.5, _LONGEST_NAP)


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116  called in every transaction
    except OSError:
        return None
    return found.st_dev, found.st_ino
