"""The names of keys and channels, and where a cluster keeps them."""

from __future__ import annotations

import binascii
from typing import Final

QUEUES: Final = "jobmill:queues"
"""The set of the names of queues that ever held something."""

SLOTS: Final = 16_384


def tag(queue: str) -> str:
    """What all keys of a queue begin with: one hash tag, so that one Cluster slot holds them."""
    return f"{{jobmill:{queue}}}"


def jobs_channel(queue: str) -> str:
    """Told when jobs came, came due, or a running one was asked to cancel."""
    return f"{tag(queue)}:jobs"


def ends_channel(queue: str) -> str:
    """Told the id of each job that ended while somebody waited for it."""
    return f"{tag(queue)}:ends"


def slot_of(key: str) -> int:
    """The slot of a cluster that holds a key: by its hash tag where it has one."""
    _, opened, rest = key.partition("{")
    inside, closed, _ = rest.partition("}")
    hashed = inside if opened and closed and inside else key
    return binascii.crc_hqx(hashed.encode(), 0) % SLOTS
