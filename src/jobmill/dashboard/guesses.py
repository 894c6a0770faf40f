"""Slows down who guesses passwords."""

from __future__ import annotations

import time
from typing import Final

FREE: Final = 5
"""Wrong guesses in a row that cost nothing."""
_FIRST: Final = 1.0
_LONGEST: Final = 300.0
_FORGOTTEN: Final = 3_600.0
_MOST: Final = 10_000


class Guesses:
    """Wrong guesses, by whom and from where: after FREE of them each waits twice as long."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, float]] = {}

    def wait(self, *keys: str) -> float:
        """Seconds until the next guess is looked at; 0 for now."""
        now = time.monotonic()
        return max((self._wait(key, now) for key in keys), default=0.0)

    def wrong(self, *keys: str) -> None:
        """A guess was wrong."""
        now = time.monotonic()
        for key in keys:
            count, last = self._known.pop(key, (0, now))
            self._known[key] = (count + 1 if now - last < _FORGOTTEN else 1), now
        while len(self._known) > _MOST:
            del self._known[next(iter(self._known))]

    def right(self, *keys: str) -> None:
        """A guess was right."""
        for key in keys:
            self._known.pop(key, None)

    def _wait(self, key: str, now: float) -> float:
        count, last = self._known.get(key, (0, 0.0))
        if count < FREE:
            return 0.0
        return max(0.0, last + min(_LONGEST, _FIRST * 2.0 ** (count - FREE)) - now)
