"""saq: on Redis, by its own queue and worker."""

from __future__ import annotations

import asyncio
from typing import Any

from measure import Peer, main, witness
from saq import Queue, Worker


async def noop(ctx: Any, *, number: int) -> None:
    witness.saw(number)


async def _open(url: str) -> Any:
    queue = Queue.from_url(url)
    await queue.connect()
    return queue


async def _one(queue: Any, number: int) -> None:
    # Without a stored result: the least that it can do.
    await queue.enqueue("noop", number=number, ttl=-1)


async def _work(queue: Any, concurrency: int) -> Any:
    worker = Worker(queue, [noop], concurrency=concurrency)
    running = asyncio.create_task(worker.start())

    return running


if __name__ == "__main__":
    main(Peer(open=_open, one=_one, bulk=None, work=_work))
