"""A monitor beside a worker costs the worker next to nothing."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from statistics import median

import pytest

from jobmill import JobContext, Monitor, Queue
from jobmill.job import JobDefinition
from tests.api.running.conftest import STORES, MakeQueue
from tests.api.running.kit import define, until
from tests.conftest import SOAK

JOBS = 12_000
ROUNDS = 16
LEAST = 0.9
"""Of the rate without a monitor."""
# Where a job costs the process least, a monitor stands out most.
QUICKEST = [each for each in STORES if SOAK or each.id in {"memory", "redis"}]


async def nothing(ctx: JobContext[None]) -> None: ...


async def rate(queue: Queue, job: JobDefinition[None, None], *, watched: bool) -> float:
    """Jobs that the process drains in a second of its own time, whatever else the machine does."""
    await queue.enqueue_many([job.call(None)] * JOBS)
    async with AsyncExitStack() as stack:
        if watched:
            # Ten times as often as it does by itself.
            monitor = Monitor(queue, check_interval=1.0)
            for event in ("health_changed", "queue_backlog"):
                monitor.on(event, print)
            await stack.enter_async_context(monitor)
            asking = asyncio.create_task(_ask(monitor))
            stack.callback(asking.cancel)
        began = time.process_time()
        worker = queue.process()

        async def drained() -> bool:
            await asyncio.sleep(0.05)
            return (await queue.stats()).completed == JOBS

        await until(drained, seconds=60.0)
        took = time.process_time() - began
    await worker.stop()
    queue._worker = None
    await queue.delete_many()
    return JOBS / took


async def _ask(monitor: Monitor) -> None:
    while True:
        await monitor.get_metrics()
        await asyncio.sleep(1.0)


@pytest.mark.timeout(300)
@pytest.mark.alone
@pytest.mark.parametrize("open_store", QUICKEST, indirect=True)
async def test_a_monitor_leaves_nine_tenths_of_the_rate(make_queue: MakeQueue) -> None:
    queue = make_queue(concurrency=100)
    job = define(nothing)
    plain, watched = [], []
    await rate(queue, job, watched=True)
    share = 0.0
    for done in range(1, ROUNDS + 1):
        plain.append(await rate(queue, job, watched=False))
        watched.append(await rate(queue, job, watched=True))
        # Rounds differ either way by much more than what is looked for; their medians do not.
        share = median(watched) / median(plain)
        if done >= 3 and share >= LEAST:
            break
    print(f"{median(watched):.0f} of {median(plain):.0f} jobs a second: {share:.2f}")
    assert share >= LEAST
