"""What leases promise: renewals, lapses and suspects."""

from __future__ import annotations

import asyncio

import pytest

from jobmill.states import Failure, Move, after_lapse
from jobmill.store import TAKEOVER_LIMIT, Lease, Store
from jobmill.testing.contract.case import (
    T0,
    StillClock,
    StoreCase,
    a_job,
    a_note,
    a_want,
    claim,
    ids,
    move,
    on_a_store,
    record,
    running,
    some_jobs,
)


class LeaseContract(StoreCase):
    """A lease holds until its last instant; what lapsed goes to one other worker."""

    @on_a_store
    async def test_a_renewal_holds_from_now(self, store: Store) -> None:
        await running(store)
        assert await store.renew([Lease("j1", "t1")], 20.0, now=T0 + 15) == ["ok"]
        assert (await record(store)).lease_until == T0 + 35
        assert (await claim(store, "t2", now=T0 + 34)).lapsed == ()

    @on_a_store
    async def test_a_renewal_answers_each_lease_in_order(self, store: Store) -> None:
        await store.add(some_jobs(3), now=T0)
        await claim(store)
        await move(store, "cancel", "j2")
        await move(store, "succeed", "j3", "t1")
        beats = await store.renew(
            [Lease(id_, token) for id_, token in
             [("j3", "t1"), ("j2", "t1"), ("none", "t1"), ("j1", "t0"), ("j1", "t1")]],
            30.0,
            now=T0,
        )  # fmt: skip
        assert beats == ["lost", "abort", "lost", "lost", "ok"]
        assert await store.renew([], 30.0, now=T0) == []

    @on_a_store
    async def test_the_lease_of_an_asked_job_is_held_too(self, store: Store) -> None:
        await running(store)
        await move(store, "cancel")
        assert await store.renew([Lease("j1", "t1")], 30.0, now=T0 + 20) == ["abort"]
        assert (await claim(store, "t2", now=T0 + 49)).lapsed == ()

    @on_a_store
    async def test_a_lost_lease_is_not_held(self, store: Store) -> None:
        await running(store)
        await claim(store, "t2", worker="w2", now=T0 + 30)
        assert await store.renew([Lease("j1", "t1")], 500.0, now=T0 + 31) == ["lost"]
        assert (await record(store)).lease_until == T0 + 60

    @on_a_store
    async def test_a_lease_that_ran_out_and_was_not_taken_is_held_again(self, store: Store) -> None:
        await running(store)
        assert await store.renew([Lease("j1", "t1")], 30.0, now=T0 + 100) == ["ok"]
        assert (await claim(store, "t2", now=T0 + 129)).lapsed == ()
        assert (await move(store, "succeed", token="t1", now=T0 + 129)).status == "applied"

    @on_a_store
    async def test_a_lease_that_ran_out_and_was_not_taken_can_be_settled(
        self, store: Store
    ) -> None:
        await running(store)
        moved = await move(store, "succeed", token="t1", now=T0 + 100)
        assert (moved.status, moved.state) == ("applied", "completed")

    @on_a_store
    async def test_notes_are_stored_with_the_renewal(self, store: Store) -> None:
        await store.add(some_jobs(3), now=T0)
        await claim(store)
        await move(store, "cancel", "j2")
        notes = {id_: a_note(12.5, "half", 1, 2) for id_ in ("j1", "j2", "j3", "none")}
        leases = [Lease("j1", "t1"), Lease("j2", "t1"), Lease("j3", "other")]
        assert await store.renew(leases, 30.0, notes, now=T0) == ["ok", "abort", "lost"]
        for id_ in ("j1", "j2"):
            job = await record(store, id_)
            assert (job.progress, job.progress_note) == (12.5, "half")
            assert job.logs == (b'{"line":1}', b'{"line":2}')
        job = await record(store, "j3")
        assert (job.progress, job.progress_note, job.logs) == (None, None, ())

    @on_a_store
    async def test_a_note_without_progress_leaves_it(self, store: Store) -> None:
        await running(store)
        lease = [Lease("j1", "t1")]
        await store.renew(lease, 30.0, {"j1": a_note(10.0, "begun")}, now=T0)
        await store.renew(lease, 30.0, {"j1": a_note(None, None, 1)}, now=T0)
        job = await record(store)
        assert (job.progress, job.progress_note, len(job.logs)) == (10.0, "begun", 1)
        await store.renew(lease, 30.0, {"j1": a_note(0.0)}, now=T0)
        job = await record(store)
        assert (job.progress, job.progress_note) == (0.0, None)

    @on_a_store
    async def test_a_line_is_stored_once(self, store: Store) -> None:
        await running(store)
        lease = [Lease("j1", "t1")]
        for note in (a_note(None, None, 0, 1), a_note(None, None, 0, 1, 2), a_note(None, None, 1)):
            await store.renew(lease, 30.0, {"j1": note}, now=T0)
        await move(store, "retry", token="t1", note=a_note(None, None, 2, 3))
        assert (await record(store)).logs == tuple(b'{"line":%d}' % n for n in range(4))

    @on_a_store
    async def test_the_next_run_numbers_its_lines_anew(self, store: Store) -> None:
        await running(store)
        await move(store, "retry", token="t1", note=a_note(None, None, 0, 1))
        await claim(store, "t2")
        await store.renew([Lease("j1", "t2")], 30.0, {"j1": a_note(None, None, 0)}, now=T0)
        lines = [b'{"line":%d}' % n for n in (0, 1, 0)]
        assert (await record(store)).logs == tuple(lines)

    @on_a_store
    async def test_the_last_hundred_lines_are_kept(self, store: Store) -> None:
        await running(store)
        lease = [Lease("j1", "t1")]
        await store.renew(lease, 30.0, {"j1": a_note(None, None, *range(60))}, now=T0)
        await store.renew(lease, 30.0, {"j1": a_note(None, None, *range(60, 230))}, now=T0)
        assert (await record(store)).logs == tuple(b'{"line":%d}' % n for n in range(130, 230))

    # ------------------------------------------------------------------ lapses

    @on_a_store
    async def test_a_lapsed_lease_is_taken_over_as_it_is(self, store: Store) -> None:
        await running(store)
        assert (await claim(store, "t2", worker="w2", now=T0 + 29.5)).lapsed == ()
        claimed = await claim(store, "t3", worker="w2", now=T0 + 30)
        assert claimed.claims == ()
        (run,) = claimed.lapsed
        assert (run.id, run.token, run.attempt, run.lapses) == ("j1", "t3", 1, 0)
        assert run.started_at == T0
        job = await record(store, now=T0 + 30)
        assert (job.state, job.token, job.worker) == ("processing", "t3", "w2")
        assert (job.lease_until, job.attempts, job.started_at) == (T0 + 60, 1, T0)

    @on_a_store
    async def test_what_was_taken_over_is_anothers(self, store: Store) -> None:
        await running(store)
        await claim(store, "t2", worker="w2", now=T0 + 30)
        before = await record(store, now=T0 + 30)
        for event in ("succeed", "retry", "fail", "snooze", "release", "lapse", "abort"):
            moved = await move(
                store, event, token="t1", result=b"1", error=b"{}", lapsed=True, now=T0 + 31,
                note=a_note(1.0, "x", 1),
            )  # fmt: skip
            assert (moved.status, moved.state) == ("stale", None)
        assert await record(store, now=T0 + 30) == before
        assert await store.events(0, 10) == []
        assert [bucket for bucket in await store.metrics(T0) if bucket.started] == []

    @on_a_store
    async def test_a_takeover_happens_once(self, store: Store) -> None:
        await store.add(some_jobs(20), now=T0)
        await claim(store, limit=20)
        answers = await asyncio.gather(
            *[claim(store, f"u{n}", worker=f"v{n}", limit=0, now=T0 + 30) for n in range(10)]
        )
        got = [id_ for answer in answers for id_ in ids(answer.lapsed)]
        assert sorted(got) == sorted(job.id for job in some_jobs(20))

    @on_a_store
    async def test_a_takeover_lapses_as_well(self, store: Store) -> None:
        await running(store)
        assert len((await claim(store, "t2", worker="w2", now=T0 + 30)).lapsed) == 1
        assert (await claim(store, "t3", worker="w3", now=T0 + 59)).lapsed == ()
        (run,) = (await claim(store, "t4", worker="w3", now=T0 + 60)).lapsed
        assert (run.token, run.attempt) == ("t4", 1)

    @on_a_store
    async def test_lapses_are_taken_over_whatever_limit_names_and_pauses_say(
        self, store: Store
    ) -> None:
        await running(store)
        await store.write("pauses", "*", b"{}", now=T0)
        await store.write("pauses", "job:a", b"{}", now=T0)
        claimed = await claim(store, "t2", limit=0, names=("b",), room="busy", now=T0 + 30)
        assert ids(claimed.lapsed) == ["j1"]

    @on_a_store
    async def test_the_first_to_lapse_is_taken_over_first(self, store: Store) -> None:
        await store.add(some_jobs(3), now=T0)
        for number, lease in ((1, 30.0), (2, 10.0), (3, 20.0)):
            await claim(store, f"t{number}", limit=1, lease=lease)
        claimed = await claim(store, "t9", now=T0 + 40)
        assert ids(claimed.lapsed) == ["j2", "j3", "j1"]

    @on_a_store
    async def test_a_hundred_lapses_are_taken_over_at_once_at_most(self, store: Store) -> None:
        await store.add(some_jobs(TAKEOVER_LIMIT + 1), now=T0)
        await claim(store, limit=2 * TAKEOVER_LIMIT)
        assert len((await claim(store, "t2", now=T0 + 30)).lapsed) == TAKEOVER_LIMIT
        assert len((await claim(store, "t3", now=T0 + 30)).lapsed) == 1

    @on_a_store
    async def test_lapses_do_not_count_in_the_limit(self, store: Store) -> None:
        await store.add(some_jobs(2), now=T0)
        await claim(store, limit=1)
        claimed = await claim(store, "t2", limit=1, now=T0 + 30)
        assert (ids(claimed.lapsed), ids(claimed.claims)) == (["j1"], ["j2"])

    @on_a_store
    async def test_a_repeat_collects_lapses_apart(self, store: Store) -> None:
        await store.add(some_jobs(2), now=T0)
        await claim(store, limit=1)
        first = await claim(store, "t2", now=T0 + 30)
        again = await claim(store, "t2", repeat=True, now=T0 + 31)
        assert (again.claims, again.lapsed) == (first.claims, first.lapsed)
        assert (await claim(store, "t3", repeat=True, now=T0 + 90)).lapsed == ()

    @on_a_store
    async def test_a_lapse_gives_the_attempt_back_and_counts(self, store: Store) -> None:
        await running(store)
        (run,) = (await claim(store, "t2", worker="w2", now=T0 + 30)).lapsed
        await store.move([after_lapse(run, Failure(error=b"{}"))], now=T0 + 31)
        job = await record(store, now=T0 + 31)
        assert (job.state, job.attempts, job.lapses, job.suspect) == ("pending", 0, 1, True)
        assert (job.run_at, job.errors, job.lease_until) == (T0, (), None)

    @on_a_store
    async def test_lapses_end_a_job_as_failed(self, store: Store) -> None:
        await store.add([a_job()], now=T0)
        now = T0
        for number in range(3):
            (run,) = (await claim(store, f"c{number}", now=now)).claims
            assert (run.attempt, run.lapses, run.suspect) == (1, number, number > 0)
            now += 30
            (run,) = (await claim(store, f"l{number}", now=now)).lapsed
            await store.move([after_lapse(run, Failure(error=b"[]"))], now=now)
        job = await record(store, now=now)
        assert (job.state, job.lapses, job.attempts) == ("failed", 3, 1)
        assert job.errors == (b"[]",)
        assert not job.suspect

    @on_a_store
    async def test_a_lapse_of_an_asked_job_ends_it_cancelled(self, store: Store) -> None:
        await running(store)
        await move(store, "cancel", error=b'"why"')
        (run,) = (await claim(store, "t2", now=T0 + 30)).lapsed
        assert run.asked
        await store.move([after_lapse(run, Failure(error=b"{}"))], now=T0 + 30)
        job = await record(store, now=T0 + 30)
        assert (job.state, job.attempts, job.lapses) == ("cancelled", 0, 1)
        assert job.errors == (b'"why"',)

    @on_a_store
    async def test_a_lapsed_lease_that_was_asked_to_cancel_is_the_takers(
        self, store: Store
    ) -> None:
        await running(store)
        await move(store, "cancel")
        await claim(store, "t2", worker="w2", now=T0 + 30)
        theirs = await claim(store, "t3", worker="w2", limit=0, now=T0 + 30)
        assert theirs.asked == (Lease("j1", "t2"),)
        assert (await claim(store, "t4", limit=0, now=T0 + 30)).asked == ()

    @on_a_store
    async def test_a_job_keeps_its_memo_through_a_lapse(self, store: Store) -> None:
        await running(store)
        await move(store, "snooze", token="t1", memo=b"1")
        await claim(store, "t2")
        (run,) = (await claim(store, "t3", now=T0 + 30)).lapsed
        assert run.memo == b"1"

    @on_a_store
    async def test_the_attempt_after_a_lapse_is_the_same_again(self, store: Store) -> None:
        await running(store)
        (run,) = (await claim(store, "t2", now=T0 + 30)).lapsed
        await store.move([after_lapse(run, Failure(error=b"{}"))], now=T0 + 30)
        (run,) = (await claim(store, "t3", now=T0 + 30)).claims
        assert (run.attempt, run.lapses, run.suspect) == (1, 1, True)

    async def test_the_store_keeps_the_time_of_leases(self) -> None:
        clock = StillClock()
        store = await self.open_store(clock)
        try:
            await store.add([a_job(delay=3_600.0)])
            (before,) = await store.get(["j1"])
            assert before is not None
            assert before.run_at == before.enqueued_at + 3_600
            claimed = await store.claim(a_want("t1"))
            assert (claimed.claims, claimed.next_due) == ((), before.run_at)
            await move(store, "hasten", now=None)
            claimed = await store.claim(a_want("t2"))
            assert ids(claimed.claims) == ["j1"]
            (job,) = await store.get(["j1"])
            assert job is not None
            assert job.lease_until == claimed.now + 30
            clock.at -= 86_400  # where the store heeds this clock, it is not led back by it
            later = await store.claim(a_want("t3", worker="w2"))
            assert later.now >= claimed.now
            assert later.lapsed == ()
        finally:
            await store.close()

    # ------------------------------------------------------------------ suspects

    async def _suspect(self, store: Store, id_: str, name: str = "a", priority: int = 0) -> None:
        """A job that lapsed once and is pending again, due since T0."""
        await store.add([a_job(id_, name, priority=priority)], now=T0)
        token = f"s-{id_}"
        claimed = await claim(store, token, names=(name,), limit=1)
        assert ids(claimed.claims) == [id_]
        await move(store, "lapse", id_, token)

    @on_a_store
    async def test_a_busy_worker_leaves_suspects(self, store: Store) -> None:
        await self._suspect(store, "s")
        await store.add(some_jobs(2), now=T0)
        claimed = await claim(store, room="busy")
        assert (ids(claimed.claims), claimed.suspect_waits) == (["j1", "j2"], True)

    @on_a_store
    async def test_an_idle_worker_takes_a_suspect_alone_when_it_is_its_turn(
        self, store: Store
    ) -> None:
        await self._suspect(store, "s")
        await store.add(some_jobs(2), now=T0)
        claimed = await claim(store, room="idle")
        assert (ids(claimed.claims), claimed.suspect_waits) == (["s"], False)
        assert claimed.claims[0].suspect
        assert ids((await claim(store, "t2", room="idle")).claims) == ["j1", "j2"]

    @on_a_store
    async def test_an_idle_worker_leaves_a_suspect_whose_turn_it_is_not(self, store: Store) -> None:
        await store.add(some_jobs(3, priority=-1), now=T0)
        await self._suspect(store, "s", "b")
        await store.add([a_job("late", priority=1)], now=T0)
        claimed = await claim(store, room="idle")
        assert ids(claimed.claims) == ["j1", "j2", "j3", "late"]
        assert claimed.suspect_waits
        claimed = await claim(store, "t2", room="idle")
        assert (ids(claimed.claims), claimed.suspect_waits) == (["s"], False)

    @on_a_store
    async def test_a_worker_that_cleared_its_room_takes_a_suspect_first(self, store: Store) -> None:
        await store.add(some_jobs(2, priority=-1), now=T0)
        await self._suspect(store, "s", "b")
        claimed = await claim(store, room="alone")
        assert (ids(claimed.claims), claimed.suspect_waits) == (["s"], False)
        assert ids((await claim(store, "t2", room="alone")).claims) == ["j1", "j2"]

    @pytest.mark.parametrize("room", ["idle", "alone"])
    @on_a_store
    async def test_suspects_go_one_by_one_in_order(self, store: Store, room: str) -> None:
        for id_, priority in (("s1", 1), ("s2", 0), ("s3", 1)):
            await self._suspect(store, id_, id_, priority)
        for number, id_ in enumerate(("s2", "s1", "s3")):
            claimed = await claim(store, f"t{number}", room=room)
            assert (ids(claimed.claims), claimed.suspect_waits) == ([id_], id_ != "s3")

    @on_a_store
    async def test_a_suspect_that_is_passed_over_does_not_wait(self, store: Store) -> None:
        await self._suspect(store, "s", "b")
        assert not (await claim(store, "t1", names=("a",), room="busy")).suspect_waits
        await store.write("pauses", "job:b", b"{}", now=T0)
        assert not (await claim(store, "t2", room="busy")).suspect_waits
        await store.write("pauses", "*", b"{}", now=T0)
        await store.write("pauses", "job:b", None, now=T0)
        claimed = await claim(store, "t3", room="alone")
        assert (claimed.claims, claimed.suspect_waits) == ((), False)

    @on_a_store
    async def test_a_full_worker_is_told_of_a_suspect(self, store: Store) -> None:
        await self._suspect(store, "s")
        claimed = await claim(store, limit=0, room="busy")
        assert (claimed.claims, claimed.suspect_waits) == ((), True)

    @pytest.mark.parametrize("event", ["retry", "snooze", "release", "succeed", "fail", "abort"])
    @on_a_store
    async def test_the_next_settle_clears_a_suspect(self, store: Store, event: str) -> None:
        await self._suspect(store, "s")
        await claim(store)
        settle = Move(event=event, job_id="s", token="t1")  # type: ignore[arg-type]
        await store.move([settle], now=T0)
        job = await record(store, "s")
        assert (job.suspect, job.lapses) == (False, 1)

    @pytest.mark.parametrize("event", ["snooze", "release"])
    @on_a_store
    async def test_a_run_that_did_not_reach_its_handler_clears_nothing(
        self, store: Store, event: str
    ) -> None:
        await self._suspect(store, "s")
        await claim(store)
        settle = Move(event=event, job_id="s", token="t1", untried=True)  # type: ignore[arg-type]
        await store.move([settle], now=T0)
        assert (await record(store, "s")).suspect
        assert ids((await claim(store, "t2", room="busy")).claims) == []
        assert ids((await claim(store, "t3", room="idle")).claims) == ["s"]
