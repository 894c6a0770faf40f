"""Where a queue's hints are told: the names of its channels, and the lock of who waits for ends."""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

_WAITS: Final = 0x6A6F6277


class Channels(msgspec.Struct, frozen=True):
    """Two channels of NOTIFY, and an advisory lock, shared by all who wait for ends of jobs."""

    jobs: str
    ends: str
    lock: tuple[int, int]


def channels(schema: str, queue: str) -> Channels:
    """Those of one queue: digests, because a channel's name has 63 bytes at most."""
    digest = hashlib.sha256(f"{schema}\0{queue}".encode()).digest()
    name = f"jobmill_{digest[:12].hex()}"
    return Channels(
        f"{name}_jobs", f"{name}_ends", (_WAITS, int.from_bytes(digest[12:16], "big", signed=True))
    )
