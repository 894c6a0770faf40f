"""The Checker: reads what happened in a run and says which invariants it broke."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import assert_never

from jobmill.states import UNFINISHED
from jobmill.store import Query, Record, Store, Window
from jobmill.testing.eventlog import (
    Adds,
    Begins,
    Calm,
    Claims,
    Disturbs,
    Drops,
    Ends,
    Event,
    Fault,
    Gone,
    Holds,
    Killed,
    Moves,
    Pauses,
    Renews,
    Reserves,
    Stops,
    Yields,
)
from jobmill.testing.ledger import HAIR, Ledger, Life
from jobmill.testing.tenures import Tenures

_PAGE = 500


@dataclass(frozen=True, slots=True)
class Violation:
    """An invariant that did not hold: its id, the job, if one, and what happened."""

    invariant: str
    job_id: str | None
    sentence: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.job_id or 'the run'} {self.sentence}"


@dataclass(frozen=True, slots=True)
class Dump:
    """The store at the end of a run: all its records, and its instant."""

    at: float
    records: tuple[Record, ...]


async def dump(store: Store) -> Dump:
    """All that the store keeps of jobs."""
    records: list[Record] = []
    page = await store.find(Query(), limit=_PAGE)
    records += page.records
    while page.cursor is not None:
        page = await store.find(Query(), limit=_PAGE, cursor=page.cursor)
        records += page.records
    return Dump(at=(await store.counts()).now, records=tuple(records))


def check(events: Iterable[Event], at_end: Dump) -> list[Violation]:
    """What a drained run broke: its log, and the store as it was left."""
    checker = Checker()
    for event in events:
        checker.read(event)
    return checker.finish(at_end)


def check_outside(
    events: Iterable[Event],
    accepted: Iterable[str],
    at_end: Dump,
    *,
    forgotten: Collection[str] = (),
) -> list[Violation]:
    """What a drained run of real processes broke, as far as witnesses beside its store can tell.

    `events` are what handlers told of themselves, Begins and Ends, and what workers told of their
    leases, Holds and Yields: of calls to the store nobody knows the order. `accepted` are the ids
    for which `enqueue` returned, `forgotten` the jobs whose last claim the store lost in a crash
    of its own. No record's time is over yet.
    """
    checker = Checker()
    for event in events:
        checker.read(event)
    return checker.finish_outside(accepted, at_end, forgotten)


class Checker:
    """Reads the log of a run, event by event, then the dump of its store.

    Order: the log is in the order in which the store did what was asked, and complete: each
    call that changed something is in it, also where nobody learned of it.
    Covers I1 to I7, I9, I10, I12, I13, I14 and I16.
    """

    def __init__(self) -> None:
        self.violations: list[Violation] = []
        self._ledger = Ledger(self._report)
        self._tenures = Tenures(self._report)
        self._read = 0
        self._pauses: set[str] = set()
        self._starts: dict[str, dict[tuple[str, str], float]] = defaultdict(dict)
        self._limits: dict[str, set[Window]] = defaultdict(set)
        self._stops: dict[str, Stops] = {}
        self._gone: set[str] = set()
        self._cut_off: set[str] = set()
        self._calm: Calm | None = None
        self._disturbed: dict[str, str] = {}
        self._begun: Counter[str] = Counter()

    def read(self, event: Event) -> None:  # noqa: C901, PLR0912  a branch for each event
        """Take in the next event."""
        self._read += 1
        match event:
            case Adds():
                self._ledger.adds(event)
            case Claims():
                self._claims(event)
            case Renews():
                self._ledger.renews(event)
            case Moves():
                self._ledger.moved(event)
            case Drops():
                self._ledger.drops(event.job_ids)
            case Reserves():
                self._reserves(event)
            case Pauses():
                (self._pauses.add if event.there else self._pauses.discard)(event.key)
            case Begins():
                self._begins(event)
            case Holds():
                self._tenures.holds(event)
            case Yields():
                self._tenures.yields(event)
            case Disturbs():
                self._disturbed[event.job_id] = event.what
            case Stops():
                self._stops.setdefault(event.by, event)
                self._cut_off.discard(event.by)
            case Gone():
                self._goes(event)
            case Killed():
                self._gone.add(event.by)
            case Calm():
                self._calm = event
            case Fault():
                self._cut_off.add(event.by)
            case Ends():
                self._ends(event)
            case _:
                assert_never(event)

    def finish(self, at_end: Dump) -> list[Violation]:
        """Compare with the store as it was left; all violations, in the order of the log."""
        self._check_records(at_end)
        self._check_windows()
        for worker, stop in self._stops.items():
            if worker not in self._gone:
                sentence = f"{worker} was told to stop at {stop.boot:.6f} and never ended"
                self._report("I12", None, sentence)
        return self.violations

    def finish_outside(
        self, accepted: Iterable[str], at_end: Dump, forgotten: Collection[str]
    ) -> list[Violation]:
        """Compare what handlers told with the store as it was left, where no call was logged.

        Covers I1, I2, I3, I6 and I7, as far as a record shows them, and I5, as far as workers told
        of their leases; where they did not, that each run had a claim of its own.
        """
        records = self._check_ids_and_keys(at_end)
        for job_id in set(accepted) - records.keys():
            self._report("I1", job_id, "was accepted, and there is no record of it")
        for job_id in self._begun.keys() - records.keys():
            self._report("I6", job_id, "ran, and there is no record of it")
        for record in records.values():
            if record.state in UNFINISHED:
                self._report("I1", record.id, f"was accepted and never ended; it is {record.state}")
            attempts, lapses, policy = record.attempts, record.lapses, record.policy
            if attempts > policy.max_attempts or lapses > policy.max_lapses:
                sentence = f"has {attempts} attempts and {lapses} lapses,"
                sentence += f" of {policy.max_attempts} and {policy.max_lapses}"
                self._report("I3", record.id, sentence)
            runs = self._begun[record.id]
            if record.state == "completed" and not runs:
                self._report("I2", record.id, "is completed, and nobody ran it")
            if runs > attempts + lapses + (record.id in forgotten):
                sentence = f"ran {runs} times, in {attempts} attempts and {lapses} lapses"
                self._report("I5", record.id, sentence)
        self._tenures.check(forgotten)
        return self.violations

    def _report(self, invariant: str, job_id: str | None, sentence: str) -> None:
        self.violations.append(Violation(invariant, job_id, sentence))

    def _claims(self, event: Claims) -> None:
        self._ledger.moves(event.settle, event.answer.moved, event)
        stop = self._stops.get(event.by)
        if not event.want.repeat:
            # One that repeats hands out nothing new: it collects what was claimed before.
            if stop is not None and event.sent > stop.boot and event.answer.claims:
                first = event.answer.claims[0]
                self._report("I12", first.id, f"was claimed by {event.by} after stop")
            self._check_order(event)
        self._ledger.claims(event, self._read)

    def _check_order(self, event: Claims) -> None:
        """What was handed out, against all that waited at that moment."""
        claims, want = event.answer.claims, event.want
        if len(claims) > want.limit:
            self._report("I10", None, f"{len(claims)} jobs were handed out, of {want.limit}")
        for claim in claims:
            if self._passed_over(claim.name, event):
                self._report("I10", claim.id, f"was claimed, but {claim.name} was passed over")
        lives = [life for claim in claims if (life := self._ledger.lives.get(claim.id))]
        ready = [
            life
            for life in self._ledger.waiting()
            if life.due <= event.at and not self._passed_over(life.job.name, event)
        ]
        if any(life.suspect for life in lives):
            self._check_suspect(event, lives, ready)
        elif lives:
            self._check_plain(event, lives, ready)

    def _check_plain(self, event: Claims, lives: list[Life], ready: list[Life]) -> None:
        for one, next_one in pairwise(lives):
            if _before(next_one, one):
                self._report("I10", next_one.job.id, f"was handed out after {one.job.id}")
        last = max(lives, key=lambda life: life.place)
        for life in ready:
            if life.suspect and event.want.room == "alone":
                self._report("I10", life.job.id, f"is a suspect, and {last.job.id} was taken first")
            elif not life.suspect and life not in lives and _before(life, last):
                self._report("I10", life.job.id, f"was ready, and {last.job.id} was taken first")

    def _check_suspect(self, event: Claims, lives: list[Life], ready: list[Life]) -> None:
        one = next(life for life in lives if life.suspect)
        if len(lives) > 1:
            self._report("I10", one.job.id, "is a suspect and was handed out beside others")
        if event.want.room == "busy":
            self._report("I10", one.job.id, "is a suspect and was handed to a busy worker")
        for life in ready:
            if (life.suspect or event.want.room == "idle") and _before(life, one):
                self._report("I10", life.job.id, f"was ready, and {one.job.id} was taken first")

    def _passed_over(self, name: str, event: Claims) -> bool:
        wanted = event.want.names is None or name in event.want.names
        return not wanted or "*" in self._pauses or f"job:{name}" in self._pauses

    def _reserves(self, event: Reserves) -> None:
        self._limits[event.key].update(event.windows)
        if not event.windows:
            # It did not happen, and is given back.
            self._starts[event.key].pop((event.job_id, event.token), None)
        elif event.answer == 0:
            # The same token asks again after a lost reply: that is no second start.
            self._starts[event.key].setdefault((event.job_id, event.token), event.at)

    def _check_windows(self) -> None:
        for key, starts in self._starts.items():
            instants = sorted(starts.values())
            for window in self._limits[key]:
                for first, one_more in zip(instants, instants[window.limit :], strict=False):
                    if one_more - first < window.seconds - HAIR:
                        sentence = (
                            f"more than {window.limit} starts of {key!r} in {window.seconds} s:"
                            f" from {first:.6f} to {one_more:.6f}"
                        )
                        self._report("I9", None, sentence)

    def _begins(self, event: Begins) -> None:
        self._begun[event.job_id] += 1
        self._tenures.begins(event)
        life = self._ledger.lives.get(event.job_id)
        if life is None:
            return
        grant = life.grant_of(event.by, event.token)
        if grant is None or grant.by != event.by:
            self._report("I5", event.job_id, f"began to run on {event.by}, which has no lease")
            return
        if event.boot > grant.until + HAIR and not grant.begun:
            sentence = (
                f"began to run on {event.by} {event.boot - grant.until:.6f} s after its lease"
            )
            self._report("I5", event.job_id, sentence)
        if grant.attempt != event.attempt:
            sentence = f"ran as attempt {event.attempt}, and was claimed as {grant.attempt}"
            self._report("I3", event.job_id, sentence)
        # A middleware may run the handler again within the same run.
        grant.begun = True
        grant.running += 1

    def _ends(self, event: Ends) -> None:
        life = self._ledger.lives.get(event.job_id)
        grant = None if life is None else life.grant_of(event.by, event.token)
        if grant is not None:
            grant.running -= 1

    def _goes(self, event: Gone) -> None:
        self._gone.add(event.by)
        if event.error is not None:
            self._report("I14", None, f"{event.by} went down: {event.error}")
            return
        stop = self._stops.get(event.by)
        if stop is not None and event.boot > stop.boot + stop.grace + HAIR:
            took = event.boot - stop.boot
            self._report("I12", None, f"{event.by} took {took:.3f} s to stop, of {stop.grace}")
        if event.by in self._cut_off:
            # It could not hand back what it could not tell the store; the leases lapse.
            return
        for life in self._ledger.lives.values():
            if life.state == "processing" and life.holder == event.by:
                sentence = f"was neither settled nor handed back when {event.by} ended"
                self._report("I12", life.job.id, sentence)

    def _check_records(self, at_end: Dump) -> None:
        records = self._check_ids_and_keys(at_end)
        for job_id in records.keys() - self._ledger.lives.keys():
            self._report("I6", job_id, "has a record, but nobody had it accepted")
        for life in self._ledger.lives.values():
            found = records.get(life.job.id)
            if found is not None:
                self._check_record(life, found)
            elif not life.expired(at_end.at):
                self._report("I1", life.job.id, "was accepted, and there is no record of it")
            self._check_end(life, at_end)

    def _check_ids_and_keys(self, at_end: Dump) -> dict[str, Record]:
        """The records by id; each id has one, and each key one that is unfinished."""
        records: dict[str, Record] = {}
        keys: dict[tuple[str, str], str] = {}
        for record in at_end.records:
            if record.id in records:
                self._report("I6", record.id, "has two records")
            records[record.id] = record
            if record.unique_key is not None and record.state in UNFINISHED:
                other = keys.setdefault((record.name, record.unique_key), record.id)
                if other != record.id:
                    sentence = f"is unfinished, as {other} is, and both have {record.unique_key!r}"
                    self._report("I7", record.id, sentence)
        return records

    def _check_record(self, life: Life, record: Record) -> None:
        state = "pending" if record.state == "delayed" else record.state
        if state != life.state:
            which = "I16" if life.state == "cancelled" else "I2"
            self._report(which, record.id, f"is {state}, and {life.state} by the log")
        if record.generation != life.generation:
            sentence = f"is of generation {record.generation}, and {life.generation} by the log"
            self._report("I2", record.id, sentence)
        counts = (record.attempts, record.lapses)
        if counts != (life.attempts, life.lapses):
            sentence = f"has {counts[0]} attempts and {counts[1]} lapses,"
            sentence += f" and {life.attempts} and {life.lapses} by the log"
            self._report("I3", record.id, sentence)
        if life.state == "processing" and record.token != life.token:
            self._report("I4", record.id, f"has the token {record.token}, not {life.token}")

    def _check_end(self, life: Life, at_end: Dump) -> None:
        if not life.ended:
            sentence = f"is {life.state}: attempt {life.attempts}, lapses {life.lapses}"
            self._report("I1", life.job.id, f"was accepted and never ended; it {sentence}")
            if life.job.id in self._disturbed:
                what = self._disturbed[life.job.id]
                self._report("I14", life.job.id, f"never ended after this failed: {what}")
        calm = self._calm
        if calm is None:
            return
        # By the boot clock, because the store's may have jumped; it goes at half speed at worst.
        late = life.ended_boot if life.ended else calm.boot + (at_end.at - calm.at)
        deadline = calm.boot + 2 * max(0.0, life.due - calm.at) + calm.within
        if late > deadline:
            sentence = f"took {late - deadline:.3f} s longer than it may after the faults ended"
            self._report("I13", life.job.id, sentence)


def _before(one: Life, other: Life) -> bool:
    """Whether `one` goes first; a hair's difference between instants is none."""
    if one.job.priority != other.job.priority:
        return one.job.priority < other.job.priority
    if one.due != other.due:
        return one.due < other.due - HAIR
    return one.order < other.order
