"""What the peers' programs share: verbs, the witness of the runs, and one line of JSON.

It runs in the environment of a peer, which has no jobmill, so it needs Python alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

GATHERED = 1_000
PATIENCE = 300.0


class Witness:
    """Says of each job whether it ran, and how often. A payload is its number."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._expected = 0
        self._all = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._told = asyncio.Event()
        self.runs: list[int] = []
        self.last = 0.0

    def expect(self, jobs: int) -> None:
        """Begin anew, for so many jobs."""
        self._expected, self.runs = jobs, []
        self._all.clear()

    def saw(self, number: int) -> None:
        """A job ran; from any thread."""
        self.runs.append(number)
        if len(self.runs) >= self._expected:
            with self._lock:
                self.last = time.perf_counter()
            self._all.set()
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._told.set)

    async def wait(self) -> None:
        """Until all ran."""
        self._loop, self._told = asyncio.get_running_loop(), asyncio.Event()
        if not self._all.is_set():
            async with asyncio.timeout(PATIENCE):
                await self._told.wait()

    def wait_here(self) -> None:
        """The same, where there is no loop."""
        if not self._all.wait(PATIENCE):
            sys.exit(f"only {len(self.runs)} of {self._expected} jobs ran")


witness = Witness()
_kept: list[object] = []
_keep = _kept.append


def noop(number: int) -> None:
    """The job of a peer that takes none of the program that is run."""
    witness.saw(number)


class Peer:
    """One peer: what it can do, each by an async function or None.

    `bulk` and `one` enqueue the numbers; `one` takes a single one. `work` starts a worker and
    gives what must be held on to while it works.
    """

    def __init__(
        self,
        *,
        open: Callable[[str], Awaitable[Any]],  # noqa: A002  the verb
        one: Callable[[Any, int], Awaitable[object]],
        bulk: Callable[[Any, range], Awaitable[object]] | None,
        work: Callable[[Any, int], Awaitable[object]],
        gathers: bool = True,
    ) -> None:
        self.open = open
        self.one = one
        self.bulk = bulk
        self.work = work
        self.gathers = gathers


async def _fill(peer: Peer, app: Any, numbers: range) -> None:
    if peer.bulk is not None:
        await peer.bulk(app, numbers)
    elif peer.gathers:
        for start in range(numbers.start, numbers.stop, GATHERED):
            some = range(start, min(numbers.stop, start + GATHERED))
            await asyncio.gather(*[peer.one(app, number) for number in some])
    else:
        for number in numbers:
            await peer.one(app, number)


async def _measure(peer: Peer, verb: str, url: str, jobs: int, concurrency: int) -> dict[str, Any]:
    app = await peer.open(url)
    if verb == "drain":
        return await _drain(peer, app, jobs, concurrency)
    if verb == "latency":
        return await _latency(peer, app, jobs, concurrency)
    began = time.perf_counter()
    if verb == "one":
        for number in range(jobs):
            await peer.one(app, number)
    elif verb == "gathered":
        for start in range(0, jobs, GATHERED):
            some = range(start, min(jobs, start + GATHERED))
            await asyncio.gather(*[peer.one(app, number) for number in some])
    else:
        await _fill(peer, app, range(jobs))
    return {"rate": jobs / (time.perf_counter() - began)}


async def _drain(peer: Peer, app: Any, jobs: int, concurrency: int) -> dict[str, Any]:
    """From the start of the worker to the run of the last job."""
    await _fill(peer, app, range(jobs))
    witness.expect(jobs)
    began = time.perf_counter()
    _keep(await peer.work(app, concurrency))
    await witness.wait()
    took = witness.last - began
    # What runs twice does so soon.
    await asyncio.sleep(0.5)
    twice = len(witness.runs) - len(set(witness.runs))
    assert set(witness.runs) == set(range(jobs)), "not every job ran"
    return {"rate": jobs / took, "ran_twice": twice}


async def _latency(peer: Peer, app: Any, jobs: int, concurrency: int) -> dict[str, Any]:
    """From the enqueue to the start of the handler, one job at a time, of an idle worker."""
    witness.expect(1)
    _keep(await peer.work(app, concurrency))
    await peer.one(app, 0)
    await witness.wait()
    took: list[float] = []
    for number in range(1, jobs + 1):
        await asyncio.sleep(0.02)
        witness.expect(1)
        began = time.perf_counter()
        await peer.one(app, number)
        await witness.wait()
        took.append(witness.last - began)
    return {"median": statistics.median(took), "p95": sorted(took)[int(len(took) * 0.95)]}


def main(peer: Peer) -> None:
    """Do what the command line asks, and print what came of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=["one", "gathered", "bulk", "drain", "latency"])
    parser.add_argument("url")
    parser.add_argument("jobs", type=int)
    parser.add_argument("concurrency", type=int, nargs="?", default=100)
    options = parser.parse_args()
    if options.verb == "gathered" and not peer.gathers:
        print(json.dumps({}))
        return
    asyncio.run(_tell(peer, options))


async def _tell(peer: Peer, options: argparse.Namespace) -> None:
    found = await _measure(peer, options.verb, options.url, options.jobs, options.concurrency)
    print(json.dumps(found), flush=True)
    # The store is thrown away, so nothing need be closed, and no thread be waited for.
    os._exit(0)
