"""Processes whose clocks are wrong, and are set while they run (P7, P9, I5, I8)."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from jobmill import JobHandle, Queue, Scheduler
from tests.faults.checked import assert_invariants
from tests.faults.clocks import WrongClock
from tests.faults.jobs import Gate, Work, hold, work
from tests.faults.places import SERVERS, Place, SQLitePlace
from tests.faults.processes import Process, Processes, comes_true, eventually
from tests.faults.producer_app import read_answers
from tests.faults.test_schedules import over, written
from tests.faults.witness import Witness

LEASE = 2.5
SPAN = 6
"""Ticks, one in each second."""
MINUTES = 600.0
HOUR = 3_600.0
DELAY = 1.0
NEAR = 90.0
"""Seconds by which two clocks may differ that tell the same time."""


@pytest.fixture(params=SERVERS)
def server_place(request: pytest.FixtureRequest) -> Iterator[Place]:
    with request.param.made() as made:
        yield made


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    if "server_place" in request.fixturenames:
        yield request.getfixturevalue("server_place")
        return
    with SQLitePlace.made() as made:
        yield made


def sees(witness: Witness, process: Process, clock: WrongClock, since: float = 0.0) -> bool:
    """Whether the process has said something at a time that the clock shows now."""
    return any(
        abs(line.wall - time.time() - clock.ahead) < NEAR
        for line in witness.lines
        if line.pid == process.pid and line.at > since
    )


async def both_see(
    queue: Queue, witness: Witness, clocks: dict[Process, WrongClock]
) -> list[JobHandle[int]]:
    """Jobs that were run until each process has run one by its clock as it is now."""
    since = time.monotonic()
    handles: list[JobHandle[int]] = []
    for process, clock in clocks.items():

        async def seen(process: Process = process, clock: WrongClock = clock) -> bool:
            # More than one of them has slots for.
            some = await queue.enqueue_many([work.call(Work(seconds=0.02))] * 12)
            for each in some:
                await each.result(timeout=40)
            handles.extend(some)
            return sees(witness, process, clock, since)

        await comes_true(seen, "the clock seen by the process")
    return handles


async def leases_pass(count: int) -> None:
    began = time.monotonic()
    await eventually(lambda: time.monotonic() - began > count * LEASE, f"{count} leases")


def _are_over(witness: Witness, job_id: str, runs: int) -> bool:
    told = witness.of("told", job=job_id)
    return len(witness.of("end", job=job_id)) + len(told) == runs


async def ran_once(witness: Witness, handles: list[JobHandle[int]]) -> None:
    for each in handles:
        info = await each.info()
        assert (info.status, info.attempts, info.lapses) == ("completed", 1, 0)
        assert witness.starts()[each.id] == 1


async def test_the_clocks_of_workers_and_producers_change_nothing(
    server_place: Place,
    queue: Queue,
    processes: Processes,
    witness: Witness,
    gate: Gate,
    tmp_path: Path,
) -> None:
    """One is ten minutes ahead, one behind; they jump an hour and more while jobs run."""
    ahead = WrongClock(tmp_path / "ahead", MINUTES)
    behind = WrongClock(tmp_path / "behind", -MINUTES)
    scheduler = Scheduler(queue=queue)
    window = await written(scheduler, SPAN)
    workers = {
        processes.scheduler(clock=clock, lease=LEASE, **window): clock for clock in (ahead, behind)
    }
    for each, clock in workers.items():
        await eventually(partial(sees, witness, each, clock), f"{each.pid} with a wrong clock")
    held = [await queue.enqueue(hold, gate) for _ in range(4)]
    await eventually(lambda: len({*witness.starts()} & {one.id for one in held}) == 4, "starts")

    answers = tmp_path / "answers.jsonl"
    for clock in (ahead, behind):
        delayed = processes.producer(answers, count=2, delay=DELAY, clock=clock)
        assert await delayed.ends() == 0
    ahead.set(-HOUR)
    behind.set(HOUR)
    done = await both_see(queue, witness, workers)
    await leases_pass(2)
    assert not witness.of("told"), "a lease was lost to a clock"

    delayed_ids = [answer.id for answer in read_answers(answers)]
    assert len(delayed_ids) == 4
    for job_id in delayed_ids:
        await comes_true(partial(_is_completed, queue, job_id), "a delayed job completed")
        info = await queue.get_job(job_id)
        assert info is not None
        assert info.started_at is not None
        assert abs(info.enqueued_at.timestamp() - time.time()) < NEAR, "a producer's clock"
        assert (info.started_at - info.enqueued_at).total_seconds() >= DELAY, "too early"
        assert (info.started_at - info.enqueued_at).total_seconds() < NEAR
    gate.open()
    for each_held in held:
        await each_held.result(timeout=40)
    await ran_once(witness, [*held, *done])

    await comes_true(lambda: over(scheduler), "the end of the schedule", within=60.0)
    ticks = await scheduler.history("each", limit=1_000)
    fired = sorted(tick.at.timestamp() for tick in ticks if tick.outcome == "fired")
    assert fired == [window["start"] + n for n in range(SPAN)]
    assert len(ticks) == SPAN
    await assert_invariants(queue, witness, [one.id for one in (*held, *done)])
    assert max(witness.starts().values()) == 1


async def _is_completed(queue: Queue, job_id: str) -> bool:
    info = await queue.get_job(job_id)
    return info is not None and info.status == "completed"


@pytest.mark.store("sqlite")
async def test_a_clock_set_back_by_an_hour_makes_nothing_run_twice_on_a_file(
    queue: Queue, processes: Processes, witness: Witness, gate: Gate, tmp_path: Path
) -> None:
    """A file has the time of its machine: all processes see the jump."""
    clock = WrongClock(tmp_path / "clock", 0.0)
    scheduler = Scheduler(queue=queue)
    window = await written(scheduler, SPAN)
    workers = {processes.scheduler(clock=clock, lease=LEASE, **window): clock for _ in range(2)}
    held = [await queue.enqueue(hold, gate) for _ in range(4)]
    await eventually(lambda: len({*witness.starts()} & {one.id for one in held}) == 4, "starts")
    clock.set(-HOUR)
    done = await both_see(queue, witness, workers)
    await leases_pass(3)
    assert not witness.of("told"), "a lease was lost to a clock"
    gate.open()
    for each_held in held:
        await each_held.result(timeout=40)
    await ran_once(witness, [*held, *done])
    await comes_true(lambda: over(scheduler), "the end of the schedule", within=60.0)
    ticks = await scheduler.history("each", limit=1_000)
    fired = sorted(tick.at.timestamp() for tick in ticks if tick.outcome == "fired")
    assert fired == [window["start"] + n for n in range(SPAN)]
    await assert_invariants(queue, witness, [one.id for one in (*held, *done)])
    assert max(witness.starts().values()) == 1


@pytest.mark.store("sqlite")
async def test_a_clock_set_forward_by_an_hour_ends_leases_on_a_file_and_nothing_worse(
    queue: Queue, processes: Processes, witness: Witness, gate: Gate, tmp_path: Path
) -> None:
    """What a file cannot promise: a run may be taken for dead. It is told, and writes nothing."""
    clock = WrongClock(tmp_path / "clock", 0.0)
    scheduler = Scheduler(queue=queue)
    window = await written(scheduler, 100)
    workers = {processes.scheduler(clock=clock, lease=LEASE, **window): clock for _ in range(2)}
    held = [await queue.enqueue(hold, gate) for _ in range(4)]
    await eventually(lambda: len({*witness.starts()} & {one.id for one in held}) == 4, "starts")
    clock.set(HOUR)
    await leases_pass(2)
    # What lapsed is suspect: each worker runs one of them, alone.
    gate.open()
    for each_held in held:
        await each_held.result(timeout=40)
    await both_see(queue, witness, workers)
    await comes_true(lambda: over(scheduler), "the end of the schedule", within=60.0)
    await assert_invariants(queue, witness, [one.id for one in held])
    again = 0
    for each_held in held:
        info = await each_held.info()
        runs = witness.of("start", job=each_held.id)
        again += len(runs) - 1
        assert (info.status, info.attempts) == ("completed", 1)
        assert info.lapses <= 1
        assert len(runs) <= 1 + info.lapses
        # The first run was told, or ended before it could be, and was not believed.
        await eventually(partial(_are_over, witness, each_held.id, len(runs)), "the end of all")
        assert all(line.note == "lease_lost" for line in witness.of("told", job=each_held.id))
        assert info.result == runs[-1].pid
    print(f"{again} of {len(held)} running jobs ran a second time")
    ticks = await scheduler.history("each", limit=1_000)
    assert max(Counter(tick.at for tick in ticks).values()) == 1, "a tick twice"
    ids = [tick.job_id for tick in ticks if tick.outcome == "fired"]
    assert len(ids) == len(set(ids))
