"""arq: one round trip for each enqueue; its worker polls, at the least delay it takes."""

from __future__ import annotations

import asyncio
from typing import Any

from arq import create_pool
from arq.connections import RedisSettings
from arq.worker import Worker, func
from measure import Peer, main, witness


async def noop(ctx: dict[Any, Any], number: int) -> None:
    witness.saw(number)


async def _open(url: str) -> Any:
    return await create_pool(RedisSettings.from_dsn(url))


async def _one(pool: Any, number: int) -> None:
    await pool.enqueue_job("noop", number)


async def _work(pool: Any, concurrency: int) -> Any:
    worker = Worker(
        functions=[func(noop, keep_result=0)],
        redis_pool=pool,
        max_jobs=concurrency,
        poll_delay=0.01,
        handle_signals=False,
    )
    running = asyncio.create_task(worker.async_run())

    return running


if __name__ == "__main__":
    main(Peer(open=_open, one=_one, bulk=None, work=_work))
