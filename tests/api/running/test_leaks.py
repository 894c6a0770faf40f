"""What thousands of jobs leave behind in their worker's process: nothing."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import Callable
from contextvars import Context
from typing import Any

import pytest

from jobmill import InMemoryQueue, JobContext, Worker
from jobmill.job import JobDefinition
from jobmill.queue import Queue
from jobmill.run import Run
from jobmill.states import Claim
from tests.api.running.conftest import MakeQueue
from tests.api.running.kit import define, until
from tests.conftest import SOAK

CONCURRENCY = 20

SLACK = CONCURRENCY
"""What may rightly come between two countings: the pool grows to a thread for each slot, however
late the others say that they are done, and a store opens a connection only when it needs it. A
leak by each job, or each claim, is a multiple of it."""


class Load:
    """Jobs of two kinds through one worker, and what is left of them."""

    def __init__(self, queue: Queue, leak: Callable[[JobContext[Any]], object]) -> None:
        async def on_loop(ctx: JobContext[Any]) -> None:
            leak(ctx)
            if ctx.payload % 100 == 7:
                raise ValueError

        def in_thread(ctx: JobContext[Any]) -> None: ...

        self.queue = queue
        self.on_loop: JobDefinition[Any, Any] = define(on_loop, retries=0, timeout=30)
        self.in_thread: JobDefinition[Any, Any] = define(in_thread, timeout=30)
        self.worker: Worker = queue.process()

    async def run(self, size: int) -> dict[str, int]:
        """Run so many jobs; what is left when all have ended."""
        calls = [(self.in_thread if n % 10 == 0 else self.on_loop).call(n) for n in range(size)]
        await self.queue.enqueue_many(calls)

        async def done() -> bool:
            stats = await self.queue.stats()
            return not stats.pending and not stats.processing

        await until(done, 300 if SOAK else 50)
        assert not self.worker._slots.running
        return {
            "asyncio tasks": len(asyncio.all_tasks()),
            "threads": threading.active_count(),
            "descriptors": len(os.listdir("/proc/self/fd")),  # noqa: PTH208
            "deadlines": len(self.worker._deadlines._heap),
            "runs": self._runs(),
        }

    def _runs(self) -> int:
        """Only its own: other tests' garbage comes and goes when it likes."""
        gc.collect()
        names = {self.on_loop.name, self.in_thread.name}
        found = 0
        for each in gc.get_objects():
            # Not by isinstance, which asks lazy objects of other libraries to load themselves.
            kind = type(each)
            if kind is Run:
                found += each.claim.name in names
            elif kind is Claim:
                found += each.name in names
            elif kind is JobContext:
                found += each.job_name in names
        return found

    async def grown(self, size: int) -> dict[str, int]:
        """What so many jobs leave behind beyond what one turn of all slots may."""
        before = await self.run(5 * CONCURRENCY)
        after = await self.run(size)
        grown = {what: after[what] - count for what, count in before.items()}
        # Where most deadlines are lifted they are dropped, but not below this many.
        grown["deadlines"] -= 64
        return {what: more for what, more in grown.items() if more > SLACK}


@pytest.mark.timeout(600 if SOAK else 60)
async def test_thousands_of_jobs_leave_nothing_behind(make_queue: MakeQueue) -> None:
    load = Load(make_queue(concurrency=CONCURRENCY), lambda ctx: None)
    assert await load.grown(100_000 if SOAK else 2_000) == {}


@pytest.mark.parametrize("what", ["asyncio tasks", "threads", "descriptors", "deadlines", "runs"])
@pytest.mark.store("memory")
async def test_what_each_job_leaves_behind_is_found(what: str) -> None:
    free, kept = threading.Event(), list[Any]()

    def leak(ctx: JobContext[Any]) -> None:
        match what:
            case "asyncio tasks":
                kept.append(asyncio.create_task(asyncio.sleep(60), context=Context()))
            case "threads":
                threading.Thread(target=free.wait, daemon=True).start()
            case "descriptors":
                kept.append(os.dup(1))
            case "deadlines":
                load.worker._deadlines.add(asyncio.get_running_loop().time() + 60, kept.clear)
            case _:
                kept.append(ctx)

    queue = InMemoryQueue(concurrency=CONCURRENCY)
    load = Load(queue, leak)
    try:
        assert set(await load.grown(200)) == {what}
    finally:
        await queue.shutdown(timeout=0)
        free.set()
        for each in kept:
            if isinstance(each, int):
                os.close(each)
            elif isinstance(each, asyncio.Task):
                each.cancel()
