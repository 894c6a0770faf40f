"""`reserve`: a start, or a slot for one, under a rate limit."""

from __future__ import annotations

from collections.abc import Sequence

from jobmill.limits import Window, longest, most, slot_for
from jobmill.stores.sqlite.turn import Turn


def reserve(turn: Turn, key: str, job_id: str, token: str, windows: Sequence[Window]) -> float:
    """0 where the job may start, which is recorded; else the seconds until its slot."""
    sql = turn.sql("reserve")
    now = turn.now
    forget(turn)
    mine = turn.queue, key, job_id
    if turn.execute(sql["started"], (*mine, token)).fetchone() is not None:
        return 0.0
    own = turn.execute(sql["own_slot"], mine).fetchone()
    last = most(windows)
    starts = turn.execute(sql["starts"], (turn.queue, key, last)).fetchall()
    slots = turn.execute(sql["slots"], (*mine, last)).fetchall()
    slot = slot_for(
        [at for (at,) in reversed(starts)],
        [at for (at,) in reversed(slots)],
        own[0] if own else None,
        windows,
        now,
    )
    if slot is None:
        turn.execute(sql["no_slot"], mine)
        turn.execute(sql["start"], (*mine, token, now, now + longest(windows)))
        return 0.0
    turn.execute(sql["slot"], (*mine, slot, slot + longest(windows)))
    return slot - now


def forget(turn: Turn) -> None:
    """Remove the starts and slots that mean nothing any more."""
    sql = turn.sql("reserve")
    turn.execute(sql["forget_starts"], (turn.queue, turn.now))
    turn.execute(sql["forget_slots"], (turn.queue, turn.now))
