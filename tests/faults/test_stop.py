"""Processes that are told to stop: all ends in order, or is handed back unspent (P11)."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from jobmill import JobHandle, Queue
from tests.faults.jobs import Gate, Work, cling, hold, work
from tests.faults.processes import Processes, comes_true, eventually
from tests.faults.witness import Witness

LEASE = 30.0
"""So long that nothing here lapses: what is pending again was handed back."""


async def _assert_untouched(handle: JobHandle[int]) -> None:
    info = await handle.info()
    assert (info.status, info.attempts, info.lapses) == ("pending", 0, 0)


async def test_a_stop_waits_for_running_jobs_and_claims_no_more(
    queue: Queue, processes: Processes, witness: Witness, gate: Gate
) -> None:
    worker = processes.worker(lease=LEASE)
    running = [await queue.enqueue(hold, gate) for _ in range(3)]
    await eventually(lambda: len(witness.of("start")) == 3, "three starts")
    worker.send(signal.SIGTERM)
    # A signal that came before a job is acted upon before it: it wakes the loop.
    late: list[JobHandle[int]] = []

    async def passed_over() -> bool:
        late.append(await queue.enqueue(work, Work()))
        info = await late[-1].info()
        return info.status == "pending" and len(late) > 20

    await comes_true(passed_over, "the stop heard")
    assert worker.alive, "it left running jobs"
    gate.open()
    assert await worker.ends() == 0
    for each in running:
        assert await each.result() == worker.pid
        info = await each.info()
        assert (info.attempts, info.lapses) == (1, 0)

    other = processes.worker(lease=LEASE)
    for each in late:
        assert await each.result(timeout=40) in {worker.pid, other.pid}
    assert set(witness.starts().values()) == {1}
    last = await late[-1].info()
    assert last is not None
    assert last.result == other.pid


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stop_hands_back_what_does_not_end_in_time(
    queue: Queue, processes: Processes, witness: Witness, gate: Gate, number: signal.Signals
) -> None:
    worker = processes.worker(lease=LEASE, stop_timeout=0.2)
    jobs = [await queue.enqueue(work, Work(seconds=600)) for _ in range(7)]
    await eventually(lambda: len(witness.of("start")) == 5, "five starts")
    worker.send(number)
    assert await worker.ends() == 0
    for each in jobs:
        await _assert_untouched(each)


async def test_a_second_signal_hands_back_and_goes(
    queue: Queue, processes: Processes, witness: Witness
) -> None:
    worker = processes.worker(lease=LEASE, stop_timeout=600.0)
    handle = await queue.enqueue(work, Work(seconds=600))
    await eventually(lambda: witness.of("start"), "the start")
    worker.send(signal.SIGTERM)
    worker.send(signal.SIGINT)
    assert await worker.ends() == 0
    await _assert_untouched(handle)


async def test_a_keyboard_interrupt_without_handlers_hands_back(
    queue: Queue, processes: Processes, witness: Witness
) -> None:
    worker = processes.worker(lease=LEASE, handles_signals=False)
    handle = await queue.enqueue(work, Work(seconds=600))
    await eventually(lambda: witness.of("start"), "the start")
    worker.send(signal.SIGINT)
    assert await worker.ends() != 0
    assert "KeyboardInterrupt" in worker.log
    await _assert_untouched(handle)


async def test_a_stop_during_start_up_is_heard(
    queue: Queue, processes: Processes, witness: Witness, tmp_path: Path
) -> None:
    handle = await queue.enqueue(work, Work())
    way = tmp_path / "open"
    worker = processes.worker(lease=LEASE, failpoint="opening", gate=way)
    await eventually(lambda: witness.of("opening", pid=worker.pid), "the start-up")
    worker.send(signal.SIGTERM)
    worker.send(signal.SIGCONT)
    way.touch()
    assert await worker.ends() == 0
    await _assert_untouched(handle)
    assert not witness.starts()


async def test_a_stuck_thread_is_handed_back_as_the_last_act(
    queue: Queue, processes: Processes, witness: Witness, gate: Gate
) -> None:
    worker = processes.worker(lease=LEASE, stop_timeout=0.1)
    stuck = await queue.enqueue(cling, gate)
    soft = await queue.enqueue(work, Work(seconds=600))
    await eventually(lambda: len(witness.of("start")) == 2, "both starts")
    worker.send(signal.SIGTERM)
    assert await worker.ends() == 0
    assert "it keeps its lease" in worker.log
    await _assert_untouched(stuck)
    await _assert_untouched(soft)
    assert not witness.of("end")

    gate.open()
    other = processes.worker(lease=LEASE)
    assert await stuck.result(timeout=40) == other.pid
    info = await stuck.info()
    assert (info.attempts, info.lapses) == (1, 0)
