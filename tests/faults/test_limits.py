"""A rate limit over many processes, some of which are killed (I9)."""

from __future__ import annotations

from functools import partial

from jobmill import Queue
from tests.faults.checked import assert_invariants
from tests.faults.jobs import LIMIT, Gate, Work, limited, limited_hold
from tests.faults.processes import Process, Processes, comes_true, eventually
from tests.faults.witness import Witness

WORKERS = 8
JOBS = 3 * LIMIT
LEASE = 2.0
SECOND = 1.0


def most_in_a_second(starts: list[tuple[float, float]]) -> int:
    """The most starts that were surely in one second; each lies between its two instants."""
    return max(
        sum(asked <= first and told < asked + SECOND for first, told in starts)
        for asked, _ in starts
    )


async def test_a_rate_limit_holds_over_eight_workers_and_their_crashes(
    queue: Queue, processes: Processes, witness: Witness, gate: Gate
) -> None:
    def worker() -> Process:
        return processes.worker(tells_slots=True, concurrency=2, lease=LEASE)

    workers = [worker() for _ in range(WORKERS)]
    for each in workers:
        await eventually(partial(witness.of, "ready", pid=each.pid), "the workers ready")
    # One that does not end, so that there is a victim, however late it is looked for.
    calls = [limited_hold.call(gate), *[limited.call(Work(seconds=0.1)) for _ in range(JOBS - 1)]]
    handles = await queue.enqueue_many(calls)
    for n in range(2):
        await eventually(partial(_are_started, witness, (n + 1) * LIMIT), "starts")
        victim = await _in_a_job(witness, workers)
        workers[victim].kill()
        workers[victim] = worker()
    gate.open()

    async def all_completed() -> bool:
        return (await queue.stats()).completed == JOBS

    await comes_true(all_completed, "all completed")
    for handle in handles:
        info = await handle.info()
        assert (info.status, info.attempts) == ("completed", 1)
    await assert_invariants(queue, witness, [handle.id for handle in handles])
    starts = [(float(line.note), line.at) for line in witness.of("slot")]
    again = len(starts) - JOBS
    most = most_in_a_second(starts)
    print(f"{len(starts)} starts, {again} of them again after a crash, at most {most} in a second")
    # On a slow machine most of them lie between instants too far apart to be sure.
    assert 1 < most <= LIMIT
    assert again >= 1


def _are_started(witness: Witness, enough: int) -> bool:
    return len(witness.of("start")) >= enough


async def _in_a_job(witness: Witness, workers: list[Process]) -> int:
    """Freeze a worker in the middle of a job; which one."""
    while True:
        for n in await eventually(lambda: _busy(witness, workers), "a worker in a job"):
            workers[n].freeze()
            # Its job may have ended since it was looked at.
            if witness.running(workers[n].pid):
                return n
            workers[n].thaw()


def _busy(witness: Witness, workers: list[Process]) -> list[int]:
    return [n for n, each in enumerate(workers) if witness.running(each.pid)]
