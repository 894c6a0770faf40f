"""dramatiq: on Redis, its worker threads in this process, with the middleware it needs to retry."""

from __future__ import annotations

from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from measure import Peer, main, witness

_actor: Any = None


def noop(number: int) -> None:
    witness.saw(number)


async def _open(url: str) -> Any:
    global _actor
    broker = RedisBroker(url=url)
    dramatiq.set_broker(broker)
    _actor = dramatiq.actor(noop)
    return broker


async def _one(broker: Any, number: int) -> None:
    _actor.send(number)


async def _work(broker: Any, concurrency: int) -> Any:
    # More threads than its own default make it slower, not faster.
    worker = dramatiq.Worker(broker, worker_threads=min(concurrency, 8))
    worker.start()

    return worker


if __name__ == "__main__":
    main(Peer(open=_open, one=_one, bulk=None, work=_work, gathers=False))
