"""What goes with the outcomes of jobs: metrics, events, error groups."""

from __future__ import annotations

from typing import Any

import msgspec

from jobmill.states import Move, State
from jobmill.stores.sqlite.turn import Turn
from jobmill.tally import Bucket, Tally, minute_of

_ENCODE = msgspec.msgpack.Encoder().encode
_BUCKET = msgspec.msgpack.Decoder(Bucket)


class Figures:
    """What one verb adds to the figures of its queue, written at its end."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._tallies: dict[str, Tally] = {}
        self._events: list[tuple[str, str, str]] = []
        self._errors: list[tuple[Any, ...]] = []

    def count(self, move: Move, after: State, name: str, due: float, started: float | None) -> None:
        """Count a move that led to the state `after`; `due` and `started` are its run's."""
        tally = self._tallies.get(name)
        if tally is None:
            tally = self._tallies[name] = Tally(minute_of(self._turn.now), name)
        tally.count(move, after, due=due, started=started, now=self._turn.now)

    def event(self, job_id: str, name: str, kind: str) -> None:
        """A job ended, or is to be retried."""
        self._events.append((job_id, name, kind))

    def error(self, job_id: str, name: str, error: bytes, fingerprint: str) -> None:
        """An error of the group `fingerprint` was stored."""
        now = self._turn.now
        self._errors.append((self._turn.queue, fingerprint, name, now, now, job_id, error))

    def write(self) -> None:
        """Write all that was gathered."""
        turn = self._turn
        sql = turn.sql("figures")
        for tally in self._tallies.values():
            key = turn.queue, tally.minute, tally.job_name
            row = turn.execute(sql["bucket"], key).fetchone()
            if row is not None:
                tally.add(_BUCKET.decode(row[0]))
            turn.execute(sql["put_bucket"], (*key, _ENCODE(tally.bucket())))
        if self._events:
            first = turn.number("event", len(self._events))
            turn.executemany(
                sql["event"],
                [
                    (turn.queue, seq, turn.now, *event)
                    for seq, event in enumerate(self._events, first)
                ],
            )
        if self._errors:
            turn.executemany(sql["error"], self._errors)


def bucket_of(column: bytes) -> Bucket:
    """A bucket as it is kept."""
    return _BUCKET.decode(column)
