"""What only the store in memory promises: names that are shared, and speed behind a backlog."""

from __future__ import annotations

import asyncio
import random
import sys
import threading
from types import FrameType
from typing import TYPE_CHECKING

import pytest

from jobmill.store import JOBS, NewJob, Policy, Window, topic_of_job
from jobmill.stores.memory import MemoryStore
from jobmill.stores.memory.job import Job
from jobmill.stores.memory.lanes import Lanes
from jobmill.stores.memory.order import JobHeap, Roll
from jobmill.testing.contract.case import T0, StillClock, a_job, claim, ids, move
from tests.counting import counted

if TYPE_CHECKING:
    from _typeshed import TraceFunction


async def test_a_name_is_shared_in_the_process() -> None:
    one, two = MemoryStore("test-shared"), MemoryStore("test-shared")
    await one.add([a_job()], now=T0)
    assert ids((await claim(two)).claims) == ["j1"]


async def test_without_a_name_a_store_is_private() -> None:
    one, two = MemoryStore(), MemoryStore()
    await one.add([a_job()], now=T0)
    assert await two.get(["j1"]) == [None]
    (seen,) = await one.handle().get(["j1"])
    assert seen is not None


async def test_an_end_before_the_wait_is_not_missed() -> None:
    store = MemoryStore()
    await store.add([a_job()], now=T0)
    await move(store, "cancel")
    async with asyncio.timeout(5):
        await store.wait([topic_of_job("j1")], 60.0)
        await store.wait([topic_of_job("none")], 60.0)


async def test_a_waiter_on_a_closed_loop_is_passed_over() -> None:
    store = MemoryStore(clock=StillClock())

    def abandon() -> None:
        loop = asyncio.new_event_loop()
        waiter = loop.create_task(store.handle().wait([JOBS], 60.0))
        loop.run_until_complete(asyncio.sleep(0))
        waiters.append(waiter)
        loop.close()

    waiters: list[asyncio.Task[None]] = []
    thread = threading.Thread(target=abandon)
    thread.start()
    await asyncio.to_thread(thread.join)
    await store.add([a_job()], now=T0)
    assert ids((await claim(store)).claims) == ["j1"]
    # Nobody can run it any more; it is not to complain of that.
    setattr(waiters[0], "_log_destroy_pending", False)  # noqa: B010  it is untyped
    waiters[0].get_coro().close()


async def test_waiting_leaves_nothing_behind() -> None:
    store = MemoryStore()
    for number in range(100):
        await store.add([a_job(f"j{number}")], now=T0)
        await store.wait([JOBS, topic_of_job(f"j{number}")], 0.0)
    assert not any(store._shared.waiters.values())


def _job(number: int) -> Job:
    new = NewJob(id=f"j{number}", name="a", payload=b"", policy=Policy())
    return Job.of(new, seq=number, state="pending", run_at=T0, now=T0)


def test_a_heap_gives_the_least_whatever_is_discarded() -> None:
    rng = random.Random(1)
    heap = JobHeap()
    there: dict[Job, float] = {}
    jobs = [_job(number) for number in range(300)]
    for _ in range(5_000):
        job = rng.choice(jobs)
        if rng.random() < 0.5:
            there[job] = rng.random()
            heap.push((there[job],), job)
        else:
            there.pop(job, None)
            heap.discard(job)
        assert len(heap) == len(there)
        assert heap.first() is (min(there, key=there.__getitem__) if there else None)
        half = {job for job, key in there.items() if key <= 0.5}
        assert set(heap.until((0.5,))) == half
    assert set(heap) == set(there)


def test_a_heap_does_not_grow_with_what_was_discarded() -> None:
    heap = JobHeap()
    heap.push((0.0,), _job(0))
    for number in range(1, 10_000):
        job = _job(number)
        heap.push((float(number),), job)
        heap.discard(job)
    assert len(heap._heap) < 200


def test_a_roll_goes_on_from_any_place() -> None:
    roll = Roll()
    jobs = [_job(number) for number in range(1, 1_001)]
    for job in jobs:
        roll.append(job)
    for job in jobs:
        if job.seq % 3:
            roll.strike(job)
    left = [job.seq for job in jobs if job.seq % 3 == 0]
    assert [job.seq for job in roll.oldest_first()] == left
    assert [job.seq for job in roll.newest_first()] == left[::-1]
    assert next(roll.newest_first(500)).seq == 498
    assert next(roll.newest_first(499)).seq == 498
    assert list(roll.newest_first(1)) == []
    assert len(roll._jobs) < 800


async def test_a_claim_does_not_look_at_the_backlog() -> None:
    async def cost(backlog: int) -> int:
        store = MemoryStore(clock=StillClock())
        for start in range(0, backlog, 1_000):
            jobs = [a_job(f"j{start + n}", "abc"[n % 3], priority=n % 5) for n in range(1_000)]
            await store.add(jobs, now=T0)
        with counted() as calls:
            for number in range(20):
                await claim(store, f"t{number}", limit=5)
        return calls()

    assert await cost(50_000) < 1.2 * await cost(1_000)


@pytest.mark.parametrize("names", [None, ("n3", "n7", "n11")])
async def test_a_claim_does_not_look_at_names_that_it_does_not_take(
    names: tuple[str, ...] | None,
) -> None:
    async def cost(lanes: int) -> int:
        store = MemoryStore(clock=StillClock())
        for start in range(0, lanes, 1_000):
            jobs = [a_job(f"j{start + n}", f"n{start + n}", priority=n % 5) for n in range(1_000)]
            await store.add(jobs, now=T0)
        with counted() as calls:
            for number in range(20):
                await claim(store, f"t{number}", limit=5, names=names)
        return calls()

    assert await cost(20_000) < 1.2 * await cost(1_000)


def test_jobs_are_taken_in_order_whatever_came_and_went() -> None:
    rng = random.Random(2)
    lanes = Lanes()
    there: dict[Job, tuple[int, float, int]] = {}
    away: list[Job] = []
    for number in range(20_000):
        choice = rng.random()
        if choice < 0.5:
            if away and choice < 0.2:
                # It comes back where it was, as one that is handed back does.
                job = away.pop(rng.randrange(len(away)))
            else:
                name = f"n{int(rng.random() ** 3 * 30)}"
                new = NewJob(id=f"j{number}", name=name, payload=b"", policy=Policy())
                at, seq = T0 + rng.randrange(number + 10), number
                job = Job.of(new, seq=seq, state="pending", run_at=at, now=T0)
                job.priority = rng.randrange(3)
            lanes.put(job)
            there[job] = (job.priority, job.run_at, job.seq)
        elif choice < 0.65 and there:
            job = rng.choice(list(there)) if len(there) < 50 else next(iter(there))
            lanes.remove(job)
            job.place = 0
            away.append(job)
            del there[job]
        else:
            some = None if choice < 0.9 else [f"n{rng.randrange(30)}"]
            limit = rng.randrange(1, 6)
            wanted = sorted(
                (job for job in there if some is None or job.name in some), key=there.__getitem__
            )[:limit]
            assert lanes.take(some, limit, "alone") == wanted
            for job in wanted:
                del there[job]
                away.append(job)
        assert len(lanes._heads) <= 2 * len(lanes._lanes) + 200


async def test_a_start_under_a_rate_limit_does_not_look_at_all_others() -> None:
    """Counted in instructions, since to walk over a list takes no call."""

    async def cost(limit: int) -> int:
        store = MemoryStore(clock=StillClock())
        windows = [Window(limit, 60.0)]
        for n in range(limit + limit // 2):
            await store.reserve("k", f"j{n}", "t", windows, now=T0 + 50 * n / limit)
        instructions = 0

        def count(frame: FrameType, event: str, arg: object) -> TraceFunction:
            nonlocal instructions
            frame.f_trace_opcodes = True
            instructions += event == "opcode"
            return count

        before = sys.gettrace()
        sys.settrace(count)
        try:
            for n in range(20):
                assert await store.reserve("k", f"late{n}", "t", windows, now=T0 + 59) > 0
        finally:
            sys.settrace(before)
        assert instructions > 1_000
        return instructions

    assert await cost(10_000) < 3 * await cost(100)
