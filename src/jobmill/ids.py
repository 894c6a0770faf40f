"""Ids of jobs and workers."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from typing import Final

_RANDOM_BITS: Final = 74


class JobIds:
    """Makes UUIDs of version 7, rising within this source. Source: RFC 9562, section 5.7.

    `wall` gives Unix seconds; `bits(n)` gives n random bits.
    """

    def __init__(self, wall: Callable[[], float], bits: Callable[[int], int]) -> None:
        self._wall = wall
        self._bits = bits
        self._lock = threading.Lock()
        self._last = 0

    def __call__(self) -> str:
        """The next id, such as 0199f3a1-7c3e-7d2a-9b4f-3a6f0c1d2e4b."""
        with self._lock:
            fresh = (int(self._wall() * 1000) << _RANDOM_BITS) | self._bits(_RANDOM_BITS)
            # Ids of one millisecond, or after the clock went back, follow the last one.
            self._last = fresh if fresh > self._last else self._last + 1
            last = self._last
        stamp, rest = last >> _RANDOM_BITS, last & ((1 << _RANDOM_BITS) - 1)
        value = (stamp & ((1 << 48) - 1)) << 80 | 0x7 << 76 | (rest >> 62) << 64
        return str(uuid.UUID(int=value | 0b10 << 62 | rest & ((1 << 62) - 1)))
