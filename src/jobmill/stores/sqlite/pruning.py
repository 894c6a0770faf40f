"""`prune`: remove what has had its time."""

from __future__ import annotations

from typing import Final

from jobmill.stores.sqlite.finding import remove
from jobmill.stores.sqlite.limiting import forget
from jobmill.stores.sqlite.turn import Turn

_EVENTS_KEPT: Final = 3_600.0
_METRICS_KEPT: Final = 8 * 86_400.0
_GROUPS_KEPT: Final = 30 * 86_400.0
_MORE_EVENTS: Final = 4


def prune(turn: Turn, limit: int) -> int:
    """Remove at most `limit` records whose time has come; how many."""
    sql = turn.sql("prune")
    queue, now = turn.queue, turn.now
    expired = turn.execute(sql["expired"], (queue, now, limit)).fetchall()
    gone = remove(turn, [seq for (seq,) in expired])
    # A job has one event or more, and they must not outgrow what a call removes.
    events = max(limit, 1) * _MORE_EVENTS
    turn.execute(sql["events"], (queue, queue, events, now - _EVENTS_KEPT))
    turn.execute(sql["metrics"], (queue, now - _METRICS_KEPT))
    turn.execute(sql["error_groups"], (queue, now - _GROUPS_KEPT))
    turn.execute(sql["zeros"], (queue,))
    forget(turn)
    return gone
