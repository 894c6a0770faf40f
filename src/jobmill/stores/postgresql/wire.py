"""What the functions are told and what they answer, as values.

Text of PostgreSQL holds no NUL, so that it travels behind an escape; most text has neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec

from jobmill.kept import metadata_of, policy_of
from jobmill.policy import encode_policy
from jobmill.states import RULES, UNFINISHED, Claim, Move, Note
from jobmill.store import (
    Added,
    Claimed,
    Counts,
    Doc,
    Ending,
    ErrorGroup,
    Lease,
    Moved,
    NewJob,
    Query,
    Record,
    State,
)
from jobmill.tally import Bucket

T = TypeVar("T")

_ENCODE: Final = msgspec.json.encode
_ESCAPE: Final = "\x1a"
_NOTHING: Final = (None,) * 16
_BACK: Final = frozenset(
    event
    for (event, state), rule in RULES.items()
    if state not in UNFINISHED and rule.after in UNFINISHED
)
"""Events that bring an ended job back."""


def escaped(text: str) -> str:
    """The text without NUL."""
    if "\0" in text or _ESCAPE in text:
        return text.replace(_ESCAPE, f"{_ESCAPE}e").replace("\0", f"{_ESCAPE}0")
    return text


def plain(text: str) -> str:
    """The text as it was before `escaped`."""
    if _ESCAPE in text:
        return text.replace(f"{_ESCAPE}0", "\0").replace(f"{_ESCAPE}e", _ESCAPE)
    return text


def _maybe_escaped(text: str | None) -> str | None:
    return None if text is None else escaped(text)


def _maybe_plain(text: str | None) -> str | None:
    return None if text is None else plain(text)


def _column(values: list[T | None]) -> list[T | None] | None:
    """The values; None where all of them are, which spares sending them."""
    return values if any(value is not None for value in values) else None


def told_words(words: Iterable[str] | None) -> list[str] | None:
    """Some words, or None."""
    return None if words is None else [escaped(word) for word in words]


def told_jobs(jobs: Sequence[NewJob]) -> tuple[object, ...]:
    """New jobs, by column."""
    return (
        [escaped(job.id) for job in jobs],
        [escaped(job.name) for job in jobs],
        [job.payload for job in jobs],
        [encode_policy(job.policy) for job in jobs],
        [job.priority for job in jobs],
        _column([job.delay for job in jobs]),
        _column([job.run_at for job in jobs]),
        _column([_maybe_escaped(job.unique_key) for job in jobs]),
        _column([_ENCODE(job.metadata) if job.metadata else None for job in jobs]),
        [job.policy.keep_result for job in jobs],
        [job.policy.keep_failed for job in jobs],
    )


def told_moves(moves: Sequence[Move]) -> tuple[object, ...]:
    """Moves, by column."""
    if not moves:
        return _NOTHING
    notes = [move.note for move in moves]
    return (
        _turns(moves),
        [move.event for move in moves],
        [escaped(move.job_id) for move in moves],
        [_maybe_escaped(move.token) for move in moves],
        _column([move.delay or None for move in moves]),
        _column([move.result for move in moves]),
        _column([move.error for move in moves]),
        _column([_maybe_escaped(move.fingerprint) for move in moves]),
        _column([move.lapsed or None for move in moves]),
        _column([move.untried or None for move in moves]),
        _column([move.memo for move in moves]),
        *told_notes(notes),
    )


def told_notes(notes: Sequence[Note | None]) -> tuple[object, ...]:
    """Notes, by column, and their lines with the place of their note, from 1."""
    if not any(notes):
        return (None,) * 5
    lines = [
        (place, *line)
        for place, note in enumerate(notes, 1)
        if note is not None
        for line in note.lines
    ]
    return (
        [None if note is None else note.progress for note in notes],
        [None if note is None else _maybe_escaped(note.progress_note) for note in notes],
        *([list(column) for column in zip(*lines, strict=True)] if lines else (None,) * 3),
    )


def told_query(query: Query) -> tuple[object, ...]:
    """A query's conditions."""
    return (
        None if query.states is None else list(query.states),
        _maybe_escaped(query.name),
        _maybe_escaped(query.unique_key),
        _maybe_escaped(query.fingerprint),
    )


def _turns(moves: Sequence[Move]) -> list[int] | None:
    """The turn of each move, as `apply` takes them; None where all go at once."""
    turns: list[int] = []
    turn = 1
    seen: set[str] = set()
    back = moves[0].event in _BACK
    for move in moves:
        if move.job_id in seen or (move.event in _BACK) is not back:
            turn += 1
            seen.clear()
            back = move.event in _BACK
        seen.add(move.job_id)
        turns.append(turn)
    return None if turn == 1 else turns


def added_of(
    jobs: Sequence[NewJob], statuses: Sequence[Any] | None, ids: Sequence[str] | None
) -> list[Added]:
    """What became of new jobs; without an answer all were added."""
    if statuses is None or ids is None:
        return [Added("added", job.id) for job in jobs]
    return [Added(status, plain(id_)) for status, id_ in zip(statuses, ids, strict=True)]


def moved_of(row: Any) -> list[Moved]:
    """What became of moves."""
    return [
        Moved(status, plain(id_), state)
        for status, id_, state in zip(row["statuses"], row["job_ids"], row["states"], strict=True)
    ]


def _claim_of(row: Any) -> Claim:
    _, id_, token, name, payload, policy, attempt, lapses, priority, *rest = row
    enqueued_at, run_at, started_at, suspect, asked, unique_key, metadata, memo, *_ = rest
    return Claim(
        plain(id_),
        plain(name),
        payload,
        policy_of(policy),
        plain(token),
        attempt,
        lapses,
        priority,
        enqueued_at,
        run_at,
        started_at,
        suspect,
        asked,
        _maybe_plain(unique_key),
        metadata_of(metadata),
        memo,
    )


def claimed_of(rows: Sequence[Any]) -> Claimed:
    """The answer to a claim: rows by kind, the head last."""
    head = rows[-1]
    claims: list[Claim] = []
    lapsed: list[Claim] = []
    asked: list[Lease] = []
    for row in rows[:-1]:
        kind = row[0]
        if kind == 1:
            claims.append(_claim_of(row))
        elif kind == 2:  # noqa: PLR2004  as claim.sql numbers them
            lapsed.append(_claim_of(row))
        else:
            asked.append(Lease(plain(row[1]), plain(row[2])))
    return Claimed(
        now=head["now"],
        claims=tuple(claims),
        lapsed=tuple(lapsed),
        moved=() if head["statuses"] is None else tuple(moved_of(head)),
        next_due=head["next_due"],
        suspect_waits=head["suspect_waits"],
        asked=tuple(asked),
        docs=head["docs"],
    )


def record_of(row: Any) -> Record:
    """All that is kept of a job."""
    return Record(
        id=plain(row["id"]),
        name=plain(row["name"]),
        state=row["state"],
        payload=row["payload"],
        policy=policy_of(row["policy"]),
        priority=row["priority"],
        run_at=row["run_at"],
        enqueued_at=row["enqueued_at"],
        attempts=row["attempts"],
        lapses=row["lapses"],
        generation=row["generation"],
        suspect=row["suspect"],
        asked=row["asked"],
        token=_maybe_plain(row["token"]),
        worker=_maybe_plain(row["worker"]),
        lease_until=row["lease_until"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        expires_at=row["expires_at"],
        result=row["result"],
        errors=tuple(row["errors"]),
        fingerprint=_maybe_plain(row["fingerprint"]),
        progress=row["progress"],
        progress_note=_maybe_plain(row["progress_note"]),
        logs=tuple(row["logs"]),
        unique_key=_maybe_plain(row["unique_key"]),
        metadata=metadata_of(row["metadata"]),
        memo=row["memo"],
    )


def counts_of(rows: Sequence[Any]) -> Counts:
    """How many records there are: rows of name, state, number and oldest due; the instant last."""
    states: dict[State, int] = {}
    by_name: dict[str, dict[State, int]] = {}
    oldest: float | None = None
    for name, state, number, due in rows[:-1]:
        states[state] = states.get(state, 0) + number
        by_name.setdefault(plain(name), {})[state] = number
        if due is not None:
            oldest = due if oldest is None else min(oldest, due)
    return Counts(
        states=states,
        by_name=by_name,
        due=states.get("pending", 0),
        oldest_due=oldest,
        now=rows[-1]["oldest"],
    )


def ending_of(row: Any) -> Ending:
    """One entry of the event list."""
    seq, at, job_id, job_name, kind = row
    return Ending(seq=seq, at=at, job_id=plain(job_id), job_name=plain(job_name), kind=kind)


def group_of(row: Any) -> ErrorGroup:
    """A group of errors."""
    return ErrorGroup(
        fingerprint=plain(row["fingerprint"]),
        job_name=plain(row["job_name"]),
        count=row["count"],
        first_seen=row["first_seen"],
        last_seen=row["last_seen"],
        last_job_id=plain(row["last_job_id"]),
        last_error=row["last_error"],
    )


def bucket_of(row: Mapping[str, Any]) -> Bucket:
    """What one slot counted in one minute under one name."""
    return Bucket(
        minute=row["minute"],
        job_name=plain(row["job_name"]),
        started=row["started"],
        completed=row["completed"],
        failed=row["failed"],
        retried=row["retried"],
        cancelled=row["cancelled"],
        lapsed=row["lapsed"],
        run_sum=row["run_sum"],
        wait_sum=row["wait_sum"],
        run_histogram=tuple(row["runs"] or ()),
        wait_histogram=tuple(row["waits"] or ()),
    )


def doc_of(row: Any) -> Doc:
    """A document."""
    key, value, version, at = row
    return Doc(key=key.decode(), value=value, version=version, at=at)
