"""Rate limits: when the next start may be, so that no sliding window holds more than its limit.

A key has starts, at their real instants, and slots, each reserved by a job that was put off.
Slots only plan; whether a start is allowed is decided by the starts alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

SLACK: Final = 0.04
"""Seconds by which a slot is later than it could be.

A start is recorded when it happens, a little after its slot; without slack the next slot,
one window later, would find that start still inside the window and be put off again.
"""


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
    at = now
    for window in windows:
        taken = sorted((*starts[-window.limit :], *slots[-window.limit :]))
        if len(taken) >= window.limit:
            at = max(at, taken[-window.limit] + window.seconds + slack)
    return at


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
    come = own is not None and own <= now
    if earliest(starts, () if come else others, windows, now) <= now:
        return None
    slot = earliest(starts, others, windows, now, slack=SLACK)
    return slot if own is None or come else min(slot, own)
