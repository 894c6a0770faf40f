"""All that one queue holds in memory, and what the verbs do to it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Final, assert_never

from jobmill.errors import ConfigError
from jobmill.states import ENDED, NEEDS_TOKEN, RULES, UNFINISHED, Move, Rule, State
from jobmill.store import (
    ENDS,
    JOBS,
    MATURE_LIMIT,
    TAKEOVER_LIMIT,
    Added,
    Claimed,
    Counts,
    Lease,
    Moved,
    NewJob,
    Page,
    Query,
    Record,
    Want,
)
from jobmill.stores.memory.documents import Documents
from jobmill.stores.memory.job import Job
from jobmill.stores.memory.lanes import Lanes
from jobmill.stores.memory.ledger import Ledger
from jobmill.stores.memory.order import JobHeap, Roll
from jobmill.stores.memory.rate import Rate

_ALL: Final = Query()


class Contents:
    """The jobs, documents and figures of a queue. `told` collects the topics to be told.

    `over` collects the jobs whose own topics are to be told.
    A job stands in exactly one place: delayed, lanes, running or ended, by its state.
    """

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.docs: Documents = Documents()
        self.ledger: Ledger = Ledger()
        self.rates: defaultdict[str, Rate] = defaultdict(Rate)
        self.told: set[str] = set()
        self.over: list[str] = []
        self._accepted = 0
        self._roll = Roll()
        self._holders: dict[tuple[str, str], str] = {}
        self._delayed = JobHeap()
        self._lanes = Lanes()
        self._running = JobHeap()
        self._ended = JobHeap()
        self._counts: defaultdict[str, Counter[State]] = defaultdict(Counter)
        self._asked: dict[str, Job] = {}

    # ------------------------------------------------------------------ adding

    def add(self, jobs: Sequence[NewJob], *, whole: bool, now: float) -> list[Added]:
        """Store jobs, one answer for each; with `whole`, none where one is a conflict."""
        answers: list[Added] = []
        fresh: list[Job] = []
        for new in jobs:
            answer = self._look(new)
            answers.append(answer)
            if answer.status == "added":
                fresh.append(self._store(new, now))
        if not whole or all(answer.status != "conflict" for answer in answers):
            return answers
        dropped = {job.id for job in fresh}
        for job in fresh:
            self._remove(job)
        return [
            Added("dropped", new.id)
            if answer.status != "conflict" and answer.job_id in dropped
            else answer
            for new, answer in zip(jobs, answers, strict=True)
        ]

    def _look(self, new: NewJob) -> Added:
        there = self.jobs.get(new.id)
        if there is not None:
            same = there.name == new.name and there.payload == new.payload
            return Added("same" if same else "conflict", new.id)
        if new.unique_key is not None:
            holder = self._holders.get((new.name, new.unique_key))
            if holder is not None:
                return Added("held", holder)
        return Added("added", new.id)

    def _store(self, new: NewJob, now: float) -> Job:
        run_at = now + new.delay if new.delay is not None else new.run_at
        due = run_at is None or run_at <= now
        self._accepted += 1
        job = Job.of(
            new,
            seq=self._accepted,
            state="pending" if due else "delayed",
            run_at=now if run_at is None or due else run_at,
            now=now,
        )
        self.jobs[job.id] = job
        self._roll.append(job)
        self._enter(job, job.state)
        return job

    # ------------------------------------------------------------------ claiming

    def claim(self, want: Want, settle: Sequence[Move], now: float) -> Claimed:
        """Settle, make due jobs pending, take over what lapsed, and hand out jobs."""
        moved = tuple([self.apply(move, now) for move in settle])
        self._mature(now)
        names = self._open_names(want)
        if want.repeat:
            lapsed, claimed = self._collect(want.token)
        else:
            lapsed = self._take_over(want, now)
            claimed = self._lanes.take(names, want.limit, want.room)
            self._hand_out(claimed, want, now)
        coming = self._delayed.first()
        return Claimed(
            now=now,
            claims=tuple([job.claim() for job in claimed]),
            lapsed=tuple([job.claim() for job in lapsed]),
            moved=moved,
            next_due=None if coming is None else coming.run_at,
            suspect_waits=self._lanes.suspect_waits(names),
            asked=tuple(
                Lease(job.id, job.token or "")
                for job in self._asked.values()
                if job.worker == want.worker
            ),
            docs=self.docs.heeded,
        )

    def _open_names(self, want: Want) -> list[str] | None:
        """The names that may be claimed; None for all."""
        paused = self.docs.keys("pauses")
        if "*" in paused:
            return []
        if want.names is None and not paused:
            return None
        wanted = self._lanes.names() if want.names is None else set(want.names)
        return [name for name in wanted if f"job:{name}" not in paused]

    def _hand_out(self, jobs: Sequence[Job], want: Want, now: float) -> None:
        # They were taken out of their lanes, and keep their unique keys.
        until = now + want.lease
        for job in jobs:
            counts = self._counts[job.name]
            counts["pending"] -= 1
            counts["processing"] += 1
            job.hold(want.token, want.worker, until)
            job.attempts += 1
            job.started_at = now
            job.taken_over = False
            job.last_line = None
            job.state = "processing"
            self._running.push((until, job.seq), job)

    def _take_over(self, want: Want, now: float) -> list[Job]:
        lapsed: list[Job] = []
        job = self._running.first()
        while job is not None and len(lapsed) < TAKEOVER_LIMIT:
            if job.lease_until is None or job.lease_until > now:
                break
            self._running.discard(job)
            lapsed.append(job)
            job = self._running.first()
        for job in lapsed:
            job.hold(want.token, want.worker, now + want.lease)
            job.taken_over = True
            job.last_line = None
            self._running.push((now + want.lease, job.seq), job)
        return lapsed

    def _collect(self, token: str) -> tuple[list[Job], list[Job]]:
        held = [job for job in self._running if job.token == token]
        held.sort(key=lambda job: (job.priority, job.run_at, job.seq))
        return (
            [job for job in held if job.taken_over],
            [job for job in held if not job.taken_over],
        )

    def held(self, lease: Lease) -> Job | None:
        """The job of a lease, where its token still is the one that runs it."""
        job = self.jobs.get(lease.job_id)
        if job is None or job.state != "processing" or job.token != lease.token:
            return None
        return job

    def extend(self, job: Job, until: float) -> None:
        """Let the lease of a running job end at `until`."""
        job.lease_until = until
        self._running.push((until, job.seq), job)

    def _mature(self, now: float) -> None:
        for _ in range(MATURE_LIMIT):
            job = self._delayed.first()
            if job is None or job.run_at > now:
                return
            self._ripen(job, now)

    def _ripen(self, job: Job, now: float) -> None:
        if self.state_of(job, now) != job.state:
            self._leave(job)
            self._enter(job, RULES["mature", job.state].after)

    def state_of(self, job: Job, now: float) -> State:
        """The state of a job as every answer tells it."""
        return "pending" if job.state == "delayed" and job.run_at <= now else job.state

    # ------------------------------------------------------------------ moving

    def apply(self, move: Move, now: float) -> Moved:
        """Apply one event to its job, by the table."""
        job = self.jobs.get(move.job_id)
        if job is None:
            return Moved("missing", move.job_id)
        if job.state == "delayed":
            self._ripen(job, now)
        if move.event in NEEDS_TOKEN:
            if move.token is None or move.token != job.token:
                return Moved("stale", job.id)
            if job.state != "processing":
                return Moved("already", job.id, job.state)
        rule = RULES.get((move.event, job.state))
        if rule is None or move.event == "mature":
            return Moved("refused", job.id, job.state)
        if job.state in ENDED and job.unique_key is not None:
            holder = self._holders.get((job.name, job.unique_key))
            if holder is not None:
                return Moved("held", holder)
        if rule.asks:
            job.ask(move.error, move.fingerprint)
            self._asked[job.id] = job
            self.told.add(JOBS)
        else:
            self._change(job, rule, move, now)
        return Moved("applied", job.id, self.state_of(job, now))

    def _change(self, job: Job, rule: Rule, move: Move, now: float) -> None:
        diverted = job.asked and rule.if_asked is not None
        after = rule.if_asked if job.asked and rule.if_asked else rule.after
        self._leave(job)
        if rule.token or after in ENDED:
            self.ledger.count(job, move, after, now)
        if rule.fresh:
            job.start_over()
        if rule.token:
            _close_run(job, rule, move)
        job.attempts += rule.attempt
        if rule.due == "now":
            job.run_at = now
        elif rule.due == "after_delay" and not diverted:
            job.run_at = now + move.delay
        if move.error is not None or job.asked:
            self._write_errors(job, rule, move, now)
        if after in ENDED:
            self._end(job, after, now)
        elif move.event == "retry":
            self.told.add(ENDS)
            self.ledger.tell(job, "retried", now)
        self._enter(job, after)
        if after not in ENDED and self.state_of(job, now) == "pending":
            self.told.add(JOBS)

    def _write_errors(self, job: Job, rule: Rule, move: Move, now: float) -> None:
        """Append the move's error, and that of the cancel which the run ends by."""
        errors = [(move.error, move.fingerprint)]
        if job.asked and rule.if_asked is not None and job.asked_error is not None:
            turned_aside = rule.if_asked != rule.after
            errors = errors if turned_aside else []
            errors.append((job.asked_error, job.asked_fingerprint))
        for error, fingerprint in errors:
            if error is not None:
                job.fail_with(error, fingerprint)
                if fingerprint is not None:
                    self.ledger.group(job, error, fingerprint, now)

    def _end(self, job: Job, after: State, now: float) -> None:
        job.asked = False
        job.ended_at = now
        policy = job.policy
        job.expires_at = now + (policy.keep_result if after == "completed" else policy.keep_failed)
        self.told.add(ENDS)
        self.over.append(job.id)
        match after:
            case "completed" | "failed" | "cancelled":
                self.ledger.tell(job, after, now)
            case "delayed" | "pending" | "processing":
                raise AssertionError(after)
            case _:
                assert_never(after)

    # ------------------------------------------------------------------ removing

    def drop(self, query: Query, ids: Sequence[str] | None, limit: int, now: float) -> int:
        """Remove jobs that do not run, the first accepted first."""
        if ids is None:
            jobs: Iterable[Job] = self._roll.oldest_first()
        else:
            there = {id_: self.jobs[id_] for id_ in ids if id_ in self.jobs}
            jobs = sorted(there.values(), key=lambda job: job.seq)
        found = (
            job for job in jobs if job.state != "processing" and self._matches(job, query, now)
        )
        doomed = list(islice(found, limit))
        for job in doomed:
            self._remove(job)
        return len(doomed)

    def prune(self, limit: int, now: float) -> int:
        """Remove ended jobs whose time has come, and what else is too old."""
        removed = 0
        while removed < limit:
            job = self._ended.first()
            if job is None or job.expires_at is None or job.expires_at > now:
                break
            self._remove(job)
            removed += 1
        self.ledger.prune(now)
        for name in [name for name, states in self._counts.items() if not any(states.values())]:
            del self._counts[name]
        for key in [key for key, rate in self.rates.items() if rate.forget(now)]:
            del self.rates[key]
        return removed

    def _remove(self, job: Job) -> None:
        self._leave(job)
        del self.jobs[job.id]
        self._roll.strike(job)
        self.over.append(job.id)

    # ------------------------------------------------------------------ asking

    def record(self, job_id: str, now: float) -> Record | None:
        """All that is kept of a job, None where there is none."""
        job = self.jobs.get(job_id)
        return None if job is None else job.record(self.state_of(job, now))

    def is_over(self, job_id: str) -> bool:
        """Whether the job has ended, or is not here."""
        return job_id not in self.jobs or self.jobs[job_id].state in ENDED

    def find(self, query: Query, limit: int, cursor: str | None, now: float) -> Page:
        """Records, the last accepted first, from after the cursor on."""
        found = (
            job
            for job in self._roll.newest_first(_seq_of(cursor))
            if self._matches(job, query, now)
        )
        jobs = list(islice(found, limit + 1))
        return Page(
            records=tuple([job.record(self.state_of(job, now)) for job in jobs[:limit]]),
            cursor=str(jobs[limit - 1].seq) if len(jobs) > limit else None,
        )

    def _matches(self, job: Job, query: Query, now: float) -> bool:
        return (
            (query.states is None or self.state_of(job, now) in query.states)
            and (query.name is None or job.name == query.name)
            and (query.unique_key is None or job.unique_key == query.unique_key)
            and (query.fingerprint is None or job.fingerprint == query.fingerprint)
        )

    def counts(self, query: Query, now: float) -> Counts:
        """How many records there are now, by state and name."""
        if query == _ALL:
            by_name = {name: _without_zeros(states) for name, states in self._counts.items()}
            oldest = self._lanes.oldest_due
            for job in self._delayed.until((now, self._accepted)):
                states = by_name[job.name]
                states["pending"] = states.get("pending", 0) + 1
                _take_one(states, "delayed")
                oldest = job.run_at if oldest is None else min(oldest, job.run_at)
        else:
            by_name = dict[str, dict[State, int]]()
            oldest = None
            for job in self._roll.oldest_first():
                if self._matches(job, query, now):
                    states = by_name.setdefault(job.name, {})
                    state = self.state_of(job, now)
                    states[state] = states.get(state, 0) + 1
                    if state == "pending":
                        oldest = job.run_at if oldest is None else min(oldest, job.run_at)
        by_name = {name: states for name, states in by_name.items() if states}
        totals: Counter[State] = Counter()
        for states in by_name.values():
            totals.update(states)
        return Counts(
            states=dict(totals),
            by_name=by_name,
            due=totals["pending"],
            oldest_due=oldest,
            now=now,
        )

    # ------------------------------------------------------------------ places

    def _enter(self, job: Job, state: State) -> None:
        """Put the job into the place of its new state."""
        job.state = state
        self._counts[job.name][state] += 1
        if job.unique_key is not None and state in UNFINISHED:
            self._holders[job.name, job.unique_key] = job.id
        match state:
            case "delayed":
                self._delayed.push((job.run_at, job.seq), job)
            case "pending":
                self._lanes.put(job)
            case "processing":
                self._running.push((job.lease_until or 0.0, job.seq), job)
            case "completed" | "failed" | "cancelled":
                self._ended.push((job.expires_at or 0.0, job.seq), job)
            case _:
                assert_never(state)

    def _leave(self, job: Job) -> None:
        """Take the job out of the place of its state."""
        self._counts[job.name][job.state] -= 1
        if job.unique_key is not None and job.state in UNFINISHED:
            del self._holders[job.name, job.unique_key]
        match job.state:
            case "delayed":
                self._delayed.discard(job)
            case "pending":
                self._lanes.remove(job)
            case "processing":
                self._running.discard(job)
                if job.asked:
                    self._asked.pop(job.id, None)
            case "completed" | "failed" | "cancelled":
                self._ended.discard(job)
            case _:
                assert_never(job.state)


def _close_run(job: Job, rule: Rule, move: Move) -> None:
    """Write what a run leaves behind."""
    if rule.lapses or move.lapsed:
        job.lapses += 1
    if move.note is not None:
        job.take_note(move.note)
    job.suspect = rule.suspect or (job.suspect and move.untried)
    job.result = move.result
    job.memo = move.memo
    job.lease_until = None


def _without_zeros(states: Mapping[State, int]) -> dict[State, int]:
    return {state: count for state, count in states.items() if count}


def _take_one(states: dict[State, int], state: State) -> None:
    states[state] -= 1
    if not states[state]:
        del states[state]


def _seq_of(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    if not (cursor.isascii() and cursor.isdigit()):
        raise ConfigError(f"{cursor!r} is no cursor of this store", field="cursor")
    return int(cursor)
