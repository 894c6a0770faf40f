"""What is measured of jobmill, each on a queue of its own; all that ran is checked."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

from jobmill import Queue, Worker, job
from jobmill.job import Call

_SIP = 0.02
_CODE = "import time; b = time.perf_counter(); import jobmill; print(time.perf_counter() - b)"

ran = 0
ran_at = 0.0
expected = 0
everything_ran = asyncio.Event()


@job(name="bench.noop")
async def noop(number: int) -> None:  # noqa: ARG001  a payload to decode
    """Count the run."""
    global ran, ran_at  # noqa: PLW0603  the cheapest witness there is
    ran += 1
    if ran == expected:
        ran_at = time.perf_counter()
        everything_ran.set()


def _expect(jobs: int) -> None:
    global ran, expected, everything_ran
    ran, expected, everything_ran = 0, jobs, asyncio.Event()


def _calls(jobs: int) -> list[Call[None]]:
    return [noop.call(number) for number in range(jobs)]


async def drain(queue: Queue, jobs: int) -> float:
    """Jobs a second, from the start of a worker until all of them are completed."""
    await queue.enqueue_many(_calls(jobs))
    _expect(jobs)
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


async def bulk(queue: Queue, jobs: int) -> float:
    """Jobs a second of one `enqueue_many`, on a queue that is open."""
    await queue.stats()
    began = time.perf_counter()
    await queue.enqueue_many(_calls(jobs))
    seconds = time.perf_counter() - began
    await _close(queue, jobs)
    return jobs / seconds


async def prepared(queue: Queue) -> None:
    """Let the store make what it needs to hold jobs, for who then puts them there by itself."""
    await queue.stats()
    await queue.close()


async def gathered(queue: Queue, jobs: int) -> float:
    """Jobs a second of single enqueues, 1,000 at once, on a queue that is open."""
    await queue.stats()
    began = time.perf_counter()
    for start in range(0, jobs, 1_000):
        numbers = range(start, min(start + 1_000, jobs))
        await asyncio.gather(*[queue.enqueue(noop, {"number": n}) for n in numbers])
    seconds = time.perf_counter() - began
    await _close(queue, jobs)
    return jobs / seconds


async def one(queue: Queue, jobs: int) -> float:
    """Jobs a second of single enqueues, one after the other, on a queue that is open."""
    await queue.stats()
    began = time.perf_counter()
    for number in range(jobs):
        await queue.enqueue(noop, {"number": number})
    seconds = time.perf_counter() - began
    await _close(queue, jobs)
    return jobs / seconds


async def _close(queue: Queue, jobs: int) -> None:
    assert (await queue.stats()).pending == jobs
    await queue.close()


async def latency(queue: Queue, jobs: int) -> float:
    """Seconds from an enqueue to the start of its handler in an idle worker, the median."""
    queue.process()
    took: list[float] = []
    for number in range(jobs + 1):
        await asyncio.sleep(_SIP)
        _expect(1)
        began = time.perf_counter()
        await queue.enqueue(noop, {"number": number})
        await everything_ran.wait()
        took.append(ran_at - began)
    await queue.shutdown()
    # The first also pays for what is made once.
    return statistics.median(took[1:])


async def backlog(queue: Queue, waiting: int, jobs: int, turns: int = 5) -> float:
    """Jobs a second that are run of a backlog, which is filled up before each turn; the best."""
    rates: list[float] = []
    there = 0
    for _ in range(turns):
        for start in range(there, waiting, 10_000):
            await queue.enqueue_many(_calls(min(10_000, waiting - start)), wake=False)
        _expect(jobs)
        worker = Worker(queue, max_jobs=jobs)
        began = time.perf_counter()
        working = asyncio.create_task(worker.run())
        await everything_ran.wait()
        rates.append(jobs / (ran_at - began))
        await worker.stop()
        await working
        there = waiting - jobs
        stats = await queue.stats()
        assert (ran, stats.pending) == (jobs, there), stats
    await queue.close()
    return max(rates)


class Workers:
    """Workers of a queue in processes of their own."""

    def __init__(self, url: str, name: str, processes: int, concurrency: int) -> None:
        command = [sys.executable, "-m", "bench.working", url, name, str(concurrency)]
        pipe = subprocess.PIPE
        self._started = [
            subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)  # noqa: S603
            for _ in range(processes)
        ]

    def __enter__(self) -> Self:
        for each in self._started:
            assert each.stdout is not None
            assert each.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *error: object) -> None:
        for each in self._started:
            each.communicate("\n", timeout=60)

    def memory(self) -> float:
        """Megabytes that the first of them has in memory."""
        status = Path(f"/proc/{self._started[0].pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024


async def drain_apart(queue: Queue, url: str, jobs: int, processes: int) -> float:
    """Jobs a second of workers in so many processes, from the first claim on."""
    await queue.enqueue_many(_calls(jobs))
    await queue.pause()
    with Workers(url, queue.name, processes, queue.concurrency):
        await asyncio.sleep(0.5)
        began = time.perf_counter()
        await queue.resume()
        while (await queue.stats()).completed < jobs:  # noqa: ASYNC110  only the store knows
            await asyncio.sleep(0.005)
        seconds = time.perf_counter() - began
    stats = await queue.stats()
    await queue.close()
    assert stats.completed == stats.total == jobs, stats
    return jobs / seconds


def import_time(rounds: int = 7) -> float:
    """Seconds of `import jobmill` in a fresh process, the best of some."""
    command = [sys.executable, "-c", _CODE]
    times: list[Any] = [
        subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603
        for _ in range(rounds)
    ]
    return min(float(each) for each in times)
