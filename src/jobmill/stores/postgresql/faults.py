"""What the errors of asyncpg mean to a caller, and what to do about them."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Final, NamedTuple

from jobmill.errors import ConfigError, JobsError, SchemaMismatch, StoreError, StoreUnavailable
from jobmill.stores.postgresql.driver import (
    ClientError,
    DataError,
    InterfaceError,
    PostgresError,
)

DRIVER_ERRORS: Final[tuple[type[Exception], ...]] = (
    *(PostgresError, InterfaceError, ClientError),
    *(OSError, TimeoutError, UnicodeEncodeError, OverflowError),
)


class _Meaning(NamedTuple):
    error: type[StoreError | ConfigError]
    message: str


_GONE: Final = _Meaning(
    StoreUnavailable, "the server {place} cannot be reached: see whether it runs ({error})"
)
_SILENT: Final = _Meaning(
    StoreUnavailable, "the server {place} did not answer in time: see to it and the network"
)
_RACE: Final = _Meaning(
    StoreUnavailable, "the server {place} gave way to another transaction: try again ({error})"
)
_FULL: Final = _Meaning(
    StoreUnavailable, "the server {place} has no room left: see to its disk and memory ({error})"
)
_LOGIN: Final = _Meaning(
    ConfigError, "the server {place} refused the login: see to user and password ({error})"
)
_RIGHTS: Final = _Meaning(
    ConfigError, "the user of {place} may not do what the store needs: grant it ({error})"
)
_SCHEMA: Final = _Meaning(
    SchemaMismatch,
    "the schema of {place} is not that of this release: run the command: jobmill migrate up "
    "({error})",
)
_STOPPING: Final = _Meaning(
    StoreUnavailable, "the server {place} ended the connection or is not ready: wait ({error})"
)
_POOLED: Final = _Meaning(
    ConfigError,
    "a pooler stands before {place} and shares its connections: add "
    "?listen=false&statement_cache_size=0 to the URL ({error})",
)
_BY_CODE: Final = {
    "26000": _POOLED,
    "42P05": _POOLED,
    "3D000": _Meaning(ConfigError, "there is no such database on {place}: create it ({error})"),
    "42501": _RIGHTS,
    "3F000": _SCHEMA,
    "42P01": _SCHEMA,
    "42883": _SCHEMA,
    "42703": _SCHEMA,
    "25006": _Meaning(
        StoreUnavailable,
        "the server {place} takes no writes: give the address of the primary, or set "
        "default_transaction_read_only off ({error})",
    ),
    "53300": _Meaning(
        StoreUnavailable, "the server {place} has too many connections: see to them ({error})"
    ),
    "55P03": _Meaning(
        StoreUnavailable, "another transaction holds what the store needs, on {place}: end it"
    ),
    "57014": _Meaning(StoreUnavailable, "the server {place} cancelled the statement ({error})"),
    "58030": _FULL,
    "23505": _RACE,
}
_BY_CLASS: Final = {
    "08": _GONE,
    "28": _LOGIN,
    "40": _RACE,
    "53": _FULL,
    "57": _STOPPING,
}
_ANY: Final = _Meaning(StoreError, "the server {place} refused: {error}")


def is_race(error: BaseException) -> bool:
    """Whether the same call may be sent again at once: it lost against another, and was undone."""
    return _meaning_of(error) is _RACE


def _meaning_of(error: BaseException) -> _Meaning:
    if isinstance(error, PostgresError):
        return _meaning_of_code(str(getattr(error, "sqlstate", None) or ""))
    if isinstance(error, TimeoutError):
        return _SILENT
    if isinstance(error, (DataError, UnicodeEncodeError, OverflowError)):
        return _ANY
    return _GONE


def _meaning_of_code(code: str) -> _Meaning:
    return _BY_CODE.get(code) or _BY_CLASS.get(code[:2], _ANY)


def outward(error: BaseException, place: object, *, silent: bool = False) -> JobsError:
    """The error as callers see it; `silent`: it came of giving up on the server."""
    return _fault(_SILENT if silent else _meaning_of(error), error, place)


def said(code: str, text: str, place: object) -> JobsError:
    """The same, of what a server said, whichever driver heard it."""
    return _fault(_meaning_of_code(code), text, place)


def _fault(meaning: _Meaning, error: object, place: object) -> JobsError:
    fault: JobsError = meaning.error(meaning.message.format(place=place, error=error))
    if isinstance(fault, ConfigError):
        fault.field = "url"
    return fault


@contextmanager
def translated(place: object) -> Generator[None]:
    """Let the driver's errors out only as `outward` says."""
    try:
        yield
    except DRIVER_ERRORS as error:
        raise outward(error, place) from error
