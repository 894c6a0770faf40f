"""Handlers and hooks that do not behave, in processes of their own (P3, P5, P11)."""

from __future__ import annotations

import pytest

from jobmill import JobCancelled, JobFailed, Queue
from tests.faults.jobs import Gate, Work, hooked, overstay, swallow, work
from tests.faults.processes import Processes, comes_true, eventually
from tests.faults.witness import Witness

LEASE = 2.0
"""Seconds: a renewal may be late by two thirds of it, on a machine that is busy."""


async def test_a_thread_deaf_to_its_timeout_keeps_its_lease_and_its_slot(
    queue: Queue, processes: Processes, witness: Witness, gate: Gate
) -> None:
    worker = processes.worker(lease=LEASE, concurrency=1, stuck_after=2 * LEASE)
    stuck = await queue.enqueue(overstay, gate)
    await eventually(lambda: witness.of("start", job=stuck.id), "the start")
    other = processes.worker(lease=LEASE)
    for _ in range(10):
        assert await (await queue.enqueue(work, Work())).result(timeout=40) == other.pid
    # That takes longer than two leases from its timeout.
    await eventually(lambda: f"faults.overstay {stuck.id} is stuck" in worker.log, "the report")
    info = await stuck.info()
    assert (info.status, info.attempts, info.lapses) == ("processing", 1, 0)
    later = [await queue.enqueue(work, Work()) for _ in range(10)]
    assert {await each.result(timeout=40) for each in later} == {other.pid}, "its slot was given"

    gate.open()
    with pytest.raises(JobFailed):
        await stuck.result(timeout=40)
    info = await stuck.info()
    assert info.error is not None
    assert (info.status, info.attempts, info.lapses) == ("failed", 1, 0)
    assert info.error.type == "JobTimeout"
    assert witness.starts()[stuck.id] == 1
    other.kill()
    assert await (await queue.enqueue(work, Work())).result(timeout=40) == worker.pid


async def test_a_handler_that_swallows_its_cancellation_never_completes(
    queue: Queue, processes: Processes, witness: Witness, gate: Gate
) -> None:
    worker = processes.worker(lease=LEASE)
    late = await queue.enqueue(swallow, gate, timeout=0.3)
    unwanted = await queue.enqueue(swallow, gate)
    await eventually(lambda: len(witness.of("start")) == 2, "both starts")
    assert await unwanted.cancel("enough")
    # They hold their slots and nothing else.
    await eventually(lambda: len(witness.of("told")) == 2, "both cancelled")
    for _ in range(5):
        assert await (await queue.enqueue(work, Work())).result(timeout=40) == worker.pid
    assert [(await each.info()).status for each in (late, unwanted)] == ["processing"] * 2

    gate.open()
    with pytest.raises(JobFailed):
        await late.result(timeout=40)
    with pytest.raises(JobCancelled):
        await unwanted.result(timeout=40)
    expected = {late: ("failed", "JobTimeout"), unwanted: ("cancelled", "JobCancelled")}
    for handle, (status, error) in expected.items():
        info = await handle.info()
        assert info.error is not None
        assert (info.status, info.error.type) == (status, error)
        assert (info.attempts, info.lapses, info.result) == (1, 0, None)
        assert len(witness.of("end", job=handle.id)) == 1, "it returned, and was not believed"
    assert worker.alive


async def test_raising_hooks_and_unsayable_results_leave_no_job_without_its_end(
    queue: Queue, processes: Processes, witness: Witness
) -> None:
    worker = processes.worker(lease=LEASE)
    fine = [await queue.enqueue(hooked, "sayable") for _ in range(5)]
    bad = [await queue.enqueue(hooked, "unsayable") for _ in range(5)]

    async def all_ended() -> bool:
        stats = await queue.stats()
        return stats.completed + stats.failed == 10

    await comes_true(all_ended, "all ended")
    for each in fine:
        info = await each.info()
        assert (info.status, info.result, info.attempts) == ("completed", "fine", 2)
    for each in bad:
        info = await each.info()
        assert info.error is not None
        assert (info.status, info.attempts) == ("failed", 2)
        assert info.error.type == "PayloadError"
    assert set(witness.starts().values()) == {2}
    for name in ("after_run", "on_error", "on_retry", "on_progress", "on_finally"):
        await eventually(lambda: name in worker.log, f"{name} in the log")  # noqa: B023  awaited
    assert await (await queue.enqueue(work, Work())).result(timeout=40) == worker.pid
