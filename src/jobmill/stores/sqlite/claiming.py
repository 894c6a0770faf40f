"""`claim`: hand out jobs, after settling, maturing and taking over; and `renew`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from heapq import merge
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

from jobmill.kept import metadata_of, policy_of
from jobmill.states import RULES, Claim, Move, Note
from jobmill.store import MATURE_LIMIT, TAKEOVER_LIMIT, Beat, Claimed, Lease, Want
from jobmill.stores.sqlite.moving import move, take_notes
from jobmill.stores.sqlite.turn import Turn

if TYPE_CHECKING:
    import sqlite3

_Place: TypeAlias = tuple[int, float, int]
"""A job's place in the order: priority, due instant, acceptance."""

_AFTER_MATURE = RULES["mature", "delayed"].after


def claim(turn: Turn, want: Want, settle: Sequence[Move], waited: float) -> Claimed:
    """Settle, make due jobs pending, take over what lapsed, and hand out jobs.

    `waited`: the seconds since it was asked for. One that waited for half a lease takes nothing
    over: its process stood still, and what lapsed meanwhile may be its own, alive again as it is.
    """
    moved = tuple(move(turn, settle)) if settle else ()
    next_due = _mature(turn)
    order = _Order(turn, want.names)
    if want.repeat:
        lapsed, claims = _collect(turn, want.token)
    else:
        lapsed = _take_over(turn, want) if waited < want.lease / 2 else []
        claims = _hand_out(turn, want, order.next_seqs(want))
    sql = turn.sql("claim")
    asked = turn.execute(sql["asked"], (turn.queue, want.worker)).fetchall()
    docs = turn.execute(turn.sql("numbers")["last_heed"], (turn.queue,)).fetchone()
    return Claimed(
        now=turn.now,
        claims=tuple(claims),
        lapsed=tuple(lapsed),
        moved=moved,
        next_due=next_due,
        suspect_waits=order.suspect_waits(),
        asked=tuple([Lease(job_id, token) for job_id, token in asked]),
        docs=docs[0] if docs else 0,
    )


def renew(
    turn: Turn, leases: Sequence[Lease], seconds: float, notes: Mapping[str, Note]
) -> list[Beat]:
    """Hold leases for some seconds from now, and store the notes of those that are not lost."""
    sql = turn.sql("renew")
    ids = [lease.job_id for lease in leases]
    rows = {row[0]: row for row in turn.among(sql["running"], (turn.queue,), ids)}
    beats: list[Beat] = []
    held: dict[int, tuple[int | None, Note | None]] = {}
    for lease in leases:
        row = rows.get(lease.job_id)
        if row is None or row[2] != lease.token:
            beats.append("lost")
            continue
        beats.append("abort" if row[3] else "ok")
        held[row[1]] = row[4], notes.get(lease.job_id)
    until = turn.now + seconds
    turn.executemany(sql["hold"], [(until, seq) for seq in held])
    take_notes(turn, [(seq, last, note) for seq, (last, note) in held.items() if note is not None])
    return beats


def _mature(turn: Turn) -> float | None:
    """Make due jobs pending; the instant at which the next one comes due."""
    sql = turn.sql("claim")
    due = turn.execute(sql["next_due"], (turn.queue,)).fetchone()
    if due is None or due[0] > turn.now:
        return None if due is None else due[0]
    matured = turn.execute(
        sql["mature"], (_AFTER_MATURE, turn.queue, turn.now, MATURE_LIMIT)
    ).fetchall()
    for (name,) in matured:
        turn.count(name, "delayed", -1)
        turn.count(name, _AFTER_MATURE, 1)
    due = turn.execute(sql["next_due"], (turn.queue,)).fetchone()
    return None if due is None else due[0]


def _take_over(turn: Turn, want: Want) -> list[Claim]:
    sql = turn.sql("claim")
    lapsed = [
        seq
        for (seq,) in turn.execute(sql["lapsed"], (turn.queue, turn.now, TAKEOVER_LIMIT)).fetchall()
    ]
    if not lapsed:
        return []
    rows = turn.execute(
        sql["take_over"], (want.token, want.worker, turn.now + want.lease, json.dumps(lapsed))
    ).fetchall()
    place = {seq: index for index, seq in enumerate(lapsed)}
    return [_claim_of(row) for row in sorted(rows, key=lambda row: place[row[0]])]


def _hand_out(turn: Turn, want: Want, seqs: list[int]) -> list[Claim]:
    if not seqs:
        return []
    now = turn.now
    rows = turn.execute(
        turn.sql("claim")["hand_out"],
        (want.token, want.worker, now + want.lease, now, json.dumps(seqs)),
    ).fetchall()
    for name, n in Counter(row[2] for row in rows).items():
        turn.count(name, "pending", -n)
        turn.count(name, "processing", n)
    return [_claim_of(row) for row in sorted(rows, key=_place_of)]


def _collect(turn: Turn, token: str) -> tuple[list[Claim], list[Claim]]:
    rows = turn.execute(turn.sql("claim")["collect"], (turn.queue, token)).fetchall()
    rows.sort(key=_place_of)
    lapsed = [_claim_of(row) for row in rows if row[-1]]
    return lapsed, [_claim_of(row) for row in rows if not row[-1]]


class _Order:
    """The pending jobs in the order in which they are handed out, without those passed over.

    Cost: a queue that nothing restricts is read from one index; otherwise a lane for each
    name is, from its head.
    """

    def __init__(self, turn: Turn, names: Sequence[str] | None) -> None:
        self._turn = turn
        self._sql = turn.sql("claim")
        paused = {key for (key,) in turn.execute(self._sql["pauses"], (turn.queue,))}
        self._names: list[str] | None = None
        if "*" in paused:
            self._names = []
        elif names is not None or any(key.startswith("job:") for key in paused):
            there = [n for (n,) in turn.execute(self._sql["names"], (turn.queue, turn.queue))]
            self._names = [
                name
                for name in there
                if (names is None or name in names) and f"job:{name}" not in paused
            ]

    def next_seqs(self, want: Want) -> list[int]:
        """What a claim hands out: one suspect, or up to `limit` others."""
        if want.limit < 1:
            return []
        others = self._first(want.limit, suspect=False)
        suspect = self._first(1, suspect=True) if want.room != "busy" else []
        if suspect and (want.room == "alone" or not others or suspect[0] < others[0]):
            return [suspect[0][2]]
        return [seq for _, _, seq in others]

    def suspect_waits(self) -> bool:
        """Whether a suspect is here that may be handed out."""
        return bool(self._first(1, suspect=True))

    def _first(self, limit: int, *, suspect: bool) -> list[_Place]:
        with ExitStack() as stack:
            # The cursors step only as far as the merge asks.
            cursors = [stack.enter_context(closing(lane)) for lane in self._lanes(suspect, limit)]
            if len(cursors) == 1:
                return cursors[0].fetchall()
            return list(islice(merge(*cursors), limit))

    def _lanes(self, suspect: bool, limit: int) -> Iterator[sqlite3.Cursor]:
        turn = self._turn
        if self._names is None:
            yield turn.execute(self._sql["ready"], (turn.queue, suspect, limit))
            return
        for name in self._names:
            yield turn.execute(self._sql["lane"], (turn.queue, name, suspect, limit))


def _place_of(row: tuple[Any, ...]) -> _Place:
    return row[5], row[7], row[0]


def _claim_of(row: tuple[Any, ...]) -> Claim:
    _, id_, name, attempt, lapses, priority, enqueued_at, run_at, started_at, token, *rest = row
    suspect, asked, unique_key, policy, metadata, memo, payload, *_ = rest
    return Claim(
        id_,
        name,
        payload,
        policy_of(policy),
        token,
        attempt,
        lapses,
        priority,
        enqueued_at,
        run_at,
        started_at,
        bool(suspect),
        bool(asked),
        unique_key,
        metadata_of(metadata),
        memo,
    )
