"""P4: a suspect runs alone in its process, and is not left for ever."""

from __future__ import annotations

import asyncio
from typing import Any

from jobmill import JobContext, Worker
from jobmill.handle import JobHandle
from jobmill.options import check_enqueue
from jobmill.queue import Queue
from jobmill.states import Move
from jobmill.store import Want
from tests.api.running.kit import define, ended, fresh, reached, record_of, until


class Holding:
    """A job that runs until it is let go."""

    def __init__(self) -> None:
        self.running: list[str] = []
        self.free: dict[str, asyncio.Event] = {}
        self.beside: dict[str, list[str]] = {}

    def job(self, **options: Any) -> Any:
        async def handler(ctx: JobContext[Any]) -> None:
            free = self.free.setdefault(ctx.payload, asyncio.Event())
            self.running.append(ctx.payload)
            for each in self.running:
                self.beside.setdefault(each, []).extend(self.running)
            await free.wait()
            self.running.remove(ctx.payload)

        return define(handler, **options)

    def let_go(self, name: str) -> None:
        self.free[name].set()


async def suspect_in(queue: Queue, make_queue: Any, job: Any) -> Any:
    """A job that lapsed once and is pending again."""
    new = queue._new(job.call("suspect"), check_enqueue({"priority": -10, "delay": 3_600}))
    store = queue.store.handle()
    await store.open()
    want = Want(worker="dead", token=fresh("token"), limit=1, lease=0.001)
    await store.add([new])
    # Hastened and claimed at once, so that no other worker can come between.
    claimed = await store.claim(want, [Move(event="hasten", job_id=new.id)])
    await store.close()
    (claim,) = claimed.claims
    handle: JobHandle[Any] = JobHandle(queue, job, new.id, deduplicated=False)
    assert claim.id == handle.id
    janitor: Queue = make_queue()
    janitor.process(jobs=["nothing"])

    async def waits() -> bool:
        record = await record_of(queue, handle.id)
        return record.suspect and record.state == "pending"

    await until(waits)
    await janitor.shutdown(timeout=0)
    return handle


async def test_a_busy_worker_leaves_a_suspect_to_an_idle_one(make_queue: Any) -> None:
    held = Holding()
    job = held.job()
    busy: Queue = make_queue(concurrency=4, lease=1000)
    busy.process()
    await busy.enqueue(job, "long")
    await until(lambda: "long" in held.running)
    suspect = await suspect_in(busy, make_queue, job)
    handle = await busy.enqueue(job, "later")
    await until(lambda: "later" in held.running)
    assert (await suspect.info()).status == "pending"
    held.let_go("later")
    await ended(busy, handle)
    assert (await suspect.info()).status == "pending"
    idle: Queue = make_queue(concurrency=4)
    idle.process()
    info = await reached(busy, suspect, "processing")
    assert info.worker != (await record_of(busy, handle.id)).worker
    held.let_go("suspect")
    assert (await ended(busy, suspect)).status == "completed"
    held.let_go("long")


async def test_a_worker_that_runs_a_suspect_claims_nothing_beside_it(make_queue: Any) -> None:
    held = Holding()
    job = held.job()
    queue: Queue = make_queue(concurrency=4)
    suspect = await suspect_in(queue, make_queue, job)
    handle = await queue.enqueue(job, "other")
    queue.process()
    await until(lambda: held.running)
    assert held.running == ["suspect"]
    held.let_go("suspect")
    await ended(queue, suspect)
    await until(lambda: held.running == ["other"])
    held.let_go("other")
    await ended(queue, handle)
    assert set(held.beside["suspect"]) == {"suspect"}


async def test_a_busy_worker_stops_claiming_after_one_lease_until_it_is_idle(
    make_queue: Any,
) -> None:
    held = Holding()
    job = held.job()
    queue: Queue = make_queue(concurrency=3, lease=1000)
    worker = queue.process()
    await queue.enqueue(job, "long")
    await until(lambda: held.running == ["long"])
    suspect = await suspect_in(queue, make_queue, job)
    (feed,) = worker._feeds
    await until(lambda: feed in worker._slots._suspects)
    # Within the first lease it goes on as ever.
    await queue.enqueue(job, "second")
    await until(lambda: "second" in held.running)
    # As if that lease were over.
    worker._slots._suspects[feed] -= queue.lease + 1
    third = await queue.enqueue(job, "third")
    before = feed._asked_at
    await until(lambda: feed._asked_at > before + 0.1)
    assert (await third.info()).status == "pending"
    held.let_go("long")
    await until(lambda: "long" not in held.running)
    assert (await suspect.info()).status == "pending"
    held.let_go("second")
    await until(lambda: held.running == ["suspect"])
    held.let_go("suspect")
    await ended(queue, suspect)
    await until(lambda: held.running == ["third"])
    held.let_go("third")
    await ended(queue, third)
    assert set(held.beside["suspect"]) == {"suspect"}
    assert not (await record_of(queue, suspect.id)).suspect


async def test_a_suspect_of_one_queue_runs_alone_in_a_worker_of_two(make_queue: Any) -> None:
    held = Holding()
    job = held.job()
    first: Queue = make_queue("default", lease=0.3)
    second: Queue = make_queue("second", lease=0.3)
    suspect = await suspect_in(first, make_queue, job)
    for name in ("a", "b"):
        held.free[name] = asyncio.Event()
        held.let_go(name)
    handles = [(second, await second.enqueue(job, "a")), (first, await first.enqueue(job, "b"))]
    worker = Worker([first, second], concurrency=3)
    running = asyncio.create_task(worker.run())
    await until(lambda: "suspect" in held.running)
    assert held.running == ["suspect"]
    held.let_go("suspect")
    await ended(first, suspect)
    for queue, handle in handles:
        await ended(queue, handle)
    assert set(held.beside["suspect"]) == {"suspect"}
    await worker.stop()
    await running
