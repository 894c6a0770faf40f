"""What the errors of redis-py mean to a caller, and what to do about them."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Final, NamedTuple

from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ConnectionError as Disconnected,
    NoPermissionError,
    RedisError,
    TimeoutError as TimedOut,
)

from jobmill.errors import ConfigError, JobsError, StoreError, StoreUnavailable


class _Meaning(NamedTuple):
    error: type[StoreError | ConfigError]
    message: str


_LOGIN: Final = _Meaning(
    ConfigError, "the server {place} refused the login: see to user and password ({error})"
)
_RIGHTS: Final = _Meaning(
    ConfigError, "the user of the server {place} may not do what the store needs ({error})"
)
_GONE: Final = _Meaning(
    StoreUnavailable, "the server {place} cannot be reached: see whether it runs ({error})"
)
_SILENT: Final = _Meaning(
    StoreUnavailable, "the server {place} did not answer in time: see to it and the network"
)
_BY_CODE: Final = {
    "NOAUTH": _LOGIN,
    "WRONGPASS": _LOGIN,
    "NOPERM": _RIGHTS,
    "LOADING": _Meaning(StoreUnavailable, "the server {place} is still loading its data: wait"),
    "READONLY": _Meaning(
        StoreUnavailable,
        "the server {place} is a replica, which takes no writes: give the address of the primary",
    ),
    "MASTERDOWN": _Meaning(StoreUnavailable, "the server {place} has lost its primary: wait"),
    "BUSY": _Meaning(
        StoreUnavailable,
        "the server {place} is busy with a script: see to it, or wait until it has ended",
    ),
    "OOM": _Meaning(
        StoreUnavailable,
        "the server {place} has no memory left: raise its maxmemory, or delete ended jobs",
    ),
    "MISCONF": _Meaning(
        StoreUnavailable, "the server {place} cannot write to its disk: see to the disk ({error})"
    ),
    "NOREPLICAS": _Meaning(StoreUnavailable, "the server {place} misses replicas: see to them"),
    "CLUSTERDOWN": _Meaning(StoreUnavailable, "the cluster of {place} is down: see to it"),
    "TRYAGAIN": _Meaning(StoreUnavailable, "the cluster of {place} moves slots: wait"),
    "WRONGTYPE": _Meaning(
        StoreError,
        "a key of the queue holds what jobmill did not write, on {place}: remove it, or use "
        "another database ({error})",
    ),
}
_ANY: Final = _Meaning(StoreError, "the server {place} refused: {error}")


def meaning_of(error: Exception) -> _Meaning:
    """What an error of the driver means."""
    code = _code(error)
    if code in _BY_CODE:
        return _BY_CODE[code]
    if isinstance(error, AuthenticationError):
        return _LOGIN
    if isinstance(error, AuthorizationError | NoPermissionError):
        return _RIGHTS
    if isinstance(error, TimedOut | TimeoutError):
        return _SILENT
    if isinstance(error, Disconnected | OSError):
        return _GONE
    return _ANY


def outward(error: Exception, place: object) -> JobsError:
    """The error as callers see it."""
    meaning = meaning_of(error)
    fault: JobsError = meaning.error(meaning.message.format(place=place, error=error))
    if isinstance(fault, ConfigError):
        fault.field = "url"
    return fault


@contextmanager
def translated(place: object) -> Generator[None]:
    """Let the driver's errors out only as `outward` says."""
    try:
        yield
    except (RedisError, OSError) as error:
        raise outward(error, place) from error


# redis-py takes the code off the errors it has a class for.
_OF_CLASS: Final = {
    "BusyLoadingError": "LOADING",
    "ReadOnlyError": "READONLY",
    "MasterDownError": "MASTERDOWN",
    "OutOfMemoryError": "OOM",
    "ClusterDownError": "CLUSTERDOWN",
    "TryAgainError": "TRYAGAIN",
    "NoPermissionError": "NOPERM",
}


def _code(error: Exception) -> str:
    for kind in type(error).__mro__:
        if kind.__name__ in _OF_CLASS:
            return _OF_CLASS[kind.__name__]
    word = str(error).partition(" ")[0]
    return word if word.isupper() else ""
