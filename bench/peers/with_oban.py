"""oban: on psycopg, a queue of its own in this process, many jobs by enqueue_many."""

from __future__ import annotations

from typing import Any

from measure import Peer, main, witness
from oban import Oban, worker
from oban.schema import install

BATCH = 1_000


@worker(queue="default")
class Noop:
    """Counts the run."""

    async def process(self, job: Any) -> None:
        witness.saw(job.args["number"])


async def _open(url: str) -> Any:
    pool = await Oban.create_pool(url, min_size=2, max_size=10)
    await install(pool)
    oban = Oban(pool=pool)
    return pool, oban


async def _one(app: Any, number: int) -> None:
    await app[1].enqueue(Noop.new({"number": number}))


async def _bulk(app: Any, numbers: range) -> None:
    for start in range(numbers.start, numbers.stop, BATCH):
        some = range(start, min(numbers.stop, start + BATCH))
        await app[1].enqueue_many([Noop.new({"number": number}) for number in some])


async def _work(app: Any, concurrency: int) -> Any:
    runs = Oban(pool=app[0], name="works", queues={"default": concurrency})
    await runs.start()
    return runs


if __name__ == "__main__":
    main(Peer(open=_open, one=_one, bulk=_bulk, work=_work))
