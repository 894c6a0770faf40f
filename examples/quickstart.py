"""The whole of it: a job, a queue in a file, a worker and a result."""

from __future__ import annotations

import asyncio

from jobmill import create_queue, job


@job
def add(a: int, b: int) -> int:
    return a + b


async def main() -> None:
    async with create_queue("sqlite:///jobs.db") as queue:
        queue.process()
        handle = await queue.enqueue(add.call(2, 3))
        print(await handle.result())


asyncio.run(main())
