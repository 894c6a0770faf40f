"""Cancelling jobs that run."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jobmill import JobContext, JobHooks, Retry, Snooze
from jobmill.queue import Queue
from tests.api.running.kit import define, ended, reached, until


@pytest.mark.parametrize("where", ["loop", "thread"])
async def test_a_running_job_is_told_and_ends_cancelled(queue: Queue, where: str) -> None:
    reasons: list[Any] = []

    async def on_loop(ctx: JobContext[Any]) -> str:
        await ctx.signal.wait()
        reasons.append(ctx.signal.reason)
        return "dropped"

    def in_thread(ctx: JobContext[Any]) -> str:
        while not ctx.signal.aborted:
            pass
        reasons.append(ctx.signal.reason)
        return "dropped"

    queue.process()
    handle = await queue.enqueue(define(on_loop if where == "loop" else in_thread))
    await reached(queue, handle, "processing")
    assert await queue.cancel(handle.id, "not wanted any more")
    info = await ended(queue, handle)
    assert (info.status, info.result) == ("cancelled", None)
    assert info.error is not None
    assert info.error.message == "not wanted any more"
    assert reasons == ["cancelled"]
    assert not await queue.cancel(handle.id)


async def test_a_job_without_ears_is_cancelled_after_the_grace(queue: Queue) -> None:
    async def handler(ctx: JobContext[Any]) -> None:
        await asyncio.Event().wait()

    queue.process()
    handle = await queue.enqueue(define(handler, abort_grace=0.05))
    await reached(queue, handle, "processing")
    await queue.cancel(handle.id, "enough")
    info = await ended(queue, handle)
    assert info.status == "cancelled"
    assert info.error is not None
    assert info.error.message == "enough"


@pytest.mark.parametrize(
    "what", [ValueError("at that moment"), Retry(0), Snooze(0)], ids=["error", "retry", "snooze"]
)
async def test_a_cancelled_job_never_runs_again_also_when_it_fails_at_that_moment(
    queue: Queue, what: BaseException
) -> None:
    runs: list[int] = []

    async def handler(ctx: JobContext[Any]) -> None:
        runs.append(1)
        # The store knows of the cancel, and this run does not yet.
        await ctx.queue.cancel(ctx.job_id, "stop it")
        raise what

    queue.process()
    info = await ended(queue, await queue.enqueue(define(handler, retries=5)))
    assert info.status == "cancelled"
    assert info.error is not None
    assert info.error.message == "stop it"
    assert await (await queue.enqueue(define(_probe))).result(30) == "alive"
    assert runs == [1]


async def test_a_cancel_that_a_run_outpaces_is_void(queue: Queue) -> None:
    cancelled: list[bool] = []

    async def handler(ctx: JobContext[Any]) -> str:
        return "done"

    async def cancel(ctx: JobContext[Any], result: Any) -> None:
        cancelled.append(await ctx.queue.cancel(ctx.job_id, "too late"))

    queue.process()
    job = define(handler, hooks=JobHooks(after_run=cancel))
    info = await ended(queue, await queue.enqueue(job))
    assert cancelled == [True]
    assert (info.status, info.result, info.error) == ("completed", "done", None)


async def test_a_pending_job_that_is_cancelled_never_runs(queue: Queue) -> None:
    runs: list[int] = []

    async def handler(ctx: JobContext[Any]) -> None:
        runs.append(1)

    job = define(handler)
    handles = [await queue.enqueue(job), await queue.enqueue(job, delay=0.01)]
    for handle in handles:
        assert await handle.cancel("no")
    queue.process()
    assert await (await queue.enqueue(define(_probe))).result(30) == "alive"
    for handle in handles:
        assert (await handle.info()).status == "cancelled"
    assert runs == []


async def test_a_retry_of_a_cancelled_job_starts_over(queue: Queue) -> None:
    runs: list[int] = []

    async def handler(ctx: JobContext[Any]) -> str:
        runs.append(ctx.attempt)
        if len(runs) == 1:
            await ctx.signal.wait()
        return "done"

    queue.process()
    handle = await queue.enqueue(define(handler))
    await reached(queue, handle, "processing")
    await handle.cancel("stop")
    await ended(queue, handle)
    assert await queue.retry(handle.id)
    await until(lambda: len(runs) == 2)
    info = await ended(queue, handle)
    assert (info.status, info.attempts, runs) == ("completed", 1, [1, 1])


async def _probe(ctx: JobContext[Any]) -> str:
    return "alive"
