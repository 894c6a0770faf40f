"""Workers that stand still: a frozen process, and a blocked event loop (P2)."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import pytest

from jobmill import JobDefinition, JobHandle, Queue
from tests.faults.checked import assert_invariants
from tests.faults.jobs import Gate, Work, grip, hold, work
from tests.faults.places import Place
from tests.faults.processes import Process, Processes, comes_true, eventually
from tests.faults.witness import Witness

LEASE = 1.0
HELD = 2.0
"""Seconds of a lease that must hold: a busy machine may be late by two thirds of it."""


async def _started(witness: Witness, process: Process) -> None:
    await eventually(lambda: witness.of("start", pid=process.pid), f"a start in {process.pid}")


async def test_a_frozen_worker_is_told_that_it_lost_its_job(
    queue: Queue, place: Place, processes: Processes, witness: Witness, gate: Gate
) -> None:
    zombie = processes.worker(lease=LEASE)
    handle = await queue.enqueue(hold, gate)
    await _started(witness, zombie)
    place.freeze(zombie)
    others = [await queue.enqueue(work, Work()) for _ in range(10)]

    healthy = processes.worker(lease=LEASE)
    gate.open(healthy.pid)
    assert await handle.result(timeout=40) == healthy.pid
    for other in others:
        assert await other.result(timeout=40) == healthy.pid
    assert [line.pid for line in witness.of("start", job=handle.id)] == [zombie.pid, healthy.pid]
    seconds = witness.of("start", job=handle.id)[1].at - witness.of("start", job=handle.id)[0].at
    print(f"taken over {seconds:.2f} s after its first start")

    zombie.thaw()
    (told,) = await eventually(lambda: witness.of("told", pid=zombie.pid), "the zombie told")
    assert (told.job, told.note) == (handle.id, "lease_lost")
    await eventually(lambda: "its outcome is dropped" in zombie.log, "the outcome dropped")

    # It is well again: it takes the next job, when it is the only one.
    healthy.kill()
    assert await (await queue.enqueue(work, Work())).result(timeout=40) == zombie.pid
    assert await handle.result() == healthy.pid
    info = await handle.info()
    assert (info.status, info.attempts, info.lapses) == ("completed", 1, 1)
    await assert_invariants(queue, witness, [handle.id, *(other.id for other in others)])
    frozen = {other.id for other in others}
    assert not [line for line in witness.of("start", pid=zombie.pid) if line.job in frozen]


async def test_the_settle_of_a_frozen_worker_is_refused(
    queue: Queue, place: Place, processes: Processes, witness: Witness, gate: Gate
) -> None:
    zombie = processes.worker(lease=LEASE)
    handle = await queue.enqueue(grip, gate)
    await _started(witness, zombie)
    place.freeze(zombie)

    healthy = processes.worker(lease=LEASE)
    gate.open(healthy.pid)
    assert await handle.result(timeout=40) == healthy.pid

    # Its loop is blocked until the handler returns, so that nobody can tell it before.
    gate.open(zombie.pid)
    zombie.thaw()
    await eventually(lambda: witness.of("end", pid=zombie.pid), "the zombie's handler to end")
    await eventually(lambda: "succeed of" in zombie.log, "the refusal of its settle")
    assert f"succeed of {handle.id} came too late" in zombie.log
    assert await handle.result() == healthy.pid
    info = await handle.info()
    assert (info.status, info.attempts, info.lapses) == ("completed", 1, 1)


async def test_a_job_claimed_by_a_frozen_worker_does_not_start_there(
    queue: Queue, place: Place, processes: Processes, witness: Witness, tmp_path: Path
) -> None:
    way = tmp_path / "open"
    zombie = processes.worker(lease=LEASE, failpoint="held", gate=way)
    handle = await queue.enqueue(work, Work())
    await eventually(lambda: witness.of("held", pid=zombie.pid), "the claim")
    place.freeze(zombie)
    healthy = processes.worker(lease=LEASE)
    assert await handle.result(timeout=40) == healthy.pid

    way.touch()
    zombie.thaw()
    await eventually(lambda: "its outcome is dropped" in zombie.log, "the claim dropped")
    assert [line.pid for line in witness.of("start", job=handle.id)] == [healthy.pid]
    info = await handle.info()
    assert (info.attempts, info.lapses) == (1, 1)


async def test_a_handler_that_blocks_the_loop_for_four_leases_runs_once(
    queue: Queue, processes: Processes, witness: Witness, gate: Gate
) -> None:
    workers = [processes.worker(lease=HELD), processes.worker(lease=HELD)]
    for each in workers:
        await eventually(partial(witness.of, "ready", pid=each.pid), "both workers ready")
    handle = await queue.enqueue(grip, gate)
    (start,) = await eventually(lambda: witness.of("start", job=handle.id), "the start")
    blocked, free = workers if start.pid == workers[0].pid else workers[::-1]

    quick = [await queue.enqueue(work, Work()) for _ in range(10)]
    for each_quick in quick:
        assert await each_quick.result(timeout=40) == free.pid, "the blocked worker ran it"
    await eventually(lambda: time.monotonic() - start.at > 4 * HELD, "the end of four leases")
    gate.open()
    assert await handle.result(timeout=40) == blocked.pid
    assert set(witness.starts().values()) == {1}
    info = await handle.info()
    assert (info.attempts, info.lapses) == (1, 0)
    assert f"the job faults.grip {handle.id} has blocked the event loop" in blocked.log
    assert ", in grip" in blocked.log, "the warning shows where"


@pytest.mark.timeout(120)
async def test_a_job_of_ten_leases_runs_once(
    queue: Queue, processes: Processes, witness: Witness
) -> None:
    for _ in range(2):
        processes.worker(lease=HELD)
    handle = await queue.enqueue(work, Work(seconds=10 * HELD))
    await handle.result(timeout=60)
    info = await handle.info()
    assert (info.attempts, info.lapses) == (1, 0)
    assert witness.starts() == {handle.id: 1}


@pytest.mark.parametrize("job", [hold, grip], ids=["awaiting", "blocking"])
async def test_a_frozen_worker_without_another_goes_on_where_it_was(
    queue: Queue,
    place: Place,
    processes: Processes,
    gate: Gate,
    job: JobDefinition[Gate, int],
) -> None:
    witness = processes.witness
    worker = processes.worker(lease=LEASE)
    handle = await queue.enqueue(job, gate)
    await _started(witness, worker)
    for _ in range(3):
        place.freeze(worker)
        await _lapsed(queue, handle)
        worker.thaw()
        await _lapsed(queue, handle, really=False)
    gate.open()
    assert await handle.result(timeout=40) == worker.pid
    info = await handle.info()
    assert (info.attempts, info.lapses) == (1, 0)
    assert witness.starts() == {handle.id: 1}


async def _lapsed(queue: Queue, handle: JobHandle[int], *, really: bool = True) -> None:
    """Return when the job's lease has run out, or holds again."""
    store = queue.store.handle()
    await store.open()

    async def look() -> bool:
        (record,) = await store.get([handle.id])
        now = (await store.counts()).now
        assert record is not None
        assert record.lease_until is not None
        return (record.lease_until < now) is really

    try:
        await comes_true(look, "the lease to run out" if really else "the lease to hold")
    finally:
        await store.close()
