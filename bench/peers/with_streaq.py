"""streaq: on Redis, its worker in this process, many jobs by enqueue_many."""

from __future__ import annotations

import asyncio
from typing import Any

from measure import Peer, main, witness
from streaq import Worker

BATCH = 1_000
_task: Any = None


async def noop(number: int) -> None:
    witness.saw(number)


def _worker(url: str, concurrency: int) -> Any:
    return Worker(redis_url=url, concurrency=concurrency, handle_signals=False)


async def _open(url: str) -> Any:
    global _task
    worker = _worker(url, 1)
    _task = worker.task(ttl=0, name="noop")(noop)
    await worker.__aenter__()
    return worker, url


async def _one(app: Any, number: int) -> None:
    await _task.enqueue(number)


async def _bulk(app: Any, numbers: range) -> None:
    for start in range(numbers.start, numbers.stop, BATCH):
        some = range(start, min(numbers.stop, start + BATCH))
        await app[0].enqueue_many([_task.enqueue(number) for number in some])


async def _work(app: Any, concurrency: int) -> Any:
    runs = _worker(app[1], concurrency)
    runs.task(ttl=0, name="noop")(noop)
    running = asyncio.create_task(runs.run_async())

    return running


if __name__ == "__main__":
    main(Peer(open=_open, one=_one, bulk=_bulk, work=_work))
