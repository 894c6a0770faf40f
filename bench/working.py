"""A worker in a process of its own, until its input ends: python -m bench.working URL QUEUE N."""

from __future__ import annotations

import asyncio
import sys

import bench.measures  # noqa: F401  it defines the job
from jobmill import create_queue


async def main() -> None:
    """Work, and say when it is ready."""
    url, name, concurrency = sys.argv[1:]
    queue = create_queue(url, name=name, concurrency=int(concurrency))
    worker = queue.process()
    await worker.working.wait()
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await queue.shutdown()


if __name__ == "__main__":
    asyncio.run(main())
