"""Whether a server is one to keep jobs in."""

from __future__ import annotations

from typing import Final

from jobmill.errors import ConfigError, SchemaMismatch, StoreUnavailable
from jobmill.stores.redis.address import Address
from jobmill.stores.redis.line import Line, Refusal

_OLDEST: Final = (6, 2)
_FORBIDDEN: Final = frozenset({"NOPERM", "ERR"})


async def check(line: Line, address: Address) -> None:
    """Return where the server is recent enough, takes writes, and throws nothing away.

    Raises: SchemaMismatch, StoreUnavailable, ConfigError; Refusal, OSError.
    """
    info = await about(line)
    _check_kind(info, line, address)
    version = info.get("redis_version", "")
    if version and tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < _OLDEST:
        raise SchemaMismatch(f"{line.place} is Redis {version}: take 6.2 or later")
    if address.allow_eviction:
        return
    policy = info.get("maxmemory_policy") or await setting(line, "maxmemory-policy")
    if policy is None:
        raise ConfigError(
            f"the user of the server {line.place} may ask neither INFO nor CONFIG GET, so nobody "
            "knows whether it may throw jobs away: permit +info, or see that its "
            "maxmemory-policy is noeviction and say allow_eviction=true",
            field="allow_eviction",
        )
    if policy != "noeviction":
        raise ConfigError(
            f"the server {line.place} has maxmemory-policy {policy}, so it may throw jobs "
            "away: set noeviction, or say allow_eviction=true",
            field="allow_eviction",
        )


def _check_kind(info: dict[str, str], line: Line, address: Address) -> None:
    mode = info.get("redis_mode") or info.get("server_mode")  # the second is Valkey's
    if mode == "sentinel":
        message = f"{line.place} is a Sentinel: use redis+sentinel://"
        raise ConfigError(message, field="url")
    if mode == "cluster" and not address.is_cluster:
        message = f"{line.place} is a node of a cluster: use redis+cluster://"
        raise ConfigError(message, field="url")
    if info.get("role", "master") != "master":
        raise StoreUnavailable(
            f"the server {line.place} is a replica, which takes no writes: give the address "
            "of the primary"
        )


async def about(line: Line) -> dict[str, str]:
    """What the server says of itself by INFO; nothing where the user may not ask.

    Raises: Refusal, OSError.
    """
    try:
        answer: bytes = await line.ask("INFO")
    except Refusal as error:
        if error.code not in _FORBIDDEN:
            raise
        return {}
    pairs = (entry.partition(":") for entry in answer.decode(errors="replace").splitlines())
    return {name: value for name, colon, value in pairs if colon}


async def setting(line: Line, name: str) -> str | None:
    """A setting of the server; None where the user may not ask, or there is none.

    Raises: Refusal, OSError.
    """
    try:
        answer: list[bytes] = await line.ask("CONFIG", "GET", name)
    except Refusal as error:
        if error.code not in _FORBIDDEN:
            raise
        return None
    return answer[1].decode() if answer else None
