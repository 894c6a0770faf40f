"""P2, P4: leases that are kept, lost and taken over."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from jobmill import JobContext, JobHooks
from jobmill.queue import Queue
from jobmill.renewal import Held, Renewer
from jobmill.run import Run
from jobmill.states import Claim, after_stop
from jobmill.store import Want
from tests.api.running.kit import (
    Leashed,
    Shifted,
    define,
    ended,
    flaky,
    fresh,
    reached,
    record_of,
    until,
)
from tests.waiting import eventually_sync


async def die_with(queue: Queue, count: int = 1) -> tuple[Claim, ...]:
    """Claim jobs as a worker that then dies: their leases lapse at once."""
    store = queue.store.handle()
    await store.open()
    want = Want(worker="dead", token=fresh("token"), limit=count, lease=0.001)
    claims = (await store.claim(want)).claims
    await store.close()
    return claims


async def steal(queue: Queue, job_id: str) -> Claim:
    """Take the job's lease over, as another worker does when the clock has gone on."""
    store = queue.store.handle()
    await store.open()
    later = time.time() + 10_000

    async def take() -> Claim | None:
        # A record that its worker writes at that moment is left to the next look.
        want = Want(worker="thief", token=fresh("token"), limit=0, lease=30_000)
        lapsed = (await store.claim(want, now=later)).lapsed
        return next((each for each in lapsed if each.id == job_id), None)

    claim = await until(take)
    await store.close()
    assert isinstance(claim, Claim)
    return claim


async def test_a_run_that_lost_its_lease_is_told_and_writes_nothing(make_queue: Any) -> None:
    queue: Queue = make_queue(lease=0.5)
    log: list[Any] = []

    async def handler(ctx: JobContext[Any]) -> str:
        ctx.log("before")
        await ctx.signal.wait()
        log.append(ctx.signal.reason)
        ctx.log("after")
        await ctx.update_progress(50)
        return "stale"

    hooks = JobHooks(on_finally=lambda ctx: log.append("finally"))
    worker = queue.process()
    handle = await queue.enqueue(define(handler, hooks=hooks))
    await reached(queue, handle, "processing")
    thief = await steal(queue, handle.id)
    await until(lambda: log == ["lease_lost", "finally"])
    (feed,) = worker._feeds
    await until(lambda: not feed.held)
    record = await record_of(queue, handle.id)
    assert (record.state, record.token, record.worker) == ("processing", thief.token, "thief")
    assert (record.result, record.progress) == (None, None)


async def test_a_stale_settle_is_refused_and_counted(make_queue: Any) -> None:
    queue, faults = flaky(make_queue(lease=1000))
    # So that no renewal tells it of the theft first.
    faults.away.add("renew")
    free = asyncio.Event()

    async def handler(ctx: JobContext[Any]) -> str:
        await free.wait()
        return "stale"

    worker = queue.process()
    handle = await queue.enqueue(define(handler))
    await reached(queue, handle, "processing")
    await steal(queue, handle.id)
    free.set()
    (feed,) = worker._feeds
    await until(lambda: feed.runner.faults["stale settle"])
    record = await record_of(queue, handle.id)
    assert (record.state, record.worker, record.result) == ("processing", "thief", None)
    await queue.shutdown()


async def test_a_lapse_burns_no_attempt_and_the_suspect_runs_alone(make_queue: Any) -> None:
    queue: Queue = make_queue(concurrency=4)
    alone: list[bool] = []
    running: set[str] = set()

    async def handler(ctx: JobContext[Any]) -> int:
        running.add(ctx.job_id)
        if ctx.payload == "suspect":
            for _ in range(50):
                await asyncio.sleep(0.001)
                alone.append(len(running) == 1)
        running.discard(ctx.job_id)
        return ctx.attempt

    job = define(handler, retries=0)
    suspect = await queue.enqueue(job, "suspect")
    await die_with(queue)
    others = await queue.enqueue_many([job.call("other") for _ in range(20)])
    queue.process()
    info = await ended(queue, suspect)
    assert (info.status, info.attempts, info.lapses, info.result) == ("completed", 1, 1, 1)
    for handle in others:
        assert (await ended(queue, handle)).status == "completed"
    assert alone
    assert all(alone)
    assert not (await record_of(queue, suspect.id)).suspect


async def test_poison_fails_after_its_lapses_and_spends_no_attempt_of_others(
    make_queue: Any,
) -> None:
    queue: Queue = make_queue()
    janitor: Queue = make_queue()

    async def handler(ctx: JobContext[Any]) -> None: ...

    job = define(handler, max_lapses=2, retries=0)
    poison = await queue.enqueue(job)
    # A worker that claims nothing, and takes over what others left.
    janitor.process(jobs=[fresh("none")])
    for lapses in (1, 2):
        (claim,) = await die_with(queue)
        assert (claim.attempt, claim.lapses, claim.suspect) == (1, lapses - 1, lapses > 1)

        async def taken(lapses: int = lapses) -> bool:
            record = await record_of(queue, poison.id)
            return (record.lapses, record.state == "processing") == (lapses, False)

        await until(taken)
    info = await ended(queue, poison)
    assert (info.status, info.lapses) == ("failed", 2)
    assert info.error is not None
    assert info.error.type == "LeaseLost"
    assert "died" in info.error.message
    neighbour = await queue.enqueue(job)
    queue.process()
    assert (await ended(queue, neighbour)).attempts == 1


async def test_at_most_once_fails_at_the_first_lapse(queue: Queue) -> None:
    async def handler(ctx: JobContext[Any]) -> None:
        raise AssertionError

    handle = await queue.enqueue(define(handler, on_lapse="fail"))
    await die_with(queue)
    queue.process()
    info = await ended(queue, handle)
    assert info.status == "failed"
    assert info.lapses == 1
    assert info.error is not None
    assert info.error.type == "LeaseLost"


@pytest.mark.blocks_loop
async def test_a_handler_that_blocks_the_loop_keeps_its_job(
    make_queue: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Leashed()
    queue: Queue = make_queue(lease=0.5, clock=clock)
    clock.watch(queue, monkeypatch)
    runs: list[int] = []
    rivals: list[Rival] = []

    async def blocking(ctx: JobContext[Any]) -> None:
        runs.append(1)
        eventually_sync(lambda: clock.leashed)
        rivals.append(Rival(queue))
        end = clock.boot() + 4 * queue.lease
        eventually_sync(lambda: clock.boot() >= end and rivals[0].asked > 10)

    job = define(blocking, name=fresh("blocking"))
    queue.process()
    try:
        info = await ended(queue, await queue.enqueue(job))
    finally:
        for each in rivals:
            await asyncio.to_thread(each.end)
    (rival,) = rivals
    assert (info.status, info.lapses, runs, rival.taken) == ("completed", 0, [1], [])
    warned = [each.getMessage() for each in caplog.records if "blocked the event loop" in each.msg]
    assert len(warned) == 1
    assert job.name in warned[0]
    assert "in blocking\n" in warned[0]


class Rival:
    """Another worker, in a thread of its own, that takes over what lapsed."""

    def __init__(self, queue: Queue) -> None:
        self.taken: list[str] = []
        self.asked = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._run(queue),))
        self._thread.start()

    async def _run(self, queue: Queue) -> None:
        store = queue.store.handle()
        await store.open()
        while not self._over.is_set():
            want = Want(worker="rival", token=fresh("token"), limit=0, lease=30)
            self.taken += [claim.id for claim in (await store.claim(want)).lapsed]
            self.asked += 1
            await asyncio.sleep(0.02)
        await store.close()

    def end(self) -> None:
        self._over.set()
        self._thread.join()


async def test_a_job_of_ten_leases_runs_once(
    make_queue: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Leashed()
    queue: Queue = make_queue(lease=0.3, clock=clock)
    rival: Queue = make_queue(lease=0.3, clock=clock)
    clock.watch(queue, monkeypatch)
    runs: list[int] = []

    async def handler(ctx: JobContext[Any]) -> None:
        runs.append(1)
        end = clock.boot() + 10 * queue.lease
        await until(lambda: clock.boot() >= end, 100)

    queue.process()
    handle = await queue.enqueue(define(handler))
    await until(lambda: runs and clock.leashed)
    rival.process()
    info = await ended(queue, handle)
    assert (info.status, info.lapses, runs) == ("completed", 0, [1])


async def test_the_renewer_gives_up_a_loop_that_is_stuck(
    make_queue: Any, caplog: pytest.LogCaptureFixture
) -> None:
    queue: Queue = make_queue(lease=0.3)
    handle = await queue.enqueue(define(_probe))
    store = queue.store.handle()
    await store.open()
    want = Want(worker="w", token=fresh("token"), limit=1, lease=0.3)
    (claim,) = (await store.claim(want)).claims
    run = Run(claim, queue.seams.clock, queue.seams.clock.boot(), queue.name)
    renewer = Renewer(
        [Held(queue.store.handle(), 0.3, {claim.id: run})],
        abort=lambda run, reason: None,
        clock=queue.seams.clock,
        stall_after=0.6,
    )
    # A loop that never answers.
    renewer._answer = lambda: None  # type: ignore[method-assign]
    await renewer.start(threads=True)
    # Nobody asks for it before, so that it does not lapse for want of a turn.
    await until(lambda: "leases are given up" in caplog.text)

    async def lapsed() -> bool:
        other = Want(worker="other", token=fresh("token"), limit=0, lease=30)
        return bool((await store.claim(other)).lapsed)

    await until(lapsed)
    await renewer.stop()
    await store.close()
    assert (await record_of(queue, handle.id)).worker == "other"


async def test_after_a_freeze_a_lease_is_looked_at_before_anything_runs(make_queue: Any) -> None:
    clock = Shifted()
    queue, faults = flaky(make_queue(clock=clock, lease=30))
    runs: list[int] = []
    renewed_before: list[int] = []

    async def handler(ctx: JobContext[Any]) -> None:
        runs.append(1)
        renewed_before.append(sum(bool(args[0]) for verb, args in faults.calls if verb == "renew"))

    worker = queue.process()
    await until(lambda: worker._feeds)
    (feed,) = worker._feeds
    start = feed._start

    def frozen(feed: Any, claim: Claim, at: float) -> None:
        # Between the claim and the start this process stood still.
        start(feed, claim, at - 20)

    feed._start = frozen
    await ended(queue, await queue.enqueue(define(handler)))
    assert runs == [1]
    assert renewed_before[0] >= 1
    await queue.shutdown()


async def test_after_an_outage_the_own_leases_are_held_before_lapsed_ones_are_taken(
    make_queue: Any,
) -> None:
    clock = Shifted()
    queue, faults = flaky(make_queue(clock=clock, lease=30))
    free = asyncio.Event()
    runs: list[int] = []

    async def handler(ctx: JobContext[Any]) -> str:
        runs.append(1)
        await free.wait()
        return "done"

    queue.process()
    handle = await queue.enqueue(define(handler))
    await until(lambda: runs)
    faults.away |= {"claim", "renew", "move"}
    # Once one has failed, no claim is under way that would see the later time.
    asked = faults.count("claim")
    await until(lambda: faults.count("claim") > asked)
    clock.by += 100
    tried = faults.count("claim") + faults.count("renew")
    await until(lambda: faults.count("claim") + faults.count("renew") > tried + 1)
    faults.away.clear()
    asked = faults.count("claim")
    await until(lambda: faults.count("claim") > asked + 1)
    record = await record_of(queue, handle.id)
    assert (record.state, record.lapses, record.suspect) == ("processing", 0, False)
    free.set()
    info = await ended(queue, handle)
    assert (info.status, info.result, info.lapses, runs) == ("completed", "done", 0, [1])
    await queue.shutdown()


async def test_a_run_whose_job_is_claimed_again_here_is_told(make_queue: Any) -> None:
    queue: Queue = make_queue(lease=1000)
    log: list[Any] = []

    async def handler(ctx: JobContext[Any]) -> str:
        if log:
            log.append("second")
            return "second"
        log.append("first")
        await ctx.signal.wait()
        log.append(ctx.signal.reason)
        return "first"

    queue.process()
    handle = await queue.enqueue(define(handler))
    await until(lambda: log)
    thief = await steal(queue, handle.id)
    store = queue.store.handle()
    await store.open()
    await store.move([after_stop(thief)])
    await store.close()
    info = await ended(queue, handle)
    assert (info.status, info.result) == ("completed", "second")
    await until(lambda: len(log) == 3)
    assert sorted(log) == ["first", "lease_lost", "second"]


async def _probe(ctx: JobContext[Any]) -> str:
    return "alive"


async def test_many_lapsed_leases_are_one_warning(
    make_queue: Any, caplog: pytest.LogCaptureFixture
) -> None:
    queue: Queue = make_queue()

    async def handler(ctx: JobContext[Any]) -> None: ...

    job = define(handler)
    handles = await queue.enqueue_many([job.call() for _ in range(5)])
    died = [claim.id for claim in await die_with(queue, 5)]
    assert len(died) == 5
    await asyncio.sleep(0.01)  # the leases of a millisecond run out
    queue.process()
    for handle in handles:
        assert (await ended(queue, handle)).lapses == 1
    (line,) = [each for each in caplog.messages if "lapsed" in each]
    assert line.startswith("the workers of 5 jobs died; their leases lapsed: ")
    assert line.endswith(", ...")
    assert sum(each in line for each in died) == 3
