"""celery: on Redis, acknowledging late, so a crash loses nothing; a pool of one."""

from __future__ import annotations

import asyncio
from typing import Any

from celery import Celery
from celery.contrib.testing.worker import start_worker
from measure import Peer, main, witness

_task: Any = None


def noop(number: int) -> None:
    witness.saw(number)


async def _open(url: str) -> Any:
    global _task
    app = Celery("bench", broker=url)
    app.conf.update(
        task_ignore_result=True,
        task_acks_late=True,
        worker_prefetch_multiplier=100,
        broker_connection_retry_on_startup=True,
        worker_hijack_root_logger=False,
    )
    _task = app.task(name="noop")(noop)
    return app


async def _one(app: Any, number: int) -> None:
    _task.delay(number)


async def _work(app: Any, concurrency: int) -> Any:
    ready = start_worker(app, pool="solo", concurrency=1, perform_ping_check=False)
    # It blocks until the worker is up, and its end until it is down.
    await asyncio.to_thread(ready.__enter__)

    return ready


if __name__ == "__main__":
    main(Peer(open=_open, one=_one, bulk=None, work=_work, gathers=False))
