"""taskiq: on Redis, by the broker of streams, which acknowledges; its receiver in this process."""

from __future__ import annotations

import asyncio
from typing import Any

from measure import Peer, main, witness
from taskiq.api import run_receiver_task
from taskiq_redis import RedisStreamBroker

_task: Any = None


async def noop(number: int) -> None:
    witness.saw(number)


async def _open(url: str) -> Any:
    global _task
    broker = RedisStreamBroker(url, consumer_id="0")
    _task = broker.task(task_name="noop")(noop)
    await broker.startup()
    return broker


async def _one(broker: Any, number: int) -> None:
    await _task.kiq(number)


async def _work(broker: Any, concurrency: int) -> Any:
    running = asyncio.create_task(
        run_receiver_task(broker, max_async_tasks=concurrency, max_prefetch=concurrency)
    )

    return running


if __name__ == "__main__":
    main(Peer(open=_open, one=_one, bulk=None, work=_work))
