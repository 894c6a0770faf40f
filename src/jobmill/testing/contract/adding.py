"""What `add` promises."""

from __future__ import annotations

import asyncio

import pytest

from jobmill.policy import Policy
from jobmill.states import ENDED, Event, State
from jobmill.store import Added, Store
from jobmill.testing.contract.case import (
    T0,
    StoreCase,
    a_job,
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

ODD_TEXT = "NUL \x00, quotes ' \" ` , braces {} * % : ; \\ \n\t, \u202e RTL, \U0001f9ea, é"
_PUT_OFF: tuple[Event, ...] = ("retry", "snooze", "release", "lapse")


class AddContract(StoreCase):
    """Jobs are stored once, whole, and exactly as given."""

    @on_a_store
    async def test_a_job_is_pending_at_once(self, store: Store) -> None:
        assert await store.add([a_job()], now=T0) == [Added("added", "j1")]
        job = await record(store)
        assert (job.state, job.run_at, job.enqueued_at) == ("pending", T0, T0)
        assert (job.attempts, job.lapses, job.generation) == (0, 0, 1)
        assert (job.token, job.worker, job.lease_until, job.started_at) == (None,) * 4
        assert (job.ended_at, job.expires_at, job.result, job.errors) == (None, None, None, ())
        assert not job.suspect
        assert not job.asked

    @on_a_store
    async def test_nothing_added_is_nothing_answered(self, store: Store) -> None:
        assert await store.add([], now=T0) == []

    @on_a_store
    async def test_a_delay_counts_from_the_stores_now(self, store: Store) -> None:
        await store.add([a_job(delay=5.0)], now=T0)
        job = await record(store)
        assert (job.state, job.run_at) == ("delayed", T0 + 5)

    @on_a_store
    async def test_run_at_is_an_instant(self, store: Store) -> None:
        await store.add([a_job(run_at=T0 + 7.5)], now=T0)
        job = await record(store)
        assert (job.state, job.run_at) == ("delayed", T0 + 7.5)

    @on_a_store
    async def test_an_instant_that_is_past_means_now(self, store: Store) -> None:
        await store.add([a_job("old", run_at=T0 - 100), a_job("none", delay=0.0)], now=T0)
        for id_ in ("old", "none"):
            job = await record(store, id_)
            assert (job.state, job.run_at) == ("pending", T0)

    @on_a_store
    async def test_a_delayed_job_that_is_due_is_pending_in_every_answer(self, store: Store) -> None:
        await store.add([a_job(delay=5.0)], now=T0)
        assert await state(store, now=T0 + 4.5) == "delayed"
        assert await state(store, now=T0 + 5) == "pending"

    @on_a_store
    async def test_the_same_id_name_and_payload_again_is_the_same(self, store: Store) -> None:
        await store.add([a_job(priority=3)], now=T0)
        again = await store.add([a_job(priority=9, delay=60.0)], now=T0 + 1)
        assert again == [Added("same", "j1")]
        job = await record(store, now=T0 + 1)
        assert (job.priority, job.state, job.enqueued_at) == (3, "pending", T0)

    @pytest.mark.parametrize("wanted", ["delayed", "pending", "processing", *sorted(ENDED)])
    @on_a_store
    async def test_an_id_is_taken_in_every_state(self, store: Store, wanted: State) -> None:
        await in_state(store, wanted)
        before = await record(store)
        assert await store.add([a_job()], now=T0) == [Added("same", "j1")]
        assert await store.add([a_job(payload=b"[]")], now=T0) == [Added("conflict", "j1")]
        assert await record(store) == before

    @on_a_store
    async def test_an_id_with_another_name_or_payload_is_a_conflict(self, store: Store) -> None:
        await store.add([a_job()], now=T0)
        assert await store.add([a_job(name="b")], now=T0) == [Added("conflict", "j1")]
        assert await store.add([a_job(payload=b"1")], now=T0) == [Added("conflict", "j1")]
        job = await record(store)
        assert (job.name, job.payload) == ("a", b"{}")

    @on_a_store
    async def test_a_conflict_leaves_the_others_be(self, store: Store) -> None:
        await store.add([a_job("j2", payload=b"1")], now=T0)
        added = await store.add(some_jobs(3), now=T0)
        assert [answer.status for answer in added] == ["added", "conflict", "added"]
        assert await state(store, "j3") == "pending"

    @on_a_store
    async def test_whole_stores_nothing_where_one_is_a_conflict(self, store: Store) -> None:
        await store.add([a_job("j2", payload=b"1"), a_job("j4", unique_key="k")], now=T0)
        jobs = [*some_jobs(3), a_job("j4", unique_key="k"), a_job("j5", unique_key="k")]
        assert await store.add(jobs, whole=True, now=T0) == [
            Added("dropped", "j1"),
            Added("conflict", "j2"),
            Added("dropped", "j3"),
            Added("same", "j4"),
            Added("held", "j4"),
        ]
        assert await store.get(["j1", "j3", "j5"], now=T0) == [None, None, None]

    @on_a_store
    async def test_what_depends_on_a_dropped_job_is_dropped_too(self, store: Store) -> None:
        first = a_job("j1", unique_key="k")
        jobs = [first, first, a_job("j2", unique_key="k"), a_job("j1", payload=b"1")]
        assert await store.add(jobs, whole=True, now=T0) == [
            Added("dropped", "j1"),
            Added("dropped", "j1"),
            Added("dropped", "j2"),
            Added("conflict", "j1"),
        ]
        assert await store.get(["j1", "j2"], now=T0) == [None, None]
        again = await store.add([a_job("j3", unique_key="k")], now=T0)
        assert again == [Added("added", "j3")]

    @on_a_store
    async def test_whole_without_a_conflict_stores_all(self, store: Store) -> None:
        await store.add([a_job("j2")], now=T0)
        added = await store.add(some_jobs(3), whole=True, now=T0)
        assert [answer.status for answer in added] == ["added", "same", "added"]
        assert await state(store, "j3") == "pending"

    @on_a_store
    async def test_a_held_unique_key_answers_with_its_holder(self, store: Store) -> None:
        await store.add([a_job("j1", unique_key="k")], now=T0)
        assert await store.add([a_job("j2", unique_key="k")], now=T0) == [Added("held", "j1")]
        assert await store.get(["j2"], now=T0) == [None]

    @on_a_store
    async def test_a_unique_key_belongs_to_a_job_name(self, store: Store) -> None:
        await store.add([a_job("j1", "a", unique_key="k")], now=T0)
        added = await store.add([a_job("j2", "b", unique_key="k"), a_job("j3", "a")], now=T0)
        assert [answer.status for answer in added] == ["added", "added"]

    @on_a_store
    async def test_a_held_job_leaves_its_id_to_a_later_one_of_the_call(self, store: Store) -> None:
        jobs = [a_job("j1", unique_key="k"), a_job("j2", unique_key="k"), a_job("j2")]
        assert await store.add(jobs, now=T0) == [
            Added("added", "j1"),
            Added("held", "j1"),
            Added("added", "j2"),
        ]

    @on_a_store
    async def test_the_id_is_looked_at_before_the_unique_key(self, store: Store) -> None:
        await store.add([a_job("j1", unique_key="k"), a_job("j2")], now=T0)
        assert await store.add(
            [a_job("j1", unique_key="k"), a_job("j2", unique_key="k")], now=T0
        ) == [Added("same", "j1"), Added("same", "j2")]
        assert await store.add([a_job("j2", payload=b"1", unique_key="k")], now=T0) == [
            Added("conflict", "j2")
        ]

    @on_a_store
    async def test_jobs_of_one_call_count_among_themselves(self, store: Store) -> None:
        jobs = [
            a_job("j1", unique_key="k"),
            a_job("j1", unique_key="k"),
            a_job("j1", payload=b"1"),
            a_job("j2", unique_key="k"),
            a_job("j3"),
        ]
        assert await store.add(jobs, now=T0) == [
            Added("added", "j1"),
            Added("same", "j1"),
            Added("conflict", "j1"),
            Added("held", "j1"),
            Added("added", "j3"),
        ]
        counts = await store.counts(now=T0)
        assert counts.states == {"pending": 2}

    @pytest.mark.parametrize("wanted", ["delayed", "pending", "processing"])
    @on_a_store
    async def test_an_unfinished_job_holds_its_key(self, store: Store, wanted: State) -> None:
        await in_state(store, wanted, unique_key="k")
        assert await store.add([a_job("j2", unique_key="k")], now=T0) == [Added("held", "j1")]

    @pytest.mark.parametrize("wanted", sorted(ENDED))
    @on_a_store
    async def test_the_key_is_free_after_every_end(self, store: Store, wanted: State) -> None:
        await in_state(store, wanted, unique_key="k")
        assert await store.add([a_job("j2", unique_key="k")], now=T0) == [Added("added", "j2")]
        assert (await record(store)).unique_key == "k"
        assert await store.add([a_job("j3", unique_key="k")], now=T0) == [Added("held", "j2")]

    @on_a_store
    async def test_the_key_is_held_through_retry_snooze_release_and_lapse(
        self, store: Store
    ) -> None:
        await store.add([a_job(unique_key="k")], now=T0)
        now = T0
        for number, event in enumerate(_PUT_OFF):
            claimed = await claim(store, f"t{number}", now=now)
            assert ids(claimed.claims) == ["j1"]
            moved = await move(store, event, token=f"t{number}", delay=1.0, now=now)
            assert moved.status == "applied"
            assert await store.add([a_job("j2", unique_key="k")], now=now) == [Added("held", "j1")]
            now += 1

    @on_a_store
    async def test_the_key_is_free_after_a_cancel_without_a_run(self, store: Store) -> None:
        await store.add([a_job(unique_key="k")], now=T0)
        await move(store, "cancel")
        assert await store.add([a_job("j2", unique_key="k")], now=T0) == [Added("added", "j2")]

    @on_a_store
    async def test_the_key_is_free_after_an_asked_run_was_put_off(self, store: Store) -> None:
        run = await running(store, unique_key="k")
        await move(store, "cancel")
        await move(store, "retry", token=run.token)
        assert await store.add([a_job("j2", unique_key="k")], now=T0) == [Added("added", "j2")]

    @on_a_store
    async def test_everything_comes_back_exactly(self, store: Store) -> None:
        policy = Policy(
            max_attempts=9,
            timeout=1.5,
            retry_delay=0.25,
            backoff="linear",
            max_retry_delay=7.0,
            jitter=0.0,
            keep_result=1.0,
            keep_failed=2.0,
            max_lapses=1,
            on_lapse="fail",
            abort_grace=0.5,
        )
        new = a_job(
            "0199f3a1-7c3e-7d2a-9b4f-3a6f0c1d2e4b",
            "mod.fn:v1-x_Y",
            payload=ODD_TEXT.encode() + bytes(range(256)),
            policy=policy,
            priority=-(2**31),
            unique_key=ODD_TEXT + "k" * 200,
            metadata={"traceparent": "00-1-2-03", ODD_TEXT: ODD_TEXT, "": ""},
        )
        await store.add([new], now=T0)
        (run,) = (await claim(store)).claims
        for got in (await record(store, new.id), run):
            assert got.id == new.id
            assert got.name == new.name
            assert got.payload == new.payload
            assert got.policy == policy
            assert got.priority == new.priority
            assert got.unique_key == new.unique_key
            assert got.metadata == new.metadata
        again = await store.add([a_job("other", new.name, unique_key=new.unique_key)], now=T0)
        assert again == [Added("held", new.id)]

    @pytest.mark.parametrize("payload", [b"", b"null", b"\x00", b'"\\u0000"', b"x" * 1_048_576])
    @on_a_store
    async def test_a_payload_comes_back_exactly(self, store: Store, payload: bytes) -> None:
        await store.add([a_job(payload=payload)], now=T0)
        assert (await record(store)).payload == payload
        (run,) = (await claim(store)).claims
        assert run.payload == payload
        await move(store, "succeed", token=run.token, result=payload)
        assert (await record(store)).result == payload

    @on_a_store
    async def test_what_the_caller_changes_later_changes_nothing(self, store: Store) -> None:
        metadata = {"a": "1"}
        await store.add([a_job(metadata=metadata)], now=T0)
        metadata["a"] = "2"
        assert (await record(store)).metadata == {"a": "1"}

    @on_a_store
    async def test_many_at_once_keep_their_order(self, store: Store) -> None:
        jobs = some_jobs(2_500)
        added = await store.add(jobs, now=T0)
        assert [answer.job_id for answer in added] == [job.id for job in jobs]
        assert ids((await claim(store, limit=2_500)).claims) == [job.id for job in jobs]

    @on_a_store
    async def test_ten_producers_with_one_id_make_one_job(self, store: Store) -> None:
        answers = await asyncio.gather(*[store.add([a_job()], now=T0) for _ in range(10)])
        statuses = sorted(answer.status for (answer,) in answers)
        assert statuses == ["added", *["same"] * 9]
        assert (await store.counts(now=T0)).states == {"pending": 1}

    @on_a_store
    async def test_ten_producers_with_one_unique_key_make_one_job(self, store: Store) -> None:
        answers = await asyncio.gather(
            *[store.add([job], now=T0) for job in some_jobs(10, unique_key="k")]
        )
        (winner,) = [answer for (answer,) in answers if answer.status == "added"]
        losers = [answer for (answer,) in answers if answer.status != "added"]
        assert losers == [Added("held", winner.job_id)] * 9
        assert (await store.counts(now=T0)).states == {"pending": 1}

    @on_a_store
    async def test_requests_with_ids_of_their_own_make_a_job_each(self, store: Store) -> None:
        await asyncio.gather(*[store.add([job], now=T0) for job in some_jobs(10)])
        assert (await store.counts(now=T0)).states == {"pending": 10}
