"""Any interleaving of a store's verbs, beside the store in memory as the oracle.

Subclass it, say how your store is opened, and let pytest collect its TestCase:

    class MyStoreMachine(StoreMachine):
        async def open_store(self, clock: Clock) -> Store:
            store = MyStore("mydb://127.0.0.1/test", clock=clock)
            await store.open()
            return store

    TestMyStore = MyStoreMachine.TestCase
    TestMyStore.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)

Needs hypothesis.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from jobmill.clock import Clock
from jobmill.policy import Policy
from jobmill.states import ENDED, NEEDS_TOKEN, UNFINISHED, Event, Move, Note, State
from jobmill.store import (
    Bucket,
    Claimed,
    Counts,
    Doc,
    Lease,
    NewJob,
    Query,
    Record,
    Store,
    Want,
    Window,
)
from jobmill.stores.memory import MemoryStore
from jobmill.testing.contract.case import T0, StillClock

T = TypeVar("T")

_IDS: Final = tuple(f"j{number}" for number in range(6))
_NAMES: Final = ("a", "b")
_SETTLES: Final = tuple(sorted(NEEDS_TOKEN))
_OTHERS: Final[dict[Event, tuple[State, ...]]] = {
    "cancel": ("delayed", "pending", "processing"),
    "revive": ("completed", "failed", "cancelled"),
    "hasten": ("delayed",),
}
_POLICIES: Final = (
    Policy(),
    Policy(keep_result=0.0, keep_failed=0.0),
    Policy(keep_result=50.0, keep_failed=100.0, max_lapses=1),
)
_WINDOWS: Final = {"r": (Window(1, 5.0),), "s": (Window(2, 5.0), Window(3, 60.0))}

_ids = st.sampled_from(_IDS)
_maybe_key = st.sampled_from([None, None, "k", "l"])
_queries = st.builds(
    Query,
    states=st.none() | st.sampled_from([("pending",), ("delayed", "failed"), tuple(ENDED)]),
    name=st.none() | st.sampled_from(_NAMES),
    unique_key=_maybe_key,
    fingerprint=st.sampled_from([None, None, "f"]),
)
_jobs = st.builds(
    NewJob,
    id=_ids,
    name=st.sampled_from(_NAMES),
    payload=st.sampled_from([b"1", b"1", b"2"]),
    policy=st.sampled_from(_POLICIES),
    priority=st.sampled_from([0, 0, -1, 1]),
    delay=st.sampled_from([None, None, 0.0, 5.0, 40.0]),
    unique_key=_maybe_key,
)


def _at_instant(job: NewJob, ahead: float) -> NewJob:
    return msgspec.structs.replace(job, delay=None, run_at=T0 + ahead)


_at_instants = st.builds(_at_instant, _jobs, st.sampled_from([-10.0, 20.0, 100.0]))
_notes = st.builds(
    Note,
    progress=st.none() | st.sampled_from([0.0, 50.0]),
    progress_note=st.sampled_from([None, "x"]),
    lines=st.lists(st.integers(0, 5), max_size=3).map(
        lambda numbers: tuple((number, b"%d" % number) for number in sorted(set(numbers)))
    ),
)


class StoreMachine(RuleBasedStateMachine):
    """A store under test and the store in memory are told the same and answer the same.

    Time is given to every verb, and never goes back.
    """

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._oracle: Store = MemoryStore(clock=StillClock())
        self._now = T0
        self._claims = 0
        self._asks = 0
        self._started: dict[tuple[str, str], str] = {}
        self._given: list[Lease] = []
        self._last_token: dict[str, str] = {}
        self._lives: Counter[str] = Counter()
        self._versions: dict[tuple[str, str], tuple[int, int]] = {}
        self._subject: Store = self._oracle

    async def open_store(self, clock: Clock) -> Store:
        """A new, empty, opened store; the machine closes it."""
        raise NotImplementedError

    @initialize()
    def open(self) -> None:
        """Open the store under test, with a few jobs and a schedule to begin with."""
        self._subject = self._runner.run(self.open_store(StillClock()))
        jobs = [
            NewJob(
                id=id_,
                name=_NAMES[place % 2],
                payload=b"1",
                policy=_POLICIES[place % 3],
                priority=-place % 3,
                unique_key="k" if place < 2 else None,
                delay=300.0 if place > 2 else None,
            )
            for place, id_ in enumerate(_IDS[:5])
        ]
        self.add(jobs, whole=False)
        self.write("schedules", "s", b"1", "none")

    def teardown(self) -> None:
        """Compare what is compared seldom, and close."""
        try:
            self.figures_are_equal()
        finally:
            self._runner.run(self._subject.close())
            self._runner.close()

    # ------------------------------------------------------------------ telling both

    def _both(self, verb: Callable[[Store], Awaitable[T]]) -> tuple[T, T]:
        """The oracle's answer, and the subject's."""

        async def ask() -> tuple[T, T]:
            return await verb(self._oracle), await verb(self._subject)

        return self._runner.run(ask())

    def _same(self, verb: Callable[[Store], Coroutine[Any, Any, T]]) -> T:
        expected, answer = self._both(verb)
        assert answer == expected, f"\n  oracle: {expected}\n  store:  {answer}"
        return answer

    def _records(self) -> list[Record]:
        records = self._runner.run(self._oracle.get(_IDS, now=self._now))
        return [record for record in records if record is not None]

    def _lease(self, data: st.DataObject) -> Lease:
        """Mostly one that is held, else any that was ever given, or a forged one."""
        records = self._records()
        held = [
            Lease(record.id, record.token)
            for record in records
            if record.state == "processing" and record.token is not None
        ]
        forged = [Lease(record.id, "forged") for record in records[:1]] or [Lease("j0", "t1")]
        groups = [group for group in (held, held, held, self._given, forged) if group]
        return data.draw(st.sampled_from(groups).flatmap(st.sampled_from), label="lease")

    def _job_id(self, data: st.DataObject, *preferred: State) -> str:
        """Mostly a job that is there, in one of these states if any is."""
        records = self._records()
        there = [record.id for record in records if record.state in preferred]
        there = there or [record.id for record in records]
        return data.draw(st.sampled_from([*there, *there, *_IDS]), label="job")

    def _note_moves(self, moves: Sequence[Move], answers: Sequence[Any]) -> None:
        for move, answer in zip(moves, answers, strict=True):
            if answer.status != "applied":
                continue
            if move.event in NEEDS_TOKEN:
                assert move.token == self._last_token[move.job_id], "a stale settle was applied"
            if move.event == "revive":
                self._lives[move.job_id] += 1

    def _settle(self, data: st.DataObject, lease: Lease | None = None) -> Move:
        lease = lease or self._lease(data)
        event = data.draw(st.sampled_from(_SETTLES), label="event")
        return Move(
            event=event,
            job_id=lease.job_id,
            token=data.draw(st.sampled_from([lease.token] * 9 + [None]), label="token"),
            delay=data.draw(st.sampled_from([0.0, 3.0, 45.0]), label="delay"),
            result=b"r" if event == "succeed" else None,
            error=b"e" if event in {"retry", "fail", "abort"} else None,
            fingerprint=data.draw(st.sampled_from([None, "f", "g"]), label="fingerprint"),
            lapsed=event == "fail" and data.draw(st.booleans(), label="lapsed"),
            untried=event in {"snooze", "release"} and data.draw(st.booleans(), label="untried"),
            memo=data.draw(st.sampled_from([None, b"m"]), label="memo"),
            note=data.draw(st.none() | _notes, label="note"),
        )

    # ------------------------------------------------------------------ rules

    @rule(jobs=st.lists(_jobs | _at_instants, min_size=1, max_size=4), whole=st.booleans())
    def add(self, jobs: list[NewJob], whole: bool) -> None:
        """Add a few jobs."""
        answers = self._same(lambda store: store.add(jobs, whole=whole, now=self._now))
        for answer in answers:
            if answer.status == "added":
                self._lives[answer.job_id] += 1
                self._last_token.pop(answer.job_id, None)

    @rule(limit=st.integers(1, 4), worker=st.sampled_from(["w1", "w2"]))
    def claim(self, limit: int, worker: str) -> None:
        """Claim with a new token."""
        self._claim(self._want(limit=limit, worker=worker), [])

    @rule(
        data=st.data(),
        worker=st.sampled_from(["w1", "w2"]),
        limit=st.integers(0, 4),
        lease=st.sampled_from([30.0, 10.0]),
        names=st.sampled_from([None, ("a",), ("b", "a"), ()]),
        room=st.sampled_from(["busy", "idle", "alone"]),
        riding=st.booleans(),
    )
    def claim_with(self, data: st.DataObject, *, riding: bool, **fields: Any) -> None:
        """Claim in any way; a settle may ride along."""
        self._claim(self._want(**fields), [self._settle(data)] if riding else [])

    @precondition(lambda self: bool(self._given))
    @rule(data=st.data())
    def claim_again(self, data: st.DataObject) -> None:
        """Repeat a claim whose reply was lost."""
        self._claim(self._want(token=self._lease(data).token, repeat=True), [])

    def _want(self, **fields: Any) -> Want:
        self._claims += 1
        defaults: dict[str, Any] = {
            "worker": "w1",
            "token": f"t{self._claims}",
            "limit": 2,
            "lease": 30.0,
        }
        return Want(**{**defaults, **fields})

    def _claim(self, want: Want, settle: list[Move]) -> None:
        expected, answer = self._both(lambda store: store.claim(want, settle, now=self._now))
        assert _plain(answer) == _plain(expected), f"\n  oracle: {expected}\n  store:  {answer}"
        self._note_moves(settle, answer.moved)
        for claim in (*answer.claims, *answer.lapsed):
            if want.repeat:
                assert self._last_token[claim.id] == claim.token
            elif claim.token != self._last_token.get(claim.id):
                self._last_token[claim.id] = claim.token
                self._given.append(Lease(claim.id, claim.token))

    @rule(data=st.data(), asked=st.booleans(), late=st.sampled_from([0.0, 1.0, 31.0]))
    def run_one(self, data: st.DataObject, asked: bool, late: float) -> None:
        """Claim a job and settle it, perhaps asked to cancel, perhaps late."""
        self.claim(1, "w1")
        leases = self._given[-1:]
        if leases and asked:
            moves = [Move(event="cancel", job_id=leases[0].job_id, error=b"why", fingerprint="c")]
            self._note_moves(moves, self._same(lambda store: store.move(moves, now=self._now)))
        self._now += late
        settles = [self._settle(data, lease) for lease in leases]
        self._note_moves(settles, self._same(lambda store: store.move(settles, now=self._now)))

    @precondition(lambda self: bool(self._given))
    @rule(data=st.data(), count=st.integers(1, 3))
    def settle(self, data: st.DataObject, count: int) -> None:
        """Settle runs, by tokens old and new."""
        moves = [self._settle(data) for _ in range(count)]
        self._note_moves(moves, self._same(lambda store: store.move(moves, now=self._now)))

    @rule(
        data=st.data(),
        events=st.lists(st.sampled_from(sorted(_OTHERS)), min_size=1, max_size=3),
        fingerprint=st.sampled_from([None, "c"]),
    )
    def operate(self, data: st.DataObject, events: list[Event], fingerprint: str | None) -> None:
        """Cancel, revive and hasten."""
        moves = [
            Move(
                event=event,
                job_id=self._job_id(data, *_OTHERS[event]),
                error=b"c" if event == "cancel" else None,
                fingerprint=fingerprint,
            )
            for event in events
        ]
        self._note_moves(moves, self._same(lambda store: store.move(moves, now=self._now)))

    @precondition(lambda self: bool(self._given))
    @rule(data=st.data(), lease=st.sampled_from([5.0, 30.0]), note=st.none() | _notes)
    def renew(self, data: st.DataObject, lease: float, note: Note | None) -> None:
        """Renew leases, held and lost."""
        leases = [self._lease(data) for _ in range(2)]
        notes = {leases[0].job_id: note} if note else None
        self._same(lambda store: store.renew(leases, lease, notes, now=self._now))

    @rule(
        query=_queries.filter(Query().__ne__),
        ids=st.none() | st.lists(_ids, max_size=3),
        limit=st.integers(0, 3),
    )
    def drop(self, query: Query, ids: list[str] | None, limit: int) -> None:
        """Drop jobs."""
        self._same(lambda store: store.drop(query, ids=ids, limit=limit, now=self._now))

    @rule()
    def prune(self) -> None:
        """Prune what has had its time."""
        self._same(lambda store: store.prune(1_000, now=self._now))

    @rule(seconds=st.sampled_from([0.5, 1.0, 5.0, 10.0, 30.0, 61.0, 4_000.0]))
    def pass_time(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds

    @rule(
        space=st.sampled_from(["pauses", "pauses", "schedules"]),
        key=st.sampled_from(["job:a", "s", "*"]),
        value=st.sampled_from([None, b"1", None, b"2"]),
        version=st.sampled_from(["any", "none", "known"]),
    )
    def write(self, space: str, key: str, value: bytes | None, version: str) -> None:
        """Write and remove documents, pauses among them."""
        known = self._versions.get((space, key), (77_777, 77_777))
        expected, answer = self._both(
            lambda store: store.write(
                space,
                key,
                value,
                version={"any": None, "none": 0, "known": known[store is self._subject]}[version],
                now=self._now,
            )
        )
        assert (answer is None, answer == 0) == (expected is None, expected == 0)
        if expected and answer:
            self._know(space, key, expected, answer)

    @rule(jobs=st.lists(_jobs, max_size=2), entry=st.integers(0, 3), known=st.booleans())
    def tick(self, jobs: list[NewJob], entry: int, known: bool) -> None:
        """Fire a schedule."""
        versions = self._versions.get(("schedules", "s"), (1, 1)) if known else (0, 0)
        expected, answer = self._both(
            lambda store: store.tick(
                "s",
                versions[store is self._subject],
                b"3",
                [(str(entry), b"entry")],
                jobs,
                keep=2,
                now=self._now,
            )
        )
        assert (answer.version is None) == (expected.version is None)
        assert answer.added == expected.added
        if expected.version and answer.version:
            self._know("schedules", "s", expected.version, answer.version)
        for added in answer.added:
            if added.status == "added":
                self._lives[added.job_id] += 1
                self._last_token.pop(added.job_id, None)

    def _know(self, space: str, key: str, expected: int, answer: int) -> None:
        pairs = self._versions.values()
        assert answer not in [version for _, version in pairs], "a version came again"
        self._versions[space, key] = expected, answer

    @rule(
        key=st.sampled_from(sorted(_WINDOWS)),
        asks=st.lists(
            st.tuples(_ids, st.sampled_from([0.0, 0.5, 2.0, 5.5]), st.booleans()),
            min_size=1,
            max_size=8,
        ),
    )
    def reserve(self, key: str, asks: list[tuple[str, float, bool]]) -> None:
        """Ask for starts under a rate limit, for new runs and again for the last."""
        for job_id, seconds, again in asks:
            self._now += seconds
            self._asks += not again
            self._reserve(key, job_id, f"r{self._asks}")

    def _reserve(self, key: str, job_id: str, token: str) -> None:
        expected, answer = self._both(
            lambda store: store.reserve(key, job_id, token, _WINDOWS[key], now=self._now)
        )
        assert (answer == 0) == (expected == 0)
        assert abs(answer - expected) < 1e-3, f"oracle: {expected}, store: {answer}"
        if answer == 0:
            self._started[key, job_id] = token

    @rule(key=st.sampled_from(sorted(_WINDOWS)), job_id=_ids)
    def give_back(self, key: str, job_id: str) -> None:
        """Take back the last start of a job, which never happened."""
        token = self._started.pop((key, job_id), "none")
        assert self._both(lambda store: store.reserve(key, job_id, token, (), now=self._now)) == (
            0,
            0,
        )

    @rule(query=_queries, limit=st.integers(1, 3))
    def find(self, query: Query, limit: int) -> None:
        """Page through what matches, and count it."""

        async def pages(store: Store) -> list[list[Record]]:
            cursor = None
            found: list[list[Record]] = []
            while True:
                page = await store.find(query, limit=limit, cursor=cursor, now=self._now)
                found.append(list(page.records))
                cursor = page.cursor
                if cursor is None:
                    return found

        self._same(pages)
        self._same(lambda store: store.counts(query, now=self._now))

    @rule()
    def figures_are_equal(self) -> None:
        """Compare events, error groups, metrics and documents."""

        async def figures(store: Store) -> list[Any]:
            events = [
                (event.at, event.job_id, event.job_name, event.kind)
                for event in await store.events(0, 1_000)
            ]
            groups = sorted(await store.errors(100), key=lambda group: group.fingerprint)
            buckets = [_rounded(bucket) for bucket in await store.metrics(0.0)]
            docs = [
                [_unversioned(doc) for doc in await store.read(space)]
                for space in ("pauses", "schedules", "history:s")
            ]
            return [events, groups, [bucket for bucket in buckets if bucket], docs]

        events, *_ = self._same(figures)
        ends = Counter(job_id for _, job_id, _, kind in events if kind != "retried")
        for job_id, count in ends.items():
            assert count <= self._lives[job_id], f"{job_id} ended more often than it lived"

    # ------------------------------------------------------------------ invariants

    @invariant()
    def records_are_equal(self) -> None:
        """All records and counts are the same, and keep what was promised of them."""

        async def look(store: Store) -> tuple[list[Record | None], Counts]:
            return await store.get(_IDS, now=self._now), await store.counts(now=self._now)

        records, _ = self._same(look)
        keys: Counter[tuple[str, str]] = Counter()
        for record in records:
            if record is None:
                continue
            if record.state in UNFINISHED and record.unique_key is not None:
                keys[record.name, record.unique_key] += 1
            if record.state == "processing":
                assert record.token == self._last_token[record.id]
                assert record.attempts >= 1
                assert record.lease_until is not None
            assert (record.expires_at is not None) == (record.state in ENDED)
        assert all(count == 1 for count in keys.values()), f"held twice: {keys}"


def _plain(claimed: Claimed) -> Claimed:
    """A claim's answer without what each store numbers and orders as it likes."""
    return msgspec.structs.replace(
        claimed,
        docs=0,
        asked=tuple(sorted(claimed.asked, key=lambda lease: lease.job_id)),
        lapsed=tuple(sorted(claimed.lapsed, key=lambda claim: claim.id)),
    )


def _rounded(bucket: Bucket) -> tuple[Any, ...] | None:
    """A bucket's figures; None where nothing was counted."""
    counts = (
        bucket.started,
        bucket.completed,
        bucket.failed,
        bucket.retried,
        bucket.cancelled,
        bucket.lapsed,
    )
    if not any(counts):
        return None
    histograms = [
        {index: count for index, count in enumerate(histogram) if count}
        for histogram in (bucket.run_histogram, bucket.wait_histogram)
    ]
    sums = (round(bucket.run_sum, 3), round(bucket.wait_sum, 3))
    return (bucket.minute, bucket.job_name, *counts, *sums, *histograms)


def _unversioned(doc: Doc) -> tuple[str, bytes, float]:
    return (doc.key, doc.value, doc.at)
