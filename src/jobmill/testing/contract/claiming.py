"""What `claim` promises, but for suspects and lapsed leases."""

from __future__ import annotations

import asyncio

import pytest

from jobmill.states import Move
from jobmill.store import MATURE_LIMIT, Lease, Moved, Store
from jobmill.testing.contract.case import (
    T0,
    StoreCase,
    a_job,
    a_want,
    claim,
    ids,
    move,
    on_a_store,
    record,
    running,
    some_jobs,
    state,
)


class ClaimContract(StoreCase):
    """Jobs are handed out in order, each to one worker."""

    @on_a_store
    async def test_a_claim_starts_an_attempt(self, store: Store) -> None:
        await store.add([a_job(metadata={"k": "v"}, priority=2, unique_key="u")], now=T0)
        claimed = await claim(store, "t1", now=T0 + 3)
        assert claimed.now == T0 + 3
        (run,) = claimed.claims
        assert (run.id, run.name, run.token, run.attempt) == ("j1", "a", "t1", 1)
        assert (run.enqueued_at, run.run_at, run.started_at) == (T0, T0, T0 + 3)
        assert (run.lapses, run.suspect, run.asked, run.memo) == (0, False, False, None)
        assert (run.priority, run.unique_key, run.metadata) == (2, "u", {"k": "v"})
        job = await record(store, now=T0 + 3)
        assert (job.state, job.token, job.worker, job.attempts) == ("processing", "t1", "w1", 1)
        assert (job.lease_until, job.started_at, job.run_at) == (T0 + 33, T0 + 3, T0)

    @on_a_store
    async def test_an_empty_queue_gives_nothing(self, store: Store) -> None:
        claimed = await claim(store)
        assert (claimed.claims, claimed.lapsed, claimed.moved) == ((), (), ())
        assert (claimed.next_due, claimed.suspect_waits, claimed.asked) == (None, False, ())

    @on_a_store
    async def test_a_claimed_job_is_not_claimed_again(self, store: Store) -> None:
        await running(store)
        assert (await claim(store, "t2")).claims == ()

    @on_a_store
    async def test_attempts_count_the_runs(self, store: Store) -> None:
        await running(store)
        await move(store, "retry", token="t1")
        (run,) = (await claim(store, "t2")).claims
        assert run.attempt == 2

    @on_a_store
    async def test_the_lower_priority_number_goes_first(self, store: Store) -> None:
        jobs = [a_job(f"p{n}", priority=n) for n in (5, -3, 0, 10, -10)]
        await store.add(jobs, now=T0)
        assert ids((await claim(store)).claims) == ["p-10", "p-3", "p0", "p5", "p10"]

    @on_a_store
    async def test_at_equal_priority_the_first_due_goes_first(self, store: Store) -> None:
        await store.add(
            [
                a_job("third", delay=3.0),
                a_job("first", delay=1.0),
                a_job("second", run_at=T0 + 2),
            ],
            now=T0,
        )
        await store.add([a_job("fourth")], now=T0 + 4)
        claimed = await claim(store, now=T0 + 5)
        assert ids(claimed.claims) == ["first", "second", "third", "fourth"]

    @on_a_store
    async def test_at_equal_instants_the_first_accepted_goes_first(self, store: Store) -> None:
        await store.add([a_job("z"), a_job("a")], now=T0)
        await store.add([a_job("m", "b")], now=T0)
        await store.add([a_job("c")], now=T0)
        assert ids((await claim(store)).claims) == ["z", "a", "m", "c"]

    @on_a_store
    async def test_priority_goes_before_age_and_across_names(self, store: Store) -> None:
        await store.add([a_job("old", "a", priority=1)], now=T0)
        await store.add([a_job("young", "b", priority=0)], now=T0 + 9)
        assert ids((await claim(store, now=T0 + 9)).claims) == ["young", "old"]

    @on_a_store
    async def test_the_order_holds_from_claim_to_claim(self, store: Store) -> None:
        jobs = [a_job(f"j{n}", "ab"[n % 2], priority=n % 3) for n in range(12)]
        await store.add(jobs, now=T0)
        got: list[str] = []
        for number in range(6):
            got += ids((await claim(store, f"t{number}", limit=2)).claims)
        expected = sorted(jobs, key=lambda job: (job.priority, int(job.id[1:])))
        assert got == [job.id for job in expected]

    @on_a_store
    async def test_a_released_job_keeps_its_place(self, store: Store) -> None:
        await store.add(some_jobs(3), now=T0)
        await claim(store, limit=1)
        await move(store, "release", token="t1", now=T0 + 5)
        assert ids((await claim(store, "t2", now=T0 + 6)).claims) == ["j1", "j2", "j3"]

    @on_a_store
    async def test_a_retried_job_stands_where_it_came_due(self, store: Store) -> None:
        await store.add([a_job("j1")], now=T0)
        await claim(store, limit=1)
        await move(store, "retry", token="t1", delay=10.0)
        await store.add([a_job("j2")], now=T0 + 5)
        await store.add([a_job("j3")], now=T0 + 11)
        assert ids((await claim(store, "t2", now=T0 + 12)).claims) == ["j2", "j1", "j3"]

    @on_a_store
    async def test_no_more_than_the_limit(self, store: Store) -> None:
        await store.add(some_jobs(5), now=T0)
        assert ids((await claim(store, "t1", limit=2)).claims) == ["j1", "j2"]
        assert ids((await claim(store, "t2", limit=0)).claims) == []
        assert ids((await claim(store, "t3", limit=9)).claims) == ["j3", "j4", "j5"]

    @on_a_store
    async def test_names_restrict(self, store: Store) -> None:
        await store.add([a_job("a1", "a"), a_job("b1", "b"), a_job("c1", "c")], now=T0)
        assert ids((await claim(store, "t1", names=())).claims) == []
        assert ids((await claim(store, "t2", names=("x",))).claims) == []
        assert ids((await claim(store, "t3", names=("c", "b", "x"))).claims) == ["b1", "c1"]
        assert ids((await claim(store, "t4")).claims) == ["a1"]

    @on_a_store
    async def test_the_order_holds_among_some_names(self, store: Store) -> None:
        jobs = [
            *(a_job("a1", "a", priority=2), a_job("b1", "b", priority=1), a_job("c1", "c")),
            *(a_job("b2", "b", priority=3), a_job("a2", "a", priority=1), a_job("a3", "a")),
        ]
        await store.add(jobs, now=T0)
        names = ("b", "a")
        assert ids((await claim(store, "t1", names=names, limit=1)).claims) == ["a3"]
        assert ids((await claim(store, "t2", names=names, limit=3)).claims) == ["b1", "a2", "a1"]
        assert ids((await claim(store, "t3", names=names, limit=3)).claims) == ["b2"]

    @on_a_store
    async def test_a_claimed_job_is_claimed_neither_with_its_name_nor_without(
        self, store: Store
    ) -> None:
        await store.add(some_jobs(2), now=T0)
        assert ids((await claim(store, "t1", limit=1)).claims) == ["j1"]
        assert ids((await claim(store, "t2", names=("a",))).claims) == ["j2"]
        assert (await claim(store, "t3")).claims == ()
        assert (await claim(store, "t4", names=("a",))).claims == ()

    @on_a_store
    async def test_many_jobs_of_another_name_hide_nothing(self, store: Store) -> None:
        await store.add([*some_jobs(1_500, priority=-1), a_job("b1", "b")], now=T0)
        assert ids((await claim(store, names=("b",))).claims) == ["b1"]

    @on_a_store
    async def test_a_job_is_not_claimed_before_it_is_due(self, store: Store) -> None:
        await store.add([a_job(delay=5.0)], now=T0)
        claimed = await claim(store, "t1", now=T0 + 4.5)
        assert (claimed.claims, claimed.next_due) == ((), T0 + 5)
        claimed = await claim(store, "t2", now=T0 + 5)
        assert (ids(claimed.claims), claimed.next_due) == (["j1"], None)

    @on_a_store
    async def test_a_retry_is_not_claimed_before_its_delay(self, store: Store) -> None:
        await running(store)
        await move(store, "retry", token="t1", delay=5.0)
        assert (await claim(store, "t2", now=T0 + 4.5)).next_due == T0 + 5
        assert ids((await claim(store, "t3", now=T0 + 5)).claims) == ["j1"]

    @on_a_store
    async def test_next_due_is_the_next_of_the_whole_queue(self, store: Store) -> None:
        await store.add([a_job("j1", "a", delay=9.0), a_job("j2", "b", delay=4.0)], now=T0)
        assert (await claim(store, "t1", names=("a",))).next_due == T0 + 4
        await move(store, "cancel", "j2")
        assert (await claim(store, "t2")).next_due == T0 + 9
        await move(store, "cancel", "j1")
        assert (await claim(store, "t3")).next_due is None

    @on_a_store
    async def test_a_claim_makes_a_thousand_due_jobs_pending_at_most(self, store: Store) -> None:
        await store.add(some_jobs(MATURE_LIMIT + 1, delay=1.0), now=T0)
        assert (await store.counts(now=T0 + 2)).states == {"pending": MATURE_LIMIT + 1}
        first = await claim(store, "t1", limit=2 * MATURE_LIMIT, now=T0 + 2)
        assert len(first.claims) == MATURE_LIMIT
        assert first.next_due == T0 + 1
        assert (await store.counts(now=T0 + 2)).states["pending"] == 1
        second = await claim(store, "t2", limit=2 * MATURE_LIMIT, now=T0 + 2)
        assert len(second.claims) == 1
        assert second.next_due is None

    @on_a_store
    async def test_a_paused_queue_hands_out_nothing(self, store: Store) -> None:
        await store.add(some_jobs(2), now=T0)
        await store.write("pauses", "*", b"{}", now=T0)
        assert (await claim(store, "t1")).claims == ()
        assert (await store.counts(now=T0)).due == 2
        await store.write("pauses", "*", None, now=T0)
        assert len((await claim(store, "t2")).claims) == 2

    @on_a_store
    async def test_a_paused_name_is_passed_over(self, store: Store) -> None:
        await store.add([a_job("a1", "a"), a_job("b1", "b"), a_job("a2", "a")], now=T0)
        await store.write("pauses", "job:a", b"{}", now=T0)
        assert ids((await claim(store, "t1", names=("a", "b"))).claims) == ["b1"]
        assert ids((await claim(store, "t2", names=("a",))).claims) == []
        assert ids((await claim(store, "t3")).claims) == []
        await store.write("pauses", "job:a", None, now=T0)
        assert ids((await claim(store, "t4")).claims) == ["a1", "a2"]

    @on_a_store
    async def test_a_pause_stops_no_run(self, store: Store) -> None:
        await running(store)
        await store.write("pauses", "*", b"{}", now=T0)
        assert await store.renew([Lease("j1", "t1")], 30.0, now=T0) == ["ok"]
        assert (await move(store, "succeed", token="t1")).status == "applied"

    @on_a_store
    async def test_moves_ride_along_and_are_applied_first(self, store: Store) -> None:
        await store.add(some_jobs(2), now=T0)
        await claim(store, "t1", limit=1)
        settle = [
            Move(event="release", job_id="j1", token="t1"),
            Move(event="succeed", job_id="j2", token="none"),
            Move(event="cancel", job_id="gone"),
        ]
        claimed = await store.claim(a_want("t2"), settle, now=T0)
        assert claimed.moved == (
            Moved("applied", "j1", "pending"),
            Moved("stale", "j2"),
            Moved("missing", "gone"),
        )
        assert ids(claimed.claims) == ["j1", "j2"]

    @on_a_store
    async def test_moves_ride_along_where_nothing_is_claimed(self, store: Store) -> None:
        await running(store)
        await store.write("pauses", "*", b"{}", now=T0)
        settle = [Move(event="succeed", job_id="j1", token="t1")]
        claimed = await store.claim(a_want("t2", limit=0), settle, now=T0)
        assert claimed.moved == (Moved("applied", "j1", "completed"),)
        assert await state(store) == "completed"

    @on_a_store
    async def test_a_repeat_collects_and_claims_nothing_new(self, store: Store) -> None:
        await store.add(some_jobs(4), now=T0)
        first = await claim(store, "t1", limit=2)
        again = await claim(store, "t1", limit=2, repeat=True, now=T0 + 5)
        assert again.claims == first.claims
        assert (await record(store)).lease_until == T0 + 30
        assert (await store.counts(now=T0)).states == {"pending": 2, "processing": 2}

    @on_a_store
    async def test_a_repeat_of_what_was_never_done_gives_nothing(self, store: Store) -> None:
        await store.add(some_jobs(2), now=T0)
        assert (await claim(store, "t1", repeat=True)).claims == ()
        assert (await store.counts(now=T0)).states == {"pending": 2}

    @on_a_store
    async def test_a_repeat_collects_what_still_runs(self, store: Store) -> None:
        await store.add(some_jobs(2), now=T0)
        first = await claim(store, "t1")
        await move(store, "succeed", "j1", "t1")
        again = await claim(store, "t1", repeat=True)
        assert again.claims == first.claims[1:]

    @on_a_store
    async def test_a_repeat_settles_too(self, store: Store) -> None:
        await running(store)
        settle = [Move(event="succeed", job_id="j1", token="t1")]
        claimed = await store.claim(a_want("t2", repeat=True), settle, now=T0)
        assert claimed.moved == (Moved("applied", "j1", "completed"),)
        claimed = await store.claim(a_want("t2", repeat=True), settle, now=T0)
        assert claimed.moved == (Moved("already", "j1", "completed"),)

    @on_a_store
    async def test_asked_tells_a_worker_of_its_own_leases(self, store: Store) -> None:
        await store.add(some_jobs(3), now=T0)
        await claim(store, "t1", limit=2, worker="w1")
        await claim(store, "t2", limit=1, worker="w2")
        for id_ in ("j1", "j3"):
            await move(store, "cancel", id_)
        mine = await claim(store, "t3", worker="w1", limit=0)
        assert mine.asked == (Lease("j1", "t1"),)
        theirs = await claim(store, "t4", worker="w2", limit=0)
        assert theirs.asked == (Lease("j3", "t2"),)
        await move(store, "abort", "j1", "t1")
        assert (await claim(store, "t5", worker="w1", limit=0)).asked == ()

    @on_a_store
    async def test_docs_changes_with_each_document(self, store: Store) -> None:
        seen = [(await claim(store, limit=0)).docs]
        await store.write("schedules", "s", b"1", now=T0)
        seen.append((await claim(store, limit=0)).docs)
        await store.write("schedules", "s", b"1", now=T0)
        seen.append((await claim(store, limit=0)).docs)
        await store.write("schedules", "s", None, now=T0)
        seen.append((await claim(store, limit=0)).docs)
        version = await store.write("schedules", "t", b"1", now=T0)
        assert version
        seen.append((await claim(store, limit=0)).docs)
        await store.tick("t", version, b"2", [], [], now=T0)
        seen.append((await claim(store, limit=0)).docs)
        assert len(set(seen)) == len(seen)
        await store.add([a_job()], now=T0)
        assert (await claim(store, "t9")).docs == seen[-1]

    @on_a_store
    async def test_docs_heeds_no_document_that_workers_do_not_act_on(self, store: Store) -> None:
        await store.write("pauses", "job:none", b"1", now=T0)
        before = (await claim(store, limit=0)).docs
        assert before
        for space in ("workers", "monitors", "audit", "history:s"):
            assert await store.write(space, "k", b"1", now=T0)
            assert await store.write(space, "k", b"2", now=T0)
            assert await store.write(space, "k", None, now=T0) == 0
        assert (await claim(store, limit=0)).docs == before

    @on_a_store
    async def test_the_memo_of_the_last_settle_goes_with_the_next_claim(self, store: Store) -> None:
        await running(store)
        await move(store, "snooze", token="t1", memo=b'{"n":1}')
        (run,) = (await claim(store, "t2")).claims
        assert run.memo == b'{"n":1}'
        await move(store, "retry", token="t2")
        (run,) = (await claim(store, "t3")).claims
        assert run.memo is None

    @pytest.mark.parametrize("limit", [1, 7])
    @on_a_store
    async def test_concurrent_claims_share_the_jobs(self, store: Store, limit: int) -> None:
        await store.add(some_jobs(40), now=T0)
        answers = await asyncio.gather(
            *[claim(store, f"t{n}", worker=f"w{n}", limit=limit) for n in range(10)]
        )
        got = [id_ for answer in answers for id_ in ids(answer.claims)]
        assert len(got) == len(set(got)) == min(40, 10 * limit)
        for answer in answers:
            numbers = [int(id_[1:]) for id_ in ids(answer.claims)]
            assert numbers == sorted(numbers)
