"""chancy: on psycopg, its async executor, many jobs by push_many."""

from __future__ import annotations

import logging
from typing import Any

from chancy import Chancy, Queue, Worker, job
from measure import Peer, main, witness

BATCH = 1_000


@job()
async def noop(*, number: int) -> None:
    witness.saw(number)


async def _open(url: str) -> Any:
    logging.disable(logging.CRITICAL)
    app = Chancy(url)
    await app.__aenter__()
    await app.migrate()
    return app


async def _one(app: Any, number: int) -> None:
    await app.push(noop.job.with_kwargs(number=number))


async def _bulk(app: Any, numbers: range) -> None:
    for start in range(numbers.start, numbers.stop, BATCH):
        some = range(start, min(numbers.stop, start + BATCH))
        async for _ in app.push_many([noop.job.with_kwargs(number=n) for n in some]):
            pass


async def _work(app: Any, concurrency: int) -> Any:
    executor = "chancy.executors.asyncex.AsyncExecutor"
    await app.declare(
        Queue("default", concurrency=concurrency, executor=executor, polling_interval=1),
        upsert=True,
    )
    worker = Worker(app, register_signal_handlers=False)
    await worker.__aenter__()

    return worker


if __name__ == "__main__":
    main(Peer(open=_open, one=_one, bulk=_bulk, work=_work))
