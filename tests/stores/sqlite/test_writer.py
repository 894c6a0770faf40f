"""One writer for all handles of a file: group commit, loops, wake-ups, closing, forking."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from jobmill.errors import StoreError
from jobmill.states import after_success
from jobmill.store import JOBS, Query, Want, topic_of_job
from jobmill.stores.sqlite import SQLiteStore
from jobmill.stores.sqlite.provision import throwaway
from jobmill.testing import SimClock
from tests.stores.sqlite.conftest import Start, a_job, our_threads
from tests.waiting import PATIENCE

pytestmark = pytest.mark.store("sqlite")


def commits(store: SQLiteStore) -> int:
    assert store._database is not None
    return store._database.writer.commits


async def until_no_thread_is_left() -> None:
    async with asyncio.timeout(PATIENCE):
        for thread in our_threads():
            await asyncio.to_thread(thread.join)


async def test_concurrent_calls_share_commits(store: SQLiteStore) -> None:
    before = commits(store)
    await asyncio.gather(*(store.add([a_job(f"j{n}")]) for n in range(10)))
    # The first may go alone while the others gather.
    assert commits(store) - before <= 3
    assert (await store.counts()).due == 10


async def test_a_call_that_fails_does_not_take_others_with_it(store: SQLiteStore) -> None:
    outcomes = await asyncio.gather(
        store.add([a_job("j1")]),
        store.add([a_job("j2", priority=2**70)]),
        store.add([a_job("\ud800")]),
        store.add([a_job("j3")]),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes] == [list, StoreError, StoreError, list]
    page = await store.find(Query(), limit=10)
    assert {record.id for record in page.records} == {"j1", "j3"}
    assert (await store.counts()).states == {"pending": 2}


async def test_a_cancelled_caller_undoes_nothing(store: SQLiteStore) -> None:
    calls = [asyncio.create_task(store.add([a_job(f"j{n}")])) for n in range(5)]
    await asyncio.sleep(0)
    calls[2].cancel()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(results[2], asyncio.CancelledError)
    assert (await store.counts()).due == 5


async def test_a_verb_that_breaks_is_answered(store: SQLiteStore) -> None:
    with pytest.raises(AttributeError):
        await store.add([None])  # type: ignore[list-item]
    assert (await store.add([a_job("j1")]))[0].status == "added"


async def test_handles_on_other_loops_share_the_writer(store: SQLiteStore) -> None:
    def elsewhere() -> None:
        async def add() -> None:
            other = store.handle("other")
            await other.open()
            await other.add([a_job("j1")])
            await other.close()

        asyncio.run(add())

    before = commits(store)
    await asyncio.to_thread(elsewhere)
    assert commits(store) - before == 1
    assert len(our_threads()) == 2
    assert await store.queues() == ["other"]


async def test_a_closed_loop_harms_nobody(store: SQLiteStore) -> None:
    blocked, release = threading.Event(), threading.Event()

    def hold(turn: object) -> None:
        blocked.set()
        release.wait(10)

    holding = asyncio.create_task(store._write(hold))
    await asyncio.to_thread(blocked.wait, 5)

    def elsewhere() -> None:
        loop = asyncio.new_event_loop()
        other = store.handle()
        other._database = store._database
        pending = loop.create_task(other.add([a_job("j1")]))
        loop.run_until_complete(asyncio.sleep(0))
        pending._log_destroy_pending = False  # type: ignore[attr-defined]
        loop.close()

    await asyncio.to_thread(elsewhere)
    release.set()
    await holding
    await store.add([a_job("j2")])
    assert (await store.get(["j1"]))[0] is not None


async def test_the_last_close_ends_threads_and_removes_the_wal(path: Path) -> None:
    store = SQLiteStore(path)
    await store.open()
    await store.open()
    other = store.handle()
    await other.open()
    await store.add([a_job("j1")])
    await store.counts()
    assert len(our_threads()) == 2
    await store.close()
    await store.close()
    assert (await other.counts()).due == 1
    await other.close()
    await until_no_thread_is_left()
    assert [file.name for file in path.parent.iterdir()] == ["jobs.db"]
    with pytest.raises(StoreError, match="not open"):
        await store.counts()


async def test_it_opens_again(path: Path) -> None:
    store = SQLiteStore(path)
    for n in range(3):
        await store.open()
        await store.add([a_job(f"j{n}")])
        await store.close()
    await store.open()
    assert (await store.counts()).due == 3
    await store.close()


async def test_a_waiter_of_the_process_is_woken_at_once(store: SQLiteStore) -> None:
    other = store.handle()
    await other.open()
    waiting = asyncio.create_task(other.wait([JOBS], 600.0))
    await asyncio.sleep(0)
    await store.add([a_job("j1")])
    async with asyncio.timeout(PATIENCE):
        await waiting
    ending = asyncio.create_task(other.wait([topic_of_job("j1")], 30.0))
    claimed = await store.claim(Want(worker="w", token="t", limit=1, lease=30.0))
    assert not ending.done()
    await store.move([after_success(claimed.claims[0], None)])
    await ending
    await other.close()


async def test_what_was_told_between_two_waits_is_remembered(store: SQLiteStore) -> None:
    await store.wait([JOBS], 0.0)
    await store.add([a_job("j1")])
    async with asyncio.timeout(PATIENCE):
        await store.wait([JOBS], 600.0)
    await store.add([a_job("j2")], wake=False)
    waiting = asyncio.create_task(store.wait([JOBS], 30.0))
    await store.counts()
    assert not waiting.done()
    await store.handle().close()
    waiting.cancel()


async def test_another_queue_wakes_nobody(store: SQLiteStore) -> None:
    other = store.handle("other")
    await other.open()
    waiting = asyncio.create_task(other.wait([JOBS], 30.0))
    await store.add([a_job("j1")])
    await store.counts()
    assert not waiting.done()
    waiting.cancel()
    await other.close()


async def test_another_process_wakes_a_waiter(store: SQLiteStore, start: Start) -> None:
    child = start("""
        async def main():
            store = SQLiteStore(PATH)
            await store.open()
            say("ready")
            sys.stdin.readline()
            await store.add([a_job("theirs")])
            await store.close()

        asyncio.run(main())
    """)
    assert await asyncio.to_thread(child.line) == "ready"
    while True:
        # Its opening may be seen first: an early wake-up for nothing.
        try:
            async with asyncio.timeout(0.2):
                await store.wait([JOBS], 30.0)
        except TimeoutError:
            break
    waiting = asyncio.create_task(store.wait([JOBS], 600.0))
    await asyncio.sleep(0)
    child.tell("go")
    async with asyncio.timeout(PATIENCE):
        await waiting
    assert (await store.get(["theirs"]))[0] is not None
    await asyncio.to_thread(child.lines)


async def test_own_commits_are_not_taken_for_foreign_ones(store: SQLiteStore) -> None:
    waiting = asyncio.create_task(store.wait(["nothing"], 30.0))
    for n in range(20):
        await store.add([a_job(f"j{n}")])
    writer = store._database.writer  # type: ignore[union-attr]
    assert not await store._write(lambda turn: writer.look())
    assert not waiting.done()
    waiting.cancel()


async def test_what_another_process_writes_wakes_nobody_where_it_concerns_nobody(
    start: Start, store: SQLiteStore
) -> None:
    child = start("""
        async def main():
            store = SQLiteStore(PATH)
            await store.open()
            say("ready")
            sys.stdin.readline()
            await store.write("workers", "w", b"{}")
            say("written")
            sys.stdin.readline()
            await store.add([a_job("theirs")])
            await store.close()

        asyncio.run(main())
    """)
    assert await asyncio.to_thread(child.line) == "ready"
    waiting = asyncio.create_task(store.wait([JOBS], 600.0))
    writer = store._database.writer  # type: ignore[union-attr]
    await store._write(lambda turn: writer.look())
    child.tell("go")
    assert await asyncio.to_thread(child.line) == "written"
    assert not await store._write(lambda turn: writer.look())
    assert [doc.key for doc in await store.read("workers")] == ["w"]
    assert not waiting.done()
    child.tell("go")
    async with asyncio.timeout(PATIENCE):
        await waiting
    await asyncio.to_thread(child.lines)


async def test_what_others_wrote_before_the_first_wait_is_told(store: SQLiteStore) -> None:
    def write() -> None:
        with closing(sqlite3.connect(store.path)) as other:
            store.add_with_sync(other, [a_job("j1")], wake=True)
            other.commit()

    await asyncio.to_thread(write)
    async with asyncio.timeout(PATIENCE):
        await store.wait([JOBS], 20 * PATIENCE)


async def test_a_forked_child_begins_anew(start: Start, store: SQLiteStore) -> None:
    child = start("""
        import gc

        async def parent(store):
            await store.open()
            await store.add([a_job("before")])
            await store.counts()

        async def child(store):
            added = await store.add([a_job("child")])
            say("child", added[0].status, (await store.counts()).due)
            await store.close()

        async def after(store):
            await store.add([a_job("parent")])
            say("parent", (await store.counts()).due)
            await store.close()

        store = SQLiteStore(PATH)
        loop = asyncio.new_event_loop()
        loop.run_until_complete(parent(store))
        pid = os.fork()
        if pid == 0:
            asyncio.run(child(store))
            gc.collect()
            sys.exit(0)
        say("ended", os.waitpid(pid, 0)[1])
        loop.run_until_complete(after(store))
    """)
    lines = await asyncio.to_thread(child.lines)
    assert lines == ["child", "added", "2", "ended", "0", "parent", "3"]
    assert (await store.counts()).due == 3


@pytest.mark.blocks_loop
async def test_inline_does_the_same_without_threads() -> None:
    async with throwaway(inline=True) as store:
        waiting = asyncio.create_task(store.wait([JOBS], 30.0))
        await asyncio.sleep(0)
        await store.add([a_job("j1")])
        await waiting
        assert (await store.counts()).due == 1
        assert not our_threads()


async def test_a_claim_that_its_process_stood_still_with_takes_nothing_over(
    tmp_path: Path,
) -> None:
    clock = SimClock()
    store = SQLiteStore(tmp_path / "jobs.db", clock=clock, busy_timeout=30.0)
    await store.open()
    try:
        await store.add([a_job("j1"), a_job("j2")])
        await store.claim(Want(token="t1", worker="w1", lease=10.0, limit=1))
        # Another process writes, so that what is asked for now waits.
        with closing(sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            waiting = asyncio.create_task(
                store.claim(Want(token="t2", worker="w1", lease=10.0, limit=1))
            )
            await asyncio.sleep(0)
            clock.freeze(11.0)
            other.execute("ROLLBACK")
        late = await waiting
        assert late.lapsed == ()
        assert [claim.id for claim in late.claims] == ["j2"]
        after = await store.claim(Want(token="t3", worker="w1", lease=10.0, limit=1))
        assert [claim.id for claim in after.lapsed] == ["j1"]
    finally:
        await store.close()
