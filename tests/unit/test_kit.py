from __future__ import annotations

import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from jobmill import (
    Cancel,
    InMemoryQueue,
    JobCancelled,
    JobContext,
    JobFailed,
    JobHooks,
    PayloadError,
    Queue,
    Snooze,
    SQLiteQueue,
    create_validation_middleware,
    define_job,
    job,
)
from jobmill.registry import isolated
from jobmill.testing import assert_enqueued, drain, make_context, run_inline


@dataclass
class Letter:
    to: str
    copies: int = 1


@pytest.fixture(autouse=True)
def own_definitions() -> Iterator[None]:
    with isolated():
        yield


@pytest.fixture(
    params=[
        pytest.param("memory", marks=pytest.mark.store("memory")),
        pytest.param("sqlite", marks=pytest.mark.store("sqlite")),
    ]
)
def queue(request: pytest.FixtureRequest, tmp_path: Path) -> Queue:
    return InMemoryQueue() if request.param == "memory" else SQLiteQueue(tmp_path / "jobs.db")


async def test_drain_runs_what_is_due_and_what_that_enqueues(queue: Queue) -> None:
    ran: list[int] = []

    @define_job
    async def count_down(ctx: JobContext[int]) -> None:
        ran.append(ctx.payload)
        if ctx.payload:
            await ctx.queue.enqueue(count_down, ctx.payload - 1)

    async with queue:
        await queue.enqueue(count_down, 3)
        assert await drain(queue) == 4
        assert ran == [3, 2, 1, 0]
        assert (await queue.stats()).completed == 4
        assert await drain(queue) == 0


async def test_drain_leaves_what_is_not_due_and_what_is_paused(queue: Queue) -> None:
    @job(retries=1, retry_delay=60)
    def fails() -> None:
        raise OSError

    @job
    def later() -> None: ...

    @job
    def paused() -> None: ...

    async with queue:
        await queue.pause(paused.name)
        await queue.enqueue(fails)
        await queue.enqueue(later, delay=60)
        await queue.enqueue(paused)
        assert await drain(queue) == 1
        stats = await queue.stats()
        assert (stats.delayed, stats.pending) == (2, 1)


async def test_drain_counts_each_attempt(queue: Queue) -> None:
    @job(retries=2, retry_delay=0)
    def fails() -> None:
        raise OSError

    async with queue:
        handle = await queue.enqueue(fails)
        assert await drain(queue) == 3
        assert (await handle.info()).status == "failed"


async def test_drain_gives_up_at_its_deadline(queue: Queue) -> None:
    @job
    async def snoozes() -> None:
        raise Snooze(0)

    async with queue:
        await queue.enqueue(snoozes)
        with pytest.raises(TimeoutError):
            await drain(queue, timeout=0.3)
        assert (await queue.stats()).processing == 0


async def test_run_inline_gives_the_result() -> None:
    @job
    def add(a: int, b: int = 1) -> int:
        return a + b

    @define_job
    async def send(ctx: JobContext[Letter]) -> str:
        return f"{ctx.payload.to} {ctx.state}"

    assert await run_inline(add.call(2, b=3)) == 5
    assert await run_inline(send, Letter("ada"), state="by mail") == "ada by mail"


async def test_run_inline_runs_hooks_and_middleware_and_does_not_wait_for_retries() -> None:
    told: list[str] = []

    async def layer(ctx: JobContext[Any], next: Callable[[], Awaitable[Any]]) -> Any:  # noqa: A002
        told.append("layer")
        return await next()

    def note(name: str) -> Callable[..., None]:
        return lambda *_: told.append(name)

    hooks = JobHooks(
        before_run=note("before"),
        after_run=note("after"),
        on_error=note("error"),
        on_retry=note("retry"),
        on_finally=note("finally"),
    )

    @define_job(retry_delay=3600, hooks=hooks, middleware=layer)
    async def second_time_lucky(ctx: JobContext[None]) -> int:
        if ctx.attempt == 1:
            raise OSError
        return ctx.attempt

    assert await run_inline(second_time_lucky) == 2
    first = ["before", "layer", "error", "retry", "finally"]
    assert told == [*first, "before", "layer", "after", "finally"]


async def test_run_inline_raises_what_the_end_means() -> None:
    @job(retries=0)
    def fails() -> None:
        message = "no such letter"
        raise LookupError(message)

    @job
    async def cancels() -> None:
        raise Cancel("not wanted")

    with pytest.raises(JobFailed, match="no such letter") as failed:
        await run_inline(fails)
    assert isinstance(failed.value.__cause__, LookupError)
    with pytest.raises(JobCancelled) as cancelled:
        await run_inline(cancels)
    assert cancelled.value.reason == "not wanted"


async def test_run_inline_tells_a_refused_payload() -> None:
    refuse = create_validation_middleware(lambda letter: letter.copies < 10)

    @define_job(middleware=refuse)
    def send(ctx: JobContext[Letter]) -> None: ...

    with pytest.raises(JobFailed, match="refused"):
        await run_inline(send, Letter("ada", copies=10))
    with pytest.raises(PayloadError, match=r"\$\.copies"):
        await run_inline(send, Letter("ada", copies=cast("int", "many")))


async def test_run_inline_runs_one_job_only() -> None:
    ran: list[int] = []

    @define_job
    async def chain(ctx: JobContext[int]) -> None:
        ran.append(ctx.payload)
        await ctx.queue.enqueue(chain, ctx.payload + 1)

    await run_inline(chain, 1)
    assert ran == [1]


async def test_assert_enqueued_finds_the_job(queue: Queue) -> None:
    @define_job
    async def send(ctx: JobContext[Letter]) -> None: ...

    @job
    def other() -> None: ...

    async with queue:
        await queue.enqueue(other)
        with pytest.raises(AssertionError, match="none is at all"):
            await assert_enqueued(queue, send)
        handle = await queue.enqueue(send, Letter("ada"), delay=60)
        await queue.enqueue(send, Letter("alan"))
        assert (await assert_enqueued(queue, send, payload=Letter("ada"))).id == handle.id
        assert (await assert_enqueued(queue, send.call(Letter("ada")))).id == handle.id
        assert (await assert_enqueued(queue, send)).payload["to"] == "alan"
        with pytest.raises(AssertionError, match=r"'grace'.*'alan'"):
            await assert_enqueued(queue, send, payload=Letter("grace"))


async def test_make_context_gives_what_a_handler_takes() -> None:
    told: list[object] = []

    async def progress(value: float, note: str | None) -> None:
        told.append((value, note))

    @define_job
    async def send(ctx: JobContext[Letter]) -> str:
        ctx.log("sending", to=ctx.payload.to)
        await ctx.update_progress(50, "half")
        return f"{ctx.payload.to} {ctx.attempt} {ctx.max_attempts} {ctx.queue_name}"

    ctx = make_context(send, Letter("ada"), attempt=2, progress_sink=progress)
    assert await send(ctx) == "ada 2 4 default"
    assert told == [(50.0, "half")]
    with pytest.raises(PayloadError, match=r"\$\.to"):
        make_context(send, Letter(to=cast("str", 3)))


def test_the_kit_loads_no_test_framework() -> None:
    code = "import sys, jobmill.testing; print({'hypothesis', 'pytest'} & sys.modules.keys())"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=60)
    assert ran.stdout.strip() == b"set()"
