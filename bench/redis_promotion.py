"""Counts accepted jobs that are gone after a replica was promoted, with each `wait_replicas`.

    python -m bench.redis_promotion [--runs 5]

A primary, two replicas and three Sentinels; producers enqueue until the primary gets kill -9
at a random instant, and the jobs are looked for at the one that is promoted. `behind`: one
replica is frozen for a second before the primary and the other replica are killed together;
then it wakes, and is all that there is. Jobs of 100 kB are to fill what the system holds for it
meanwhile, which it still reads.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from typing import NamedTuple

from bench.load import PAYLOAD, Producers, once_there, records
from bench.machine import about_redis, span
from jobmill import RedisQueue
from jobmill.stores.redis import RedisStore
from jobmill.stores.redis.provision import Watched, eventually, watched

REPLICAS = 2
LARGE = 100_000


class Loss(NamedTuple):
    """What one promotion lost, and the seconds from the kill until the store answered again."""

    accepted: int
    missing: int
    silence: float


async def promote(servers: Watched, wait: int, at_once: int, *, behind: bool) -> Loss:
    """Work, kill, wait for the promotion, count."""
    queue = RedisQueue(str(servers.address), wait_replicas=wait)
    producers = Producers(queue, at_once, LARGE if behind else PAYLOAD)
    primary, frozen, other = servers.servers
    before = await asyncio.to_thread(servers.primary)
    working = asyncio.create_task(producers.run())
    await asyncio.sleep(random.uniform(0.5, 1.5))
    if behind:
        await asyncio.to_thread(frozen.freeze)
        await asyncio.sleep(1.0)
        await asyncio.gather(*[asyncio.to_thread(each.kill) for each in (primary, other)])
    else:
        await asyncio.to_thread(primary.kill)
    killed_at = time.monotonic()
    await asyncio.sleep(0.1)  # answers that are on their way still count
    producers.stop()
    await working
    frozen.thaw()
    await asyncio.to_thread(eventually, lambda: servers.primary() != before)
    store = RedisStore(servers.address)
    try:
        await once_there(store.open)
        there = await once_there(lambda: records(store, list(producers.accepted)))
        silence = time.monotonic() - killed_at
    finally:
        await store.close()
        await queue.close()
    return Loss(len(producers.accepted), len(producers.accepted) - len(there), silence)


def main() -> int:
    """Run them all and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.redis_promotion")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    print(about_redis())
    print(f"{options.runs} runs each; least to most", flush=True)
    for behind, at_once in [(False, 1), (False, 50), (True, 50)]:
        for wait in range(REPLICAS + 1):
            losses: list[Loss] = []
            for _ in range(options.runs):
                with watched(REPLICAS) as servers:
                    losses.append(asyncio.run(promote(servers, wait, at_once, behind=behind)))
            accepted, missing, silence = map(list, zip(*losses, strict=True))
            print(
                f"{'behind' if behind else 'in step':8} {at_once:2} at once, "
                f"wait_replicas={wait}: missing {span(missing)} of {span(accepted)} accepted; "
                f"{span(silence, 1)} s until it went on",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
