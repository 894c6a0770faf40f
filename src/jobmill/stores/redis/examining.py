"""What an operator should know of a server, and of how it is set up."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from jobmill.store import Finding
from jobmill.stores.redis.address import Address
from jobmill.stores.redis.fitness import about, setting
from jobmill.stores.redis.line import Line

_FULL: Final = 0.9
_NEARLY_FULL: Final = 0.75
_LEFT_FOR_COPIES: Final = 0.6
"""The share of a machine's memory from which on a snapshot may not find enough for itself."""
_GIVE_ROOM: Final = (
    "give the server more memory, or keep records for less long: keep_result, keep_failed"
)


async def examine(line: Line, address: Address) -> list[Finding]:
    """What the server says of itself.

    Raises: Refusal, OSError.
    """
    info = await about(line)
    if not info:
        return [
            Finding(
                code="info",
                level="note",
                text=f"the user of {line.place} may not ask the server how it is",
                advice="permit +info, and +config|get",
            )
        ]
    settings = {
        name: await setting(line, name) for name in ("maxmemory-policy", "save", "appendfsync")
    }
    return [
        _version(info),
        *_disk(info, settings, time.time()),
        _eviction(info.get("maxmemory_policy") or settings["maxmemory-policy"]),
        _memory(info),
        *_replicas(info, address),
    ]


def _version(info: dict[str, str]) -> Finding:
    valkey = info.get("valkey_version")
    name = f"Valkey {valkey}" if valkey else f"Redis {info.get('redis_version', '?')}"
    return Finding(code="version", level="ok", text=f"{name}, which is supported")


def _disk(info: dict[str, str], settings: dict[str, str | None], now: float) -> Iterator[Finding]:
    """What a crash of the server would lose."""
    for name, what in (
        ("aof_last_write_status", "append to its file"),
        ("aof_last_bgrewrite_status", "rewrite its file"),
        ("rdb_last_bgsave_status", "write a snapshot"),
    ):
        if info.get(name, "ok") != "ok":
            yield Finding(
                code="disk",
                level="bad",
                text=f"the server could not {what}, and may refuse all writes",
                advice="see its log, and whether its disk is full",
            )
    fsync = settings["appendfsync"]
    if info.get("aof_enabled") == "1":
        if fsync == "no":
            text = "what it writes to disk may wait there for half a minute: a crash loses that"
            advice = "CONFIG SET appendfsync everysec"
            yield Finding(code="persistence", level="note", text=text, advice=advice)
        else:
            lost = "nothing" if fsync == "always" else "a second at most"
            text = f"it appends to a file: a crash loses {lost}"
            yield Finding(code="persistence", level="ok", text=text)
    elif settings["save"] == "":
        yield Finding(
            code="persistence",
            level="bad",
            text="it keeps nothing on disk: its end is the end of every job",
            advice="CONFIG SET appendonly yes, and CONFIG REWRITE",
        )
    else:
        ago = now - float(info.get("rdb_last_save_time", now))
        changes = info.get("rdb_changes_since_last_save", "?")
        yield Finding(
            code="persistence",
            level="note",
            text=f"it writes snapshots only: a crash now would lose {changes} changes, those of "
            f"{max(0, round(ago))} s",
            advice="CONFIG SET appendonly yes, and CONFIG REWRITE",
        )


def _eviction(policy: str | None) -> Finding:
    if policy == "noeviction":
        text = "it throws nothing away (maxmemory-policy noeviction)"
        return Finding(code="eviction", level="ok", text=text)
    if policy is None:
        text = "nobody may ask for its maxmemory-policy, so it may throw jobs away"
        return Finding(code="eviction", level="note", text=text, advice="permit +config|get")
    return Finding(
        code="eviction",
        level="note",
        text=f"it may throw jobs away where memory is short (maxmemory-policy {policy})",
        advice="CONFIG SET maxmemory-policy noeviction",
    )


def _memory(info: dict[str, str]) -> Finding:
    used = int(info.get("used_memory", 0))
    limit = int(info.get("maxmemory", 0))
    machine = int(info.get("total_system_memory", 0))
    if limit:
        share = used / limit
        text = f"{_megabytes(used)} of maxmemory {_megabytes(limit)} are in use"
        if share >= _FULL:
            return Finding(
                code="memory",
                level="bad",
                text=f"{text}: soon it takes no jobs any more",
                advice=_GIVE_ROOM,
            )
        if share >= _NEARLY_FULL:
            return Finding(code="memory", level="note", text=text, advice=_GIVE_ROOM)
        return Finding(code="memory", level="ok", text=text)
    text = f"{_megabytes(used)} are in use, with no limit"
    if machine and used / machine >= _LEFT_FOR_COPIES:
        text = f"{text}; the machine has {_megabytes(machine)}, and a snapshot may need as much"
        return Finding(code="memory", level="note", text=text, advice=_GIVE_ROOM)
    return Finding(code="memory", level="ok", text=text)


def _replicas(info: dict[str, str], address: Address) -> Iterator[Finding]:
    there, wanted = int(info.get("connected_slaves", 0)), address.wait_replicas
    if there < wanted:
        yield Finding(
            code="replicas",
            level="bad",
            text=f"{there} replicas are connected, and wait_replicas is {wanted}: no job is taken",
            advice="see to the replicas, or lower wait_replicas",
        )
    elif wanted:
        text = f"{there} replicas are connected, and wait_replicas is {wanted}"
        yield Finding(code="replicas", level="ok", text=text)


def _megabytes(number: int) -> str:
    return f"{number / 1_000_000:,.1f} MB"
