"""What `drop` and `prune` promise."""

from __future__ import annotations

import pytest

from jobmill.policy import Policy
from jobmill.states import ENDED, STATES, State
from jobmill.store import Added, Query, Store
from jobmill.testing.contract.case import (
    T0,
    StoreCase,
    a_job,
    claim,
    ids,
    in_state,
    move,
    on_a_store,
    running,
    some_jobs,
    state,
)


class RemoveContract(StoreCase):
    """Only what may go goes."""

    @pytest.mark.parametrize("wanted", STATES)
    @on_a_store
    async def test_what_runs_is_never_dropped(self, store: Store, wanted: State) -> None:
        await in_state(store, wanted)
        dropped = await store.drop(Query(), limit=10, now=T0)
        assert dropped == (0 if wanted == "processing" else 1)
        assert (await store.get(["j1"], now=T0) == [None]) is bool(dropped)
        by_id = await store.drop(Query(states=("processing",)), ids=["j1"], limit=1, now=T0)
        assert by_id == 0

    @on_a_store
    async def test_the_query_holds(self, store: Store) -> None:
        await in_state(store, "failed", "f", unique_key="k")
        await in_state(store, "completed", "c", name="b")
        await in_state(store, "delayed", "d")
        drop = store.drop
        assert await drop(Query(states=("completed",), name="a"), limit=9, now=T0) == 0
        assert await drop(Query(unique_key="other"), limit=9, now=T0) == 0
        assert await drop(Query(unique_key="k"), limit=9, now=T0) == 1
        assert await drop(Query(name="b"), limit=9, now=T0) == 1
        assert await drop(Query(states=("pending",)), limit=9, now=T0) == 0
        assert await drop(Query(states=("pending",)), limit=9, now=T0 + 3_600) == 1
        assert (await store.counts(now=T0)).states == {}

    @on_a_store
    async def test_the_first_accepted_go_first_up_to_the_limit(self, store: Store) -> None:
        await store.add(some_jobs(5), now=T0)
        assert await store.drop(Query(), limit=2, now=T0) == 2
        page = await store.find(Query(), limit=9, now=T0)
        assert [job.id for job in page.records] == ["j5", "j4", "j3"]
        assert await store.drop(Query(), limit=0, now=T0) == 0

    @on_a_store
    async def test_of_these_ids_only(self, store: Store) -> None:
        await store.add(some_jobs(4), now=T0)
        ids_ = ["j3", "none", "j1", "j3"]
        assert await store.drop(Query(), ids=ids_, limit=9, now=T0) == 2
        assert await store.drop(Query(), ids=[], limit=9, now=T0) == 0
        assert await store.drop(Query(name="b"), ids=["j2"], limit=9, now=T0) == 0
        assert ids((await claim(store)).claims) == ["j2", "j4"]

    @on_a_store
    async def test_what_is_dropped_frees_its_key_and_its_id(self, store: Store) -> None:
        await store.add([a_job(unique_key="k")], now=T0)
        await store.drop(Query(), limit=1, now=T0)
        added = await store.add([a_job("j2", unique_key="k"), a_job("j1", payload=b"1")], now=T0)
        assert added == [Added("added", "j2"), Added("added", "j1")]

    @on_a_store
    async def test_a_dropped_end_frees_no_key_of_another(self, store: Store) -> None:
        await in_state(store, "failed", "j1", unique_key="k")
        await store.add([a_job("j2", unique_key="k")], now=T0)
        await store.drop(Query(), ids=["j1"], limit=1, now=T0)
        assert await store.add([a_job("j3", unique_key="k")], now=T0) == [Added("held", "j2")]

    @on_a_store
    async def test_what_is_dropped_is_neither_claimed_nor_moved(self, store: Store) -> None:
        await store.add([a_job("j1"), a_job("j2", delay=5.0)], now=T0)
        assert await store.drop(Query(), limit=9, now=T0) == 2
        claimed = await claim(store, now=T0 + 9)
        assert (claimed.claims, claimed.next_due) == ((), None)
        assert (await move(store, "cancel")).status == "missing"

    # ------------------------------------------------------------------ prune

    @pytest.mark.parametrize(
        ("wanted", "kept"), [("completed", 100.0), ("failed", 200.0), ("cancelled", 200.0)]
    )
    @on_a_store
    async def test_an_end_is_kept_for_its_time(
        self, store: Store, wanted: State, kept: float
    ) -> None:
        await in_state(store, wanted, policy=Policy(keep_result=100.0, keep_failed=200.0))
        assert await store.prune(10, now=T0 + kept - 0.5) == 0
        assert await state(store) == wanted
        assert await store.prune(10, now=T0 + kept) == 1
        assert await store.get(["j1"], now=T0) == [None]

    @pytest.mark.parametrize("wanted", sorted(set(STATES) - ENDED))
    @on_a_store
    async def test_live_work_is_never_pruned(self, store: Store, wanted: State) -> None:
        await in_state(store, wanted, policy=Policy(keep_result=0.0, keep_failed=0.0))
        assert await store.prune(10, now=T0 + 10 * 366 * 86_400) == 0
        assert len((await store.find(Query(), limit=1, now=T0)).records) == 1

    @on_a_store
    async def test_a_revived_job_is_not_pruned(self, store: Store) -> None:
        await in_state(store, "failed", policy=Policy(keep_failed=10.0))
        await move(store, "revive", now=T0 + 5)
        assert await store.prune(10, now=T0 + 99) == 0
        await claim(store, "t2", now=T0 + 99)
        await move(store, "fail", token="t2", now=T0 + 100)
        assert await store.prune(10, now=T0 + 109) == 0
        assert await store.prune(10, now=T0 + 110) == 1

    @on_a_store
    async def test_at_most_the_limit_the_first_due_first(self, store: Store) -> None:
        for id_, keep in (("j1", 30.0), ("j2", 10.0), ("j3", 20.0)):
            await in_state(store, "completed", id_, policy=Policy(keep_result=keep))
        assert await store.prune(2, now=T0 + 30) == 2
        assert await state(store, "j1") == "completed"
        assert await store.prune(2, now=T0 + 30) == 1
        assert await store.prune(2, now=T0 + 30) == 0

    @on_a_store
    async def test_what_is_pruned_frees_its_id_and_no_key_of_another(self, store: Store) -> None:
        await in_state(store, "completed", unique_key="k", policy=Policy(keep_result=1.0))
        await store.add([a_job("j2", unique_key="k")], now=T0)
        assert await store.prune(10, now=T0 + 1) == 1
        added = await store.add([a_job("j1", payload=b"1"), a_job("j3", unique_key="k")], now=T0)
        assert added == [Added("added", "j1"), Added("held", "j2")]

    @on_a_store
    async def test_figures_survive_the_records(self, store: Store) -> None:
        await running(store, policy=Policy(keep_failed=1.0))
        await move(store, "fail", token="t1", error=b"1", fingerprint="f")
        assert await store.prune(10, now=T0 + 10) == 1
        assert [event.job_id for event in await store.events(0, 10)] == ["j1"]
        assert [group.count for group in await store.errors(10)] == [1]
        assert sum(bucket.failed for bucket in await store.metrics(T0)) == 1

    @on_a_store
    async def test_events_are_kept_for_an_hour(self, store: Store) -> None:
        await in_state(store, "completed")
        await store.prune(10, now=T0 + 3_599)
        assert len(await store.events(0, 10)) == 1

    @on_a_store
    async def test_figures_are_kept_for_their_time(self, store: Store) -> None:
        await running(store)
        await move(store, "fail", token="t1", error=b"1", fingerprint="f")
        await store.prune(10, now=T0 + 8 * 86_400)
        assert sum(bucket.failed for bucket in await store.metrics(0.0)) == 1
        await store.prune(10, now=T0 + 8 * 86_400 + 61)
        assert await store.metrics(0.0) == []
        assert await store.events(0, 10) == []
        assert len(await store.errors(10)) == 1
        await store.prune(10, now=T0 + 30 * 86_400 + 1)
        assert await store.errors(10) == []
