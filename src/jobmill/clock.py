"""Where time comes from: injected everywhere, so that tests and simulation can own it."""

from __future__ import annotations

import time
from typing import Final, Protocol


class Clock(Protocol):
    """Two readings of time."""

    def wall(self) -> float:
        """Unix seconds as this machine believes them; may jump either way."""
        ...

    def boot(self) -> float:
        """Seconds from an arbitrary start; never goes back, and counts while suspended."""
        ...


_BOOTTIME: Final = getattr(time, "CLOCK_BOOTTIME", None)


class SystemClock:
    """The machine's own clocks."""

    def wall(self) -> float:
        """Unix seconds."""
        return time.time()

    def boot(self) -> float:
        """Seconds by CLOCK_BOOTTIME where there is one, else by the monotonic clock."""
        return time.monotonic() if _BOOTTIME is None else time.clock_gettime(_BOOTTIME)


class SteadyClock:
    """The time of a store on this machine: the wall clock, but it never goes back.

    Where the wall clock is behind what was already told, this one goes on at half its
    speed until the wall clock has caught up: it neither stands still nor runs away.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._told = clock.wall()
        self._boot = clock.boot()

    def now(self, at_least: float = 0.0) -> float:
        """Unix seconds: not less than any answer before, nor than `at_least`."""
        wall, boot = self._clock.wall(), self._clock.boot()
        crawled = self._told + max(0.0, boot - self._boot) / 2
        self._told = wall if wall >= self._told else crawled
        self._told = max(self._told, at_least)
        self._boot = boot
        return self._told
