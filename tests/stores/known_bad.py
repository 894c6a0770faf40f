"""Stores that break one promise each. The contract is trusted while it catches them all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec

from jobmill.clock import Clock
from jobmill.limits import Window, longest
from jobmill.states import ENDED, NEEDS_TOKEN, Move, Rule, State
from jobmill.store import (
    ENDS,
    JOBS,
    Added,
    Beat,
    Claimed,
    Counts,
    Lease,
    Moved,
    NewJob,
    Page,
    Query,
    Ticked,
    Want,
)
from jobmill.stores.memory import MemoryStore
from jobmill.stores.memory.contents import Contents
from jobmill.stores.memory.job import Job
from jobmill.stores.memory.lanes import Lanes


class BadStore(MemoryStore):
    """The store in memory, but for what its contents do.

    `by` names the tests of the contract that must fail. `seen`: the machine sees it too, which
    looks at one queue, by one clock, and neither waits nor changes anything between two pages.
    """

    seen: ClassVar[bool] = True
    contents: ClassVar[type[Contents]] = Contents
    by: ClassVar[tuple[str, ...]] = ()

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock=clock)
        self._shared.queues = defaultdict(self.contents)


# ---------------------------------------------------------------------- the fence


class _AnyToken(Contents):
    def apply(self, move: Move, now: float) -> Moved:
        job = self.jobs.get(move.job_id)
        if job is not None and move.event in NEEDS_TOKEN:
            move = msgspec.structs.replace(move, token=job.token)
        return super().apply(move, now)


class SettlesWithoutToken(BadStore):
    contents = _AnyToken
    by = (
        "test_a_stale_token_writes_nothing",
        "test_what_was_taken_over_is_anothers",
        "test_a_settle_from_before_the_revive_writes_nothing",
    )


class _StateOnly(Contents):
    def apply(self, move: Move, now: float) -> Moved:
        job = self.jobs.get(move.job_id)
        if job is not None and move.event in NEEDS_TOKEN and job.state == "processing":
            move = msgspec.structs.replace(move, token=job.token)
        return super().apply(move, now)


class FencesByStateOnly(BadStore):
    contents = _StateOnly
    by = ("test_a_stale_token_writes_nothing", "test_what_was_taken_over_is_anothers")


class _LeaseByState(Contents):
    def held(self, lease: Lease) -> Job | None:
        job = self.jobs.get(lease.job_id)
        return job if job is not None and job.state == "processing" else None


class RenewsWithoutToken(BadStore):
    contents = _LeaseByState
    by = ("test_a_renewal_answers_each_lease_in_order", "test_a_lost_lease_is_not_held")


class RefusesLateRenewals(BadStore):
    async def renew(
        self,
        leases: Sequence[Lease],
        lease: float,
        notes: object = None,
        *,
        now: float | None = None,
    ) -> list[Beat]:
        beats: list[Beat] = []
        for held in leases:
            job = self._shared.queues[self.queue].held(held)
            late = job is None or (job.lease_until or 0.0) <= self._now(now)
            beats += ["lost"] if late else await super().renew([held], lease, now=now)
        return beats

    by = (
        "test_a_lease_that_ran_out_and_was_not_taken_is_held_again",
        "test_notes_are_stored_with_the_renewal",
    )


# ---------------------------------------------------------------------- claims


class _Early(Contents):
    def _mature(self, now: float) -> None:
        super()._mature(now + 60)


class HandsOutDelayedJobsEarly(BadStore):
    contents = _Early
    by = (
        "test_a_job_is_not_claimed_before_it_is_due",
        "test_a_retry_is_not_claimed_before_its_delay",
    )


class _DeafLanes(Lanes):
    def take(self, *args: Any) -> list[Job]:
        jobs = super().take(*args)
        return sorted(jobs, key=lambda job: (job.run_at, job.seq))


class _Deaf(Contents):
    def __init__(self) -> None:
        super().__init__()
        self._lanes = _DeafLanes()


class DeafToPriority(BadStore):
    contents = _Deaf
    by = (
        "test_the_lower_priority_number_goes_first",
        "test_priority_goes_before_age_and_across_names",
    )


class _Unordered(Contents):
    def _store(self, new: NewJob, now: float) -> Job:
        return super()._store(new, now - len(self.jobs))


class TheLastComesFirst(BadStore):
    contents = _Unordered
    by = ("test_at_equal_instants_the_first_accepted_goes_first",)


class _NoLapse(Contents):
    def _take_over(self, want: Want, now: float) -> list[Job]:
        return []


class LosesLapses(BadStore):
    contents = _NoLapse
    by = ("test_a_lapsed_lease_is_taken_over_as_it_is", "test_lapses_end_a_job_as_failed")


class _Unregistered(Contents):
    def _hand_out(self, jobs: Sequence[Job], want: Want, now: float) -> None:
        super()._hand_out(jobs, want, now)
        for job in jobs:
            self._running.discard(job)


class PopsThenRegisters(BadStore):
    """What was claimed is nowhere until its worker says so: a lost reply loses the job."""

    contents = _Unregistered
    by = (
        "test_a_repeat_collects_and_claims_nothing_new",
        "test_a_lapsed_lease_is_taken_over_as_it_is",
    )


class _Anew(Contents):
    def claim(self, want: Want, settle: Sequence[Move], now: float) -> Claimed:
        return super().claim(msgspec.structs.replace(want, repeat=False), settle, now)


class ClaimsAnewOnRepeat(BadStore):
    contents = _Anew
    by = (
        "test_a_repeat_collects_and_claims_nothing_new",
        "test_a_repeat_of_what_was_never_done_gives_nothing",
    )


class _SpendsAttempts(Contents):
    def _change(self, job: Job, rule: Rule, move: Move, now: float) -> None:
        super()._change(job, rule, move, now)
        job.attempts += rule.event == "lapse"


class SpendsAnAttemptAtALapse(BadStore):
    contents = _SpendsAttempts
    by = (
        "test_a_lapse_gives_the_attempt_back_and_counts",
        "test_the_attempt_after_a_lapse_is_the_same_again",
    )


class _CountsTakeovers(Contents):
    def _take_over(self, want: Want, now: float) -> list[Job]:
        jobs = super()._take_over(want, now)
        for job in jobs:
            job.attempts += 1
        return jobs


class CountsATakeoverAsAnAttempt(BadStore):
    contents = _CountsTakeovers
    by = ("test_a_lapsed_lease_is_taken_over_as_it_is",)


class _ForgetsLapses(Contents):
    def _change(self, job: Job, rule: Rule, move: Move, now: float) -> None:
        super()._change(job, rule, move, now)
        if rule.event == "lapse":
            job.lapses = 0


class ForgetsHowOftenAJobLapsed(BadStore):
    """A poison job runs for ever."""

    contents = _ForgetsLapses
    by = ("test_lapses_end_a_job_as_failed", "test_a_lapse_gives_the_attempt_back_and_counts")


class _Company(Contents):
    def claim(self, want: Want, settle: Sequence[Move], now: float) -> Claimed:
        for job in self.jobs.values():
            if job.state == "pending":
                self._leave(job)
                job.suspect = False
                self._enter(job, "pending")
        return super().claim(want, settle, now)


class RunsSuspectsInCompany(BadStore):
    contents = _Company
    by = (
        "test_a_busy_worker_leaves_suspects",
        "test_an_idle_worker_takes_a_suspect_alone_when_it_is_its_turn",
        "test_suspects_go_one_by_one_in_order",
    )


class _Unpaused(Contents):
    def _open_names(self, want: Want) -> list[str]:
        there = self._lanes.names()
        return [name for name in there if want.names is None or name in want.names]


class ServesPausedQueues(BadStore):
    contents = _Unpaused
    by = (
        "test_a_paused_queue_hands_out_nothing",
        "test_a_paused_name_is_passed_over",
    )


class ByClientClocks(BadStore):
    """Whoever asks says what time it is."""

    def _now(self, now: float | None) -> float:
        return self._shared.clock._clock.wall() if now is None else now

    seen = False
    by = ("test_the_store_keeps_the_time_of_leases",)


class _AsksNobody(Contents):
    def _change(self, job: Job, rule: Rule, move: Move, now: float) -> None:
        super()._change(job, msgspec.structs.replace(rule, if_asked=None), move, now)


class RetriesWhatWasCancelled(BadStore):
    contents = _AsksNobody
    by = (
        "test_an_asked_job_that_is_put_off_ends_cancelled",
        "test_a_lapse_of_an_asked_job_ends_it_cancelled",
    )


# ---------------------------------------------------------------------- ids and keys


class _Leaky(Contents):
    def _enter(self, job: Job, state: State) -> None:
        super()._enter(job, state)
        if state in ENDED and job.unique_key is not None:
            self._holders.setdefault((job.name, job.unique_key), job.id)


class LeaksUniqueKeys(BadStore):
    contents = _Leaky
    by = (
        "test_the_key_is_free_after_every_end",
        "test_the_key_is_free_after_a_cancel_without_a_run",
        "test_the_key_is_free_after_an_asked_run_was_put_off",
    )


class _Unchecked(Contents):
    def _look(self, new: NewJob) -> Added:
        return super()._look(msgspec.structs.replace(new, unique_key=None))

    def _leave(self, job: Job) -> None:
        if job.unique_key is not None:
            self._holders.setdefault((job.name, job.unique_key), job.id)
        super()._leave(job)


class IgnoresUniqueKeys(BadStore):
    contents = _Unchecked
    by = (
        "test_a_held_unique_key_answers_with_its_holder",
        "test_ten_producers_with_one_unique_key_make_one_job",
        "test_jobs_of_one_call_count_among_themselves",
    )


class _UncheckedRevive(Contents):
    def apply(self, move: Move, now: float) -> Moved:
        job = self.jobs.get(move.job_id)
        if move.event == "revive" and job is not None and job.unique_key is not None:
            self._holders.pop((job.name, job.unique_key), None)
        return super().apply(move, now)


class RevivesAgainstAHeldKey(BadStore):
    contents = _UncheckedRevive
    by = ("test_a_revive_whose_key_is_held_is_held", "test_two_revives_of_one_key_in_one_call")


class _OwnIds(Contents):
    def _look(self, new: NewJob) -> Added:
        answer = super()._look(new)
        return Added("added", new.id) if answer.status == "same" else answer

    def _store(self, new: NewJob, now: float) -> Job:
        if new.id in self.jobs:
            new = msgspec.structs.replace(new, id=f"{new.id}-{len(self.jobs)}")
        return super()._store(new, now)


class MakesItsOwnIdOnARepeat(BadStore):
    contents = _OwnIds
    by = (
        "test_the_same_id_name_and_payload_again_is_the_same",
        "test_ten_producers_with_one_id_make_one_job",
    )


class _Half(Contents):
    def add(self, jobs: Sequence[NewJob], *, whole: bool, now: float) -> list[Added]:
        return super().add(jobs, whole=False, now=now)


class AddsHalfOfAWhole(BadStore):
    contents = _Half
    by = ("test_whole_stores_nothing_where_one_is_a_conflict",)


# ---------------------------------------------------------------------- documents, limits


class TicksTwice(BadStore):
    """A tick without compare-and-set."""

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
        with self._contents() as contents:
            version = contents.docs.version("schedules", schedule)
        return await super().tick(schedule, version, value, entries, jobs, keep=keep, now=now)

    by = ("test_a_tick_of_another_version_writes_nothing", "test_of_ten_ticks_one_fires")


class ReusesVersions(BadStore):
    async def write(
        self,
        space: str,
        key: str,
        value: bytes | None,
        *,
        version: int | None = None,
        now: float | None = None,
    ) -> int | None:
        with self._contents() as contents:
            if not contents.docs.version(space, key):
                contents.docs.changes = 0
        return await super().write(space, key, value, version=version, now=now)

    by = ("test_a_version_changes_with_each_write_and_never_comes_again",)


class DeafToRetries(BadStore):
    """Whoever follows the list of ends is not told of a retry."""

    def _tell(self, contents: Contents) -> None:
        if contents.ledger.events(None, 1)[-1:] and (
            contents.ledger.events(None, 1)[-1].kind == "retried"
        ):
            contents.told.discard(ENDS)
        super()._tell(contents)

    by = ("test_an_end_or_a_retry_wakes_who_follows_all",)
    seen = False


class WakesForAll(BadStore):
    """A document that no worker acts on wakes them all the same."""

    async def write(
        self,
        space: str,
        key: str,
        value: bytes | None,
        *,
        version: int | None = None,
        now: float | None = None,
    ) -> int | None:
        written = await super().write(space, key, value, version=version, now=now)
        with self._contents() as contents:
            contents.told.add(JOBS)
            contents.docs.heeded += 1
        return written

    by = (
        "test_another_document_wakes_nobody",
        "test_docs_heeds_no_document_that_workers_do_not_act_on",
    )
    seen = False


class ForgetsStarts(BadStore):
    """A rate limit with half the window."""

    async def reserve(
        self,
        key: str,
        job_id: str,
        token: str,
        windows: Sequence[Window],
        *,
        now: float | None = None,
    ) -> float:
        with self._contents() as contents:
            contents.rates[key].forget(self._now(now) + longest(windows) / 2)
        return await super().reserve(key, job_id, token, windows, now=now)

    by = ("test_no_window_is_ever_overfull", "test_pruning_forgets_no_start_too_early")


class StartsByTheSlot(BadStore):
    """Whoever had a slot starts: after an outage all do, at once."""

    async def reserve(
        self,
        key: str,
        job_id: str,
        token: str,
        windows: Sequence[Window],
        *,
        now: float | None = None,
    ) -> float:
        with self._contents() as contents:
            slot = contents.rates[key]._slot_of.get(job_id)
            if slot is not None and slot.at <= self._now(now):
                return 0.0
        return await super().reserve(key, job_id, token, windows, now=now)

    by = ("test_slots_missed_in_an_outage_do_not_start_together", "test_no_window_is_ever_overfull")


class TakesNoStartBack(BadStore):
    """A start that never happened counts."""

    async def reserve(
        self,
        key: str,
        job_id: str,
        token: str,
        windows: Sequence[Window],
        *,
        now: float | None = None,
    ) -> float:
        if not windows:
            return 0.0
        return await super().reserve(key, job_id, token, windows, now=now)

    by = ("test_a_start_that_is_given_back_never_was",)


# ---------------------------------------------------------------------- removing, asking


class _PrunesAll(Contents):
    def prune(self, limit: int, now: float) -> int:
        old = [job for job in self.jobs.values() if job.enqueued_at + job.policy.keep_result <= now]
        for job in old[:limit]:
            self._remove(job)
        return len(old[:limit])


class PrunesByAgeAlone(BadStore):
    contents = _PrunesAll
    by = ("test_live_work_is_never_pruned", "test_an_end_is_kept_for_its_time")


class _DropsRuns(Contents):
    def drop(self, query: Query, ids: Sequence[str] | None, limit: int, now: float) -> int:
        runs = [job for job in self.jobs.values() if job.state == "processing"]
        for job in runs[:limit]:
            self._remove(job)
        return len(runs[:limit]) + super().drop(query, ids, limit, now)


class DropsWhatRuns(BadStore):
    contents = _DropsRuns
    by = ("test_what_runs_is_never_dropped",)


class _Offsets(Contents):
    def find(self, query: Query, limit: int, cursor: str | None, now: float) -> Page:
        start = 0 if cursor is None else int(cursor)
        page = super().find(query, start + limit, None, now)
        return msgspec.structs.replace(
            page,
            records=page.records[start:],
            cursor=None if page.cursor is None else str(start + limit),
        )


class PagesByOffset(BadStore):
    contents = _Offsets
    seen = False
    by = (
        "test_what_is_added_meanwhile_is_never_seen",
        "test_what_is_removed_meanwhile_hides_nothing",
    )


class _CountsStored(Contents):
    def counts(self, query: Query, now: float) -> Counts:
        return msgspec.structs.replace(super().counts(query, 0.0), now=now)


class CountsWhatIsDueAsDelayed(BadStore):
    contents = _CountsStored
    by = ("test_due_jobs_are_found_and_counted_as_pending",)


class _Rerecords(Contents):
    def apply(self, move: Move, now: float) -> Moved:
        answer = super().apply(move, now)
        job = self.jobs.get(move.job_id)
        if job is not None and answer.status == "already" and job.state in ENDED:
            self.ledger.count(job, move, job.state, now)
        return answer


class CountsARepeatedSettleTwice(BadStore):
    contents = _Rerecords
    by = ("test_a_settle_repeated_is_already_done",)


class _OneNote(Contents):
    def held(self, lease: Lease) -> Job | None:
        job = super().held(lease)
        if job is not None:
            job.last_line = None
        return job


class RepeatsLogLines(BadStore):
    contents = _OneNote
    by = ("test_a_line_is_stored_once",)


class OneQueueForAll(BadStore):
    def handle(self, queue: str | None = None) -> MemoryStore:
        other = super().handle()
        if queue is not None:
            other._shared.queues[queue] = other._shared.queues[self.queue]
            other._queue = queue
        return other

    seen = False
    by = ("test_queues_do_not_see_each_other",)


class SleepsThroughAdds(BadStore):
    async def add(
        self,
        jobs: Sequence[NewJob],
        *,
        wake: bool = True,
        whole: bool = False,
        now: float | None = None,
    ) -> list[Added]:
        return await super().add(jobs, wake=False, whole=whole, now=now)

    seen = False
    by = ("test_a_job_added_before_the_wait_wakes",)


KNOWN_BAD: tuple[type[BadStore], ...] = tuple(BadStore.__subclasses__())
