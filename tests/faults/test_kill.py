"""Workers and programs that are killed: nothing is lost, little runs twice (P1, P2, P4)."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TypeAlias

import pytest

from jobmill import Queue
from jobmill.store import Query, Record, Store
from tests.faults.checked import assert_invariants
from tests.faults.jobs import Gate, Work, hold, work
from tests.faults.places import Place
from tests.faults.processes import Process, Processes, comes_true, eventually
from tests.faults.producer_app import read_answers
from tests.faults.witness import Witness
from tests.faults.worker_app import Failpoint
from tests.stalls import Stalls

JOBS = 1_000
KILLS = 10
LEASE = 1.5
SECONDS_BEYOND_LEASE = 2.0
"""What a job may wait beyond its lease until it is pending again."""

_RunId: TypeAlias = "tuple[str, float | None]"
"""A job, and when its run started."""


@pytest.mark.alone  # it measures how soon jobs are pending again
@pytest.mark.timeout(180)
async def test_kill_9_ten_times_over_1000_jobs(
    queue: Queue, place: Place, processes: Processes, witness: Witness
) -> None:
    store = queue.store.handle()
    await store.open()
    try:
        async with Stalls() as stalls:
            await _kill_ten_times(queue, store, place, processes, witness, stalls)
    finally:
        await store.close()


async def _kill_ten_times(
    queue: Queue, store: Store, place: Place, processes: Processes, witness: Witness, stalls: Stalls
) -> None:
    began = time.monotonic()
    calls = [work.call(Work(seconds=0.005 + 0.045 * (n % 10) / 9)) for n in range(JOBS)]
    ids = [handle.id for handle in await queue.enqueue_many(calls, max_attempts=2)]
    workers = [processes.worker(lease=LEASE), processes.worker(lease=LEASE)]

    died_at: dict[_RunId, float] = {}
    waits: list[asyncio.Task[list[float]]] = []
    for n in range(KILLS):
        enough = (n + 1) * JOBS * 4 // (5 * KILLS)
        await eventually(partial(_are_ended, witness, enough), f"{enough} ends")
        victim = workers[n % 2]
        await eventually(partial(witness.running, victim.pid), "the victim in a job")
        await asyncio.to_thread(place.kill, victim)
        held = await _held_by(store, victim)
        died_at.update({(record.id, record.started_at): time.monotonic() for record in held})
        waits.append(asyncio.create_task(_recovered(store, held, died_at)))
        workers[n % 2] = processes.worker(lease=LEASE)
    recovered = [seconds for wait in waits for seconds in await wait]
    kills = Counter(job_id for job_id, _ in died_at)

    async def all_ended() -> bool:
        stats = await queue.stats()
        return stats.completed + stats.failed == JOBS

    await comes_true(all_ended, "all ended", within=90)
    records = [record for record in await store.get(ids) if record is not None]
    assert len(records) == JOBS
    assert {record.state for record in records} == {"completed"}
    assert {record.attempts for record in records} == {1}, "a kill spent an attempt"
    assert {record.id: record.lapses for record in records if record.lapses} == kills
    again = Counter({job: times - 1 for job, times in witness.starts().items() if times > 1})
    assert again <= kills, "a job ran twice that no killed worker had"
    assert set(witness.starts()) == set(ids)
    await assert_invariants(queue, witness, ids)
    print(
        f"{len(recovered)} jobs in flight at {KILLS} kills, {again.total()} second runs, "
        f"pending again after {min(recovered):.2f} to {max(recovered):.2f} s (lease {LEASE} s)"
    )
    assert max(recovered) <= LEASE + SECONDS_BEYOND_LEASE + stalls.since(began)


def _are_ended(witness: Witness, enough: int) -> bool:
    return len(witness.of("end")) >= enough


async def _held_by(store: Store, process: Process) -> list[Record]:
    """The jobs that the process had when it was killed."""
    page = await store.find(Query(states=("processing",)), limit=100)
    mark = f":{process.pid}:"
    return [record for record in page.records if record.worker and mark in record.worker]


async def _recovered(
    store: Store, held: list[Record], died_at: Mapping[_RunId, float]
) -> list[float]:
    """How long each of the jobs took to be pending again, after its worker's death.

    A worker that took a lapsed job over may die before it could hand it back: the run was
    lost once, and is recovered a lease after its second owner's death.
    """
    before = {record.id: record for record in held}
    seconds: list[float] = []

    async def all_lapsed() -> bool:
        for record in await store.get(list(before)):
            if record is not None and record.lapses > before[record.id].lapses:
                was = before.pop(record.id)
                seconds.append(time.monotonic() - died_at[was.id, was.started_at])
        return not before

    await comes_true(all_lapsed, "the killed worker's jobs pending again")
    return seconds


@pytest.mark.parametrize(
    ("failpoint", "expected"), [("claimed", (0, 1)), ("done", (1, 1)), ("settled", (1, 0))]
)
async def test_kill_9_between_the_steps_of_a_run(
    queue: Queue,
    processes: Processes,
    witness: Witness,
    failpoint: Failpoint,
    expected: tuple[int, int],
) -> None:
    runs_before, lapses = expected
    handle = await queue.enqueue(work, Work())
    doomed = processes.worker(failpoint=failpoint)
    assert await doomed.ends() == -signal.SIGKILL
    assert len(witness.of("end", job=handle.id)) == runs_before
    job_info = await handle.info()
    assert job_info.status == ("processing" if lapses else "completed")

    other = processes.worker()
    ended = time.monotonic()
    await handle.result(timeout=40)
    seconds = time.monotonic() - ended
    print(f"killed at {failpoint!r}: completed {seconds:.2f} s after the next worker's start")
    info = await handle.info()
    assert (info.attempts, info.lapses) == (1, lapses)
    second_run = 1 if lapses else 0
    assert [line.pid for line in witness.of("start", job=handle.id)] == (
        [doomed.pid] * runs_before + [other.pid] * second_run
    )


async def test_what_a_dead_program_enqueued_is_run_by_the_next(
    queue: Queue, processes: Processes, witness: Witness, tmp_path: Path
) -> None:
    answers = tmp_path / "answers.jsonl"
    at_once = processes.producer(answers, count=20, dies=True)
    later = processes.producer(answers, count=5, delay=1.0, dies=True)
    assert await at_once.ends() == await later.ends() == -signal.SIGKILL
    accepted = {answer.id for answer in read_answers(answers)}
    assert len(accepted) == 25

    processes.worker()

    async def all_completed() -> bool:
        return (await queue.stats()).completed == 25

    await comes_true(all_completed, "all completed")
    assert witness.starts() == Counter(accepted)


async def test_a_job_outlives_both_its_program_and_its_worker(
    queue: Queue, place: Place, processes: Processes, witness: Witness, gate: Gate
) -> None:
    handle = await queue.enqueue(hold, gate)
    await queue.close()
    first = processes.worker()
    await eventually(lambda: witness.of("start", pid=first.pid), "the first start")
    first.kill()

    gate.open()
    second = processes.worker()
    assert await handle.result(timeout=40) == second.pid
    info = await handle.info()
    assert (info.attempts, info.lapses) == (1, 1)
