"""What `read`, `write` and `tick` promise."""

from __future__ import annotations

import asyncio

from jobmill.store import Added, Store, Ticked
from jobmill.testing.contract.adding import ODD_TEXT
from jobmill.testing.contract.case import (
    T0,
    StoreCase,
    a_job,
    claim,
    ids,
    on_a_store,
    record,
    some_jobs,
)


async def _version(store: Store, space: str, key: str) -> int:
    return {doc.key: doc.version for doc in await store.read(space)}.get(key, 0)


class DocumentContract(StoreCase):
    """Documents change by compare-and-set; a tick fires once."""

    @on_a_store
    async def test_a_document_comes_back_exactly(self, store: Store) -> None:
        value = bytes(range(256)) + b'"\\u0000"'
        version = await store.write("audit", ODD_TEXT, value, now=T0 + 1)
        assert version
        (doc,) = await store.read("audit")
        assert (doc.key, doc.value, doc.version, doc.at) == (ODD_TEXT, value, version, T0 + 1)
        assert await store.read("other") == []
        await store.write("audit", "empty", b"", now=T0)
        assert (await store.read("audit", after="e"))[0].value == b""

    @on_a_store
    async def test_documents_come_by_key(self, store: Store) -> None:
        keys = ["b", "a", "é", "B", "b:1", "b1", "z", "\U0001f9ea", "\uffff"]
        for key in keys:
            await store.write("s", key, b"1", now=T0)
        ordered = sorted(keys)
        assert [doc.key for doc in await store.read("s")] == ordered
        assert [doc.key for doc in await store.read("s", after="b", limit=2)] == ["b1", "b:1"]
        assert [doc.key for doc in await store.read("s", after="zz")] == ordered[-3:]
        assert [doc.key for doc in await store.read("s", limit=1)] == ["B"]

    @on_a_store
    async def test_a_version_changes_with_each_write_and_never_comes_again(
        self, store: Store
    ) -> None:
        seen: list[int | None] = []
        for value in (b"1", b"1", None, b"1", None, b"2"):
            version = await store.write("s", "k", value, now=T0)
            if value is None:
                assert version == 0
            else:
                seen.append(version)
        assert None not in seen
        assert len(set(seen)) == len(seen)
        assert 0 not in seen

    @on_a_store
    async def test_a_write_by_version_is_compare_and_set(self, store: Store) -> None:
        first = await store.write("s", "k", b"1", version=0, now=T0)
        assert first
        assert await store.write("s", "k", b"2", version=0, now=T0) is None
        second = await store.write("s", "k", b"2", version=first, now=T0)
        assert second
        assert await store.write("s", "k", b"3", version=first, now=T0) is None
        assert await store.write("s", "k", None, version=first, now=T0) is None
        assert [doc.value for doc in await store.read("s")] == [b"2"]
        assert await store.write("s", "k", None, version=second, now=T0) == 0
        assert await store.write("s", "k", b"4", version=second, now=T0) is None
        assert await store.read("s") == []

    @on_a_store
    async def test_removing_what_is_not_there(self, store: Store) -> None:
        assert await store.write("s", "k", None, now=T0) == 0
        assert await store.write("s", "k", None, version=0, now=T0) == 0
        assert await store.write("s", "k", None, version=7, now=T0) is None

    @on_a_store
    async def test_of_ten_writers_one_wins(self, store: Store) -> None:
        answers = await asyncio.gather(
            *[store.write("s", "k", b"%d" % n, version=0, now=T0) for n in range(10)]
        )
        (winner,) = [n for n, version in enumerate(answers) if version is not None]
        (doc,) = await store.read("s")
        assert (doc.value, doc.version) == (b"%d" % winner, answers[winner])

    # ------------------------------------------------------------------ tick

    @on_a_store
    async def test_a_tick_writes_all_at_once(self, store: Store) -> None:
        version = await store.write("schedules", "s", b"1", now=T0)
        assert version
        entries = [("0001", b"e1"), ("0002", b"e2")]
        ticked = await store.tick("s", version, b"2", entries, some_jobs(2), now=T0 + 1)
        assert ticked.version not in (None, 0, version)
        assert ticked.added == (Added("added", "j1"), Added("added", "j2"))
        (doc,) = await store.read("schedules")
        assert (doc.value, doc.version, doc.at) == (b"2", ticked.version, T0 + 1)
        history = await store.read("history:s")
        assert [(entry.key, entry.value) for entry in history] == entries
        assert (await record(store)).enqueued_at == T0 + 1
        assert ids((await claim(store, now=T0 + 1)).claims) == ["j1", "j2"]

    @on_a_store
    async def test_a_tick_of_another_version_writes_nothing(self, store: Store) -> None:
        version = await store.write("schedules", "s", b"1", now=T0)
        assert version
        await store.tick("s", version, b"2", [], [], now=T0)
        for old in (version, version + 1_000, 0):
            ticked = await store.tick("s", old, b"3", [("1", b"e")], [a_job()], now=T0)
            assert ticked == Ticked(version=None)
        assert [doc.value for doc in await store.read("schedules")] == [b"2"]
        assert await store.read("history:s") == []
        assert await store.get(["j1"], now=T0) == [None]

    @on_a_store
    async def test_a_schedule_that_is_gone_does_not_tick(self, store: Store) -> None:
        version = await store.write("schedules", "s", b"1", now=T0)
        assert version
        await store.write("schedules", "s", None, now=T0)
        for old in (version, 0):
            assert (await store.tick("s", old, b"2", [], [a_job()], now=T0)).version is None
        assert await store.read("schedules") == []
        await store.write("schedules", "s", b"3", now=T0)
        assert (await store.tick("s", version, b"2", [], [a_job()], now=T0)).version is None
        assert await store.get(["j1"], now=T0) == [None]

    @on_a_store
    async def test_of_ten_ticks_one_fires(self, store: Store) -> None:
        version = await store.write("schedules", "s", b"1", now=T0)
        assert version
        answers = await asyncio.gather(
            *[store.tick("s", version, b"2", [], [job], now=T0) for job in some_jobs(10)]
        )
        fired = [answer for answer in answers if answer.version is not None]
        assert len(fired) == 1
        assert (await store.counts(now=T0)).states == {"pending": 1}
        assert await _version(store, "schedules", "s") == fired[0].version

    @on_a_store
    async def test_a_tick_fires_though_its_job_is_held(self, store: Store) -> None:
        await store.add([a_job("j1", unique_key="k"), a_job("j2")], now=T0)
        version = await store.write("schedules", "s", b"1", now=T0)
        assert version
        jobs = [a_job("new", unique_key="k"), a_job("j2", payload=b"1"), a_job("j3")]
        ticked = await store.tick("s", version, b"2", [], jobs, now=T0)
        assert ticked.version is not None
        assert ticked.added == (
            Added("held", "j1"),
            Added("conflict", "j2"),
            Added("added", "j3"),
        )

    @on_a_store
    async def test_the_last_of_the_history_is_kept(self, store: Store) -> None:
        version = await store.write("schedules", "s", b"1", now=T0)
        await store.write("history:t", "0", b"1", now=T0)
        for number in range(4):
            assert version
            entries = [(f"{number}{part}", b"e") for part in "ab"]
            version = (await store.tick("s", version, b"1", entries, [], keep=3, now=T0)).version
        history = await store.read("history:s")
        assert [entry.key for entry in history] == ["2b", "3a", "3b"]
        assert len(await store.read("history:t")) == 1
