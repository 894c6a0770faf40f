"""Rate limits: when the next start may be, so that no sliding window holds more than its limit.

A key has starts, at their real instants, and slots, each reserved by a job that was put off.
Slots only plan; whether a start is allowed is decided by the starts alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeAlias

import msgspec

SLACK: Final = 0.04
"""Seconds by which a slot is later than it could be.

A start is recorded when it happens, a little after its slot; without slack the next slot,
one window later, would find that start still inside the window and be put off again.
"""


FromEnd: TypeAlias = Callable[[int], float | None]
"""The instant at a place from the end, counted from 1; None where there are fewer."""


class Window(msgspec.Struct, frozen=True):
    """A rate limit: at most `limit` starts in any `seconds`."""

    limit: int
    seconds: float


def longest(windows: Sequence[Window]) -> float:
    """The seconds after which a start or a slot means nothing to any of the windows."""
    return max((window.seconds for window in windows), default=0.0)


def most(windows: Sequence[Window]) -> int:
    """How many of the last starts, and of the last slots, can matter to the windows."""
    return max((window.limit for window in windows), default=0)


def from_end(starts: Sequence[float], slots: Sequence[float], place: int) -> float | None:
    """The `place`-th of both together from the end, counted from 1; None where there are fewer.

    Each rises. Looks at few of them, however many there are: halves the choice of how many of
    the last ones are starts.
    """
    if place > len(starts) + len(slots):
        return None
    low, high = max(0, place - len(slots)), min(place, len(starts))
    while low < high:
        some = (low + high) // 2
        if starts[-some - 1] > slots[some - place]:
            low = some + 1
        else:
            high = some
    last = starts[-low] if low else math.inf
    return min(last, slots[low - place]) if low < place else last


def earliest(
    starts: Sequence[float],
    slots: Sequence[float],
    windows: Sequence[Window],
    now: float,
    *,
    slack: float = 0.0,
) -> float:
    """The first instant, not before `now`, at which one start more keeps every window.

    `starts` and `slots` rise. After that instant less `seconds` there are fewer than `limit`
    of them, so that a start there may stand before slots that are later.
    """
    return _earliest(partial(from_end, starts, slots), windows, now, slack)


def slot_for(
    starts: Sequence[float],
    others: Sequence[float],
    own: float | None,
    windows: Sequence[Window],
    now: float,
) -> float | None:
    """The slot for a job that asks now, later than `now`; None where it may start.

    `others` are the slots of other jobs, `own` the slot of this one. A job whose slot has
    come starts where the starts leave room; any other robs no slot. Order: `starts` and
    `others` rise; only the last `most(windows)` of each are looked at.
    """
    return slot_by(
        partial(from_end, starts, ()), partial(from_end, starts, others), own, windows, now
    )


def slot_by(
    start: FromEnd, taken: FromEnd, own: float | None, windows: Sequence[Window], now: float
) -> float | None:
    """What `slot_for` answers, for a store that finds one by its place from the end.

    `start` finds among the starts, `taken` among the starts and the slots of other jobs.
    """
    come = own is not None and own <= now
    if _earliest(start if come else taken, windows, now, 0.0) <= now:
        return None
    slot = _earliest(taken, windows, now, SLACK)
    return slot if own is None or come else min(slot, own)


def _earliest(taken: FromEnd, windows: Sequence[Window], now: float, slack: float) -> float:
    at = now
    for window in windows:
        if (last := taken(window.limit)) is not None:
            at = max(at, last + window.seconds + slack)
    return at
