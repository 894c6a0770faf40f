"""What the errors of sqlite3 mean to a caller, and what to do about them."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final, NamedTuple

from jobmill.errors import ConfigError, JobsError, StoreError, StoreUnavailable

# Python's own, of a value that SQLite cannot hold: an integer over 64 bits, a lone surrogate.
_VALUE_ERRORS: Final = (OverflowError, UnicodeEncodeError)
_OF_ONE_STATEMENT: Final = (
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    sqlite3.NotSupportedError,
)


class _Meaning(NamedTuple):
    error: type[StoreError | ConfigError]
    message: str


_LOCKED: Final = _Meaning(
    StoreUnavailable, "the file {path} stayed locked by another program: end its open transaction"
)
_MEANINGS: Final = {
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
    sqlite3.SQLITE_FULL: _Meaning(
        StoreUnavailable, "no space is left for the file {path}: make room on its disk"
    ),
    sqlite3.SQLITE_IOERR: _Meaning(
        StoreUnavailable,
        "the disk of the file {path} refused ({error}): see to the disk and its free space",
    ),
    sqlite3.SQLITE_CANTOPEN: _Meaning(
        StoreUnavailable,
        "the file {path} cannot be opened: see to its directory, its rights and the limit of "
        "open files",
    ),
    sqlite3.SQLITE_READONLY: _Meaning(
        ConfigError,
        "the file {path} cannot be written: give this user the right to write the file, its "
        "-wal and -shm, and its directory",
    ),
    sqlite3.SQLITE_NOTADB: _Meaning(
        ConfigError, "the file {path} is no SQLite database: choose another"
    ),
    sqlite3.SQLITE_CORRUPT: _Meaning(
        StoreError,
        "the file {path} is damaged ({error}): stop every program that uses it and restore a "
        "backup, or save what can be read with the command sqlite3 FILE .recover",
    ),
}
_ANY: Final = _Meaning(StoreError, "SQLite refused, on the file {path}: {error}")


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another connection is in the way, which may pass."""
    return _MEANINGS.get(_code(error)) is _LOCKED


def is_of_one_statement(error: Exception) -> bool:
    """Whether others of the same transaction may go on."""
    return isinstance(error, _OF_ONE_STATEMENT) or not isinstance(error, sqlite3.Error)


def outward(error: Exception, path: object) -> Exception:
    """The error as callers see it: none of sqlite3, nor one of a value SQLite cannot hold."""
    if not isinstance(error, (sqlite3.Error, *_VALUE_ERRORS)):
        return error
    meaning = _MEANINGS.get(_code(error), _ANY)
    fault: JobsError = meaning.error(meaning.message.format(path=path, error=error))
    if isinstance(fault, ConfigError):
        fault.field = "path"
    fault.__cause__ = error
    return fault


@contextmanager
def translated(path: object) -> Generator[None]:
    """Let errors out only as `outward` says."""
    try:
        yield
    except (sqlite3.Error, *_VALUE_ERRORS) as error:
        raise outward(error, path) from error


def _code(error: Exception) -> int:
    """The primary result code; 0 where the error is Python's own."""
    code: int = getattr(error, "sqlite_errorcode", None) or 0
    return code & 0xFF
