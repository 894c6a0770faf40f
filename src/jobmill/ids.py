"""Ids of jobs and workers."""

from __future__ import annotations

import threading
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
            now = int(self._wall() * 1000)
            if now > self._last >> _RANDOM_BITS:
                self._last = (now << _RANDOM_BITS) | self._bits(_RANDOM_BITS)
            else:
                # Ids of one millisecond, or after the clock went back, follow the last one.
                self._last += 1
            last = self._last
        stamp, rest = last >> _RANDOM_BITS, last & ((1 << _RANDOM_BITS) - 1)
        value = (stamp & ((1 << 48) - 1)) << 80 | 0x7 << 76 | (rest >> 62) << 64
        text = f"{value | 0b10 << 62 | rest & ((1 << 62) - 1):032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
