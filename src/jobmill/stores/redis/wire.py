"""What the scripts are told and what they answer, as values.

What they are told is one flat list, in MessagePack; None is what is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from jobmill.errors import PayloadError, PayloadTooLarge
from jobmill.policy import Policy, decode_policy, encode_policy
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
from jobmill.tally import HISTOGRAM_BOUNDS, Bucket

Argument = str | bytes | int | float | bool | msgspec.Raw | None
_STRINGS: Final = msgspec.json.Decoder(dict[str, str])
_ENCODE: Final = msgspec.json.encode
_PACK: Final = msgspec.msgpack.Encoder().encode
_ANY_POLICY: Final = Policy()
_BARS: Final = len(HISTOGRAM_BOUNDS) + 1
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


def told_jobs(jobs: Sequence[NewJob]) -> Iterator[Argument]:
    """New jobs as arguments."""
    yield len(jobs)
    for job in jobs:
        yield job.id
        yield job.name
        yield job.payload
        yield encode_policy(job.policy)
        yield job.priority
        yield job.delay
        yield job.run_at
        yield job.unique_key
        yield _ENCODE(job.metadata) if job.metadata else None
        yield job.policy.keep_result
        yield job.policy.keep_failed


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


def told_moves(moves: Sequence[Move]) -> Iterator[Argument]:
    """Moves as arguments."""
    yield len(moves)
    for move in moves:
        yield move.event
        yield move.job_id
        yield move.token
        yield move.delay
        yield move.result
        yield move.error
        yield move.fingerprint
        yield move.lapsed
        yield move.untried
        yield move.memo
        yield from told_note(move.note)


def told_leases(leases: Sequence[Lease], notes: Mapping[str, Note]) -> Iterator[Argument]:
    """Leases and their notes as arguments."""
    yield len(leases)
    for lease in leases:
        yield lease.job_id
        yield lease.token
        yield from told_note(notes.get(lease.job_id))


def told_want(want: Want) -> Iterator[Argument]:
    """What a worker asks of a claim, as arguments."""
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


def _policy(value: bytes) -> Policy:
    """The policy of a job; the default one where it does not decode.

    One damaged job must not keep a claim from the jobs beside it.
    """
    try:
        return decode_policy(value)
    except PayloadError:
        return _ANY_POLICY


def _strings(value: bytes | None) -> dict[str, str]:
    """The metadata of a job; none where it does not decode, as above."""
    if value is None:
        return {}
    try:
        return _STRINGS.decode(value)
    except msgspec.DecodeError:
        return {}


def added_of(answers: Sequence[Sequence[bytes]]) -> list[Added]:
    """What became of new jobs."""
    added: list[Added] = []
    for answer in answers:
        status: Any = answer[0].decode()
        added.append(Added(status, answer[1].decode()))
    return added


def moved_of(answers: Sequence[Sequence[Any]]) -> list[Moved]:
    """What became of moves."""
    moved: list[Moved] = []
    for answer in answers:
        status: Any = answer[0].decode()
        state: Any = answer[2].decode() if len(answer) > 2 else None  # noqa: PLR2004
        moved.append(Moved(status, answer[1].decode(), state))
    return moved


def claim_of(fields: Sequence[Any]) -> Claim:
    """A job in the hands of a worker."""
    return Claim(
        id=fields[0].decode(),
        name=fields[1].decode(),
        payload=fields[2],
        policy=_policy(fields[3]),
        token=fields[4].decode(),
        attempt=int(fields[5] or 0),
        lapses=int(fields[6] or 0),
        priority=int(fields[7]),
        enqueued_at=float(fields[8]),
        run_at=float(fields[9]),
        started_at=float(fields[10] or 0),
        suspect=fields[11] is not None,
        asked=fields[12] is not None,
        unique_key=_text(fields[13]),
        metadata=_strings(fields[14]),
        memo=fields[15],
    )


def claimed_of(answer: Sequence[Any]) -> Claimed:
    """The answer to a claim."""
    now, claims, lapsed, moved, coming, suspect_waits, asked, docs = answer
    return Claimed(
        now=float(now),
        claims=tuple([claim_of(fields) for fields in claims]),
        lapsed=tuple([claim_of(fields) for fields in lapsed]),
        moved=tuple(moved_of(moved)),
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
    return Record(
        id=id_.decode(),
        name=kept["name"].decode(),
        state=state.decode(),
        payload=kept["payload"],
        policy=_policy(kept["policy"]),
        priority=int(kept["priority"]),
        run_at=float(kept["due"]),
        enqueued_at=float(kept["enqueued"]),
        attempts=int(get("attempts", 0)),
        lapses=int(get("lapses", 0)),
        generation=int(get("generation", 1)),
        suspect="suspect" in kept,
        asked="asked" in kept,
        token=_text(get("token")),
        worker=_text(get("worker")),
        lease_until=_float(get("lease")) if state == b"processing" else None,
        started_at=_float(get("started")),
        ended_at=_float(get("ended")),
        expires_at=_float(get("expires")),
        result=get("result"),
        errors=tuple(errors),
        fingerprint=_text(get("fingerprint")),
        progress=_float(get("progress")),
        progress_note=_text(get("progress_note")),
        logs=tuple(logs),
        unique_key=_text(get("unique")),
        metadata=_strings(get("metadata")),
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
