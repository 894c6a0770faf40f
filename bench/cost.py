"""What a job costs whatever the machine: functions called, memory held while it runs.

    python -m bench.cost

Both are counted in the process of a worker on memory, whose store is the least there can be, and
as a slope between two numbers of jobs, so that what a worker costs by itself is not in them.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys

from jobmill import InMemoryQueue, Queue, job

FEW, MANY = 500, 1_500
CONCURRENCY = 100

_gate = asyncio.Event()
_running = 0


@job(name="bench.cost")
async def nothing(number: int) -> None:
    """Do nothing."""


@job(name="bench.cost.waits")
async def waits(number: int) -> None:  # noqa: ARG001  a payload to decode
    """Run until all may end."""
    global _running  # noqa: PLW0603  the cheapest witness there is
    _running += 1
    await _gate.wait()


async def _drained(queue: Queue, jobs: int) -> None:
    while (await queue.stats()).completed < jobs:  # noqa: ASYNC110  only the store knows
        await asyncio.sleep(0.01)


async def _calls(jobs: int) -> int:
    """The calls of one worker that runs so many jobs."""
    queue = InMemoryQueue(concurrency=CONCURRENCY)
    await queue.enqueue_many([nothing.call(number) for number in range(jobs)])
    count = 0

    def counted(frame: object, event: str, argument: object) -> None:  # noqa: ARG001
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(counted)
    try:
        queue.process()
        await _drained(queue, jobs)
    finally:
        sys.setprofile(None)
    await queue.shutdown()
    return count


async def _blocks(jobs: int) -> int:
    """The blocks of memory in use while so many jobs run."""
    global _gate, _running
    _gate, _running = asyncio.Event(), 0
    queue = InMemoryQueue(concurrency=MANY)
    await queue.enqueue_many([waits.call(number) for number in range(jobs)])
    gc.collect()
    before = sys.getallocatedblocks()
    queue.process()
    while _running < jobs:  # noqa: ASYNC110  it is counted, not told
        await asyncio.sleep(0.01)
    gc.collect()
    held = sys.getallocatedblocks() - before
    _gate.set()
    await _drained(queue, jobs)
    await queue.shutdown()
    return held


def _least_blocks(jobs: int) -> int:
    """What is held in any case: now and then something goes on while it is counted."""
    return min(asyncio.run(_blocks(jobs)) for _ in range(3))


def costs() -> dict[str, float]:
    """Calls for each job, and blocks of memory that each running job holds."""
    more = MANY - FEW
    # The first of each also pays for what is made once.
    asyncio.run(_calls(FEW))
    calls = (asyncio.run(_calls(MANY)) - asyncio.run(_calls(FEW))) / more
    asyncio.run(_blocks(FEW))
    blocks = (_least_blocks(MANY) - _least_blocks(FEW)) / more
    return {"calls": round(calls, 1), "blocks": round(blocks, 1)}


if __name__ == "__main__":
    print(json.dumps(costs()))
