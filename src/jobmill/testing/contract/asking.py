"""What `get`, `find` and `counts` promise."""

from __future__ import annotations

import pytest

from jobmill.errors import ConfigError
from jobmill.states import STATES, State
from jobmill.store import Page, Query, Store
from jobmill.testing.contract.case import (
    T0,
    StoreCase,
    a_job,
    claim,
    in_state,
    move,
    on_a_store,
    record,
    running,
    some_jobs,
)


def _ids(page: Page) -> list[str]:
    return [job.id for job in page.records]


class AskContract(StoreCase):
    """Answers are exact, and a delayed job that is due is pending in each."""

    @on_a_store
    async def test_records_come_in_the_order_asked(self, store: Store) -> None:
        await store.add(some_jobs(3), now=T0)
        got = await store.get(["j3", "none", "j1", "j3"], now=T0)
        assert [job and job.id for job in got] == ["j3", None, "j1", "j3"]
        assert await store.get([], now=T0) == []

    @on_a_store
    async def test_the_newest_is_found_first(self, store: Store) -> None:
        await store.add([a_job("z"), a_job("a", delay=5.0)], now=T0)
        await store.add([a_job("m", priority=-5)], now=T0)
        page = await store.find(Query(), limit=10, now=T0)
        assert (_ids(page), page.cursor) == (["m", "a", "z"], None)
        assert page.records[0] == await record(store, "m")

    @on_a_store
    async def test_a_revive_keeps_its_place(self, store: Store) -> None:
        await store.add(some_jobs(3), now=T0)
        await move(store, "cancel", "j1")
        await move(store, "revive", "j1", now=T0 + 5)
        assert _ids(await store.find(Query(), limit=10, now=T0 + 5)) == ["j3", "j2", "j1"]

    @on_a_store
    async def test_pages_go_on_after_the_cursor(self, store: Store) -> None:
        await store.add(some_jobs(5), now=T0)
        got: list[list[str]] = []
        cursor = None
        while True:
            page = await store.find(Query(), limit=2, cursor=cursor, now=T0)
            got.append(_ids(page))
            cursor = page.cursor
            if cursor is None:
                break
        assert got == [["j5", "j4"], ["j3", "j2"], ["j1"]]

    @on_a_store
    async def test_the_last_page_has_no_cursor_also_when_it_is_full(self, store: Store) -> None:
        await store.add(some_jobs(4), now=T0)
        page = await store.find(Query(), limit=2, now=T0)
        page = await store.find(Query(), limit=2, cursor=page.cursor, now=T0)
        assert (_ids(page), page.cursor) == (["j2", "j1"], None)
        assert await store.find(Query(name="none"), limit=2, now=T0) == Page(records=())

    @on_a_store
    async def test_what_is_added_meanwhile_is_never_seen(self, store: Store) -> None:
        await store.add(some_jobs(4), now=T0)
        page = await store.find(Query(), limit=2, now=T0)
        assert _ids(page) == ["j4", "j3"]
        await store.add([a_job("new")], now=T0)
        page = await store.find(Query(), limit=2, cursor=page.cursor, now=T0)
        assert (_ids(page), page.cursor) == (["j2", "j1"], None)

    @on_a_store
    async def test_what_is_removed_meanwhile_hides_nothing(self, store: Store) -> None:
        await store.add(some_jobs(6), now=T0)
        page = await store.find(Query(), limit=2, now=T0)
        assert _ids(page) == ["j6", "j5"]
        await store.drop(Query(), ids=["j6", "j5", "j4"], limit=9, now=T0)
        page = await store.find(Query(), limit=2, cursor=page.cursor, now=T0)
        assert _ids(page) == ["j3", "j2"]
        page = await store.find(Query(), limit=2, cursor=page.cursor, now=T0)
        assert (_ids(page), page.cursor) == (["j1"], None)

    @pytest.mark.parametrize("cursor", ["nonsense", "", "-1", "1.5", "\u0661", "None"])
    @on_a_store
    async def test_a_foreign_cursor_is_refused(self, store: Store, cursor: str) -> None:
        await store.add([a_job()], now=T0)
        with pytest.raises(ConfigError) as caught:
            await store.find(Query(), limit=2, cursor=cursor, now=T0)
        assert caught.value.field == "cursor"

    @on_a_store
    async def test_all_conditions_hold_at_once(self, store: Store) -> None:
        await in_state(store, "failed", "f1", name="a", unique_key="k")
        await in_state(store, "completed", "c1", name="a", unique_key="k")
        await in_state(store, "failed", "f2", name="b", unique_key="k")
        await in_state(store, "delayed", "d1", name="a")

        async def found(query: Query) -> list[str]:
            return _ids(await store.find(query, limit=10, now=T0))

        assert await found(Query(states=("failed",))) == ["f2", "f1"]
        assert await found(Query(states=("failed", "completed"))) == ["f2", "c1", "f1"]
        assert await found(Query(states=())) == []
        assert await found(Query(name="a")) == ["d1", "c1", "f1"]
        assert await found(Query(unique_key="k")) == ["f2", "c1", "f1"]
        assert await found(Query(unique_key="K")) == []
        assert await found(Query(states=("failed",), name="a", unique_key="k")) == ["f1"]

    @on_a_store
    async def test_a_fingerprint_is_that_of_the_last_error(self, store: Store) -> None:
        await running(store, "j1")
        await move(store, "retry", "j1", "t1", error=b"1", fingerprint="f")
        await claim(store, "t2")
        await move(store, "fail", "j1", "t2", error=b"2", fingerprint="g")
        await running(store, "j2")
        await move(store, "fail", "j2", "t-j2", error=b"3", fingerprint="f")
        assert _ids(await store.find(Query(fingerprint="f"), limit=9, now=T0)) == ["j2"]
        assert _ids(await store.find(Query(fingerprint="g"), limit=9, now=T0)) == ["j1"]

    @on_a_store
    async def test_due_jobs_are_found_and_counted_as_pending(self, store: Store) -> None:
        await store.add([a_job("j1", delay=5.0), a_job("j2", delay=9.0)], now=T0)
        for now, pending, delayed in ((T0 + 4, [], ["j2", "j1"]), (T0 + 5, ["j1"], ["j2"])):
            assert _ids(await store.find(Query(states=("pending",)), limit=9, now=now)) == pending
            assert _ids(await store.find(Query(states=("delayed",)), limit=9, now=now)) == delayed
            counts = await store.counts(now=now)
            assert counts.states.get("pending", 0) == counts.due == len(pending)
            assert counts.states.get("delayed", 0) == len(delayed)
            assert counts.oldest_due == (T0 + 5 if pending else None)
            assert counts.now == now

    @on_a_store
    async def test_counts_are_by_state_and_by_name(self, store: Store) -> None:
        for number, wanted in enumerate(sorted(STATES, key="pending".__eq__)):
            await in_state(store, wanted, f"a{number}", name="a")
        await store.add([a_job("b1", "b"), a_job("b2", "b")], now=T0)
        counts = await store.counts(now=T0)
        every: dict[State, int] = dict.fromkeys(STATES, 1)
        assert counts.states == {**every, "pending": 3}
        assert counts.by_name == {"a": every, "b": {"pending": 2}}
        assert (counts.due, counts.oldest_due) == (3, T0)

    @on_a_store
    async def test_counts_of_nothing(self, store: Store) -> None:
        counts = await store.counts(now=T0)
        assert (counts.states, counts.by_name, counts.due, counts.oldest_due) == ({}, {}, 0, None)
        await store.add([a_job()], now=T0)
        await store.drop(Query(), limit=1, now=T0)
        counts = await store.counts(now=T0)
        assert (counts.states, counts.by_name) == ({}, {})

    @on_a_store
    async def test_counts_hold_to_the_query(self, store: Store) -> None:
        await in_state(store, "failed", "f", name="a", unique_key="k")
        await store.add([a_job("p1", "a"), a_job("p2", "b")], now=T0 + 1)
        counts = await store.counts(Query(name="a"), now=T0 + 1)
        assert counts.by_name == {"a": {"failed": 1, "pending": 1}}
        assert (counts.due, counts.oldest_due) == (1, T0 + 1)
        counts = await store.counts(Query(states=("failed", "completed")), now=T0 + 1)
        assert (counts.states, counts.due, counts.oldest_due) == ({"failed": 1}, 0, None)
        counts = await store.counts(Query(unique_key="k"), now=T0 + 1)
        assert counts.states == {"failed": 1}

    @on_a_store
    async def test_the_oldest_due_is_the_oldest_whatever_its_priority(self, store: Store) -> None:
        await store.add([a_job("late", priority=-5)], now=T0 + 9)
        await store.add([a_job("old", "b", priority=5)], now=T0)
        assert (await store.counts(now=T0 + 9)).oldest_due == T0
        await move(store, "cancel", "old")
        assert (await store.counts(now=T0 + 9)).oldest_due == T0 + 9
