"""`jobmill bench`: how fast a store is, from this machine, with jobs that do nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter

from jobmill.cli.asking import Asked, ask, beside
from jobmill.cli.ending import Ended, Exit
from jobmill.cli.output import Form, plain, show_one
from jobmill.cli.text import span
from jobmill.job import job
from jobmill.queue import Queue
from jobmill.worker import Worker

if TYPE_CHECKING:
    from rich.progress import Progress

QUEUE: Final = "jobmill-bench"
_ROUND_TRIPS: Final = 50
_PORTION: Final = 1_000
_LOOK: Final = 0.02


@job(name="jobmill.bench")
async def nothing() -> None:
    """Do nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What was measured, in one run. Rates are jobs a second, times are seconds."""

    store: str
    jobs: int
    concurrency: int
    one_at_a_time: float
    in_bulk: float
    drained: float
    round_trip: float


def bench(
    *,
    asked: Asked = Asked(),  # noqa: B008  it is frozen
    jobs: Annotated[int, Parameter(help="So many jobs.")] = 5_000,
    concurrency: Annotated[int, Parameter(help="Jobs that run at once.")] = 100,
    form: Form = Form(),  # noqa: B008  it is frozen
) -> None:
    """Measure a store: jobs are enqueued, run by a worker in this process, and removed.

    They go to a queue of their own, jobmill-bench. The figures are those of this machine and
    this moment; compare only what was measured together.
    """
    for word, value in (("--jobs", jobs), ("--concurrency", concurrency)):
        if value < 1:
            raise Ended(Exit.USAGE, f"{word}: {value} will not do; give 1 or more")
    queue = beside(asked.made(any_of_store=True), QUEUE)
    found = ask(queue, lambda queue: _measured(queue, jobs, concurrency), makes=True)
    text = (
        f"{found.store}, {found.jobs:,} jobs, {found.concurrency} at once\n"
        f"enqueued one at a time  {found.one_at_a_time:>10,.0f} a second\n"
        f"enqueued in bulk        {found.in_bulk:>10,.0f} a second\n"
        f"drained                 {found.drained:>10,.0f} a second\n"
        f"enqueue to result       {span(found.round_trip):>10}, the median"
    )
    show_one(form, plain(found), text, key=f"{found.drained:.0f}")


async def _measured(queue: Queue, jobs: int, concurrency: int) -> Figures:
    await queue.clear()
    try:
        began = time.perf_counter()
        for _ in range(_ROUND_TRIPS):
            await queue.enqueue(nothing)
        one_at_a_time = _ROUND_TRIPS / (time.perf_counter() - began)
        await queue.clear()
        with _progress() as progress:
            in_bulk = await _enqueue(queue, jobs, progress)
            drained, trips = await _drain(queue, jobs, concurrency, progress)
    finally:
        await queue.clear()
    return Figures(
        store=queue.store.place,
        jobs=jobs,
        concurrency=concurrency,
        one_at_a_time=one_at_a_time,
        in_bulk=in_bulk,
        drained=drained,
        round_trip=median(trips),
    )


async def _enqueue(queue: Queue, jobs: int, progress: Progress) -> float:
    bar = progress.add_task("enqueueing", total=jobs)
    began = time.perf_counter()
    for start in range(0, jobs, _PORTION):
        portion = min(_PORTION, jobs - start)
        await queue.enqueue_many([nothing.call()] * portion, wake=False)
        progress.advance(bar, portion)
    return jobs / (time.perf_counter() - began)


async def _drain(
    queue: Queue, jobs: int, concurrency: int, progress: Progress
) -> tuple[float, list[float]]:
    """Jobs a second that the worker runs, and the seconds from enqueue to result, one by one."""
    bar = progress.add_task("running", total=jobs)
    worker = Worker(queue, concurrency=concurrency)
    began = time.perf_counter()
    running = asyncio.get_running_loop().create_task(worker.run())
    try:
        while (done := worker.started) < jobs or not worker.idle:
            progress.update(bar, completed=done)
            await asyncio.wait([running], timeout=_LOOK)
            if running.done():
                running.result()
        progress.update(bar, completed=jobs)
        drained = jobs / (time.perf_counter() - began)
        trips: list[float] = []
        for _ in range(_ROUND_TRIPS):
            began = time.perf_counter()
            await (await queue.enqueue(nothing)).result()
            trips.append(time.perf_counter() - began)
        return drained, trips
    finally:
        await worker.stop()
        await running


@contextmanager
def _progress() -> Generator[Progress]:
    """Bars on stderr, where that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        yield progress
