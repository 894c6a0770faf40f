"""`add_with_sync`: store jobs inside a transaction of the caller's own connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from jobmill.errors import ConfigError
from jobmill.store import Added, NewJob
from jobmill.stores.sqlite.adding import add
from jobmill.stores.sqlite.connection import migrate
from jobmill.stores.sqlite.faults import translated
from jobmill.stores.sqlite.statements import statements
from jobmill.stores.sqlite.turn import Time, Turn


def add_on(tx: object, path: Path, queue: str, time: Time, jobs: Sequence[NewJob]) -> list[Added]:
    """Store jobs on the caller's connection; they are there when its transaction commits.

    Where none is open it begins one, as sqlite3 does before a statement that writes. Workers
    see the commit by themselves. The schema is made inside the transaction where it is missing.

    Raises: ConfigError where the connection does not lead to the file, or would commit each
    statement by itself.
    """
    if not isinstance(tx, sqlite3.Connection):
        raise ConfigError(
            f"tx is a {type(tx).__name__}: give the sqlite3.Connection whose transaction the "
            "job is to go with",
            field="tx",
        )
    with translated(path), _plain(tx) as cursor:
        schema = _schema_of_file(cursor, path)
        if not tx.in_transaction:
            _begin(tx, cursor)
        cursor.execute("SAVEPOINT jobmill_add")
        try:
            migrate(cursor, path, schema)
            meta = statements("meta", schema)
            # Takes the write lock before anything is looked up, so that it stays true.
            cursor.execute(meta["lock"])
            now = time.now(cursor.execute(meta["clock"]).fetchone()[0])
            turn = Turn(cursor, queue, now, schema)
            answers = add(turn, jobs, wake=False)
            turn.finish()
            cursor.execute(meta["told"], (now, 1))
        except BaseException:
            if tx.in_transaction:
                cursor.execute("ROLLBACK TO jobmill_add")
                cursor.execute("RELEASE jobmill_add")
            raise
        cursor.execute("RELEASE jobmill_add")
        return answers


@contextmanager
def _plain(tx: sqlite3.Connection) -> Generator[sqlite3.Cursor]:
    """A cursor that gives tuples and str, whatever the caller has chosen for the others."""
    chosen = tx.text_factory
    cursor = tx.cursor()
    cursor.row_factory = None
    tx.text_factory = str
    try:
        yield cursor
    finally:
        tx.text_factory = chosen
        cursor.close()


def _begin(tx: sqlite3.Connection, cursor: sqlite3.Cursor) -> None:
    if tx.isolation_level is None or getattr(tx, "autocommit", None) is True:
        raise ConfigError(
            "tx has no open transaction and commits each statement by itself: execute BEGIN "
            "first, so that the job can go with what you write",
            field="tx",
        )
    cursor.execute("BEGIN IMMEDIATE")


def _schema_of_file(cursor: sqlite3.Cursor, path: Path) -> str:
    """The name under which the connection has the file."""
    for _, name, file in cursor.execute("PRAGMA database_list").fetchall():
        if not file:
            continue
        try:
            same = path.samefile(file)
        except OSError:
            same = False
        if same:
            return str(name)
    raise ConfigError(
        f"tx does not lead to the file {path}: give a connection that has opened or attached it",
        field="tx",
    )
