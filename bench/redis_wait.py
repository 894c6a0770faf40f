"""Measures what `wait_replicas` costs an enqueue, as ratios of one run.

    python -m bench.redis_wait [--jobs 1000] [--rounds 15]

A primary and two replicas on one machine, so that no network is in it. Rounds alternate; a
figure is the median of its rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time

from bench.load import AT_ONCE, a_payload, parcel
from bench.machine import about_redis
from jobmill import RedisQueue
from jobmill.stores.redis.provision import Server, replicated

REPLICAS = 2


async def enqueued(primary: Server, wait: int, at_once: int, jobs: int) -> list[float]:
    """Seconds that each enqueue took."""
    took: list[float] = []

    async def produce(queue: RedisQueue) -> None:
        for _ in range(jobs // at_once):
            began = time.perf_counter()
            await queue.enqueue(parcel, {"text": a_payload(100)})
            took.append(time.perf_counter() - began)

    async with RedisQueue(str(primary.address), wait_replicas=wait) as queue:
        await queue.enqueue(parcel, {"text": "to connect"})
        await asyncio.gather(*[produce(queue) for _ in range(at_once)])
    return took


def main() -> int:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.redis_wait")
    parser.add_argument("--jobs", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    print(about_redis())
    print(f"{options.rounds} rounds of {options.jobs:,} jobs", flush=True)
    kinds = [(at_once, wait) for at_once in AT_ONCE for wait in range(REPLICAS + 1)]
    figures: dict[tuple[int, int], list[list[float]]] = {kind: [] for kind in kinds}
    with replicated(REPLICAS) as (primary, *_):
        for _ in range(options.rounds):
            for at_once, wait in kinds:
                took = asyncio.run(enqueued(primary, wait, at_once, options.jobs))
                figures[at_once, wait].append(statistics.quantiles(took, n=100))
    for at_once, wait in kinds:
        half, most = (
            statistics.median(each[rank] for each in figures[at_once, wait]) for rank in (49, 98)
        )
        base = statistics.median(each[49] for each in figures[at_once, 0])
        print(
            f"{at_once:2} at once, wait_replicas={wait}: {half / base:5.2f} times as long "
            f"(median {half * 1_000:.2f} ms, 99 of 100 within {most * 1_000:.2f} ms)"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
