"""What the scripts are told and what they answer, as values.

What they are told is one flat list, in MessagePack; None is what is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from jobmill.errors import ConfigError, PayloadTooLarge
from jobmill.kept import metadata_of, policy_of
from jobmill.policy import encode_policy
from jobmill.states import Claim, Move, Note
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
    Want,
)
from jobmill.stores.redis.head import NEVER, head_of, parts_of
from jobmill.tally import HISTOGRAM_BOUNDS, Bucket

Argument = str | bytes | int | float | bool | msgspec.Raw | None
_ENCODE: Final = msgspec.json.encode
_PACK: Final = msgspec.msgpack.Encoder().encode
_BARS: Final = len(HISTOGRAM_BOUNDS) + 1
_NO_MORE: Final = (None, None, None)
_LONGEST: Final = 256 * 2**20
"""Bytes of one call. A server drops the connection of a client that sends much more."""


def packed(words: Iterable[Argument]) -> bytes:
    """Arguments as the scripts take them.

    Raises: PayloadTooLarge.
    """
    some = _PACK([_string(word) if type(word) is bytes else word for word in words])
    if len(some) > _LONGEST:
        message = f"one call would carry {len(some)} bytes; ask for less at once"
        raise PayloadTooLarge(message)
    return some


def _string(data: bytes) -> msgspec.Raw:
    """Bytes as a string of MessagePack: the server's decoder knows no binary data."""
    return msgspec.Raw(b"\xdb%b%b" % (len(data).to_bytes(4, "big"), data))


def told_jobs(jobs: Sequence[NewJob]) -> list[Argument]:
    """New jobs as arguments.

    Raises: ConfigError for a NUL in a name, which ends a word where it is stored.
    """
    words: list[Argument] = [len(jobs)]
    for job in jobs:
        if "\0" in job.name:
            raise ConfigError(f"{job.name!r} is no name of a job", field="name")
        policy = job.policy
        words += (
            job.id,
            job.name,
            job.payload,
            encode_policy(policy),
            policy.keep_result,
            policy.keep_failed,
            job.priority,
        )
        if job.delay is None and job.run_at is None and job.unique_key is None and not job.metadata:
            words.append(None)
            continue
        metadata = _ENCODE(job.metadata) if job.metadata else None
        words += (True, job.delay, job.run_at, job.unique_key, metadata)
    return words


def told_note(note: Note | None) -> Iterator[Argument]:
    """A note as arguments."""
    yield note is not None
    if note is None:
        return
    yield note.progress
    yield note.progress_note
    yield len(note.lines)
    for number, line in note.lines:
        yield number
        yield line


def told_moves(moves: Sequence[Move]) -> list[Argument]:
    """Moves as arguments."""
    words: list[Argument] = [len(moves)]
    for move in moves:
        words += (move.event, move.job_id, move.token or None, move.result)
        if (
            move.error is None
            and not move.delay
            and move.fingerprint is None
            and not move.lapsed
            and not move.untried
            and move.memo is None
            and move.note is None
        ):
            words.append(None)
            continue
        words += (
            True,
            move.delay,
            move.error,
            move.fingerprint,
            move.lapsed,
            move.untried,
            move.memo,
            *told_note(move.note),
        )
    return words


def told_leases(leases: Sequence[Lease], notes: Mapping[str, Note]) -> Iterator[Argument]:
    """Leases and their notes as arguments."""
    yield len(leases)
    for lease in leases:
        yield lease.job_id
        yield lease.token
        yield from told_note(notes.get(lease.job_id))


def told_want(want: Want) -> Iterator[Argument]:
    """What a worker asks of a claim, as arguments.

    Raises: ConfigError for a NUL, as above.
    """
    if "\0" in want.worker or "\0" in want.token:
        raise ConfigError("a worker and its token have no NUL", field="worker")
    yield want.worker
    yield want.token
    yield want.limit
    yield want.lease
    yield want.room
    yield want.repeat
    yield from told_words(want.names)


def told_words(words: Sequence[str] | None) -> Iterator[Argument]:
    """Some words, or None, as arguments."""
    if words is None:
        yield None
        return
    yield len(words)
    yield from words


def told_query(query: Query) -> Iterator[Argument]:
    """A query as arguments."""
    yield query.name
    yield query.unique_key
    yield query.fingerprint
    yield from told_words(query.states)


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()


def _float(value: bytes | None) -> float | None:
    return None if value is None else float(value)


def _ever(instant: float) -> float | None:
    return None if instant == NEVER else instant


def added_of(jobs: Sequence[NewJob], answers: Sequence[Any]) -> list[Added]:
    """What became of new jobs: a word for each, or how it ended and another job's id."""
    added: list[Added] = []
    for job, answer in zip(jobs, answers, strict=True):
        status: Any
        if type(answer) is bytes:
            status, job_id = answer.decode(), job.id
        else:
            status, job_id = answer[0].decode(), answer[1].decode()
        added.append(Added(status, job_id))
    return added


def moved_of(moves: Sequence[Move], answers: Sequence[Any]) -> list[Moved]:
    """What became of moves: a word for each, with its state, or how it ended and who holds."""
    moved: list[Moved] = []
    for move, answer in zip(moves, answers, strict=True):
        status: Any
        state: Any
        if type(answer) is bytes:
            status, _, state = answer.decode().partition(" ")
            moved.append(Moved(status, move.job_id, state or None))
        else:
            status = answer[0].decode()
            moved.append(Moved(status, answer[1].decode()))
    return moved


def claim_of(fields: Sequence[Any]) -> Claim:
    """A job in the hands of a worker."""
    numbers, words = parts_of(fields[1])
    suspect, asked, due, enqueued, priority, started, _, _, _, _, _, attempts, lapses, _ = numbers
    unique, metadata, memo = fields[4:] or _NO_MORE
    return Claim(
        fields[0].decode(),
        words[0],
        fields[2],
        policy_of(fields[3]),
        words[2],
        attempts,
        lapses,
        int(priority),
        enqueued,
        due,
        started,
        suspect == 1,
        asked == 1,
        _text(unique),
        metadata_of(metadata),
        memo,
    )


def claimed_of(answer: Sequence[Any], settled: Sequence[Move] = ()) -> Claimed:
    """The answer to a claim that brought these moves."""
    now, claims, lapsed, moved, coming, suspect_waits, asked, docs = answer
    return Claimed(
        now=float(now),
        claims=tuple([claim_of(fields) for fields in claims]),
        lapsed=tuple([claim_of(fields) for fields in lapsed]),
        moved=tuple(moved_of(settled, moved)),
        next_due=_float(coming),
        suspect_waits=bool(suspect_waits),
        # The server's order differs from run to run, and a simulation is to replay.
        asked=tuple([Lease(id_.decode(), token.decode()) for id_, token in sorted(asked)]),
        docs=int(docs or 0),
    )


def record_of(answer: Sequence[Any] | None) -> Record | None:
    """All that is kept of a job."""
    if answer is None:
        return None
    id_, state, flat, errors, logs = answer
    kept: dict[str, bytes] = dict(zip((key.decode() for key in flat[::2]), flat[1::2], strict=True))
    get = kept.get
    head = head_of(kept["head"])
    return Record(
        id=id_.decode(),
        name=head.name,
        state=state.decode(),
        payload=kept["payload"],
        policy=policy_of(kept["policy"]),
        priority=int(head.priority),
        run_at=head.due,
        enqueued_at=head.enqueued,
        attempts=head.attempts,
        lapses=head.lapses,
        generation=head.generation,
        suspect=head.suspect == 1,
        asked=head.asked == 1,
        token=head.token or None,
        worker=head.worker or None,
        lease_until=head.lease if state == b"processing" else None,
        started_at=_ever(head.started),
        ended_at=_ever(head.ended),
        expires_at=_ever(head.expires),
        result=get("result"),
        errors=tuple(errors),
        fingerprint=_text(get("fingerprint")),
        progress=_float(get("progress")),
        progress_note=_text(get("progress_note")),
        logs=tuple(logs),
        unique_key=_text(get("unique")),
        metadata=metadata_of(get("metadata")),
        memo=get("memo"),
    )


def counts_of(numbers: Mapping[tuple[str, str], int], oldest: float | None, now: float) -> Counts:
    """How many records there are, out of their numbers by state and name."""
    states: dict[State, int] = {}
    by_name: dict[str, dict[State, int]] = {}
    state: Any
    for (state, name), number in numbers.items():
        states[state] = states.get(state, 0) + number
        by_name.setdefault(name, {})[state] = number
    return Counts(
        states=states,
        by_name=by_name,
        due=states.get("pending", 0),
        oldest_due=oldest,
        now=now,
    )


def ending_of(text: bytes) -> Ending:
    """One entry of the event list."""
    seq, at, kind_, length, rest = text.split(b" ", 4)
    kind: Any = kind_.decode()
    name = rest[: int(length)]
    return Ending(
        seq=int(seq),
        at=float(at),
        job_id=rest[len(name) :].decode(),
        job_name=name.decode(),
        kind=kind,
    )


def group_of(fields: Sequence[bytes]) -> ErrorGroup:
    """A group of errors."""
    return ErrorGroup(
        fingerprint=fields[0].decode(),
        job_name=fields[1].decode(),
        count=int(fields[2]),
        first_seen=float(fields[3]),
        last_seen=float(fields[4]),
        last_job_id=fields[5].decode(),
        last_error=fields[6],
    )


def buckets_of(minute: bytes, flat: Sequence[bytes]) -> list[Bucket]:
    """The buckets of a minute, by name."""
    by_name: dict[str, dict[str, bytes]] = {}
    for field, value in zip(flat[::2], flat[1::2], strict=True):
        figure, _, name = field.decode().partition(":")
        by_name.setdefault(name, {})[figure] = value
    return [_bucket(float(minute), name, kept) for name, kept in sorted(by_name.items())]


def _bucket(minute: float, name: str, kept: Mapping[str, bytes]) -> Bucket:
    def number(figure: str) -> int:
        return int(kept.get(figure, 0))

    def bars(letter: str) -> tuple[int, ...]:
        histogram = tuple([number(f"{letter}{bar}") for bar in range(_BARS)])
        return histogram if any(histogram) else ()

    return Bucket(
        minute=minute,
        job_name=name,
        started=number("started"),
        completed=number("completed"),
        failed=number("failed"),
        retried=number("retried"),
        cancelled=number("cancelled"),
        lapsed=number("lapsed"),
        run_sum=float(kept.get("run_sum", 0.0)),
        wait_sum=float(kept.get("wait_sum", 0.0)),
        run_histogram=bars("r"),
        wait_histogram=bars("w"),
    )


def doc_of(key: bytes, text: bytes) -> Doc:
    """A document."""
    version, at, value = text.split(b" ", 2)
    return Doc(key=key.decode(), value=value, version=int(version), at=float(at))
