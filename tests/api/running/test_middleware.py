"""Middleware around the runs of real jobs."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from jobmill import (
    Fail,
    JobContext,
    JobHooks,
    compose_middleware,
    create_logging_middleware,
    create_rate_limit_middleware,
    create_retry_middleware,
    create_validation_middleware,
)
from jobmill.errors import ConfigError, PayloadError
from jobmill.job import JobMiddleware
from jobmill.queue import Queue
from tests.api.running.kit import Shifted, define, ended, flaky, reached, record_of, until

Next = Callable[[], Awaitable[Any]]


def layer(name: str, log: list[str]) -> JobMiddleware:
    async def middleware(ctx: JobContext[Any], inner: Next) -> Any:
        log.append(f"{name} in")
        try:
            return await inner()
        finally:
            log.append(f"{name} out")

    return middleware


async def test_the_first_is_the_outermost_and_the_queues_are_outside_the_jobs(
    make_queue: Any,
) -> None:
    log: list[str] = []

    async def before(ctx: JobContext[Any]) -> None:
        log.append("before_run")

    async def handler(ctx: JobContext[Any]) -> None:
        log.append("handler")

    queue: Queue = make_queue(middleware=[layer("a", log), layer("b", log)])
    inner = compose_middleware([layer("c", log), layer("d", log)])
    job = define(handler, middleware=inner, hooks=JobHooks(before_run=before))
    queue.process()
    await ended(queue, await queue.enqueue(job))
    entered = ["a in", "b in", "c in", "d in"]
    assert log == ["before_run", *entered, "handler", "d out", "c out", "b out", "a out"]


async def test_next_may_be_called_more_than_once_and_runs_all_inside_each_time(
    queue: Queue,
) -> None:
    log: list[str] = []

    async def twice(ctx: JobContext[Any], inner: Next) -> Any:
        return [await inner(), await inner()]

    async def handler(ctx: JobContext[Any]) -> Any:
        return len(log)

    queue.process()
    job = define(handler, middleware=[twice, layer("in", log)])
    assert await (await queue.enqueue(job)).result(30) == [1, 3]


async def test_next_may_be_left_out_and_its_result_replaced(queue: Queue) -> None:
    async def cached(ctx: JobContext[Any], inner: Next) -> Any:
        return "cached"

    async def handler(ctx: JobContext[Any]) -> str:
        raise AssertionError

    queue.process()
    assert await (await queue.enqueue(define(handler, middleware=cached))).result(30) == "cached"


async def test_middleware_that_raises_fails_the_attempt(queue: Queue) -> None:
    async def flaky(ctx: JobContext[Any], inner: Next) -> Any:
        if ctx.attempt == 1:
            raise OSError("middleware")
        return await inner()

    async def handler(ctx: JobContext[Any]) -> int:
        return ctx.attempt

    queue.process()
    handle = await queue.enqueue(define(handler, middleware=flaky, retries=1))
    assert await handle.result(30) == 2
    assert [error.message for error in (await handle.info()).errors] == ["middleware"]


async def test_middleware_may_limit_the_time_of_a_thread(queue: Queue) -> None:
    async def limited(ctx: JobContext[Any], inner: Next) -> Any:
        async with asyncio.timeout(0.05):
            return await inner()

    over = asyncio.Event()
    loop = asyncio.get_running_loop()

    def handler(ctx: JobContext[Any]) -> None:
        asyncio.run_coroutine_threadsafe(over.wait(), loop).result(30)

    queue.process()
    handle = await queue.enqueue(define(handler, middleware=limited, retries=0))
    await reached(queue, handle, "processing")
    loop.call_later(0.2, over.set)
    info = await ended(queue, handle)
    assert info.error is not None
    assert info.error.type == "TimeoutError"


@pytest.mark.parametrize("sync", [True, False])
async def test_validation_fails_the_job_at_once(queue: Queue, sync: bool) -> None:
    ran: list[Any] = []
    errors: list[BaseException] = []

    def check(payload: Any) -> Any:
        if payload == "raises":
            raise KeyError("to")
        return payload != "refused"

    async def check_async(payload: Any) -> Any:
        return check(payload)

    async def handler(ctx: JobContext[Any]) -> None:
        ran.append(ctx.payload)

    log: list[Any] = []
    told = create_logging_middleware(on_error=lambda ctx, error, _: log.append(type(error)))
    validation = create_validation_middleware(check if sync else check_async)
    hooks = JobHooks(on_error=lambda ctx, error: errors.append(error))
    again = create_retry_middleware(delay=0)
    job = define(handler, middleware=[told, again, validation], retries=5, hooks=hooks)
    queue.process()
    for payload, kind in (("raises", "KeyError"), ("refused", "PayloadError")):
        info = await ended(queue, await queue.enqueue(job, payload))
        assert (info.status, info.attempts) == ("failed", 1)
        assert info.error is not None
        assert info.error.type == kind
    info = await ended(queue, await queue.enqueue(job, "good"))
    assert info.status == "completed"
    assert ran == ["good"]
    assert log == [type(error) for error in errors] == [KeyError, PayloadError]


async def test_logging_tells_of_each_run_but_not_the_payload(
    queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(ctx: JobContext[Any]) -> str:
        if ctx.attempt == 1:
            raise ValueError("s3cret")
        return "s3cret"

    job = define(handler, middleware=create_logging_middleware(), retries=1)
    queue.process()
    with caplog.at_level(logging.DEBUG, "jobmill.job"):
        handle = await queue.enqueue(job, "s3cret")
        await ended(queue, handle)
    records = [record for record in caplog.records if record.name == "jobmill.job"]
    assert [record.levelname for record in records] == ["INFO", "WARNING", "INFO", "INFO"]
    for record in records:
        said = vars(record)
        assert said["job_id"] == handle.id
        assert said["job_name"] == job.name
        assert "s3cret" not in repr(said)
    assert vars(records[1])["error"] == "ValueError"
    assert vars(records[1])["duration"] >= 0
    assert vars(records[3])["duration"] >= 0


@pytest.mark.parametrize("sync", [True, False])
async def test_logging_callbacks_are_told_and_change_nothing(queue: Queue, sync: bool) -> None:
    log: list[Any] = []

    def tell(*args: Any) -> None:
        log.append([type(arg).__name__ for arg in args[1:]])
        raise RuntimeError("callback")

    async def tell_async(*args: Any) -> None:
        tell(*args)

    callback: Any = tell if sync else tell_async
    told = create_logging_middleware(callback, callback, callback)

    async def handler(ctx: JobContext[Any]) -> str:
        if ctx.attempt == 1:
            raise ValueError
        return "done"

    queue.process()
    job = define(handler, middleware=told, retries=1)
    assert await (await queue.enqueue(job)).result(30) == "done"
    assert log == [[], ["ValueError", "float"], [], ["str", "float"]]


async def test_the_retry_middleware_tries_within_one_attempt(queue: Queue) -> None:
    tries: list[int] = []

    async def handler(ctx: JobContext[Any]) -> str:
        tries.append(ctx.attempt)
        if len(tries) < 6:
            raise ValueError
        return "done"

    again = create_retry_middleware(max_attempts=3, delay=0.001)
    queue.process()
    handle = await queue.enqueue(define(handler, middleware=again, retries=1))
    assert await handle.result(30) == "done"
    assert tries == [1, 1, 1, 2, 2, 2]


async def test_the_retry_middleware_retries_only_what_it_should(queue: Queue) -> None:
    tries: list[int] = []

    async def handler(ctx: JobContext[Any]) -> None:
        tries.append(1)
        raise {"value": ValueError, "key": KeyError, "fail": Fail}[ctx.payload]

    again = create_retry_middleware(max_attempts=3, delay=0, retry_on=(ValueError,))
    job = define(handler, middleware=again, retries=0)
    queue.process()
    for payload, wanted in (("value", 3), ("key", 1), ("fail", 1)):
        tries.clear()
        await ended(queue, await queue.enqueue(job, payload))
        assert (payload, len(tries)) == (payload, wanted)


async def test_an_abort_ends_the_tries_of_the_retry_middleware(queue: Queue) -> None:
    tries: list[int] = []

    async def handler(ctx: JobContext[Any]) -> None:
        tries.append(1)
        await ctx.signal.wait()
        raise ValueError

    again = create_retry_middleware(max_attempts=3, delay=0)
    queue.process()
    job = define(handler, middleware=again, retries=0, timeout=0.05)
    info = await ended(queue, await queue.enqueue(job))
    assert info.error is not None
    assert info.error.type == "JobTimeout"
    assert len(tries) == 1


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (create_rate_limit_middleware, "max_per_second"),
        (lambda: create_rate_limit_middleware(max_per_second=0), "max_per_second"),
        (lambda: create_rate_limit_middleware(max_per_minute=1.5), "max_per_minute"),  # type: ignore[arg-type]
        (lambda: create_rate_limit_middleware(max_per_second=1, key=""), "key"),
        (lambda: create_rate_limit_middleware(max_per_second=1, key=3), "key"),  # type: ignore[arg-type]
        (lambda: create_retry_middleware(max_attempts=0), "max_attempts"),
        (lambda: create_retry_middleware(delay=-1), "delay"),
        (lambda: create_retry_middleware(backoff="quick"), "backoff"),  # type: ignore[arg-type]
        (lambda: compose_middleware([3]), "middleware"),  # type: ignore[list-item]
    ],
)
def test_a_wrong_option_is_refused(make: Callable[[], Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert caught.value.field == field


# -- rate limits -------------------------------------------------------------------------------


async def test_no_sliding_window_has_more_starts_than_the_limit(make_queue: Any) -> None:
    limit: Any = create_rate_limit_middleware(max_per_second=10)
    asked: list[float] = []
    granted: list[float] = []

    async def limited(ctx: JobContext[Any], inner: Next) -> Any:
        return await limit(ctx, inner)

    async def gate(ctx: JobContext[Any]) -> float:
        before = time.time()
        wait: float = await limit.gate(ctx)
        if not wait:
            # The store has recorded the start in between, however long that was.
            asked.append(before)
            granted.append(time.time())
        return wait

    limited.gate = gate  # type: ignore[attr-defined]

    async def handler(ctx: JobContext[Any]) -> None: ...

    job = define(handler, middleware=limited, retries=0)
    queues = [make_queue(concurrency=5) for _ in range(2)]
    handles = await queues[0].enqueue_many([job.call(n) for n in range(25)])
    for queue in queues:
        queue.process()
    infos = [await ended(queues[0], handle) for handle in handles]
    assert {(info.status, info.attempts) for info in infos} == {("completed", 1)}
    asked.sort()
    granted.sort()
    assert len(granted) == 25
    # So the start of each is a second, at least, before that of the eleventh after it.
    assert all(later - sooner >= 0.999 for sooner, later in zip(asked, granted[10:], strict=False))
    assert granted[-1] - asked[0] >= 1.999


async def test_a_run_that_must_wait_spends_no_attempt_and_meets_no_hook(make_queue: Any) -> None:
    clock = Shifted()
    queue: Queue = make_queue(clock=clock)
    log: list[str] = []

    async def before(ctx: JobContext[Any]) -> None:
        log.append(f"{ctx.payload} before")

    async def last(ctx: JobContext[Any]) -> None:
        log.append(f"{ctx.payload} finally")

    async def handler(ctx: JobContext[Any]) -> None:
        log.append(f"{ctx.payload} handler")

    limit = compose_middleware([create_rate_limit_middleware(max_per_minute=1)])
    hooks = JobHooks(before_run=before, on_finally=last)
    job = define(handler, middleware=limit, retries=0, hooks=hooks)
    queue.process()
    first = await queue.enqueue(job, "first")
    await ended(queue, first)
    second = await queue.enqueue(job, "second")
    info = await reached(queue, second, "delayed")
    assert (info.attempts, info.errors) == (0, [])
    due = (await record_of(queue, second.id)).run_at
    assert 50 < due - clock.wall() <= 62
    assert log == ["first before", "first handler", "first finally"]
    clock.by += 63
    info = await ended(queue, second)
    assert (info.status, info.attempts) == ("completed", 1)
    assert log[3:] == ["second before", "second handler", "second finally"]


async def test_jobs_that_wait_are_moved_once_and_not_polled(make_queue: Any) -> None:
    clock = Shifted()
    queue, faults = flaky(make_queue(concurrency=20, clock=clock))
    asked: list[str] = []
    limit: Any = create_rate_limit_middleware(max_per_minute=5)

    async def counted(ctx: JobContext[Any], inner: Next) -> Any:
        return await limit(ctx, inner)

    async def gate(ctx: JobContext[Any]) -> float:
        asked.append(ctx.job_id)
        wait: float = await limit.gate(ctx)
        return wait

    counted.gate = gate  # type: ignore[attr-defined]

    async def handler(ctx: JobContext[Any]) -> None: ...

    job = define(handler, middleware=counted)
    handles = await queue.enqueue_many([job.call(n) for n in range(15)])
    queue.process()
    while (await queue.stats()).completed < len(handles):
        claims = faults.count("claim")
        await until(lambda: faults.count("claim") > claims + 1)  # noqa: B023  at once
        # Two minutes in all, in which who polls would ask again and again.
        clock.by += 7
    # When it comes, in its slot, and once more where others were late for theirs.
    assert len(asked) <= 3 * len(handles)
    await queue.shutdown()


async def test_the_key_of_a_limit_is_the_jobs_name_or_what_is_given(make_queue: Any) -> None:
    queue: Queue = make_queue()

    async def handler(ctx: JobContext[Any]) -> None: ...

    queue.process()
    by_name = [
        define(handler, middleware=create_rate_limit_middleware(max_per_minute=1)) for _ in range(2)
    ]
    for job in by_name:
        await ended(queue, await queue.enqueue(job))
    await reached(queue, await queue.enqueue(by_name[0]), "delayed")

    shared = create_rate_limit_middleware(max_per_minute=1, key="shared")
    await ended(queue, await queue.enqueue(define(handler, middleware=shared)))
    await reached(queue, await queue.enqueue(define(handler, middleware=shared)), "delayed")

    own = create_rate_limit_middleware(max_per_minute=1, key=lambda ctx: f"user {ctx.payload}")
    job = define(handler, middleware=own)
    for user in (1, 2):
        await ended(queue, await queue.enqueue(job, user))
    await reached(queue, await queue.enqueue(job, 1), "delayed")


async def test_a_key_that_is_none_fails_the_attempt(queue: Queue) -> None:
    async def handler(ctx: JobContext[Any]) -> None: ...

    def no_key(ctx: JobContext[Any]) -> Any:
        if ctx.payload == "raises":
            raise SystemExit(3)

    limit = create_rate_limit_middleware(max_per_second=1, key=no_key)
    queue.process()
    job = define(handler, middleware=limit, retries=0)
    for payload, kind in ((None, "ConfigError"), ("raises", "SystemExit")):
        info = await ended(queue, await queue.enqueue(job, payload))
        assert info.error is not None
        assert (info.status, info.error.type) == ("failed", kind)


async def test_a_job_that_waits_holds_no_slot(make_queue: Any) -> None:
    queue: Queue = make_queue(concurrency=1)

    async def handler(ctx: JobContext[Any]) -> None: ...

    slow = define(handler, middleware=create_rate_limit_middleware(max_per_minute=1))
    free = define(handler)
    queue.process()
    await ended(queue, await queue.enqueue(slow))
    waiting = [await queue.enqueue(slow) for _ in range(5)]
    await ended(queue, await queue.enqueue(free))
    for handle in waiting:
        await reached(queue, handle, "delayed")
    await until(lambda: not queue._worker._slots.running)  # type: ignore[union-attr]


@pytest.mark.parametrize("composed", [False, True])
async def test_a_run_that_one_limit_puts_off_is_no_start_under_another(
    make_queue: Any, composed: bool
) -> None:
    queue: Queue = make_queue()
    started: list[str] = []

    async def handler(ctx: JobContext[Any]) -> None:
        started.append(ctx.payload)

    wide = create_rate_limit_middleware(max_per_minute=4, key="wide")
    narrow = create_rate_limit_middleware(max_per_minute=1, key="narrow")
    both = [compose_middleware([wide, narrow])] if composed else [wide, narrow]
    limited = define(handler, middleware=both)
    rest = define(handler, middleware=wide)
    queue.process()
    await ended(queue, await queue.enqueue(limited, "first"))
    for n in range(4):
        await reached(queue, await queue.enqueue(limited, f"put off {n}"), "delayed")
    for n in range(3):
        await ended(queue, await queue.enqueue(rest, f"rest {n}"))
    assert started == ["first", "rest 0", "rest 1", "rest 2"]
    await reached(queue, await queue.enqueue(rest, "one more"), "delayed")
