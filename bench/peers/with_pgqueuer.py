"""pgqueuer: on asyncpg, its largest batches, many jobs in one enqueue."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import asyncpg
from measure import Peer, main, witness
from pgqueuer import AsyncpgPoolDriver, PgQueuer, Queries

BATCH = 1_000


async def _open(url: str) -> Any:
    pool = await asyncpg.create_pool(url, min_size=2, max_size=10)
    queries = Queries(AsyncpgPoolDriver(pool))
    try:
        await queries.install()
    except asyncpg.PostgresError as error:
        if "already exists" not in str(error):
            raise
    return pool, queries


async def _one(app: Any, number: int) -> None:
    await app[1].enqueue("noop", b"%d" % number)


async def _bulk(app: Any, numbers: range) -> None:
    for start in range(numbers.start, numbers.stop, BATCH):
        some = [b"%d" % number for number in range(start, min(numbers.stop, start + BATCH))]
        await app[1].enqueue(["noop"] * len(some), some, [0] * len(some))


async def _work(app: Any, concurrency: int) -> Any:
    worker = PgQueuer(AsyncpgPoolDriver(app[0]))

    @worker.entrypoint("noop")
    async def noop(job: Any) -> None:
        witness.saw(int(job.payload))

    running = asyncio.create_task(
        worker.run(dequeue_timeout=timedelta(seconds=1), batch_size=concurrency)
    )

    return running


if __name__ == "__main__":
    main(Peer(open=_open, one=_one, bulk=_bulk, work=_work))
