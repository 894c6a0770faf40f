"""The checker of a run's log: it flags what breaks an invariant, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from jobmill.limits import Window
from jobmill.policy import Policy
from jobmill.states import Claim, Event as Happens, Move, State
from jobmill.store import Added, Beat, Claimed, Lease, Moved, MoveStatus, NewJob, Record, Want
from jobmill.testing.checker import Dump, Violation, check, check_outside
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

LEASE = 10.0
T0 = 1_000_000.0


class Log:
    """Writes a log by hand; `t` is the instant of the next events, from 0."""

    def __init__(self) -> None:
        self.t = 0.0
        self.events: list[Event] = []
        self.jobs: dict[str, NewJob] = {}
        self.records: dict[str, Record] = {}

    def stamp(self, by: str) -> Any:
        return {"at": T0 + self.t, "boot": self.t, "by": by}

    def add(self, job_id: str = "a", status: Any = "added", held: str = "", **fields: Any) -> None:
        fields = {"name": "n", "payload": b"{}", "policy": Policy(), **fields}
        job = NewJob(id=job_id, **fields)
        answer = Added(status, held or job_id)
        self.events.append(Adds(**self.stamp("p"), jobs=(job,), answers=(answer,)))
        if status == "added":
            self.jobs[job_id] = job

    def claim(
        self,
        *jobs: str | tuple[str, int],
        by: str = "w",
        token: str = "t1",
        attempt: int = 1,
        lapses: int = 0,
        taken_over: bool = False,
        repeat: bool = False,
        sent: float | None = None,
        room: Any = "idle",
        limit: int = 5,
        names: tuple[str, ...] | None = None,
    ) -> None:
        claims = tuple(
            Claim(
                id=job_id,
                name=self.jobs[job_id].name if job_id in self.jobs else "n",
                payload=b"{}",
                policy=Policy(),
                token=token,
                attempt=attempt,
                lapses=lapses,
                priority=0,
                enqueued_at=T0,
                run_at=T0,
                started_at=T0 + self.t,
            )
            for job_id in (job if isinstance(job, str) else job[0] for job in jobs)
        )
        want = Want(
            worker=by,
            token=token,
            limit=limit,
            lease=LEASE,
            room=room,
            repeat=repeat,
            names=names,
        )
        answer = Claimed(
            now=T0 + self.t,
            claims=() if taken_over else claims,
            lapsed=claims if taken_over else (),
        )
        self.events.append(
            Claims(
                **self.stamp(by),
                sent=self.t if sent is None else sent,
                want=want,
                settle=(),
                answer=answer,
            )
        )

    def move(
        self,
        event: Happens,
        state: State | None,
        job_id: str = "a",
        *,
        token: str | None = "t1",
        status: MoveStatus = "applied",
        by: str = "w",
        **fields: Any,
    ) -> None:
        token = None if event in {"cancel", "revive", "hasten"} else token
        move = Move(event=event, job_id=job_id, token=token, **fields)
        answer = Moved(status, job_id, state)
        self.events.append(Moves(**self.stamp(by), moves=(move,), answers=(answer,)))

    def renew(self, beat: Beat = "ok", job_id: str = "a", token: str = "t1") -> None:
        leases = (Lease(job_id, token),)
        stamp = self.stamp("w")
        self.events.append(Renews(**stamp, leases=leases, lease=LEASE, beats=(beat,)))

    def reserve(self, job_id: str, token: str, answer: float = 0.0, limit: int | None = 2) -> None:
        """Ask for a start; without a limit, give it back."""
        self.events.append(
            Reserves(
                **self.stamp("w"),
                key="k",
                job_id=job_id,
                token=token,
                windows=(Window(limit, 10.0),) if limit else (),
                answer=answer,
            )
        )

    def tell(self, kind: Callable[..., Event], by: str = "w", **fields: Any) -> None:
        self.events.append(kind(**self.stamp(by), **fields))

    def record(self, job_id: str = "a", state: State = "completed", **fields: Any) -> None:
        fields = {"attempts": 1, "run_at": T0, "enqueued_at": T0, **fields}
        self.records[job_id] = Record(
            id=job_id,
            name="n",
            state=state,
            payload=b"{}",
            policy=Policy(),
            priority=0,
            **fields,
        )

    def found(self) -> list[Violation]:
        return check(self.events, Dump(T0 + self.t, tuple(self.records.values())))


def run_of(log: Log, job_id: str = "a", token: str = "t1", **fields: Any) -> None:
    """One whole run that succeeds."""
    log.claim(job_id, token=token, **fields)
    log.tell(Begins, job_id=job_id, attempt=fields.get("attempt", 1))
    log.tell(Ends, job_id=job_id, attempt=fields.get("attempt", 1), how="returned")
    log.move("succeed", "completed", job_id=job_id, token=token)


def plain() -> Log:
    log = Log()
    log.add()
    run_of(log)
    log.record()
    return log


# Good logs: nothing to flag.


def retried() -> Log:
    log = Log()
    log.add()
    log.claim("a")
    log.move("retry", "delayed", delay=5.0)
    log.t = 5
    run_of(log, token="t2", attempt=2)
    log.move("succeed", "completed", token="t2", status="already")
    log.record(attempts=2)
    return log


def lapsed() -> Log:
    log = Log()
    log.add()
    log.claim("a", by="dead")
    log.tell(Killed, by="dead")
    log.t = LEASE
    log.claim("a", token="t2", taken_over=True)
    log.move("lapse", "pending", token="t2")
    log.move("succeed", "completed", status="stale", by="dead")
    run_of(log, token="t3", lapses=1, room="alone")
    log.record(lapses=1)
    return log


def snoozed_and_released() -> Log:
    log = Log()
    log.add()
    log.claim("a")
    log.move("snooze", "delayed", delay=1.0)
    log.t = 1
    log.claim("a", token="t2")
    log.move("release", "pending", token="t2")
    run_of(log, token="t3")
    log.record()
    return log


def collected() -> Log:
    log = Log()
    log.add()
    log.claim("a")
    log.claim("a", repeat=True)
    log.move("succeed", "completed")
    log.add(status="same")
    log.record()
    return log


def cancelled_while_it_ran() -> Log:
    log = Log()
    log.add()
    log.claim("a")
    log.move("cancel", "processing")
    log.renew("abort")
    log.move("retry", "cancelled")
    log.record(state="cancelled")
    return log


def outpaced_then_revived() -> Log:
    log = Log()
    log.add(unique_key="k")
    log.claim("a")
    log.move("cancel", "processing")
    log.move("succeed", "completed")
    log.move("revive", "pending")
    log.add("b", "held", "a", unique_key="k")
    run_of(log, token="t2")
    log.add("b", unique_key="k")
    run_of(log, "b", token="t3")
    log.record(generation=2)
    log.record("b")
    return log


def pruned_and_dropped() -> Log:
    log = Log()
    log.add(policy=Policy(keep_result=60.0))
    run_of(log)
    log.add("b")
    log.tell(Drops, job_ids=("b",))
    log.t = 60
    return log


def in_order() -> Log:
    log = Log()
    log.add("late", delay=5.0)
    log.add("low", priority=1)
    log.add("first")
    log.add("second")
    log.tell(Pauses, key="job:x", there=True)
    log.add("paused", name="x", priority=-1)
    log.claim("first", "second", limit=2)
    log.tell(Pauses, key="job:x", there=False)
    log.move("succeed", "completed", "first")
    log.move("succeed", "completed", "second")
    log.claim("paused", "low", token="t2")
    log.move("succeed", "completed", "paused", token="t2")
    log.move("succeed", "completed", "low", token="t2")
    log.t = 5
    run_of(log, "late", token="t3")
    for job_id in ("late", "low", "first", "second", "paused"):
        log.record(job_id)
    return log


def limited() -> Log:
    log = plain()
    log.reserve("a", "t1")
    log.reserve("a", "t1")
    log.reserve("b", "t2")
    log.reserve("c", "t3", answer=10.0)
    log.reserve("b", "t2", limit=None)
    log.reserve("d", "t5")
    log.t = 10
    log.reserve("c", "t4")
    return log


def stopped() -> Log:
    log = Log()
    log.add()
    log.claim("a")
    log.tell(Stops, grace=5.0)
    log.t = 1
    log.move("release", "pending")
    log.t = 5
    log.tell(Gone)
    run_of(log, token="t2", by="other")
    log.record()
    return log


def stopped_while_cut_off() -> Log:
    log = lapsed()
    log.events[2:3] = [
        Stops(at=T0, boot=0.0, by="dead", grace=5.0),
        Fault(at=T0, boot=0.0, by="dead", verb="move", what="lose request"),
        Gone(at=T0, boot=0.0, by="dead"),
    ]
    return log


def begun_again_by_a_middleware() -> Log:
    log = Log()
    log.add()
    log.claim("a")
    log.tell(Begins, job_id="a", attempt=1)
    log.tell(Ends, job_id="a", attempt=1, how="raised")
    log.t = LEASE + 1
    log.tell(Begins, job_id="a", attempt=1)
    log.tell(Ends, job_id="a", attempt=1, how="returned")
    log.move("succeed", "completed")
    log.record()
    return log


def calm() -> Log:
    log = Log()
    log.add(delay=20.0)
    log.tell(Calm, within=5.0)
    log.tell(Disturbs, job_id="a", what="a hook raised")
    log.t = 24
    run_of(log)
    log.record()
    return log


GOOD = [
    plain,
    retried,
    lapsed,
    snoozed_and_released,
    collected,
    cancelled_while_it_ran,
    outpaced_then_revived,
    pruned_and_dropped,
    in_order,
    limited,
    stopped,
    stopped_while_cut_off,
    begun_again_by_a_middleware,
    calm,
]


@pytest.mark.parametrize("good", GOOD, ids=lambda make: make.__name__)
def test_a_good_log_is_not_flagged(good: Callable[[], Log]) -> None:
    assert good().found() == []


# Bad logs: the invariant that each must be flagged for.


def i1_lost() -> Log:
    log = plain()
    log.records.clear()
    return log


def i1_never_ended() -> Log:
    log = Log()
    log.add()
    log.record(state="pending", attempts=0)
    return log


def i1_dropped_while_it_ran() -> Log:
    log = Log()
    log.add()
    log.claim("a")
    log.tell(Drops, job_ids=("a",))
    return log


def i1_missing() -> Log:
    log = plain()
    log.move("cancel", None, status="missing")
    return log


def i2_two_ends() -> Log:
    log = plain()
    log.move("fail", "failed")
    log.record(state="failed")
    return log


def i2_ran_after_its_end() -> Log:
    log = plain()
    log.claim("a", token="t2", attempt=2)
    return log


def i2_record_says_otherwise() -> Log:
    log = plain()
    log.record(state="failed")
    return log


def i3_attempt_leaps() -> Log:
    log = Log()
    log.add()
    run_of(log, attempt=2)
    log.record(attempts=2)
    return log


def i3_lapse_spends_an_attempt() -> Log:
    log = lapsed()
    log.record(lapses=1, attempts=2)
    return log


def i3_too_many_attempts() -> Log:
    log = Log()
    log.add(policy=Policy(max_attempts=1))
    log.claim("a")
    log.move("retry", "delayed")
    run_of(log, token="t2", attempt=2)
    log.record(attempts=2)
    return log


def i3_too_many_lapses() -> Log:
    log = Log()
    log.add(policy=Policy(max_lapses=1))
    for number in range(2):
        log.claim("a", token=f"t{number}", lapses=number, room="alone")
        log.t += LEASE
        log.claim("a", token=f"o{number}", taken_over=True, lapses=number)
        log.move("lapse", "pending", token=f"o{number}")
    run_of(log, token="t9", lapses=2, room="alone")
    log.record(lapses=2)
    return log


def i3_runs_again_after_a_lapse() -> Log:
    log = Log()
    log.record(lapses=1)
    log.add(policy=Policy(on_lapse="fail"))
    log.claim("a")
    log.t = LEASE
    log.claim("a", token="t2", taken_over=True)
    log.move("lapse", "pending", token="t2")
    run_of(log, token="t3", lapses=1, room="alone")
    return log


def i4_stale_settle() -> Log:
    log = lapsed()
    log.events.pop(-1)
    log.move("succeed", "completed", token="t1", by="dead")
    return log


def i4_stale_renewal() -> Log:
    log = lapsed()
    log.renew("ok", token="t1")
    return log


def i4_current_token_refused() -> Log:
    log = Log()
    log.add()
    log.claim("a")
    log.move("succeed", None, status="stale")
    log.move("succeed", "completed")
    log.record()
    return log


def i4_settled_without_a_claim() -> Log:
    log = Log()
    log.add()
    log.move("succeed", "completed", token="t1")
    log.record(attempts=0)
    return log


def i5_two_leases() -> Log:
    log = Log()
    log.add()
    log.claim("a")
    run_of(log, token="t2", attempt=2, by="other")
    log.record(attempts=2)
    return log


def i5_taken_over_early() -> Log:
    log = Log()
    log.add()
    log.claim("a")
    log.t = 5
    log.renew()
    log.t = LEASE
    log.claim("a", token="t2", taken_over=True, by="other")
    log.move("lapse", "pending", token="t2", by="other")
    run_of(log, token="t3", lapses=1, room="alone")
    log.record(lapses=1)
    return log


def i5_token_given_twice() -> Log:
    log = Log()
    log.add()
    log.add("b")
    run_of(log)
    run_of(log, "b")
    log.record()
    log.record("b")
    return log


def i5_began_without_a_lease() -> Log:
    log = Log()
    log.add()
    log.tell(Begins, job_id="a", attempt=1)
    run_of(log)
    log.record()
    return log


def i5_began_after_its_lease() -> Log:
    log = Log()
    log.add()
    log.claim("a")
    log.t = LEASE + 1
    log.tell(Begins, job_id="a", attempt=1)
    log.move("succeed", "completed")
    log.record()
    return log


def i5_began_under_a_token_of_nobody() -> Log:
    log = Log()
    log.add()
    log.claim("a")
    log.tell(Begins, job_id="a", attempt=1, token="t0")
    log.move("succeed", "completed")
    log.record()
    return log


def i3_ran_as_another_attempt() -> Log:
    log = Log()
    log.add()
    log.claim("a")
    log.tell(Begins, job_id="a", attempt=2, token="t1")
    log.move("succeed", "completed")
    log.record()
    return log


def i6_stored_twice() -> Log:
    log = Log()
    log.add()
    log.add()
    run_of(log)
    log.record()
    return log


def i6_came_from_nowhere() -> Log:
    log = plain()
    log.record("ghost")
    return log


def i7_two_unfinished() -> Log:
    log = Log()
    log.add(unique_key="k")
    log.add("b", unique_key="k")
    log.claim("a", "b")
    log.move("succeed", "completed")
    log.move("succeed", "completed", "b")
    log.record()
    log.record("b")
    return log


def i7_never_freed() -> Log:
    log = Log()
    log.add(unique_key="k")
    run_of(log)
    log.add("b", "held", "a", unique_key="k")
    log.record()
    return log


def i7_revived_beside_another() -> Log:
    log = Log()
    log.add(unique_key="k")
    run_of(log)
    log.add("b", unique_key="k")
    log.move("revive", "pending")
    log.claim("a", "b", token="t2")
    log.move("succeed", "completed", token="t2")
    log.move("succeed", "completed", "b", token="t2")
    log.record(generation=2)
    log.record("b")
    return log


def i9_one_start_too_many() -> Log:
    log = plain()
    log.reserve("a", "t1")
    log.t = 4
    log.reserve("b", "t2")
    log.reserve("d", "t4", limit=None)
    log.t = 9.9
    log.reserve("c", "t3")
    return log


def i10_wrong_order() -> Log:
    log = Log()
    log.add()
    log.add("b", priority=-1)
    log.claim("a", "b")
    log.move("succeed", "completed")
    log.move("succeed", "completed", "b")
    log.record()
    log.record("b")
    return log


def i10_passed_over() -> Log:
    log = Log()
    log.add()
    log.add("b")
    run_of(log, "b", limit=1)
    run_of(log, "a", token="t2")
    log.record()
    log.record("b")
    return log


def i10_early() -> Log:
    log = Log()
    log.add(delay=5.0)
    run_of(log)
    log.record()
    return log


def i10_paused() -> Log:
    log = Log()
    log.add()
    log.tell(Pauses, key="*", there=True)
    run_of(log)
    log.record()
    return log


def i10_suspect_beside_others() -> Log:
    log = lapsed()
    del log.events[-4:]
    log.add("b")
    log.claim("a", "b", token="t3", lapses=1)
    log.move("succeed", "completed", token="t3")
    log.move("succeed", "completed", "b", token="t3")
    log.record("b")
    return log


def i12_claimed_after_stop() -> Log:
    log = Log()
    log.add()
    log.tell(Stops, grace=5.0)
    log.t = 1
    run_of(log)
    log.tell(Gone)
    log.record()
    return log


def i12_left_a_job_behind() -> Log:
    log = lapsed()
    log.events.insert(2, Gone(at=T0, boot=0.0, by="dead"))
    return log


def i12_too_slow() -> Log:
    log = plain()
    log.tell(Stops, grace=5.0)
    log.t = 6
    log.tell(Gone)
    return log


def i12_never_ended() -> Log:
    log = plain()
    log.tell(Stops, grace=5.0)
    return log


def i12_handed_back_while_it_ran() -> Log:
    log = Log()
    log.add()
    log.claim("a")
    log.tell(Begins, job_id="a", attempt=1, token="t1")
    log.move("release", "pending")
    log.tell(Ends, job_id="a", attempt=1, token="t1", how="returned")
    run_of(log, token="t2", by="other")
    log.record()
    return log


def i13_too_late() -> Log:
    log = Log()
    log.add()
    log.tell(Calm, within=5.0)
    log.t = 6
    run_of(log)
    log.record()
    return log


def i14_worker_down() -> Log:
    log = plain()
    log.tell(Gone, error="LookupError()")
    return log


def i14_never_ended_after_a_hook() -> Log:
    log = Log()
    log.add()
    log.claim("a")
    log.tell(Disturbs, job_id="a", what="a hook raised")
    log.record(state="processing", token="t1")
    return log


def i16_completed_after_cancelled() -> Log:
    log = Log()
    log.add()
    log.claim("a")
    log.move("abort", "cancelled")
    log.move("succeed", "completed")
    log.record()
    return log


def i16_claimed_after_asked() -> Log:
    log = Log()
    log.add()
    log.claim("a")
    log.move("cancel", "processing")
    log.move("retry", "delayed")
    run_of(log, token="t2", attempt=2)
    log.record(attempts=2)
    return log


def i16_cancel_of_another_generation() -> Log:
    log = outpaced_then_revived()
    log.events.pop()
    log.events.pop()
    log.move("retry", "cancelled", "b", token="t3")
    log.record("b", state="cancelled")
    return log


def i16_not_told() -> Log:
    log = Log()
    log.add()
    log.claim("a")
    log.move("cancel", "processing")
    log.renew("ok")
    log.move("abort", "cancelled")
    log.record(state="cancelled")
    return log


BAD = [
    i1_lost,
    i1_never_ended,
    i1_dropped_while_it_ran,
    i1_missing,
    i2_two_ends,
    i2_ran_after_its_end,
    i2_record_says_otherwise,
    i3_attempt_leaps,
    i3_lapse_spends_an_attempt,
    i3_too_many_attempts,
    i3_too_many_lapses,
    i3_runs_again_after_a_lapse,
    i4_stale_settle,
    i4_stale_renewal,
    i4_current_token_refused,
    i4_settled_without_a_claim,
    i5_two_leases,
    i5_taken_over_early,
    i5_token_given_twice,
    i5_began_without_a_lease,
    i5_began_after_its_lease,
    i5_began_under_a_token_of_nobody,
    i3_ran_as_another_attempt,
    i6_stored_twice,
    i6_came_from_nowhere,
    i7_two_unfinished,
    i7_never_freed,
    i7_revived_beside_another,
    i9_one_start_too_many,
    i10_wrong_order,
    i10_passed_over,
    i10_early,
    i10_paused,
    i10_suspect_beside_others,
    i12_claimed_after_stop,
    i12_left_a_job_behind,
    i12_too_slow,
    i12_never_ended,
    i12_handed_back_while_it_ran,
    i13_too_late,
    i14_worker_down,
    i14_never_ended_after_a_hook,
    i16_completed_after_cancelled,
    i16_claimed_after_asked,
    i16_cancel_of_another_generation,
    i16_not_told,
]


@pytest.mark.parametrize("bad", BAD, ids=lambda make: make.__name__)
def test_a_bad_log_is_flagged(bad: Callable[[], Log]) -> None:
    expected = bad.__name__.partition("_")[0].upper()
    found = bad().found()
    assert expected in {violation.invariant for violation in found}, found
    assert all(str(violation).startswith(violation.invariant) for violation in found)


def test_a_log_survives_being_written_down() -> None:
    for make in (*GOOD, *BAD):
        events = make().events
        written = msgspec.json.encode(events)
        assert msgspec.json.decode(written, type=list[Event]) == events


def a_record(job_id: str, state: State = "completed", **fields: Any) -> Record:
    told = {"name": "n", "payload": b"{}", "policy": Policy(), "priority": 0, "attempts": 1}
    return Record(id=job_id, state=state, run_at=T0, enqueued_at=T0, **{**told, **fields})


def begins(job_id: str, times: int = 1) -> list[Event]:
    return [Begins(at=T0, boot=0.0, by="w", job_id=job_id, attempt=1) for _ in range(times)]


def test_what_witnesses_saw_of_a_good_run_is_not_flagged() -> None:
    records = (
        a_record("plain"),
        a_record("lapsed", lapses=2),
        a_record("failed", "failed", attempts=4),
        a_record("cancelled", "cancelled", attempts=0),
        a_record("forgotten"),
    )
    events = [
        *begins("plain"),
        *begins("lapsed", 3),
        *begins("failed", 4),
        *begins("forgotten", 2),
    ]
    ids = [record.id for record in records]
    assert not check_outside(events, ids, Dump(T0, records), forgotten={"forgotten"})


@pytest.mark.parametrize(
    ("invariant", "records", "events", "accepted"),
    [
        ("I1", [], [], ["a"]),
        ("I1", [a_record("a", "processing")], begins("a"), ["a"]),
        ("I1", [a_record("a", "delayed")], [], []),
        ("I2", [a_record("a")], [], ["a"]),
        ("I3", [a_record("a", attempts=5)], begins("a", 5), ["a"]),
        ("I3", [a_record("a", lapses=4)], begins("a", 5), ["a"]),
        ("I5", [a_record("a")], begins("a", 2), ["a"]),
        ("I6", [a_record("a"), a_record("a")], begins("a"), ["a"]),
        ("I6", [], begins("a"), []),
        (
            "I7",
            [a_record(each, "pending", attempts=0, unique_key="k") for each in "ab"],
            [],
            ["a", "b"],
        ),
    ],
)
def test_what_witnesses_saw_of_a_bad_run_is_flagged(
    invariant: str, records: list[Record], events: list[Event], accepted: list[str]
) -> None:
    found = check_outside(events, accepted, Dump(T0, tuple(records)))
    assert invariant in {violation.invariant for violation in found}


def held(by: str, token: str, since: float, until: float, how: Any = "claimed") -> Holds:
    return Holds(at=T0 + since, boot=since, by=by, job_id="a", token=token, until=until, how=how)


def yielded(by: str, token: str, at: float) -> Yields:
    return Yields(at=T0 + at, boot=at, by=by, job_id="a", token=token)


def begun(by: str, token: str) -> Begins:
    return Begins(at=T0, boot=0.0, by=by, job_id="a", attempt=1, token=token)


def found_outside(*events: Event, forgotten: set[str] | None = None) -> set[str]:
    at_end = Dump(T0, (a_record("a", lapses=3),))
    runs = [] if any(isinstance(event, Begins) for event in events) else begins("a")
    found = check_outside([*runs, *events], ["a"], at_end, forgotten=forgotten or set())
    return {violation.invariant for violation in found}


@pytest.mark.parametrize(
    "events",
    [
        # Taken over when the lease of the dead was over, told in whatever order.
        [held("v", "t2", 10.1, 20.0), held("w", "t1", 0.1, 10.0)],
        # Held longer, then given up, and claimed by another at once.
        [
            held("w", "t1", 0.1, 10.0),
            held("w", "t1", 3.4, 13.3, "renewed"),
            yielded("w", "t1", 5.0),
            held("v", "t2", 5.1, 15.0),
        ],
        # It lapsed, nobody took it over, and it was held again; then it was taken over.
        [
            held("w", "t1", 0.1, 10.0),
            held("w", "t1", 30.1, 40.0, "renewed"),
            held("v", "t2", 40.1, 50.0),
        ],
        # The reply to a claim was lost, and the claim repeated.
        [held("w", "t1", 8.0, 10.0, "collected"), held("w", "t1", 8.5, 10.0, "collected")],
        [held("w", "t1", 0.1, 10.0), begun("w", "t1")],
        # Who runs told of no lease at all, as a child of a worker.
        [held("w", "t1", 0.1, 10.0), begun("child", "t1")],
    ],
)
def test_what_workers_told_of_their_leases_in_a_good_run_is_not_flagged(
    events: list[Event],
) -> None:
    assert not found_outside(*events)


@pytest.mark.parametrize(
    "events",
    [
        # Taken over a second too early; told in whatever order.
        [held("w", "t1", 0.1, 10.0), held("v", "t2", 9.0, 19.0)],
        [held("v", "t2", 9.0, 19.0), held("w", "t1", 0.1, 10.0)],
        # Taken over as if it had not been held longer.
        [
            held("w", "t1", 0.1, 10.0),
            held("w", "t1", 6.8, 16.7, "renewed"),
            held("v", "t2", 10.1, 20.0),
        ],
        # A lease that is lost is held longer, while another has the job.
        [
            held("w", "t1", 0.1, 10.0),
            held("v", "t2", 10.1, 20.0),
            held("w", "t1", 12.0, 22.0, "renewed"),
        ],
        # Handed out before it was given up, by one process too.
        [held("w", "t1", 0.1, 10.0), held("w", "t2", 3.0, 13.0), yielded("w", "t1", 5.0)],
        # One token for two workers, and one twice, when its lease was long over.
        [held("w", "t1", 0.1, 10.0), held("v", "t1", 30.0, 40.0)],
        [held("w", "t1", 0.1, 10.0), held("w", "t1", 30.0, 40.0)],
        # A run by a lease that its worker never had.
        [held("w", "t1", 0.1, 10.0), begun("w", "t2")],
    ],
)
def test_two_leases_at_once_or_a_token_that_comes_twice_are_flagged(events: list[Event]) -> None:
    assert found_outside(*events) == {"I5"}


def test_a_lease_that_a_crashed_store_forgot_may_overlap_with_the_next() -> None:
    events = [held("w", "t1", 0.1, 10.0), held("v", "t2", 3.0, 13.0)]
    assert found_outside(*events) == {"I5"}
    assert not found_outside(*events, forgotten={"a"})
