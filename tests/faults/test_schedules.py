"""Three processes with one schedule of each second; one of them is killed (P7, I8)."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobmill import Scheduler, create_queue
from tests.conftest import SOAK
from tests.faults import scheduler_app
from tests.faults.checked import assert_invariants
from tests.faults.places import Place
from tests.faults.processes import Process, comes_true, eventually
from tests.faults.witness import Witness

SPAN = 60 if SOAK else 8
"""Seconds of ticks."""
BEFORE = 2.0
"""Seconds until the first, about, in which the schedule is written; the processes catch up."""


@pytest.fixture
def url(place: Place) -> str:
    return place.url


@pytest.fixture
async def schedules(url: str) -> AsyncIterator[Scheduler]:
    """As the test's own process sees it; nothing ticks there."""
    async with create_queue(url) as queue:
        yield Scheduler(queue=queue)


@pytest.fixture
def start(url: str, tmp_path: Path, witness: Witness) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def begin(**settings: Any) -> Process:
        log = tmp_path / f"process-{len(started)}.log"
        told = scheduler_app.Settings(url=url, **settings)
        started.append(Process(scheduler_app.__name__, told, witness.path, log))
        return started[-1]

    yield begin
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        print(f"--- process {process.pid}, exit code {process.exit_code}\n{process.log}")


async def written(scheduler: Scheduler, span: int, **settings: Any) -> dict[str, float]:
    """Have the schedule written before its first tick, which is then due whoever is there.

    What all processes are told of its ticks.
    """
    while True:
        # The store is open by then, and what a try that came too late has left is gone.
        await scheduler.unschedule("each")
        await scheduler.queue.clear()
        first = float(int(time.time() + BEFORE))
        window = {"start": first, "end": first + span - 1, **settings}
        told = scheduler_app.Settings(url="", **window)
        async with scheduler_app.declared(scheduler.queue, told):
            assert await scheduler.get_scheduled_jobs()
        if time.time() < first:
            return window


async def over(scheduler: Scheduler) -> bool:
    """Whether the schedule has ended and nothing of it is left to run."""
    found = await scheduler.get_scheduled_jobs()
    stats = await scheduler.queue.stats()
    ran = stats.total > 0 and stats.completed == stats.total
    return bool(found) and found[0].next_run is None and ran


@pytest.mark.timeout(60 + 2 * SPAN)
async def test_each_second_fires_once_over_three_processes_of_which_one_is_killed(
    schedules: Scheduler, start: Callable[..., Process], witness: Witness
) -> None:
    window = await written(schedules, SPAN)
    first = window["start"]
    processes = [start(**window) for _ in range(3)]
    await eventually(lambda: len(witness.of("ready")) == 3, "three processes are ready")
    await eventually(lambda: len(witness.starts()) >= SPAN // 3, "a third of the ticks", within=90)
    processes[0].kill()
    start(**window)

    await comes_true(lambda: over(schedules), "the end of the schedule", within=SPAN + 30.0)
    ticks = await schedules.history("each", limit=1_000)
    fired = [tick for tick in reversed(ticks) if tick.outcome == "fired"]
    assert [tick.at.timestamp() for tick in fired] == [first + n for n in range(SPAN)]
    assert len(ticks) == SPAN
    ids = {tick.job_id for tick in fired}
    assert len(ids) == SPAN
    # All of them ran; only those that ran in the process that was killed may have run again.
    starts = witness.starts()
    assert set(starts) == ids
    last_of_killed = witness.of("start", pid=processes[0].pid)[-6:]
    assert {job for job, times in starts.items() if times > 1} <= {
        line.job for line in last_of_killed
    }
    assert (await schedules.queue.stats()).total == SPAN
    await assert_invariants(schedules.queue, witness, starts)


async def test_max_runs_is_exact_over_three_processes(
    schedules: Scheduler, start: Callable[..., Process], witness: Witness
) -> None:
    window = await written(schedules, 1_000, max_runs=3)
    for _ in range(3):
        start(**window)
    await comes_true(lambda: over(schedules), "the end of the schedule")
    # A second more, in which each of them would tick again if it could.
    handle = await schedules.queue.enqueue(scheduler_app.tick, delay=1.5)
    await handle.result(timeout=30)
    (found,) = await schedules.get_scheduled_jobs()
    assert (found.runs, found.next_run) == (3, None)
    assert Counter(tick.outcome for tick in await schedules.history("each")) == {"fired": 3}
    assert (await schedules.queue.stats()).total == 4
