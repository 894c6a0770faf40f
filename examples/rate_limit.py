"""No more than two starts in any second, over all workers: the rest waits, and no slot is held."""

from __future__ import annotations

import asyncio
import time

from jobmill import create_queue, create_rate_limit_middleware, job


@job(middleware=create_rate_limit_middleware(max_per_second=2))
async def call_api(page: int) -> tuple[int, float]:
    return page, time.monotonic()


async def main() -> None:
    async with create_queue() as queue:
        queue.process()
        handles = await queue.enqueue_many([call_api.call(page) for page in range(6)])
        runs = [await handle.result(timeout=30) for handle in handles]
        first = min(start for _, start in runs)
        for page, start in runs:
            print(f"page {page} started after {start - first:.1f} s")


asyncio.run(main())
