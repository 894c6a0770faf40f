"""Jobs that kill whoever runs them, and their innocent neighbours (P4)."""

from __future__ import annotations

from typing import Any

import pytest

from jobmill import JobDefinition, JobFailed, JobHandle, Queue
from tests.faults.checked import assert_invariants
from tests.faults.jobs import MOST, Work, crash, crash_child, hoard, leave, leave_child, work
from tests.faults.processes import Process, Processes, comes_true
from tests.faults.witness import Witness

MAX_LAPSES = 3
LEASE = 2.0
"""Seconds: who lives may be late by two thirds of it, on a machine that is busy."""
TOO_MUCH = MOST * 4 // 5
"""Bytes of memory."""


@pytest.mark.timeout(120)
@pytest.mark.parametrize("poison", [leave, crash], ids=["exit", "segfault"])
async def test_poison_fails_and_spares_its_neighbours(
    queue: Queue, processes: Processes, witness: Witness, poison: JobDefinition[Work, None]
) -> None:
    before = [await queue.enqueue(work, Work(seconds=0.2)) for _ in range(4)]
    bad = await queue.enqueue(poison, Work(seconds=0.05))
    after = [await queue.enqueue(work, Work(seconds=0.05)) for _ in range(20)]
    innocent = before + after
    workers = [processes.worker(lease=LEASE), processes.worker(lease=LEASE)]
    dead: list[Process] = []

    async def all_ended() -> bool:
        for n, each in enumerate(workers):
            if not each.alive:
                dead.append(each)
                workers[n] = processes.worker(lease=LEASE)
        stats = await queue.stats()
        return stats.completed + stats.failed == len(innocent) + 1

    await comes_true(all_ended, "all ended", within=90)
    with pytest.raises(JobFailed):
        await bad.result()
    info = await bad.info()
    assert info.error is not None
    assert (info.status, info.lapses, info.error.type) == ("failed", MAX_LAPSES, "LeaseLost")
    assert len(witness.of("start", job=bad.id)) == len(dead) == MAX_LAPSES

    for each in innocent:
        innocent_info = await each.info()
        assert (innocent_info.status, innocent_info.attempts) == ("completed", 1)
        assert innocent_info.lapses <= 1, "it ran beside a suspect"
    await assert_invariants(queue, witness, [each.id for each in (bad, *innocent)])


@pytest.mark.timeout(120)
@pytest.mark.parametrize("poison", [leave_child, crash_child], ids=["exit", "segfault"])
async def test_the_death_of_a_child_process_is_a_failed_attempt(
    queue: Queue, processes: Processes, witness: Witness, poison: Any
) -> None:
    worker = processes.worker(lease=5.0)
    innocent = [await queue.enqueue(work, Work(seconds=0.2)) for _ in range(5)]
    bad: JobHandle[None] = await queue.enqueue(poison)
    with pytest.raises(JobFailed):
        await bad.result(timeout=60)

    info = await bad.info()
    assert (info.status, info.attempts, info.lapses) == ("failed", 2, 0)
    assert [error.attempt for error in info.errors] == [1, 2]
    runs = witness.of("start", job=bad.id)
    assert len({run.pid for run in runs} - {worker.pid}) == 2, "each run had a child of its own"
    for each in innocent:
        assert await each.result(timeout=40) == worker.pid
    assert await (await queue.enqueue(work, Work())).result(timeout=40) == worker.pid
    assert worker.alive
    print(info.errors[-1].type, info.errors[-1].message)


@pytest.mark.timeout(120)
async def test_a_job_that_eats_all_memory_fails_as_poison_and_spares_its_neighbours(
    queue: Queue, processes: Processes, witness: Witness
) -> None:
    """As the system has it: it ends the process with -9 that has taken too much."""
    bad = await queue.enqueue(hoard, Work(seconds=0.005))
    innocent = [await queue.enqueue(work, Work(seconds=0.1)) for _ in range(10)]
    workers = [processes.worker(lease=LEASE), processes.worker(lease=LEASE)]
    dead: list[Process] = []

    async def all_ended() -> bool:
        for n, each in enumerate(workers):
            if each.memory > TOO_MUCH:
                each.kill()
                dead.append(each)
                workers[n] = processes.worker(lease=LEASE)
        stats = await queue.stats()
        return stats.completed + stats.failed == len(innocent) + 1

    await comes_true(all_ended, "all ended", within=90)
    info = await bad.info()
    assert info.error is not None
    assert (info.status, info.lapses, info.error.type) == ("failed", MAX_LAPSES, "LeaseLost")
    assert len(witness.of("start", job=bad.id)) == len(dead) == MAX_LAPSES
    for each in innocent:
        innocent_info = await each.info()
        assert (innocent_info.status, innocent_info.attempts) == ("completed", 1)
        assert innocent_info.lapses <= 1, "it ran beside a suspect"
    await assert_invariants(queue, witness, [each.id for each in (bad, *innocent)])


async def test_a_job_that_is_refused_memory_fails_its_attempts_only(
    queue: Queue, processes: Processes, witness: Witness
) -> None:
    worker = processes.worker(memory=TOO_MUCH, lease=5.0)
    innocent = [await queue.enqueue(work, Work(seconds=0.2)) for _ in range(4)]
    bad = await queue.enqueue(hoard, Work())
    with pytest.raises(JobFailed):
        await bad.result(timeout=40)
    info = await bad.info()
    assert [error.type for error in info.errors] == ["MemoryError", "MemoryError"]
    assert (info.attempts, info.lapses) == (2, 0)
    for each in innocent:
        assert await each.result(timeout=40) == worker.pid
    assert await (await queue.enqueue(work, Work())).result(timeout=40) == worker.pid
