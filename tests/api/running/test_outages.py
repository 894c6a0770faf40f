"""The store goes away and comes back: outcomes are kept, nothing runs twice, the worker stays."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jobmill import InMemoryQueue, JobContext, Worker, create_rate_limit_middleware, feed
from jobmill.clock import SystemClock
from jobmill.losses import tell_losses
from jobmill.queue import Queue
from jobmill.run import Run
from jobmill.stores.memory import MemoryStore
from jobmill.testing.contract.case import a_job, a_want
from tests.api.running.kit import define, ended, flaky, record_of, until


async def test_outcomes_are_kept_until_the_store_is_back(make_queue: Any) -> None:
    queue, faults = flaky(make_queue())
    go_on = asyncio.Event()
    runs: list[str] = []

    async def handler(ctx: JobContext[Any]) -> Any:
        runs.append(ctx.job_id)
        await go_on.wait()
        return ctx.payload

    job = define(handler)
    queue.process()
    handles = await queue.enqueue_many([job.call(n) for n in range(3)])
    await until(lambda: len(runs) == 3)
    faults.away |= {"claim", "move", "renew"}
    go_on.set()
    before = faults.count("claim")
    await until(lambda: faults.count("claim") >= before + 3)
    for handle in handles:
        assert (await record_of(queue, handle.id)).state == "processing"
    faults.away.clear()
    for n, handle in enumerate(handles):
        info = await ended(queue, handle)
        assert (info.status, info.result, info.attempts) == ("completed", n, 1)
    assert len(runs) == 3
    assert await (await queue.enqueue(define(_probe))).result(30) == "alive"
    await queue.shutdown()


@pytest.mark.store("memory")
async def test_no_call_carries_more_outcomes_than_a_store_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feed, "_BYTES_AT_ONCE", 10_000)
    queue, faults = flaky(InMemoryQueue())
    go_on = asyncio.Event()
    runs: list[str] = []

    async def handler(ctx: JobContext[Any]) -> Any:
        for _ in range(ctx.payload // 1_000):
            ctx.log("x" * 1_000)
        runs.append(ctx.job_id)
        await go_on.wait()
        if ctx.payload % 2:
            raise ValueError("x" * ctx.payload)
        return "x" * ctx.payload

    job = define(handler, retries=0)
    queue.process()
    sizes = (4_000, 4_001, 30_000, 3_000, 3_001, 1_000)
    handles = await queue.enqueue_many([job.call(size) for size in sizes])
    await until(lambda: len(runs) == len(sizes))
    await until(lambda: any(verb == "renew" and len(args) > 2 for verb, args in faults.calls))
    faults.away |= {"claim", "move"}
    go_on.set()
    before = faults.count("claim")
    await until(lambda: faults.count("claim") >= before + 3)
    faults.away.clear()
    for size, handle in zip(sizes, handles, strict=True):
        info = await ended(queue, handle)
        assert info.status == ("failed" if size % 2 else "completed")
        assert len(info.logs) == size // 1_000
    settles = [args[1] for verb, args in faults.calls if verb == "claim" and len(args) > 1]
    settles += [args[0] for verb, args in faults.calls if verb == "move"]
    for moves in settles:
        carried = [len(move.result or b"") + len(move.error or b"") for move in moves]
        assert len(moves) <= 1 or sum(carried) <= 10_000
    notes = [args[2] for verb, args in faults.calls if verb == "renew" and len(args) > 2]
    for some in notes:
        lines = [sum(len(line) for _, line in note.lines) for note in some.values()]
        assert sum(lines[:-1]) <= 10_000
    await queue.shutdown()


@pytest.mark.parametrize("lost", [1, 2, 3])
async def test_the_lost_reply_of_a_claim_is_collected(make_queue: Any, lost: int) -> None:
    queue, faults = flaky(make_queue(concurrency=3))
    runs: list[str] = []

    async def handler(ctx: JobContext[Any]) -> None:
        runs.append(ctx.job_id)

    job = define(handler)
    handles = await queue.enqueue_many([job.call() for _ in range(7)])
    faults.lost["claim"] = lost
    queue.process()
    for handle in handles:
        info = await ended(queue, handle)
        assert (info.status, info.attempts, info.lapses) == ("completed", 1, 0)
    assert sorted(runs) == sorted(handle.id for handle in handles)
    wants = [args[0] for verb, args in faults.calls if verb == "claim"][: lost + 1]
    assert len({want.token for want in wants}) == 1
    assert [want.repeat for want in wants] == [False] + [True] * lost
    await queue.shutdown()


async def test_the_lost_reply_of_a_settle_is_harmless(make_queue: Any) -> None:
    queue, faults = flaky(make_queue())
    runs: list[str] = []

    async def handler(ctx: JobContext[Any]) -> str:
        runs.append(ctx.job_id)
        faults.lost["claim"] = 2
        if ctx.payload == "retry" and ctx.attempt == 1:
            raise ValueError
        return "done"

    job = define(handler)
    worker = queue.process()
    (feed,) = await until(lambda: worker._feeds)
    for payload, attempts in (("once", 1), ("retry", 2)):
        assert feed.runner.faults["stale settle"] == 0
        info = await ended(queue, await queue.enqueue(job, payload))
        assert (info.status, info.attempts) == ("completed", attempts)
        assert len(info.errors) == attempts - 1
    assert len(runs) == 3
    await queue.shutdown()


async def test_the_lost_reply_of_a_last_settle_is_harmless(make_queue: Any) -> None:
    queue, faults = flaky(make_queue())
    go_on = asyncio.Event()

    async def handler(ctx: JobContext[Any]) -> str:
        await go_on.wait()
        return "done"

    queue.process()
    handle = await queue.enqueue(define(handler))

    async def runs() -> bool:
        return (await handle.info()).status == "processing"

    await until(runs)
    queue.stop()
    faults.lost |= {"claim": 1, "move": 1}
    go_on.set()
    await queue.shutdown()
    assert (await handle.info()).result == "done"
    await queue.close()


async def test_a_worker_waits_for_a_store_that_is_away_at_its_start(make_queue: Any) -> None:
    queue, faults = flaky(make_queue())
    handle = await queue.enqueue(define(_probe))
    faults.away |= {"open"}
    worker = Worker(queue)
    running = asyncio.create_task(worker.run())
    await until(lambda: faults.count("open") >= 3)
    assert not running.done()
    faults.away.clear()
    assert await handle.result(30) == "alive"
    await worker.stop()
    await running
    await queue.close()


async def test_a_claim_that_fails_otherwise_is_logged_and_tried_again(
    make_queue: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("jobmill.feed._MAX_PAUSE", 0.01)
    queue: Queue = make_queue()
    handle = await queue.enqueue(define(_probe))
    worker = queue.process()
    (feed,) = await until(lambda: worker._feeds)
    claim, failures = feed.store.claim, [RuntimeError("a bug"), KeyError("another")]

    async def broken(*args: Any, **options: Any) -> Any:
        if failures:
            raise failures.pop()
        return await claim(*args, **options)

    feed.store.claim = broken
    await queue.enqueue(define(_probe))
    await until(lambda: not failures)
    assert await (await queue.enqueue(define(_probe))).result(30) == "alive"
    assert await handle.result(30) == "alive"
    assert feed.runner.faults["claim"] == 2


async def test_one_queue_whose_store_is_away_does_not_stop_the_other(make_queue: Any) -> None:
    broken, faults = flaky(make_queue("broken"))
    sound: Queue = make_queue("sound")
    worker = Worker([broken, sound], concurrency=4)
    running = asyncio.create_task(worker.run())
    job = define(_probe)
    assert await (await broken.enqueue(job)).result(30) == "alive"
    faults.away |= {"claim", "move", "renew"}
    before = faults.count("claim")
    await until(lambda: faults.count("claim") >= before + 2)
    for _ in range(10):
        assert await (await sound.enqueue(job)).result(30) == "alive"
    faults.away.clear()
    assert await (await broken.enqueue(job)).result(30) == "alive"
    await worker.stop()
    await running
    await broken.close()


async def test_a_gate_that_cannot_reach_the_store_puts_the_run_off_unspent(
    make_queue: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobmill.runner.GATE_RETRY", 0.05)
    queue, faults = flaky(make_queue())
    faults.away |= {"reserve"}
    job = define(_probe, middleware=create_rate_limit_middleware(max_per_second=100), retries=0)
    queue.process()
    handle = await queue.enqueue(job)
    await until(lambda: faults.count("reserve") >= 3)
    faults.away.clear()
    assert await handle.result(30) == "alive"
    info = await handle.info()
    assert (info.attempts, info.errors) == (1, [])
    await queue.shutdown()


async def _probe(ctx: JobContext[Any]) -> str:
    return "alive"


@pytest.mark.parametrize(
    ("verb", "what"),
    [("claim", "claiming from"), ("renew", "renewing leases of"), ("prune", "pruning")],
)
async def test_a_store_that_refuses_is_said_once_and_tried_again(
    make_queue: Any,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
    what: str,
) -> None:
    monkeypatch.setattr("jobmill.worker.PRUNE_INTERVAL", 0.05)
    caplog.set_level("INFO", "jobmill.worker")
    # Long enough that no worker which gets its turn late asks about a lease before it runs the job.
    queue, faults = flaky(make_queue(lease=3.0))
    go_on = asyncio.Event()

    async def handler(ctx: JobContext[Any]) -> None:
        await go_on.wait()

    faults.refused.add(verb)
    queue.process()
    handle = await queue.enqueue(define(handler))
    await until(lambda: faults.count(verb) >= 2)
    faults.refused.clear()
    await until(lambda: f"{what} default works again" in caplog.text)
    go_on.set()
    assert (await ended(queue, handle)).status == "completed"
    # A slow machine's claims hold late leases first, and so say a refused renewal of their own.
    said = [
        each
        for each in caplog.records
        if each.getMessage().startswith(what) and "refused" in each.getMessage()
    ]
    assert [each.getMessage() for each in said] == [
        f"{what} default fails, and is tried again: SchemaMismatch: {verb}: refused"
    ]
    assert said[0].exc_info is None
    await queue.shutdown()


@pytest.mark.parametrize("emptied", [True, False])
async def test_an_emptied_store_is_told_once_and_a_job_taken_over_is_none(
    make_queue: Any, caplog: pytest.LogCaptureFixture, *, emptied: bool
) -> None:
    queue, faults = flaky(make_queue(lease=0.6))
    reasons: list[str | None] = []

    async def handler(ctx: JobContext[Any]) -> None:
        reasons.append(None)
        await ctx.signal.wait()
        reasons.remove(None)
        reasons.append(ctx.signal.reason)

    # Where their leases run out, as on a busy machine, they are not run again.
    job = define(handler, on_lapse="fail")
    queue.process()
    await queue.enqueue_many([job.call() for _ in range(5)])
    await until(lambda: len(reasons) == 5)
    # Lost is a lease that another took over, too; but then there is a record of the job.
    faults.nothing = {"renew": "lost", "get": None} if emptied else {"renew": "lost"}
    await until(lambda: reasons == ["lease_lost"] * 5)
    await until(lambda: caplog.text.count("was lost; its outcome is dropped") == 5)

    def said() -> list[str]:
        return [text for each in caplog.records if "has lost data" in (text := each.getMessage())]

    if emptied:
        # The runs are told first; the store is asked for their records after that.
        await until(said)
    faults.nothing.clear()
    await ended(queue, await queue.enqueue(define(_probe)))
    await queue.shutdown()
    assert len(said()) == emptied
    assert all("no record of 5 jobs that run here" in text for text in said())


async def test_a_loss_that_both_find_who_look_for_it_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """After a freeze the renewer and the feed ask at the same time."""
    store, emptied = MemoryStore(), MemoryStore()
    await store.add([a_job()])
    (claim,) = (await store.claim(a_want())).claims
    clock = SystemClock()
    run = Run(claim, clock, clock.boot(), "default")
    await asyncio.gather(*[tell_losses(emptied, [run], clock.boot()) for _ in range(2)])
    assert caplog.text.count("has lost data: it has no record of 1 jobs that run here") == 1
