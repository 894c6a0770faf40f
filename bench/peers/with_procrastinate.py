"""procrastinate: on psycopg, its async worker, many jobs by batch_defer_async."""

from __future__ import annotations

import asyncio
from typing import Any

import procrastinate
from measure import Peer, main, witness

BATCH = 1_000


async def noop(number: int) -> None:
    witness.saw(number)


async def _open(url: str) -> Any:
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=url))
    app.task(name="noop")(noop)
    await app.open_async()
    if not await app.check_connection_async():
        await app.schema_manager.apply_schema_async()
    return app


async def _one(app: Any, number: int) -> None:
    await app.configure_task("noop").defer_async(number=number)


async def _bulk(app: Any, numbers: range) -> None:
    deferrer = app.configure_task("noop")
    for start in range(numbers.start, numbers.stop, BATCH):
        some = range(start, min(numbers.stop, start + BATCH))
        await deferrer.batch_defer_async(*[{"number": number} for number in some])


async def _work(app: Any, concurrency: int) -> Any:
    running = asyncio.create_task(
        app.run_worker_async(concurrency=concurrency, install_signal_handlers=False)
    )

    return running


if __name__ == "__main__":
    main(Peer(open=_open, one=_one, bulk=_bulk, work=_work))
