"""What `move` promises."""

from __future__ import annotations

import asyncio

import pytest

from jobmill.policy import Policy
from jobmill.states import ENDED, STATES, Event, Move, State
from jobmill.store import KEPT_ERRORS, Moved, Store
from jobmill.testing.contract.case import (
    T0,
    StoreCase,
    a_job,
    a_note,
    claim,
    ids,
    in_state,
    move,
    on_a_store,
    record,
    running,
    some_jobs,
    state,
)

_SETTLES: tuple[Event, ...] = ("succeed", "retry", "fail", "snooze", "release", "lapse", "abort")


class MoveContract(StoreCase):
    """Events change jobs by the table, fenced by the token."""

    @on_a_store
    async def test_a_success_completes_the_job(self, store: Store) -> None:
        await running(store, policy=Policy(keep_result=100.0))
        moved = await move(store, "succeed", token="t1", result=b'{"r":1}', now=T0 + 5)
        assert moved == Moved("applied", "j1", "completed")
        job = await record(store)
        assert (job.state, job.result, job.errors) == ("completed", b'{"r":1}', ())
        assert (job.started_at, job.ended_at, job.expires_at) == (T0, T0 + 5, T0 + 105)
        assert (job.attempts, job.lease_until, job.token) == (1, None, "t1")
        assert job.worker == "w1"

    @on_a_store
    async def test_a_failure_ends_the_job(self, store: Store) -> None:
        await running(store, policy=Policy(keep_failed=100.0))
        moved = await move(store, "fail", token="t1", error=b'{"e":1}', fingerprint="f", now=T0 + 5)
        assert moved == Moved("applied", "j1", "failed")
        job = await record(store)
        assert (job.state, job.result, job.errors) == ("failed", None, (b'{"e":1}',))
        assert (job.fingerprint, job.ended_at, job.expires_at) == ("f", T0 + 5, T0 + 105)
        assert (job.attempts, job.lapses) == (1, 0)

    @on_a_store
    async def test_an_abort_ends_the_job_cancelled(self, store: Store) -> None:
        await running(store, policy=Policy(keep_failed=100.0))
        moved = await move(store, "abort", token="t1", error=b'"own"', now=T0 + 5)
        assert moved == Moved("applied", "j1", "cancelled")
        job = await record(store)
        assert (job.errors, job.ended_at, job.expires_at) == ((b'"own"',), T0 + 5, T0 + 105)

    @on_a_store
    async def test_a_retry_puts_the_job_off_and_keeps_its_error(self, store: Store) -> None:
        await running(store)
        moved = await move(
            store, "retry", token="t1", delay=7.5, error=b"1", fingerprint="f", now=T0 + 5
        )
        assert moved == Moved("applied", "j1", "delayed")
        job = await record(store, now=T0 + 12)
        assert (job.state, job.run_at, job.attempts) == ("delayed", T0 + 12.5, 1)
        assert (job.errors, job.fingerprint) == ((b"1",), "f")
        assert (job.lease_until, job.ended_at, job.expires_at) == (None, None, None)

    @on_a_store
    async def test_a_retry_without_delay_is_pending(self, store: Store) -> None:
        await running(store)
        assert await move(store, "retry", token="t1") == Moved("applied", "j1", "pending")
        assert await state(store) == "pending"

    @on_a_store
    async def test_a_snooze_gives_the_attempt_back(self, store: Store) -> None:
        await running(store)
        moved = await move(store, "snooze", token="t1", delay=9.0, memo=b"m", now=T0 + 1)
        assert moved == Moved("applied", "j1", "delayed")
        job = await record(store)
        assert (job.run_at, job.attempts, job.memo, job.errors) == (T0 + 10, 0, b"m", ())

    @on_a_store
    async def test_a_release_gives_the_attempt_back_and_the_job_stays_due(
        self, store: Store
    ) -> None:
        await running(store)
        moved = await move(store, "release", token="t1", now=T0 + 4)
        assert moved == Moved("applied", "j1", "pending")
        job = await record(store)
        assert (job.run_at, job.attempts, job.suspect) == (T0, 0, False)

    @on_a_store
    async def test_a_failure_of_a_lapsed_run_counts_the_lapse(self, store: Store) -> None:
        await running(store)
        await move(store, "fail", token="t1", error=b"1", lapsed=True)
        job = await record(store)
        assert (job.state, job.lapses, job.attempts) == ("failed", 1, 1)

    @on_a_store
    async def test_each_settle_replaces_the_memo(self, store: Store) -> None:
        await running(store)
        await move(store, "snooze", token="t1", memo=b"1")
        assert (await record(store)).memo == b"1"
        await claim(store, "t2")
        await move(store, "release", token="t2")
        assert (await record(store)).memo is None

    @on_a_store
    async def test_a_note_rides_along(self, store: Store) -> None:
        await running(store)
        await move(store, "succeed", token="t1", note=a_note(100.0, "done", 1, 2))
        job = await record(store)
        assert (job.progress, job.progress_note, len(job.logs)) == (100.0, "done", 2)

    @on_a_store
    async def test_the_last_twenty_errors_are_kept(self, store: Store) -> None:
        await store.add([a_job()], now=T0)
        for number in range(KEPT_ERRORS + 5):
            await claim(store, f"t{number}")
            await move(store, "retry", token=f"t{number}", error=b"%d" % number)
        errors = tuple(b"%d" % number for number in range(5, KEPT_ERRORS + 5))
        assert (await record(store)).errors == errors

    # ------------------------------------------------------------------ fencing

    @pytest.mark.parametrize("event", _SETTLES)
    @on_a_store
    async def test_a_stale_token_writes_nothing(self, store: Store, event: Event) -> None:
        await running(store)
        await move(store, "release", token="t1")
        await claim(store, "t2", worker="w2")
        before = await record(store)
        events = await store.events(0, 10)
        for token in ("t1", "never", "", None):
            moved = await move(
                store, event, token=token, result=b"1", error=b"1", fingerprint="f", memo=b"1",
                note=a_note(1.0, "x", 1), lapsed=True,
            )  # fmt: skip
            assert moved == Moved("stale", "j1")
        assert await record(store) == before
        assert await store.events(0, 10) == events
        assert await store.errors(10) == []

    @pytest.mark.parametrize("first", _SETTLES)
    @on_a_store
    async def test_a_settle_repeated_is_already_done(self, store: Store, first: Event) -> None:
        await running(store)
        settle = Move(
            event=first, job_id="j1", token="t1", delay=5.0, error=b"1", fingerprint="f",
            result=b"2", note=a_note(1.0, None, 1),
        )  # fmt: skip
        (done,) = await store.move([settle], now=T0)
        before = await record(store)
        figures = await store.events(0, 10), await store.errors(10), await store.metrics(T0)
        assert await store.move([settle], now=T0) == [Moved("already", "j1", done.state)]
        for other in _SETTLES:
            assert (await move(store, other, token="t1")).status == "already"
        assert await record(store) == before
        again = await store.events(0, 10), await store.errors(10), await store.metrics(T0)
        assert again == figures

    @on_a_store
    async def test_two_settles_of_one_token_in_one_call(self, store: Store) -> None:
        await running(store)
        moves = [
            Move(event="succeed", job_id="j1", token="t1"),
            Move(event="fail", job_id="j1", token="t1"),
        ]
        answers = await store.move(moves, now=T0)
        assert answers == [Moved("applied", "j1", "completed"), Moved("already", "j1", "completed")]

    @pytest.mark.parametrize("event", ["cancel", "revive", "hasten", "mature", *_SETTLES])
    @on_a_store
    async def test_a_job_that_is_not_there_is_missing(self, store: Store, event: Event) -> None:
        assert await move(store, event, "none", "t1") == Moved("missing", "none")

    @pytest.mark.parametrize("wanted", STATES)
    @on_a_store
    async def test_only_a_claim_lets_a_job_mature(self, store: Store, wanted: State) -> None:
        await in_state(store, wanted)
        before = await record(store)
        assert await move(store, "mature") == Moved("refused", "j1", wanted)
        assert await record(store) == before

    @on_a_store
    async def test_an_event_without_need_pays_no_heed_to_a_token(self, store: Store) -> None:
        await running(store)
        assert await move(store, "cancel", token="other") == Moved("applied", "j1", "processing")
        assert await move(store, "revive", token="t1") == Moved("refused", "j1", "processing")

    @on_a_store
    async def test_answers_come_in_order(self, store: Store) -> None:
        await store.add(some_jobs(3), now=T0)
        await claim(store, limit=2)
        moves = [
            Move(event="cancel", job_id="j3"),
            Move(event="succeed", job_id="none", token="t1"),
            Move(event="succeed", job_id="j2", token="t1"),
            Move(event="hasten", job_id="j1"),
            Move(event="fail", job_id="j1", token="x"),
            Move(event="revive", job_id="j2"),
        ]
        assert await store.move(moves, now=T0) == [
            Moved("applied", "j3", "cancelled"),
            Moved("missing", "none"),
            Moved("applied", "j2", "completed"),
            Moved("refused", "j1", "processing"),
            Moved("stale", "j1"),
            Moved("applied", "j2", "pending"),
        ]
        assert await store.move([], now=T0) == []

    @on_a_store
    async def test_a_token_settles_once_among_ten(self, store: Store) -> None:
        await running(store)
        answers = await asyncio.gather(*[move(store, "succeed", token="t1") for _ in range(10)])
        assert sorted(answer.status for answer in answers) == [*["already"] * 9, "applied"]
        assert len(await store.events(0, 10)) == 1

    # ------------------------------------------------------------------ cancel

    @pytest.mark.parametrize("wanted", ["delayed", "pending"])
    @on_a_store
    async def test_a_waiting_job_is_cancelled_at_once(self, store: Store, wanted: State) -> None:
        await in_state(store, wanted)
        moved = await move(store, "cancel", error=b'"why"', fingerprint="f", now=T0 + 3)
        assert moved == Moved("applied", "j1", "cancelled")
        job = await record(store)
        assert (job.errors, job.ended_at, job.asked) == ((b'"why"',), T0 + 3, False)
        assert (await claim(store, "t9", now=T0 + 7_200)).claims == ()

    @on_a_store
    async def test_a_running_job_is_asked_to_cancel(self, store: Store) -> None:
        await running(store)
        before = await record(store)
        assert await move(store, "cancel", error=b'"why"') == Moved("applied", "j1", "processing")
        job = await record(store)
        assert job.asked
        assert (job.errors, job.token, job.lease_until) == ((), "t1", before.lease_until)

    @pytest.mark.parametrize("event", ["retry", "snooze", "release", "lapse"])
    @on_a_store
    async def test_an_asked_job_that_is_put_off_ends_cancelled(
        self, store: Store, event: Event
    ) -> None:
        await running(store, policy=Policy(keep_failed=100.0))
        await move(store, "cancel", error=b'"why"', fingerprint="f", now=T0 + 1)
        moved = await move(store, event, token="t1", delay=60.0, now=T0 + 2)
        assert moved == Moved("applied", "j1", "cancelled")
        job = await record(store)
        assert (job.state, job.errors, job.fingerprint) == ("cancelled", (b'"why"',), "f")
        assert (job.ended_at, job.expires_at, job.asked) == (T0 + 2, T0 + 102, False)
        assert job.run_at == T0
        assert job.attempts == (1 if event == "retry" else 0)
        assert (await claim(store, "t9", now=T0 + 90)).claims == ()

    @on_a_store
    async def test_a_failure_before_the_cancel_is_kept_before_it(self, store: Store) -> None:
        await running(store)
        await move(store, "cancel", error=b'"why"', fingerprint="c")
        await move(store, "retry", token="t1", error=b'"boom"', fingerprint="b")
        job = await record(store)
        assert (job.errors, job.fingerprint) == ((b'"boom"', b'"why"'), "c")
        assert {group.fingerprint for group in await store.errors(10)} == {"b", "c"}

    @on_a_store
    async def test_an_abort_of_an_asked_job_gives_the_cancels_reason(self, store: Store) -> None:
        await running(store)
        await move(store, "cancel", error=b'"why"', fingerprint="c")
        await move(store, "abort", token="t1", error=b'"own"', fingerprint="o")
        job = await record(store)
        assert (job.state, job.errors, job.fingerprint) == ("cancelled", (b'"why"',), "c")

    @on_a_store
    async def test_an_abort_keeps_its_own_error_where_the_cancel_gave_none(
        self, store: Store
    ) -> None:
        await running(store)
        await move(store, "cancel")
        await move(store, "abort", token="t1", error=b'"own"')
        assert (await record(store)).errors == (b'"own"',)

    @on_a_store
    async def test_the_first_cancel_stays(self, store: Store) -> None:
        await running(store)
        await move(store, "cancel", error=b'"one"')
        assert await move(store, "cancel", error=b'"two"') == Moved("applied", "j1", "processing")
        await move(store, "retry", token="t1")
        assert (await record(store)).errors == (b'"one"',)

    @pytest.mark.parametrize(("event", "after"), [("succeed", "completed"), ("fail", "failed")])
    @on_a_store
    async def test_a_cancel_that_the_run_outpaces_is_void(
        self, store: Store, event: Event, after: State
    ) -> None:
        await running(store)
        await move(store, "cancel", error=b'"why"')
        moved = await move(store, event, token="t1", error=b"1" if event == "fail" else None)
        assert moved == Moved("applied", "j1", after)
        job = await record(store)
        assert (job.asked, job.errors) == (False, (b"1",) if event == "fail" else ())

    @on_a_store
    async def test_an_outpaced_cancel_does_not_touch_the_next_generation(
        self, store: Store
    ) -> None:
        await running(store)
        await move(store, "cancel", error=b'"why"')
        await move(store, "succeed", token="t1")
        await move(store, "revive")
        (run,) = (await claim(store, "t2")).claims
        assert not run.asked
        moved = await move(store, "retry", token="t2", delay=5.0)
        assert moved == Moved("applied", "j1", "delayed")
        assert (await record(store)).errors == ()

    @pytest.mark.parametrize("wanted", sorted(ENDED))
    @on_a_store
    async def test_an_end_is_not_cancelled(self, store: Store, wanted: State) -> None:
        await in_state(store, wanted)
        before = await record(store)
        assert await move(store, "cancel", error=b"1") == Moved("refused", "j1", wanted)
        assert await record(store) == before

    # ------------------------------------------------------------------ revive, hasten

    @pytest.mark.parametrize("event", ["succeed", "fail", "abort"])
    @on_a_store
    async def test_a_revive_starts_over(self, store: Store, event: Event) -> None:
        await store.add([a_job(priority=4, metadata={"a": "b"})], now=T0)
        await claim(store, "t1")
        await move(store, "lapse", token="t1")
        await claim(store, "t2")
        await move(store, "retry", token="t2", error=b"1", fingerprint="f")
        await claim(store, "t3")
        await move(
            store, event, token="t3", result=b"2", error=b"3", fingerprint="g", memo=b"4",
            note=a_note(50.0, "x", 1),
        )  # fmt: skip
        assert await move(store, "revive", now=T0 + 9) == Moved("applied", "j1", "pending")
        job = await record(store, now=T0 + 9)
        assert (job.state, job.run_at, job.enqueued_at) == ("pending", T0 + 9, T0)
        assert (job.attempts, job.lapses, job.generation) == (0, 0, 2)
        assert (job.suspect, job.asked, job.memo, job.result) == (False, False, None, None)
        assert (job.worker, job.started_at, job.ended_at, job.expires_at) == (None,) * 4
        assert (job.progress, job.progress_note, job.logs) == (None, None, ())
        assert (job.errors, job.fingerprint, job.token) == ((b"1", b"3"), "g", "t3")
        assert (job.priority, job.metadata) == (4, {"a": "b"})
        (run,) = (await claim(store, "t4", now=T0 + 9)).claims
        assert (run.attempt, run.lapses) == (1, 0)

    @on_a_store
    async def test_a_settle_from_before_the_revive_writes_nothing(self, store: Store) -> None:
        await in_state(store, "failed")
        await move(store, "revive")
        before = await record(store)
        assert await move(store, "fail", token="t1", error=b"1") == Moved(
            "already", "j1", "pending"
        )
        assert await record(store) == before
        await claim(store, "t2")
        assert (await move(store, "succeed", token="t1")).status == "stale"

    @pytest.mark.parametrize("wanted", ["delayed", "pending", "processing"])
    @on_a_store
    async def test_an_unfinished_job_is_not_revived(self, store: Store, wanted: State) -> None:
        await in_state(store, wanted)
        assert await move(store, "revive") == Moved("refused", "j1", wanted)

    @on_a_store
    async def test_a_revive_takes_its_key_again(self, store: Store) -> None:
        await in_state(store, "failed", unique_key="k")
        await move(store, "revive")
        added = await store.add([a_job("j2", unique_key="k")], now=T0)
        assert (added[0].status, added[0].job_id) == ("held", "j1")

    @on_a_store
    async def test_a_revive_whose_key_is_held_is_held(self, store: Store) -> None:
        await in_state(store, "failed", unique_key="k")
        await store.add([a_job("j2", unique_key="k"), a_job("j3", "b", unique_key="k")], now=T0)
        before = await record(store)
        assert await move(store, "revive") == Moved("held", "j2")
        assert await record(store) == before
        await move(store, "cancel", "j2")
        assert await move(store, "revive") == Moved("applied", "j1", "pending")

    @on_a_store
    async def test_two_revives_of_one_key_in_one_call(self, store: Store) -> None:
        for id_ in ("j1", "j2"):
            await in_state(store, "failed", id_, unique_key="k")
        moves = [Move(event="revive", job_id=id_) for id_ in ("j1", "j2")]
        assert await store.move(moves, now=T0) == [
            Moved("applied", "j1", "pending"),
            Moved("held", "j1"),
        ]

    @on_a_store
    async def test_revive_and_add_race_for_a_key(self, store: Store) -> None:
        await in_state(store, "failed", unique_key="k")
        await asyncio.gather(
            move(store, "revive"),
            *[store.add([job], now=T0) for job in some_jobs(9, unique_key="k")[1:]],
        )
        assert (await store.counts(now=T0)).states["pending"] == 1

    @on_a_store
    async def test_a_hastened_job_is_due_now(self, store: Store) -> None:
        await store.add([a_job(delay=3_600.0)], now=T0)
        assert await move(store, "hasten", now=T0 + 3) == Moved("applied", "j1", "pending")
        job = await record(store, now=T0 + 3)
        assert (job.state, job.run_at) == ("pending", T0 + 3)
        assert ids((await claim(store, now=T0 + 3)).claims) == ["j1"]

    @on_a_store
    async def test_a_delayed_job_that_is_due_is_moved_as_pending(self, store: Store) -> None:
        await store.add([a_job(delay=5.0)], now=T0)
        assert await move(store, "hasten", now=T0 + 5) == Moved("refused", "j1", "pending")
        assert (await record(store, now=T0 + 5)).run_at == T0 + 5
