"""Measures jobmill against bare loops over the same driver, as ratios of one run.

    python -m bench [--jobs 20000] [--rounds 3]

Rounds alternate between jobmill and the bare loop; each figure is the median of its rounds.
Every round checks that each job ran and was settled once.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.bare import drain_memory, drain_sqlite
from jobmill import InMemoryQueue, Queue, SQLiteQueue, job

ran = 0
everything_ran = asyncio.Event()
expected = 0


@job(name="bench.noop")
async def noop(number: int) -> None:  # noqa: ARG001  a payload to decode
    """Count the run."""
    global ran  # noqa: PLW0603  the cheapest witness there is
    ran += 1
    if ran == expected:
        everything_ran.set()


async def drain(queue: Queue, jobs: int) -> float:
    """Jobs a second, from the start of a worker until all of them are completed."""
    global ran, expected, everything_ran
    await queue.enqueue_many([noop.call(n) for n in range(jobs)])
    ran, expected, everything_ran = 0, jobs, asyncio.Event()
    began = time.perf_counter()
    queue.process()
    await everything_ran.wait()
    while (await queue.stats()).completed < jobs:  # noqa: ASYNC110  only the store knows
        await asyncio.sleep(0)
    seconds = time.perf_counter() - began
    stats = await queue.stats()
    await queue.shutdown()
    assert (ran, stats.completed, stats.total) == (jobs, jobs, jobs), (ran, stats)
    return jobs / seconds


async def fill(queue: Queue, jobs: int) -> float:
    """Jobs a second of one `enqueue_many`."""
    began = time.perf_counter()
    await queue.enqueue_many([noop.call(n) for n in range(jobs)])
    seconds = time.perf_counter() - began
    await queue.close()
    return jobs / seconds


async def gathered(queue: Queue, jobs: int) -> float:
    """Jobs a second of single enqueues, 1,000 at once."""
    began = time.perf_counter()
    for start in range(0, jobs, 1_000):
        numbers = range(start, min(start + 1_000, jobs))
        await asyncio.gather(*[queue.enqueue(noop, {"number": n}) for n in numbers])
    seconds = time.perf_counter() - began
    await queue.close()
    return jobs / seconds


def main() -> int:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    jobs: int = options.jobs
    figures: dict[str, list[float]] = {}
    payloads = [b'{"number":%d}' % n for n in range(jobs)]

    def note(name: str, figure: float) -> None:
        figures.setdefault(name, []).append(figure)

    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)

            def sqlite(name: str, concurrency: int = 100, *, place: Path = place) -> Queue:
                return SQLiteQueue(place / f"{name}.db", concurrency=concurrency)

            def memory(concurrency: int = 100) -> Queue:
                return InMemoryQueue(concurrency=concurrency)

            note("memory bare", asyncio.run(drain_memory(payloads)))
            note("memory drain 100", asyncio.run(drain(memory(), jobs)))
            note("memory drain 10", asyncio.run(drain(memory(10), jobs)))
            asyncio.run(fill(sqlite("bare"), jobs))
            note("sqlite bare", drain_sqlite(place / "bare.db"))
            note("sqlite drain 100", asyncio.run(drain(sqlite("hundred"), jobs)))
            note("sqlite drain 10", asyncio.run(drain(sqlite("ten", 10), jobs // 4)))
            note("sqlite enqueue_many", asyncio.run(fill(sqlite("many"), jobs)))
            note("sqlite enqueue gathered", asyncio.run(gathered(sqlite("gathered"), jobs)))
    report(figures)
    return 0


def report(figures: dict[str, list[float]]) -> None:
    """Print the medians, and what share of the bare loop they are."""
    print(f"command: {' '.join(sys.orig_argv[1:])}")
    print(
        f"machine: {platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    )
    median: Callable[[str], float] = lambda name: statistics.median(figures[name])  # noqa: E731
    for name in figures:
        store = name.split()[0]
        share = f"{median(name) / median(f'{store} bare'):6.2f} of bare"
        print(f"{name:26} {median(name):10,.0f} jobs/s  {share if 'drain' in name else ''}")


if __name__ == "__main__":
    sys.exit(main())
