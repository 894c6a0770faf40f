"""Measures what jobs take of a Redis server's memory, by its `used_memory`.

    python -m bench.redis_memory [--jobs 100000]

Each figure is on a server of its own, after a thousand jobs of the same kind.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable, Callable

from bench.load import a_payload, parcel
from bench.machine import about_redis, fact
from jobmill import EnqueueOptions, Queue, RedisQueue, job
from jobmill.stores.redis.provision import Server, running

WARM_UP = 1_000
_STILL = 1.0


@job(name="bench.answering")
async def answering(text: str) -> dict[str, int]:
    """Give a small result."""
    return {"length": len(text)}


@job(name="bench.failing", retries=0)
async def failing(text: str) -> None:
    """Fail, with one error."""
    raise ValueError(f"{len(text)} letters cannot be delivered")


async def waiting(queue: Queue, jobs: int, size: int = 100, **options: float) -> None:
    """Leave jobs that wait."""
    chosen: EnqueueOptions = {"delay": options["delay"]} if options else {}
    for _ in range(0, jobs, 1_000):
        await queue.enqueue_many([parcel.call(a_payload(size)) for _ in range(1_000)], **chosen)


async def completed(queue: Queue, jobs: int) -> None:
    """Leave jobs that are completed."""
    for _ in range(0, jobs, 1_000):
        await queue.enqueue_many([answering.call(a_payload(100)) for _ in range(1_000)])
    await ended(queue)


async def failed(queue: Queue, jobs: int) -> None:
    """Leave jobs that failed."""
    for _ in range(0, jobs, 1_000):
        await queue.enqueue_many([failing.call(a_payload(100)) for _ in range(1_000)])
    await ended(queue)


async def ended(queue: Queue) -> None:
    """Run all that is there."""
    queue.process()
    while True:
        stats = await queue.stats()
        if stats.completed + stats.failed == stats.total:
            return
        await asyncio.sleep(0.1)


KINDS: dict[str, Callable[[Queue, int], Awaitable[None]]] = {
    "pending": waiting,
    "pending, payload of 1,000 bytes": lambda queue, jobs: waiting(queue, jobs, 1_000),
    "delayed": lambda queue, jobs: waiting(queue, jobs, delay=3_600.0),
    "completed, with a small result": completed,
    "failed, with one error": failed,
}


def used(server: Server) -> int:
    """Its memory, once it stands still. It blocks."""
    last, since = -1, time.monotonic()
    while time.monotonic() - since < _STILL:
        now = int(fact(server, "memory", "used_memory"))
        if abs(now - last) > 1_000:
            last, since = now, time.monotonic()
        time.sleep(0.05)
    return last


async def filled(server: Server, jobs: int, kind: Callable[[Queue, int], Awaitable[None]]) -> None:
    """Let jobs be there, and nobody connected."""
    async with RedisQueue(str(server.address), concurrency=100) as queue:
        await kind(queue, jobs)
        await queue.shutdown()


def main() -> int:
    """Measure each kind and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.redis_memory")
    parser.add_argument("--jobs", type=int, default=100_000)
    jobs: int = parser.parse_args().jobs
    print(about_redis())
    print(f"{jobs:,} jobs each, payload of 100 bytes unless it says another", flush=True)
    for name, kind in KINDS.items():
        with running() as server:
            asyncio.run(filled(server, WARM_UP, kind))
            before = used(server)
            asyncio.run(filled(server, jobs, kind))
            print(f"{name:32} {(used(server) - before) / jobs:7,.0f} bytes a job", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
