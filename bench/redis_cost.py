"""What a job costs a Redis server, and the process that talks to it, in processor time.

    python -m bench.redis_cost [--jobs 5000] [--rounds 10]

It is the store alone: added by thousands, claimed and settled by hundreds. Processor time is told,
since it depends less on who else is on the machine than the time of a clock; the least of all
rounds counts. To compare two states of the code, run it in a checkout of each by turns.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time

from bench.machine import about_redis, fact
from bench.store_work import add, work
from jobmill.stores.redis import RedisStore
from jobmill.stores.redis.provision import Server, running


def spent(server: Server) -> tuple[float, float]:
    """Seconds of the processor that the server, and this process, have had."""
    theirs = sum(float(fact(server, "cpu", f"used_cpu_{kind}")) for kind in ("user", "sys"))
    return theirs, time.process_time()


async def measured(server: Server, jobs: int) -> dict[str, tuple[float, float]]:
    """Microseconds of the server and of this process for each job, by what was done."""
    server.ask("FLUSHALL")
    store = RedisStore(server.address)
    await store.open()
    found: dict[str, tuple[float, float]] = {}
    for name, do in (("add", add), ("claim and settle", work)):
        before = spent(server)
        await do(store, jobs)
        after = spent(server)
        found[name] = (
            (after[0] - before[0]) / jobs * 1e6,
            (after[1] - before[1]) / jobs * 1e6,
        )
    await store.close()
    return found


def main() -> int:
    """Measure, and print the least of all rounds."""
    parser = argparse.ArgumentParser(prog="python -m bench.redis_cost")
    parser.add_argument("--jobs", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    print(about_redis(), flush=True)
    with running() as server:
        rounds = [asyncio.run(measured(server, options.jobs)) for _ in range(options.rounds)]
    for name in rounds[0]:
        theirs, ours = (min(each[name][whose] for each in rounds) for whose in (0, 1))
        print(f"{name:16} server {theirs:6.1f} us a job, this process {ours:6.1f} us")
    return 0


if __name__ == "__main__":
    sys.exit(main())
