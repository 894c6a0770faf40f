"""`reserve`: a start, or a slot for one, under a rate limit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache, partial
from typing import Final

from jobmill.limits import Window, longest, slot_by
from jobmill.stores.sqlite.turn import Turn

_PARTS: Final = 64
"""Parts of a second of which each has a count of its own."""


def reserve(turn: Turn, key: str, job_id: str, token: str, windows: Sequence[Window]) -> float:
    """0 where the job may start, which is recorded; else the seconds until its slot.

    Without windows a recorded start is given back.
    """
    sql = turn.sql("reserve")
    now = turn.now
    forget(turn)
    mine = turn.queue, key, job_id
    if not windows:
        turn.execute(sql["give_back"], (*mine, token))
        return 0.0
    if turn.execute(sql["started"], (*mine, token)).fetchone() is not None:
        return 0.0
    own = turn.execute(sql["own_slot"], mine).fetchall()
    slot = slot_by(
        partial(_from_end, turn, key, False),
        cache(partial(_from_end, turn, key, True)),
        own[0][0] if own else None,
        windows,
        now,
    )
    if slot is None:
        turn.execute(sql["start"], (*mine, token, now, now + longest(windows)))
        return 0.0
    turn.execute(sql["slot"], (*mine, slot, slot + longest(windows)))
    return slot - now


def _from_end(turn: Turn, key: str, slots: bool, place: int) -> float | None:
    """The start, or with `slots` the start or slot, at a place from the end; None where none is.

    Its second is found by counts, its part of that by counts, and it among those of that part.
    """
    sql = turn.sql("reserve")
    of_key = turn.queue, key
    second, place = _reached(turn.execute(sql["seconds"], of_key), slots, place)
    if second is None:
        return None
    span = second * _PARTS, (second + 1) * _PARTS
    part, place = _reached(turn.execute(sql["parts"], (*of_key, *span)), slots, place)
    if part is None:
        return None
    among = *of_key, part / _PARTS, (part + 1) / _PARTS, place
    last = turn.execute(sql["starts"], among).fetchall()
    if slots:
        last += turn.execute(sql["slots"], among).fetchall()
        last.sort(reverse=True)
    at: float = last[place - 1][0]
    return at


def _reached(
    counts: Iterable[tuple[int, int, int]], slots: bool, place: int
) -> tuple[int | None, int]:
    """The part that holds the place, None where none does, and the place within it."""
    for part, starts, others in counts:
        here = starts + others if slots else starts
        if here >= place:
            return part, place
        place -= here
    return None, place


def forget(turn: Turn) -> None:
    """Remove the starts and slots that mean nothing any more."""
    sql = turn.sql("reserve")
    turn.execute(sql["forget_starts"], (turn.queue, turn.now))
    turn.execute(sql["forget_slots"], (turn.queue, turn.now))
