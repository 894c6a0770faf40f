"""Servers that are killed, frozen and emptied while workers and producers go on."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from msgspec.structs import replace

from jobmill import Queue, StoreUnavailable, create_queue
from jobmill.roster import read_roster
from jobmill.store import Lease, Store, Want
from tests.faults.checked import assert_invariants
from tests.faults.jobs import Gate, Work, hold, work
from tests.faults.places import SERVERS, ServerPlace
from tests.faults.processes import Process, Processes, comes_true, eventually
from tests.faults.producer_app import read_answers
from tests.faults.witness import Witness
from tests.stalls import Stalls

SOAK = os.environ.get("JOBMILL_SOAK") == "1"
LEASE = 2.0
RESUMED_WITHIN = 2.0
CALL_WITHIN = 20.0
"""Seconds in which a call to a server that is silent must have ended: two waits of five, and as
much again on a busy machine."""
LATE = 1.0
"""Seconds by which a busy server may be late to write down what nobody waits for."""

OUTAGES = [2.0, 60.0 if SOAK else 4.0]
"""Seconds: as long as the lease, and longer; a full minute in soak."""
FREEZE = 30.0 if SOAK else 6.0
"""Seconds: longer than any call waits for its answer."""


@pytest.fixture(params=SERVERS)
def place(request: pytest.FixtureRequest) -> Iterator[ServerPlace]:
    with request.param.made() as made:
        yield made


@asynccontextmanager
async def opened(queue: Queue) -> AsyncIterator[Store]:
    store = queue.store.handle()
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def _ready(witness: Witness, workers: list[Process]) -> None:
    for each in workers:
        await eventually(partial(witness.of, "ready", pid=each.pid), "the workers ready")


async def _resumed(witness: Witness, workers: list[Process], since: float) -> float:
    """Seconds until each of the workers started a job again."""

    def all_started() -> bool:
        started = {line.pid for line in witness.of("start") if line.at > since}
        return started >= {each.pid for each in workers}

    await eventually(all_started, "all workers at work again")
    first = [
        min(line.at for line in witness.of("start", pid=each.pid) if line.at > since)
        for each in workers
    ]
    return max(first) - since


@pytest.mark.timeout(120 + 2 * max(OUTAGES))
@pytest.mark.parametrize("outage", OUTAGES)
async def test_workers_outlast_a_killed_server_and_enqueue_never_lies(
    queue: Queue,
    place: ServerPlace,
    processes: Processes,
    witness: Witness,
    gate: Gate,
    tmp_path: Path,
    outage: float,
) -> None:
    workers = [processes.worker(lease=LEASE), processes.worker(lease=LEASE)]
    await _ready(witness, workers)
    held = [await queue.enqueue(hold, gate) for _ in range(4)]
    await eventually(lambda: len(witness.of("start")) == len(held), "the long jobs started")
    answers, stop = tmp_path / "answers.jsonl", tmp_path / "stop"
    producer = processes.producer(answers, count=1_000_000, pause=0.01, stop=stop)
    await eventually(lambda: len(witness.of("end")) > 50, "jobs flowing")

    killed = time.monotonic()
    await asyncio.to_thread(place.server.kill)
    before = len(read_answers(answers))
    await asyncio.sleep(outage)  # the outage is the fault
    during = await eventually(lambda: read_answers(answers)[before + 1 :], "an answer of enqueue")
    assert not [answer for answer in during if answer.id], "enqueue lied"
    assert all(each.alive for each in (*workers, producer))

    await asyncio.to_thread(place.server.start)
    back = time.monotonic()
    before_waits = [each.waited for each in workers]
    async with Stalls() as stalls:
        seconds = await _resumed(witness, workers, back)
    waits = [each.waited - was for each, was in zip(workers, before_waits, strict=True)]
    gate.open()
    for each in held:
        await each.result(timeout=40)
    stop.touch()
    assert await producer.ends() == 0

    accepted = {answer.id for answer in read_answers(answers) if answer.id}
    unsure = {job_id for answer in read_answers(answers) for job_id in answer.job_ids}

    async def drained() -> bool:
        stats = await queue.stats()
        return stats.completed == stats.total

    await comes_true(drained, "all completed")
    all_accepted = accepted | {each.id for each in held}
    async with opened(queue) as store:
        records = [record for record in await store.get(sorted(all_accepted | unsure)) if record]
    there = {record.id for record in records}
    assert there >= all_accepted, "an accepted job was lost"
    assert {(record.state, record.attempts, record.lapses) for record in records} == {
        ("completed", 1, 0)
    }
    assert set(witness.starts()) == there
    again = {job_id for job_id, times in witness.starts().items() if times > 1}
    for job_id in again:
        first, *more = sorted(line.at for line in witness.of("start", job=job_id))
        assert len(more) == 1
        # Its claim was lost with the server; it may have begun a little after that.
        assert place.forgets, "a job ran twice whose claim was stored"
        assert killed - place.forgets - LATE <= first <= back, "a job ran twice without a reason"
    assert (await queue.stats()).total == len(there)
    await assert_invariants(queue, witness, all_accepted, forgotten=again)
    print(
        f"server away for {back - killed:.1f} s: {len(accepted)} accepted, {len(during)} errors "
        f"meanwhile; of {len(unsure)} unsure {len(there & unsure)} there; "
        f"resumed in {seconds:.2f} s, of which they waited for a processor for {max(waits):.2f} s; "
        f"{len(again)} ran twice"
    )
    assert all(each.alive for each in workers)
    assert seconds < RESUMED_WITHIN + stalls.since(back) + max(0.0, *waits)


async def _timed_enqueue(queue: Queue) -> float:
    """Seconds until enqueue raised."""
    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        await queue.enqueue(work, Work())
    return time.monotonic() - began


@pytest.mark.timeout(120 + 2 * FREEZE)
async def test_a_frozen_server_bounds_every_call_and_wakes_without_a_storm(
    queue: Queue, place: ServerPlace, processes: Processes, witness: Witness, gate: Gate
) -> None:
    workers = [processes.worker(lease=LEASE), processes.worker(lease=LEASE)]
    await _ready(witness, workers)
    held = [await queue.enqueue(hold, gate) for _ in range(4)]
    await eventually(lambda: len(witness.of("start")) == len(held), "the long jobs started")
    before = [await queue.enqueue(work, Work(seconds=0.05)) for _ in range(100)]

    await asyncio.to_thread(place.server.freeze)
    frozen = time.monotonic()
    calls = [asyncio.create_task(_timed_enqueue(queue))]
    calls += [asyncio.create_task(_timed(queue.stats())), asyncio.create_task(_timed(_new(place)))]
    took = [await call for call in calls]
    await asyncio.sleep(max(0.0, FREEZE - (time.monotonic() - frozen)))
    await asyncio.to_thread(place.server.thaw)
    back = time.monotonic()
    assert max(took) < CALL_WITHIN

    after = [await queue.enqueue(work, Work(seconds=0.05)) for _ in range(20)]
    seconds = await _resumed(witness, workers, back)
    gate.open()
    for each in (*held, *before, *after):
        await each.result(timeout=40)

    async def drained() -> bool:
        stats = await queue.stats()
        return stats.completed == stats.total

    await comes_true(drained, "all completed")
    infos = [await each.info() for each in (*held, *before, *after)]
    lapses = sum(info.lapses for info in infos)
    print(
        f"calls ended in {max(took):.2f} s, {lapses} lapses, resumed in {seconds:.2f} s, "
        f"{witness.starts().total() - len(witness.starts())} second runs"
    )
    await assert_invariants(queue, witness, [info.id for info in infos])
    assert {info.attempts for info in infos} == {1}
    assert set(witness.starts().values()) == {1}, "a job ran twice"
    assert all(each.alive for each in workers)


async def test_a_claim_that_a_frozen_server_runs_late_takes_nothing_over(
    queue: Queue, place: ServerPlace
) -> None:
    handle = await queue.enqueue(work, Work())
    async with opened(queue) as owner, opened(queue) as other:
        mine = Want(worker="owner", token="owner.1", limit=1, lease=1.0)
        (claim,) = (await owner.claim(mine)).claims
        assert claim.id == handle.id
        await asyncio.to_thread(place.server.freeze)
        frozen = time.monotonic()
        theirs = Want(worker="other", token="other.1", limit=1, lease=1.0)
        late = asyncio.create_task(other.claim(theirs))
        await comes_true(partial(_has_passed, frozen + 2.0), "the end of the lease")
        await asyncio.to_thread(place.server.thaw)
        claimed = await late
        assert await owner.renew([Lease(claim.id, claim.token)], 1.0) == ["ok"]
        assert not claimed.lapsed

        # Nobody renews it any more: then it is taken over, as ever.
        async def taken_over() -> bool:
            return bool((await other.claim(replace(theirs, token="other.2"))).lapsed)

        await comes_true(taken_over, "the lapse")


async def _has_passed(instant: float) -> bool:
    return time.monotonic() > instant


async def _timed(call: object) -> float:
    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        await call  # type: ignore[misc]
    return time.monotonic() - began


async def _new(place: ServerPlace) -> None:
    """Connect anew."""
    async with create_queue(place.url) as queue:
        await queue.stats()


async def test_an_emptied_store_is_told_and_work_goes_on(
    queue: Queue, place: ServerPlace, processes: Processes, witness: Witness, gate: Gate
) -> None:
    workers = [processes.worker(lease=LEASE), processes.worker(lease=LEASE)]
    await _ready(witness, workers)
    held = [await queue.enqueue(hold, gate) for _ in range(4)]
    later = await queue.enqueue(work, Work(), delay=3600)
    await eventually(lambda: len(witness.of("start")) == len(held), "the long jobs started")
    workers.append(processes.worker(lease=LEASE, queue="idle"))
    async with create_queue(place.url, name="idle") as idle:
        for each_queue, count in ((queue, 2), (idle, 1)):
            await comes_true(partial(_are_on_the_roster, each_queue, count), "all on the roster")

    await asyncio.to_thread(place.empty)
    for each in held:
        (told,) = await eventually(partial(witness.of, "told", job=each.id), "the run told")
        assert told.note == "lease_lost"
        worker = next(one for one in workers if one.pid == told.pid)
        said = f"the lease of {each.id} was lost; its outcome is dropped"
        await eventually(lambda: said in worker.log, "the log")  # noqa: B023  awaited here
        assert await queue.get_job(each.id) is None
    busy = {told.pid for told in witness.of("told")}
    for one in (one for one in workers if one.pid in busy):
        await eventually(partial(_tells_once, one), f"the loss in the log:\n{one.log}")
    for one in workers:
        await eventually(partial(_tells_of_itself, one), f"the loss in the log:\n{one.log}")
    assert await queue.get_job(later.id) is None
    assert (await queue.stats()).total == 0

    for _ in range(20):
        await (await queue.enqueue(work, Work())).result(timeout=40)
    assert (await queue.stats()).completed == 20
    assert all(each.alive for each in workers)
    assert not [each for each in workers if "Traceback" in each.log]


async def _are_on_the_roster(queue: Queue, count: int) -> bool:
    now = (await queue.ask(lambda store: store.counts())).now
    roster = await queue.ask(lambda store: read_roster(store, now))
    return len(roster.alive) == count


def _tells_of_itself(worker: Process) -> bool:
    return worker.log.count("has lost data: it does not know of this worker any more") == 1


def _tells_once(worker: Process) -> bool:
    return worker.log.count("has lost data: it has no record of") == 1


@pytest.mark.parametrize("running", [False, True], ids=["in start-up", "in a job"])
async def test_a_stop_is_heard_while_the_server_is_away(
    queue: Queue,
    place: ServerPlace,
    processes: Processes,
    witness: Witness,
    gate: Gate,
    running: bool,
) -> None:
    handle = await queue.enqueue(hold, gate)
    if not running:
        await asyncio.to_thread(place.server.kill)
    worker = processes.worker(lease=LEASE, stop_timeout=0.5)
    if running:
        await eventually(lambda: witness.of("start", pid=worker.pid), "the start")
        # What is accepted after a claim is on the disk only with it.
        await queue.enqueue(work, Work(), delay=3600)
        await asyncio.to_thread(place.server.kill)
    await eventually(lambda: "cannot be reached" in worker.log, "the outage noticed")
    began = time.monotonic()
    worker.send(signal.SIGTERM)
    assert await worker.ends() == 0
    print(f"ended {time.monotonic() - began:.2f} s after its signal")
    assert "Traceback" not in worker.log

    await asyncio.to_thread(place.server.start)
    gate.open()
    other = processes.worker(lease=LEASE)
    assert await handle.result(timeout=40) == other.pid
    info = await handle.info()
    assert (info.attempts, info.lapses) == (1, int(running))
