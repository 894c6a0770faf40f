"""What a handler is told, and what it can say."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobmill import JobContext, current_context, job
from jobmill.queue import Queue
from tests.api.running.kit import define, ended, flaky, fresh, reached, record_of, until

CLOCK = timedelta(milliseconds=10)
"""By how much the store's clock may differ from this process's."""
var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="unset")


async def test_the_fields_of_a_context(queue: Queue) -> None:
    seen: list[JobContext[Any]] = []

    async def handler(ctx: JobContext[Any]) -> None:
        seen.append(ctx)
        if ctx.attempt == 1:
            raise ValueError

    some = define(handler, retries=4)
    before = datetime.now(UTC)
    queue.process()
    handle = await queue.enqueue(some, {"to": "a"}, metadata={"who": "me"}, max_attempts=2)
    after = datetime.now(UTC)
    await ended(queue, handle)
    first, second = seen
    for n, ctx in enumerate((first, second), 1):
        assert (ctx.job_id, ctx.job_name, ctx.queue_name) == (handle.id, some.name, "default")
        assert ctx.payload == {"to": "a"}
        assert (ctx.attempt, ctx.max_attempts) == (n, 2)
        assert dict(ctx.metadata) == {"who": "me"}
        assert ctx.queue is queue
        assert ctx.state is None
        assert not ctx.signal.aborted
        assert ctx.enqueued_at.tzinfo is not None
        assert before - CLOCK <= ctx.enqueued_at <= after + CLOCK
        assert ctx.enqueued_at <= ctx.started_at
    assert first.started_at < second.started_at


async def test_a_job_may_enqueue_another(queue: Queue) -> None:
    async def child(ctx: JobContext[Any]) -> str:
        return f"child of {ctx.payload}"

    inner = define(child)

    async def parent(ctx: JobContext[Any]) -> str:
        handle = await ctx.queue.enqueue(inner, ctx.job_id)
        return handle.id

    queue.process()
    handle = await queue.enqueue(define(parent))
    child_id = await handle.result(30)
    assert (await ended(queue, child_id)).result == f"child of {handle.id}"


async def test_the_state_is_what_the_lifespan_gave(make_queue: Any) -> None:
    log: list[str] = []

    @contextlib.asynccontextmanager
    async def lifespan(queue: Queue) -> AsyncIterator[dict[str, str]]:
        log.append(f"in {queue.name}")
        try:
            yield {"pool": "open"}
        finally:
            log.append("out")

    async def handler(ctx: JobContext[Any]) -> Any:
        log.append("run")
        return ctx.state

    queue: Queue = make_queue(lifespan=lifespan)
    queue.process()
    assert await (await queue.enqueue(define(handler))).result(30) == {"pool": "open"}
    await queue.shutdown()
    assert log == ["in default", "run", "out"]


async def test_the_current_context_is_that_of_the_job(queue: Queue) -> None:
    @job(name=fresh())
    async def on_loop() -> list[str]:
        await asyncio.sleep(0)
        inner = await asyncio.gather(asyncio.to_thread(lambda: current_context().job_id))
        return [current_context().job_id, *inner]

    @job(name=fresh())
    def in_thread() -> list[str]:
        ctx = current_context()
        ctx.log("from a thread", n=1)
        return [ctx.job_id, str(threading.current_thread() is threading.main_thread())]

    queue.process()
    first, second = await queue.enqueue(on_loop), await queue.enqueue(in_thread)
    assert await first.result(30) == [first.id, first.id]
    assert await second.result(30) == [second.id, "False"]
    (line,) = (await second.info()).logs
    assert (line["message"], line["fields"]) == ("from a thread", {"n": 1})


@pytest.mark.parametrize("where", ["loop", "thread"])
async def test_each_run_has_fresh_context_variables(queue: Queue, where: str) -> None:
    def look() -> str:
        before = var.get()
        var.set("set by a job")
        return before

    async def on_loop(ctx: JobContext[Any]) -> str:
        return look()

    def in_thread(ctx: JobContext[Any]) -> str:
        return look()

    var.set("set by who starts the worker")
    queue.process()
    some = define(on_loop if where == "loop" else in_thread)
    for _ in range(2):
        assert await (await queue.enqueue(some)).result(30) == "unset"


async def test_progress_is_stored_at_most_once_a_second_and_at_the_end(make_queue: Any) -> None:
    queue, faults = flaky(make_queue(lease=1000))
    go_on = asyncio.Event()

    async def handler(ctx: JobContext[Any]) -> None:
        for n in range(50):
            await ctx.update_progress(n, f"step {n}")
        ctx.log("half")
        await go_on.wait()
        await ctx.update_progress(99, "nearly")

    queue.process()
    handle = await queue.enqueue(define(handler))
    info = await reached(queue, handle, "processing")
    noted: Any = lambda: [  # noqa: E731
        args[2] for verb, args in faults.calls if verb == "renew" and len(args) > 2 and args[2]
    ]
    await until(noted)

    async def stored() -> bool:
        return (await handle.info()).progress == 49

    await until(stored)
    info = await handle.info()
    assert (info.progress_note, [line["message"] for line in info.logs]) == ("step 49", ["half"])
    # By now: the next may come a second later, however long what is left takes.
    assert len(noted()) == 1
    go_on.set()
    info = await ended(queue, handle)
    assert (info.progress, info.progress_note) == (99, "nearly")
    assert [line["message"] for line in info.logs] == ["half"]
    await queue.shutdown()


async def test_the_last_hundred_lines_of_the_log_are_kept(queue: Queue) -> None:
    async def handler(ctx: JobContext[Any]) -> None:
        for n in range(80):
            ctx.log(f"{ctx.attempt}: {n}", n=n, odd=object, bad="\ud800")
        if ctx.attempt == 1:
            raise ValueError

    queue.process()
    info = await ended(queue, await queue.enqueue(define(handler)))
    said = [line["message"] for line in info.logs]
    assert said == [f"1: {n}" for n in range(60, 80)] + [f"2: {n}" for n in range(80)]
    assert {line["attempt"] for line in info.logs} == {1, 2}
    assert info.logs[-1]["fields"]["n"] == 79


async def test_threads_of_a_handler_may_log_at_once(queue: Queue) -> None:
    def handler(ctx: JobContext[Any]) -> None:
        def talk(n: int) -> None:
            for _ in range(20):
                ctx.log(f"{n}")

        threads = [threading.Thread(target=talk, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    queue.process()
    info = await ended(queue, await queue.enqueue(define(handler)))
    said = [line["message"] for line in info.logs]
    assert sorted(said) == sorted(str(n) for n in range(4) for _ in range(20))


@pytest.mark.parametrize("value", [-1, 101, "half", True, float("nan")])
async def test_progress_that_is_none_fails_the_attempt(queue: Queue, value: Any) -> None:
    async def handler(ctx: JobContext[Any]) -> None:
        await ctx.update_progress(value)

    queue.process()
    info = await ended(queue, await queue.enqueue(define(handler, retries=0)))
    assert info.error is not None
    assert info.error.type == "ConfigError"


async def test_a_thread_can_poll_its_signal(queue: Queue) -> None:
    def handler(ctx: JobContext[Any]) -> None:
        while not ctx.signal.aborted:
            pass
        ctx.log(str(ctx.signal.reason))

    queue.process()
    job_ = define(handler, timeout=0.05, retries=0)
    info = await ended(queue, await queue.enqueue(job_))
    assert info.error is not None
    assert info.error.type == "JobTimeout"
    assert [line["message"] for line in info.logs] == ["timeout"]
    assert (await record_of(queue, info.id)).attempts == 1
