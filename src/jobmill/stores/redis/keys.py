"""The names of keys and channels."""

from __future__ import annotations

from typing import Final

QUEUES: Final = "jobmill:queues"
"""The set of the names of queues that ever held something."""


def tag(queue: str) -> str:
    """What all keys of a queue begin with: one hash tag, so that one Cluster slot holds them."""
    return f"{{jobmill:{queue}}}"


def jobs_channel(queue: str) -> str:
    """Told when jobs came, came due, or a running one was asked to cancel."""
    return f"{tag(queue)}:jobs"


def ends_channel(queue: str) -> str:
    """Told the id of each job that ended while somebody waited for it."""
    return f"{tag(queue)}:ends"
