"""rq: its SimpleWorker, which forks no process for a job, and is its fastest."""

from __future__ import annotations

import logging
import threading
from typing import Any

from measure import Peer, main, noop
from redis import Redis
from rq import Queue, SimpleWorker
from rq.timeouts import BaseDeathPenalty

BATCH = 1_000


class NoPenalty(BaseDeathPenalty):
    """Bounds nothing: a signal, its usual means, needs the main thread."""

    def setup_death_penalty(self) -> None:
        pass

    def cancel_death_penalty(self) -> None:
        pass


class Worker(SimpleWorker):
    """One that may work in a thread."""

    death_penalty_class = NoPenalty

    def _install_signal_handlers(self) -> None:
        pass


async def _open(url: str) -> Any:
    logging.disable(logging.CRITICAL)
    return Queue(connection=Redis.from_url(url))


async def _one(queue: Any, number: int) -> None:
    queue.enqueue(noop, number, result_ttl=0)


async def _bulk(queue: Any, numbers: range) -> None:
    for start in range(numbers.start, numbers.stop, BATCH):
        some = range(start, min(numbers.stop, start + BATCH))
        queue.enqueue_many([Queue.prepare_data(noop, [n], result_ttl=0) for n in some])


async def _work(queue: Any, concurrency: int) -> Any:
    worker = Worker([queue], connection=queue.connection)
    thread = threading.Thread(target=worker.work, kwargs={"logging_level": "CRITICAL"}, daemon=True)
    thread.start()

    return thread


if __name__ == "__main__":
    main(Peer(open=_open, one=_one, bulk=_bulk, work=_work, gathers=False))
