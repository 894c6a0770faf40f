"""The head of a job: what each of its steps reads and writes, as the bytes of one field.

The scripts call a field by its name in capitals, which stands for its place.
"""

from __future__ import annotations

import struct
from typing import Any, Final, NamedTuple

NEVER: Final = -1.0
"""An instant that there is not."""

_FIXED: Final = {
    "suspect": "B",
    "asked": "B",
    "taken": "B",
    "more": "B",
    "due": "d",
    "enqueued": "d",
    "seq": "c16",
    "priority": "d",
    "started": "d",
    "lease": "d",
    "ended_at": "d",
    "expires": "d",
    "keep_result": "d",
    "keep_failed": "d",
    "attempts": "I4",
    "lapses": "I4",
    "generation": "I4",
}
_WORDS: Final = ("name", "state", "token", "worker")
FORMAT: Final = ">" + "".join(_FIXED.values()) + "s" * len(_WORDS)
"""For the pack and unpack of the scripts' `struct`."""
PLACES: Final = {name.upper(): place for place, name in enumerate((*_FIXED, *_WORDS), 1)}
# What only the scripts read is passed over.
_READ: Final = struct.Struct(">BB2xdd16xdddddddIII")
_SIZE: Final = _READ.size


class Head(NamedTuple):
    """The head of a job, without what only the scripts read."""

    suspect: int
    asked: int
    due: float
    enqueued: float
    priority: float
    started: float
    lease: float
    ended: float
    expires: float
    keep_result: float
    keep_failed: float
    attempts: int
    lapses: int
    generation: int
    name: str
    state: str
    token: str
    worker: str


def parts_of(data: bytes) -> tuple[tuple[Any, ...], list[str]]:
    """The numbers and the words of a head, in the order of Head, for who reads many."""
    return _READ.unpack_from(data), data[_SIZE:].decode().split("\0")


def head_of(data: bytes) -> Head:
    """The head that a script wrote."""
    numbers, words = parts_of(data)
    return Head(*numbers, *words[: len(_WORDS)])
