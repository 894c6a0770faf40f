"""What a job costs on SQLite, in processor time of the one process that there is.

    python -m bench.sqlite_cost [--jobs 10000] [--rounds 6]

It is the store alone: added by thousands, claimed and settled by hundreds, beside the bare loop.
Processor time is told, which depends less on who else is on the machine than the time of a clock,
and leaves out what is waited for: the disk. The least of all rounds counts.
"""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from bench.bare import drain_sqlite
from bench.store_work import add, work
from jobmill.store import Store
from jobmill.stores.sqlite import SQLiteStore


async def spent(file: Path, do: Callable[[Store, int], Awaitable[None]], jobs: int) -> float:
    """Seconds that it takes to do it with so many jobs."""
    store = SQLiteStore(file)
    await store.open()
    before = time.process_time()
    await do(store, jobs)
    took = time.process_time() - before
    await store.close()
    return took


def measured(folder: Path, jobs: int) -> dict[str, float]:
    """Microseconds for each job, by what was done."""
    ours, bare = folder / "ours.db", folder / "bare.db"
    found = {"add": asyncio.run(spent(ours, add, jobs))}
    found["claim and settle"] = asyncio.run(spent(ours, work, jobs))
    asyncio.run(spent(bare, add, jobs))
    before = time.process_time()
    drain_sqlite(bare)
    found["bare loop"] = time.process_time() - before
    return {what: seconds / jobs * 1e6 for what, seconds in found.items()}


def main() -> int:
    """Measure, and print the least of all rounds."""
    parser = argparse.ArgumentParser(prog="python -m bench.sqlite_cost")
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=6)
    options = parser.parse_args()
    least: dict[str, float] = {}
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            for what, cost in measured(Path(folder), options.jobs).items():
                least[what] = min(cost, least.get(what, cost))
    print(f"SQLite {sqlite3.sqlite_version}, the least of {options.rounds} rounds")
    for what, cost in least.items():
        print(f"{what}: {cost:.1f} us a job")
    return 0


if __name__ == "__main__":
    sys.exit(main())
