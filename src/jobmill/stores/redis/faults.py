"""What the errors of a server and of the network mean to a caller, and what to do about them."""

from __future__ import annotations

import re
import ssl
from typing import Final, NamedTuple

from jobmill.errors import ConfigError, JobsError, SchemaMismatch, StoreError, StoreUnavailable
from jobmill.stores.redis.line import Refusal


class _Meaning(NamedTuple):
    error: type[StoreError | ConfigError]
    message: str


_LOGIN: Final = _Meaning(
    ConfigError, "the server {place} refused the login: see to user and password ({error})"
)
_GONE: Final = _Meaning(
    StoreUnavailable, "the server {place} cannot be reached: see whether it runs ({error})"
)
_SILENT: Final = _Meaning(
    StoreUnavailable,
    "the server {place} did not answer in time: see to it and the network ({error})",
)
_UNTRUSTED: Final = _Meaning(
    ConfigError, "TLS with the server {place} fails: see to the ssl_ settings ({error})"
)
_BY_CODE: Final = {
    "NOAUTH": _LOGIN,
    "WRONGPASS": _LOGIN,
    "NOPERM": _Meaning(
        ConfigError, "the user of the server {place} may not do what the store needs ({error})"
    ),
    "DENIED": _Meaning(
        ConfigError, "the server {place} is in protected mode: give it a password ({error})"
    ),
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
    "NOREPLICAS": _Meaning(
        StoreUnavailable, "the server {place} misses replicas: see to them ({error})"
    ),
    "CLUSTERDOWN": _Meaning(
        StoreUnavailable, "the cluster of {place} is down: see to its nodes ({error})"
    ),
    # What an ASK leads to holds a part of the queue only, until all of it has arrived.
    "ASK": _Meaning(StoreUnavailable, "the cluster of {place} moves the slot of the queue: wait"),
    "TRYAGAIN": _Meaning(
        StoreUnavailable, "the cluster of {place} moves the slot of the queue: wait"
    ),
    "WRONGTYPE": _Meaning(
        StoreError,
        "a key of the queue holds what jobmill did not write, on {place}: remove it, or use "
        "another database ({error})",
    ),
}
_BY_TEXT: Final = {
    "keys of layout": _Meaning(
        SchemaMismatch,
        "the queue on {place} has keys of another version of jobmill: use that version, or "
        "delete the keys of the queue ({error})",
    ),
    "max number of clients": _Meaning(
        StoreUnavailable, "the server {place} takes no more connections: raise its maxclients"
    ),
    "DB index is out of range": _Meaning(
        ConfigError, "the server {place} has no database of this number: see to db"
    ),
    "SELECT is not allowed in cluster mode": _Meaning(
        ConfigError, "{place} is a node of a cluster: use redis+cluster://"
    ),
    "cluster support disabled": _Meaning(
        ConfigError, "{place} is no node of a cluster: use redis://"
    ),
    "unknown command": _Meaning(
        StoreError, "the server {place} lacks a command that the store needs ({error})"
    ),
}
_ANY: Final = _Meaning(StoreError, "the server {place} refused: {error}")
# A server before 7.0 wraps the error of a command in that of its script.
_WRAPPED: Final = re.compile(r"^ERR .*: -([A-Z]+) ")
# What is wrong with certificates and versions; the rest is a connection that ended.
_TLS_FAULTS: Final = ("CERTIFICATE", "WRONG_VERSION", "UNKNOWN_CA", "HANDSHAKE_FAILURE")


def meaning_of(error: Exception) -> _Meaning:
    """What a refusal, or an error of the network, means."""
    if isinstance(error, Refusal):
        wrapped = _WRAPPED.match(str(error))
        code = wrapped[1] if wrapped else error.code
        if code in _BY_CODE:
            return _BY_CODE[code]
        return next((_BY_TEXT[text] for text in _BY_TEXT if text in str(error)), _ANY)
    if isinstance(error, TimeoutError):
        return _SILENT
    if isinstance(error, ssl.SSLError) and any(fault in str(error) for fault in _TLS_FAULTS):
        return _UNTRUSTED
    return _GONE


def outward(error: Exception, place: object) -> JobsError:
    """The error as callers see it."""
    meaning = meaning_of(error)
    fault: JobsError = meaning.error(meaning.message.format(place=place, error=error))
    if isinstance(fault, ConfigError):
        fault.field = "url"
    return fault
