"""huey: on SQLite (its fsync is off here, and it does not acknowledge) or on Redis."""

from __future__ import annotations

from typing import Any

from huey import RedisHuey, SqliteHuey
from measure import Peer, main, witness

_task: Any = None


def noop(number: int) -> None:
    witness.saw(number)


async def _open(url: str) -> Any:
    global _task
    if url.startswith("redis"):
        app: Any = RedisHuey("bench", url=url, results=False)
    else:
        app = SqliteHuey(
            "bench", filename=url.removeprefix("sqlite:///"), results=False, fsync=False
        )
    _task = app.task()(noop)
    return app


async def _one(app: Any, number: int) -> None:
    _task(number)


async def _work(app: Any, concurrency: int) -> Any:
    # One thread is its best: more of them wait for one another.
    consumer = app.create_consumer(workers=1, periodic=False, initial_delay=0.01, max_delay=0.1)
    consumer.start()

    return consumer


if __name__ == "__main__":
    main(Peer(open=_open, one=_one, bulk=None, work=_work, gathers=False))
