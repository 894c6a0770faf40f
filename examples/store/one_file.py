"""A store of one's own, small enough to read: a queue is a JSON file, rewritten by each verb.

Written from docs/writing-a-store.md, and put through the same contract as jobmill's own stores.
It is slow, for it reads and writes all there is each time; but what it promises, it keeps.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from jobmill.clock import Clock, SystemClock
from jobmill.errors import ConfigError, Unsupported
from jobmill.limits import longest, slot_for
from jobmill.states import ENDED, NEEDS_TOKEN, RULES, UNFINISHED, Rule, State
from jobmill.store import (
    ENDS,
    HEEDED,
    JOBS,
    KEPT_ERRORS,
    KEPT_LINES,
    MATURE_LIMIT,
    TAKEOVER_LIMIT,
    Added,
    Beat,
    Bucket,
    Claim,
    Claimed,
    Counts,
    Doc,
    Ending,
    ErrorGroup,
    Features,
    Lease,
    Move,
    Moved,
    NewJob,
    Note,
    Page,
    Query,
    Record,
    Store,
    Ticked,
    Want,
    Window,
    topic_of_job,
)
from jobmill.tally import Tally, minute_of

T = TypeVar("T")

_LOOK_EVERY: Final = 0.01
"""Seconds between looks at the file, for who waits."""


class Row(msgspec.Struct, kw_only=True):
    """A job: what everyone sees of it, and what only the store needs."""

    seq: int
    record: Record
    taken_over: bool = False
    asked_error: bytes | None = None
    asked_fingerprint: str | None = None
    last_line: int | None = None

    def set(self, **fields: Any) -> None:
        """Change what everyone sees."""
        self.record = msgspec.structs.replace(self.record, **fields)


class Start(msgspec.Struct):
    """A recorded start, or a reserved slot, under a rate limit; forgotten at `until`."""

    at: float
    until: float
    job_id: str
    token: str = ""


class Rate(msgspec.Struct):
    """The starts of a key, and the slots of those who wait."""

    starts: list[Start] = []
    slots: list[Start] = []


class Kept(msgspec.Struct):
    """All that the file holds."""

    rows: dict[str, Row] = {}
    accepted: int = 0
    docs: dict[str, dict[str, Doc]] = {}
    versions: int = 0
    heeded: int = 0
    endings: list[Ending] = []
    last_ending: int = 0
    groups: dict[str, ErrorGroup] = {}
    buckets: dict[str, Bucket] = {}
    rates: dict[str, Rate] = {}
    clock: float = 0.0
    tellings: int = 0
    """How often JOBS was told."""


_KEPT: Final = msgspec.json.Decoder(Kept)


class OneFileStore:
    """Keeps each queue in a file of a folder; several processes may use it."""

    def __init__(self, folder: Path, queue: str = "default", clock: Clock | None = None) -> None:
        self._folder = folder
        self._queue = queue
        self._clock: Clock = clock or SystemClock()
        self._seen = 0

    @property
    def features(self) -> Features:
        """It survives the process, and processes share it."""
        return Features.DURABLE | Features.SHARED

    @property
    def queue(self) -> str:
        """The queue that this store acts on."""
        return self._queue

    @property
    def place(self) -> str:
        """Where it is."""
        return f"onefile://{self._folder}"

    def handle(self, queue: str | None = None) -> Store:
        """Another store on the same folder."""
        return OneFileStore(self._folder, self._queue if queue is None else queue, self._clock)

    async def open(self) -> None:
        """Make the folder."""
        await asyncio.to_thread(self._folder.mkdir, parents=True, exist_ok=True)

    async def close(self) -> None:
        """Nothing is held between verbs."""

    # -- the file ---------------------------------------------------------------------------

    def _path(self, queue: str) -> Path:
        return self._folder / f"{queue}.json"

    def _load(self, queue: str) -> Kept:
        path = self._path(queue)
        return _KEPT.decode(path.read_bytes()) if path.exists() else Kept()

    async def _do(
        self, verb: Callable[[Kept, float], T], now: float | None = None, *, writes: bool = True
    ) -> T:
        """Run a verb on what the file holds, alone, and write the file where it changed."""

        def alone() -> T:
            with (self._folder / "lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                kept = self._load(self._queue)
                kept.clock = max(kept.clock, self._clock.wall())
                answer = verb(kept, kept.clock if now is None else now)
                if writes:
                    new = self._path(self._queue).with_suffix(".new")
                    with new.open("wb") as file:
                        file.write(msgspec.json.encode(kept))
                        file.flush()
                        os.fsync(file.fileno())
                    new.replace(self._path(self._queue))
                return answer

        return await asyncio.to_thread(alone)

    async def queues(self) -> list[str]:
        """Names of the queues that have jobs or documents, in order."""

        def look() -> list[str]:
            names = sorted(path.stem for path in self._folder.glob("*.json"))
            return [name for name in names if (kept := self._load(name)).rows or kept.docs]

        return await asyncio.to_thread(look)

    # -- verbs ------------------------------------------------------------------------------

    async def add(
        self,
        jobs: Sequence[NewJob],
        *,
        wake: bool = True,
        whole: bool = False,
        now: float | None = None,
    ) -> list[Added]:
        """Store jobs; one answer for each, in order."""
        return await self._do(lambda kept, at: _add(kept, jobs, at, whole=whole, wake=wake), now)

    async def add_with(
        self, tx: object, jobs: Sequence[NewJob], *, wake: bool = False
    ) -> list[Added]:
        """A file has no transactions."""
        raise Unsupported("a file has no transactions; leave out tx")

    def add_with_sync(
        self, tx: object, jobs: Sequence[NewJob], *, wake: bool = False
    ) -> list[Added]:
        """A file has no transactions."""
        raise Unsupported("a file has no transactions; leave out tx")

    async def claim(
        self, want: Want, settle: Sequence[Move] = (), *, now: float | None = None
    ) -> Claimed:
        """Hand out jobs to run, after applying the moves in `settle`."""
        return await self._do(lambda kept, at: _claim(kept, want, settle, at), now)

    async def renew(
        self,
        leases: Sequence[Lease],
        lease: float,
        notes: Mapping[str, Note] | None = None,
        *,
        now: float | None = None,
    ) -> list[Beat]:
        """Hold leases for `lease` seconds from now."""

        def renewed(kept: Kept, at: float) -> list[Beat]:
            return [
                _renew(kept, each, at + lease, (notes or {}).get(each.job_id)) for each in leases
            ]

        return await self._do(renewed, now)

    async def move(self, moves: Sequence[Move], *, now: float | None = None) -> list[Moved]:
        """Apply events to jobs by the table; one answer for each, in order."""
        return await self._do(lambda kept, at: [_apply(kept, move, at) for move in moves], now)

    async def drop(
        self,
        query: Query,
        *,
        ids: Sequence[str] | None = None,
        limit: int,
        now: float | None = None,
    ) -> int:
        """Remove jobs for good, never one that is processing."""

        def dropped(kept: Kept, at: float) -> int:
            rows = _by_acceptance(kept)
            doomed = [
                row
                for row in rows
                if (ids is None or row.record.id in ids)
                and row.record.state != "processing"
                and _matches(row, query, at)
            ][:limit]
            for row in doomed:
                del kept.rows[row.record.id]
            return len(doomed)

        return await self._do(dropped, now)

    async def get(self, ids: Sequence[str], *, now: float | None = None) -> list[Record | None]:
        """The records of these jobs, None where there is none, in order."""

        def found(kept: Kept, at: float) -> list[Record | None]:
            return [_seen(kept.rows[each], at) if each in kept.rows else None for each in ids]

        return await self._do(found, now, writes=False)

    async def find(
        self,
        query: Query,
        *,
        limit: int,
        cursor: str | None = None,
        within: float | None = None,
        now: float | None = None,
    ) -> Page:
        """Records, the last accepted first; goes on after `cursor`."""
        if cursor is not None and not (cursor.isascii() and cursor.isdigit()):
            raise ConfigError(f"{cursor!r} is no cursor of this store", field="cursor")
        below = None if cursor is None else int(cursor)

        def found(kept: Kept, at: float) -> Page:
            rows = [
                row
                for row in reversed(_by_acceptance(kept))
                if (below is None or row.seq < below) and _matches(row, query, at)
            ]
            return Page(
                records=tuple(_seen(row, at) for row in rows[:limit]),
                cursor=str(rows[limit - 1].seq) if len(rows) > limit else None,
            )

        return await self._do(found, now, writes=False)

    async def counts(self, query: Query | None = None, *, now: float | None = None) -> Counts:
        """How many records there are now."""
        return await self._do(
            lambda kept, at: _counts(kept, query or Query(), at), now, writes=False
        )

    async def events(self, after: int | None, limit: int) -> list[Ending]:
        """Ends and retries in commit order, after the entry `after`."""

        def listed(kept: Kept, _: float) -> list[Ending]:
            if after is None:
                return kept.endings[-1:]
            return [each for each in kept.endings if each.seq > after][:limit]

        return await self._do(listed, writes=False)

    async def errors(self, limit: int) -> list[ErrorGroup]:
        """Error groups, last seen first."""

        def listed(kept: Kept, _: float) -> list[ErrorGroup]:
            # The order of a dict is that of the last error: see _write_error.
            return list(reversed(kept.groups.values()))[:limit]

        return await self._do(listed, writes=False)

    async def metrics(self, since: float) -> list[Bucket]:
        """The buckets from the minute of `since` on."""

        def listed(kept: Kept, _: float) -> list[Bucket]:
            some = [each for each in kept.buckets.values() if each.minute >= minute_of(since)]
            return sorted(some, key=lambda each: (each.minute, each.job_name))

        return await self._do(listed, writes=False)

    async def reserve(
        self,
        key: str,
        job_id: str,
        token: str,
        windows: Sequence[Window],
        *,
        now: float | None = None,
    ) -> float:
        """Ask for a start under the rate limit `key`."""

        def asked(kept: Kept, at: float) -> float:
            return _reserve(kept.rates.setdefault(key, Rate()), job_id, token, windows, at)

        return await self._do(asked, now)

    async def read(self, space: str, *, after: str = "", limit: int = 1_000) -> list[Doc]:
        """The documents of a space whose key is greater than `after`, by key."""

        def listed(kept: Kept, _: float) -> list[Doc]:
            docs = kept.docs.get(space, {})
            return [docs[key] for key in sorted(docs) if key > after][:limit]

        return await self._do(listed, writes=False)

    async def write(
        self,
        space: str,
        key: str,
        value: bytes | None,
        *,
        version: int | None = None,
        now: float | None = None,
    ) -> int | None:
        """Write a document, or remove it where `value` is None; its new version."""

        def written(kept: Kept, at: float) -> int | None:
            if version is not None and version != _version(kept, space, key):
                return None
            kept.tellings += space in HEEDED
            return _put(kept, space, key, value, at)

        return await self._do(written, now)

    async def tick(
        self,
        schedule: str,
        version: int,
        value: bytes,
        entries: Sequence[tuple[str, bytes]],
        jobs: Sequence[NewJob],
        *,
        keep: int = 1_000,
        now: float | None = None,
    ) -> Ticked:
        """Fire a schedule: compare-and-set its document and, with it, add its jobs."""

        def ticked(kept: Kept, at: float) -> Ticked:
            if not version or version != _version(kept, "schedules", schedule):
                return Ticked(version=None)
            history = f"history:{schedule}"
            for key, entry in entries:
                _put(kept, history, key, entry, at)
            for key in sorted(kept.docs.get(history, {}), reverse=True)[keep:]:
                _put(kept, history, key, None, at)
            kept.tellings += 1
            return Ticked(
                version=_put(kept, "schedules", schedule, value, at),
                added=tuple(_add(kept, jobs, at, whole=False, wake=True)),
            )

        return await self._do(ticked, now)

    async def prune(self, limit: int, *, now: float | None = None) -> int:
        """Remove at most `limit` records whose time has come, and what else is too old."""
        return await self._do(lambda kept, at: _prune(kept, limit, at), now)

    async def wait(self, topics: Collection[str], timeout: float) -> None:
        """Return when one of the topics was told since the last wait, or after `timeout`."""

        def look() -> tuple[int, int, bool]:
            kept = self._load(self._queue)
            over = any(
                topic == topic_of_job(each) and row.record.state in ENDED
                for topic in topics
                for each, row in kept.rows.items()
            )
            gone = any(
                topic.startswith("job:") and topic.removeprefix("job:") not in kept.rows
                for topic in topics
            )
            return kept.tellings, kept.last_ending, over or gone

        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        first: int | None = None
        while True:
            tellings, ending, over = await asyncio.to_thread(look)
            first = ending if first is None else first
            if JOBS in topics and tellings != self._seen:
                self._seen = tellings
                return
            if over or (ENDS in topics and ending != first) or loop.time() >= until:
                return
            await asyncio.sleep(min(_LOOK_EVERY, max(0.0, until - loop.time())))


# -- adding ---------------------------------------------------------------------------------


def _add(kept: Kept, jobs: Sequence[NewJob], now: float, *, whole: bool, wake: bool) -> list[Added]:
    answers: list[Added] = []
    fresh: set[str] = set()
    for new in jobs:
        there = kept.rows.get(new.id)
        holder = None if new.unique_key is None else _holder(kept, new.name, new.unique_key)
        if there is not None:
            record = there.record
            same = record.name == new.name and record.payload == new.payload
            answers.append(Added("same" if same else "conflict", new.id))
        elif holder is not None:
            answers.append(Added("held", holder))
        else:
            answers.append(Added("added", new.id))
            fresh.add(new.id)
            _store(kept, new, now)
    if whole and any(answer.status == "conflict" for answer in answers):
        for job_id in fresh:
            del kept.rows[job_id]
        return [
            Added("dropped", new.id)
            if answer.status != "conflict" and answer.job_id in fresh
            else answer
            for new, answer in zip(jobs, answers, strict=True)
        ]
    kept.tellings += wake and bool(fresh)
    return answers


def _holder(kept: Kept, name: str, key: str) -> str | None:
    for row in kept.rows.values():
        record = row.record
        if record.name == name and record.unique_key == key and record.state in UNFINISHED:
            return record.id
    return None


def _store(kept: Kept, new: NewJob, now: float) -> None:
    run_at = now + new.delay if new.delay is not None else new.run_at
    due = run_at is None or run_at <= now
    kept.accepted += 1
    record = Record(
        id=new.id,
        name=new.name,
        state="pending" if due else "delayed",
        payload=new.payload,
        policy=new.policy,
        priority=new.priority,
        run_at=now if run_at is None or due else run_at,
        enqueued_at=now,
        unique_key=new.unique_key,
        metadata=new.metadata,
    )
    kept.rows[new.id] = Row(seq=kept.accepted, record=record)


# -- claiming -------------------------------------------------------------------------------


def _claim(kept: Kept, want: Want, settle: Sequence[Move], now: float) -> Claimed:
    moved = tuple(_apply(kept, move, now) for move in settle)
    delayed = sorted(_in_state(kept, "delayed"), key=lambda row: (row.record.run_at, row.seq))
    for row in delayed[:MATURE_LIMIT]:
        if row.record.run_at <= now:
            row.set(state=RULES["mature", "delayed"].after)
    if want.repeat:
        held = [row for row in _in_state(kept, "processing") if row.record.token == want.token]
        held.sort(key=_order)
        lapsed = [row for row in held if row.taken_over]
        claimed = [row for row in held if not row.taken_over]
    else:
        lapsed = _take_over(kept, want, now)
        claimed = _chosen(_open(kept, want), want)
        for row in claimed:
            _hold(row, want, now, taken_over=False)
            row.set(state="processing", attempts=row.record.attempts + 1, started_at=now)
    coming = [row.record.run_at for row in _in_state(kept, "delayed")]
    return Claimed(
        now=now,
        claims=tuple(_handed(row) for row in claimed),
        lapsed=tuple(_handed(row) for row in lapsed),
        moved=moved,
        next_due=min(coming, default=None),
        suspect_waits=any(row.record.suspect for row in _open(kept, want)),
        asked=tuple(
            Lease(row.record.id, row.record.token or "")
            for row in _in_state(kept, "processing")
            if row.record.asked and row.record.worker == want.worker
        ),
        docs=kept.heeded,
    )


def _in_state(kept: Kept, state: State) -> list[Row]:
    return [row for row in kept.rows.values() if row.record.state == state]


def _order(row: Row) -> tuple[int, float, int]:
    return row.record.priority, row.record.run_at, row.seq


def _open(kept: Kept, want: Want) -> list[Row]:
    """What is pending, in order, without what the want or a pause passes over."""
    pauses = kept.docs.get("pauses", {})
    if "*" in pauses:
        return []
    rows = [
        row
        for row in _in_state(kept, "pending")
        if (want.names is None or row.record.name in want.names)
        and f"job:{row.record.name}" not in pauses
    ]
    return sorted(rows, key=_order)


def _chosen(rows: list[Row], want: Want) -> list[Row]:
    """What this worker may start: suspects alone, and only where it has room for one."""
    if want.limit < 1:
        return []
    suspects = [row for row in rows if row.record.suspect]
    if suspects and (want.room == "alone" or (want.room == "idle" and rows[0] is suspects[0])):
        return suspects[:1]
    return [row for row in rows if not row.record.suspect][: want.limit]


def _take_over(kept: Kept, want: Want, now: float) -> list[Row]:
    lapsed = [
        row
        for row in _in_state(kept, "processing")
        if row.record.lease_until is not None and row.record.lease_until <= now
    ]
    lapsed.sort(key=lambda row: (row.record.lease_until, row.seq))
    del lapsed[TAKEOVER_LIMIT:]
    for row in lapsed:
        _hold(row, want, now, taken_over=True)
    return lapsed


def _hold(row: Row, want: Want, now: float, *, taken_over: bool) -> None:
    row.set(token=want.token, worker=want.worker, lease_until=now + want.lease)
    row.taken_over = taken_over
    row.last_line = None


def _handed(row: Row) -> Claim:
    record = row.record
    return Claim(
        id=record.id,
        name=record.name,
        payload=record.payload,
        policy=record.policy,
        token=record.token or "",
        attempt=record.attempts,
        lapses=record.lapses,
        priority=record.priority,
        enqueued_at=record.enqueued_at,
        run_at=record.run_at,
        started_at=record.started_at or 0.0,
        suspect=record.suspect,
        asked=record.asked,
        unique_key=record.unique_key,
        metadata=record.metadata,
        memo=record.memo,
    )


def _renew(kept: Kept, lease: Lease, until: float, note: Note | None) -> Beat:
    row = kept.rows.get(lease.job_id)
    if row is None or row.record.state != "processing" or row.record.token != lease.token:
        return "lost"
    row.set(lease_until=until)
    if note is not None:
        _take_note(row, note)
    return "abort" if row.record.asked else "ok"


def _take_note(row: Row, note: Note) -> None:
    if note.progress is not None:
        row.set(progress=note.progress, progress_note=note.progress_note)
    for number, line in note.lines:
        if row.last_line is None or number > row.last_line:
            row.last_line = number
            row.set(logs=(*row.record.logs, line)[-KEPT_LINES:])


# -- moving ---------------------------------------------------------------------------------


def _apply(kept: Kept, move: Move, now: float) -> Moved:
    row = kept.rows.get(move.job_id)
    if row is None:
        return Moved("missing", move.job_id)
    if row.record.state == "delayed" and row.record.run_at <= now:
        row.set(state="pending")
    record = row.record
    fenced = _fence(record, move)
    if fenced is not None:
        return fenced
    rule = RULES.get((move.event, record.state))
    if rule is None or move.event == "mature":
        return Moved("refused", record.id, record.state)
    if record.state in ENDED and record.unique_key is not None:
        holder = _holder(kept, record.name, record.unique_key)
        if holder is not None:
            return Moved("held", holder)
    if rule.asks:
        if not record.asked:
            row.set(asked=True)
            row.asked_error, row.asked_fingerprint = move.error, move.fingerprint
        kept.tellings += 1
    else:
        _change(kept, row, rule, move, now)
    return Moved("applied", record.id, _state(row, now))


def _fence(record: Record, move: Move) -> Moved | None:
    """What keeps out a worker that does not hold the job."""
    if move.event not in NEEDS_TOKEN:
        return None
    if move.token is None or move.token != record.token:
        return Moved("stale", record.id)
    if record.state != "processing":
        return Moved("already", record.id, record.state)
    return None


def _change(kept: Kept, row: Row, rule: Rule, move: Move, now: float) -> None:
    asked = row.record.asked
    after = rule.if_asked if asked and rule.if_asked is not None else rule.after
    if rule.token or after in ENDED:
        _count(kept, row, move, after, now)
    if rule.fresh:
        _start_over(row)
    if rule.token:
        if move.note is not None:
            _take_note(row, move.note)
        row.set(
            suspect=rule.suspect or (row.record.suspect and move.untried),
            result=move.result,
            memo=move.memo,
            lease_until=None,
        )
    record = row.record
    run_at = record.run_at
    if rule.due == "now":
        run_at = now
    elif rule.due == "after_delay" and not (asked and rule.if_asked is not None):
        run_at = now + move.delay
    row.set(
        state=after,
        run_at=run_at,
        attempts=record.attempts + rule.attempt,
        lapses=record.lapses + max(rule.lapses, int(move.lapsed)),
    )
    for error, fingerprint in _errors(row, rule, move, asked=asked):
        _write_error(kept, row, error, fingerprint, now)
    if after in ENDED:
        policy = record.policy
        keep = policy.keep_result if after == "completed" else policy.keep_failed
        row.set(asked=False, ended_at=now, expires_at=now + keep)
        row.asked_error = row.asked_fingerprint = None
        _tell(kept, row, str(after), now)
    elif move.event == "retry":
        _tell(kept, row, "retried", now)
    kept.tellings += _state(row, now) == "pending"


def _errors(row: Row, rule: Rule, move: Move, *, asked: bool) -> Iterable[tuple[bytes, str | None]]:
    """The move's error, and that of the cancel by which the run ends."""
    by_cancel = asked and rule.if_asked is not None and row.asked_error is not None
    if move.error is not None and not (by_cancel and rule.if_asked == rule.after):
        yield move.error, move.fingerprint
    if by_cancel and row.asked_error is not None:
        yield row.asked_error, row.asked_fingerprint


def _start_over(row: Row) -> None:
    row.set(
        attempts=0,
        lapses=0,
        suspect=False,
        asked=False,
        worker=None,
        lease_until=None,
        started_at=None,
        ended_at=None,
        expires_at=None,
        result=None,
        progress=None,
        progress_note=None,
        logs=(),
        memo=None,
        generation=row.record.generation + 1,
    )
    row.asked_error = row.asked_fingerprint = row.last_line = None
    row.taken_over = False


def _write_error(kept: Kept, row: Row, error: bytes, fingerprint: str | None, now: float) -> None:
    row.set(errors=(*row.record.errors, error)[-KEPT_ERRORS:], fingerprint=fingerprint)
    if fingerprint is None:
        return
    before = kept.groups.pop(fingerprint, None)
    kept.groups[fingerprint] = ErrorGroup(
        fingerprint=fingerprint,
        job_name=row.record.name,
        count=1 if before is None else before.count + 1,
        first_seen=now if before is None else before.first_seen,
        last_seen=now,
        last_job_id=row.record.id,
        last_error=error,
    )


def _count(kept: Kept, row: Row, move: Move, after: State, now: float) -> None:
    tally = Tally(minute_of(now), row.record.name)
    key = f"{tally.minute:.0f} {tally.job_name}"
    if key in kept.buckets:
        tally.add(kept.buckets[key])
    tally.count(move, after, due=row.record.run_at, started=row.record.started_at, now=now)
    kept.buckets[key] = tally.bucket()


def _tell(kept: Kept, row: Row, kind: Any, now: float) -> None:
    kept.last_ending += 1
    record = row.record
    kept.endings.append(
        Ending(seq=kept.last_ending, at=now, job_id=record.id, job_name=record.name, kind=kind)
    )


# -- asking ---------------------------------------------------------------------------------


def _state(row: Row, now: float) -> State:
    """The state that everyone is told: what is due is pending."""
    record = row.record
    return "pending" if record.state == "delayed" and record.run_at <= now else record.state


def _seen(row: Row, now: float) -> Record:
    return msgspec.structs.replace(row.record, state=_state(row, now))


def _by_acceptance(kept: Kept) -> list[Row]:
    return sorted(kept.rows.values(), key=lambda row: row.seq)


def _matches(row: Row, query: Query, now: float) -> bool:
    record = row.record
    return (
        (query.states is None or _state(row, now) in query.states)
        and query.name in (None, record.name)
        and query.unique_key in (None, record.unique_key)
        and query.fingerprint in (None, record.fingerprint)
    )


def _counts(kept: Kept, query: Query, now: float) -> Counts:
    states: dict[State, int] = {}
    by_name: dict[str, dict[State, int]] = {}
    due: list[float] = []
    for row in kept.rows.values():
        if _matches(row, query, now):
            state = _state(row, now)
            of_name = by_name.setdefault(row.record.name, {})
            states[state] = states.get(state, 0) + 1
            of_name[state] = of_name.get(state, 0) + 1
            if state == "pending":
                due.append(row.record.run_at)
    return Counts(
        states=states,
        by_name=by_name,
        due=len(due),
        oldest_due=min(due, default=None),
        now=now,
    )


# -- rate limits, documents, pruning --------------------------------------------------------


def _reserve(rate: Rate, job_id: str, token: str, windows: Sequence[Window], now: float) -> float:
    rate.starts = [start for start in rate.starts if start.until > now]
    rate.slots = [slot for slot in rate.slots if slot.until > now]
    mine = [each for each in rate.starts if each.job_id == job_id and each.token == token]
    if not windows:
        # The start is given back.
        rate.starts = [each for each in rate.starts if each not in mine]
        return 0.0
    if mine:
        return 0.0
    own = next((slot.at for slot in rate.slots if slot.job_id == job_id), None)
    others = [slot for slot in rate.slots if slot.job_id != job_id]
    slot = slot_for(
        sorted(start.at for start in rate.starts),
        sorted(slot.at for slot in others),
        own,
        windows,
        now,
    )
    rate.slots = others
    if slot is None:
        rate.starts.append(Start(now, now + longest(windows), job_id, token))
        return 0.0
    rate.slots.append(Start(slot, slot + longest(windows), job_id))
    return slot - now


def _version(kept: Kept, space: str, key: str) -> int:
    doc = kept.docs.get(space, {}).get(key)
    return 0 if doc is None else doc.version


def _put(kept: Kept, space: str, key: str, value: bytes | None, now: float) -> int:
    """Write or remove; the document's version, 0 where it is removed."""
    docs = kept.docs.setdefault(space, {})
    if value is None:
        changed = docs.pop(key, None) is not None
    else:
        changed = True
        docs[key] = Doc(key=key, value=value, version=kept.versions + 1, at=now)
    kept.versions += changed
    kept.heeded += changed and space in HEEDED
    if not docs:
        del kept.docs[space]
    return 0 if value is None else kept.versions


def _prune(kept: Kept, limit: int, now: float) -> int:
    old = [
        row
        for row in kept.rows.values()
        if row.record.expires_at is not None and row.record.expires_at <= now
    ]
    old.sort(key=lambda row: (row.record.expires_at, row.seq))
    for row in old[:limit]:
        del kept.rows[row.record.id]
    kept.endings = [each for each in kept.endings if each.at >= now - 3_600]
    kept.buckets = {
        key: each for key, each in kept.buckets.items() if each.minute >= now - 8 * 86_400
    }
    kept.groups = {
        key: each for key, each in kept.groups.items() if each.last_seen >= now - 30 * 86_400
    }
    return len(old[:limit])
