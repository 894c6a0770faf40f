"""Options of a job: what an attempt may take, and what follows one that failed."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import timedelta
from typing import Any

import pytest

from jobmill import Cancel, Fail, JobContext, JobHooks, JobOptions, Retry, Snooze
from jobmill.clock import SystemClock
from jobmill.queue import Queue
from tests.api.running.conftest import IN_MEMORY
from tests.api.running.kit import Shifted, define, ended, reached, record_of, until


async def test_a_timeout_aborts_first_and_cancels_after_the_grace(queue: Queue) -> None:
    seen: list[tuple[str, float]] = []

    async def handler(ctx: JobContext[Any]) -> None:
        await ctx.signal.wait()
        seen.append((str(ctx.signal.reason), time.monotonic() - began))
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append(("cancelled", time.monotonic() - began))
            raise

    job = define(handler, timeout=0.1, abort_grace=0.2, retries=0)
    queue.process()
    # Before the attempt, whose time has begun when its handler looks at a clock.
    began = time.monotonic()
    info = await ended(queue, await queue.enqueue(job))
    assert info.status == "failed"
    assert info.error is not None
    assert info.error.type == "JobTimeout"
    (aborted, first), (cut, second) = seen
    assert (aborted, cut) == ("timeout", "cancelled")
    assert 0.1 <= first < second
    assert second >= 0.29


@pytest.mark.parametrize("why", ["timeout", "cancel"])
async def test_a_handler_that_swallows_its_cancellation_never_completes(
    queue: Queue, why: str
) -> None:
    started = asyncio.Event()

    async def handler(ctx: JobContext[Any]) -> str:
        started.set()
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                return "done all the same"

    limit = 0.05 if why == "timeout" else None
    job = define(handler, timeout=limit, abort_grace=0.01, retries=0)
    queue.process()
    handle = await queue.enqueue(job)
    await started.wait()
    if why == "cancel":
        assert await handle.cancel("enough")
    info = await ended(queue, handle)
    assert info.status == ("failed" if why == "timeout" else "cancelled")
    assert info.result is None


async def test_a_timeout_decides_whatever_the_handler_raises_after_it(queue: Queue) -> None:
    def after(what: BaseException) -> Any:
        async def handler(ctx: JobContext[Any]) -> None:
            await ctx.signal.wait()
            raise what

        return define(handler, timeout=0.05, retries=0)

    queue.process()
    for what in (Snooze(0), Cancel("no"), Fail("no"), ValueError("no"), SystemExit(3)):
        info = await ended(queue, await queue.enqueue(after(what)))
        assert info.status == "failed"
        assert info.error is not None
        assert info.error.type == "JobTimeout"


async def test_a_timeout_is_retried_as_any_error(queue: Queue) -> None:
    async def handler(ctx: JobContext[Any]) -> int:
        if ctx.attempt == 1:
            await ctx.signal.wait()
        return ctx.attempt

    job = define(handler, timeout=0.2, retries=1)
    queue.process()
    handle = await queue.enqueue(job)
    assert await handle.result(30) == 2
    assert [error.type for error in (await handle.info()).errors] == ["JobTimeout"]


async def test_retries_are_spent_and_each_error_is_kept(queue: Queue) -> None:
    async def handler(ctx: JobContext[Any]) -> None:
        raise ValueError(f"attempt {ctx.attempt} of {ctx.max_attempts}")

    job = define(handler, retries=2)
    queue.process()
    info = await ended(queue, await queue.enqueue(job))
    assert info.status == "failed"
    assert (info.attempts, info.max_attempts) == (3, 3)
    told = [(error.attempt, error.message) for error in info.errors]
    assert told == [(n, f"attempt {n} of 3") for n in (1, 2, 3)]


async def test_no_retries_means_one_attempt(queue: Queue) -> None:
    async def handler(ctx: JobContext[Any]) -> None:
        raise ValueError

    queue.process()
    info = await ended(queue, await queue.enqueue(define(handler, retries=0)))
    assert (info.status, info.attempts) == ("failed", 1)


CLOCK = 0.001
"""Seconds that an instant may be off for the digits that a store keeps."""


async def _fails_thrice(make_queue: Any, options: dict[str, Any], delays: list[float]) -> None:
    clock = Shifted()
    queue: Queue = make_queue(clock=clock)
    failed: list[float] = []

    async def handler(ctx: JobContext[Any]) -> None:
        failed.append(clock.wall())
        raise ValueError("four")

    job = define(handler, retries=3, retry_delay=100, **options)
    queue.process()
    handle = await queue.enqueue(job)
    for n, delay in enumerate(delays, 1):
        await reached(queue, handle, "delayed", attempts=n)
        record = await record_of(queue, handle.id)
        # It failed between its last look at the clock and this one.
        assert failed[-1] <= record.run_at - delay <= clock.wall() + CLOCK
        clock.by += delay + 3
    info = await ended(queue, handle)
    assert (info.status, info.attempts) == ("failed", 4)


async def test_the_backoff_is_exact(make_queue: Any) -> None:
    await _fails_thrice(make_queue, {"backoff": "exponential"}, [100, 200, 400])


@pytest.mark.parametrize("open_store", [IN_MEMORY], indirect=True)
@pytest.mark.parametrize(
    ("options", "delays"),
    [
        ({"backoff": "fixed"}, [100, 100, 100]),
        ({"backoff": "linear"}, [100, 200, 300]),
        ({"backoff": "exponential", "max_retry_delay": 150}, [100, 150, 150]),
        ({"backoff": lambda n, error: 1000 * n + len(str(error))}, [1004, 2004, 3004]),
        ({"backoff": lambda n, error: 1 / 0}, [100, 200, 400]),
        ({"backoff": lambda n, error: float("nan")}, [100, 200, 400]),
    ],
)
async def test_each_backoff_is_exact(
    make_queue: Any, options: dict[str, Any], delays: list[float]
) -> None:
    await _fails_thrice(make_queue, options, delays)


async def test_jitter_only_adds(make_queue: Any) -> None:
    queue: Queue = make_queue()

    async def handler(ctx: JobContext[Any]) -> None:
        raise ValueError

    job = define(handler, retry_delay=100, jitter=0.5)
    queue.process()
    before = SystemClock().wall()
    delays: set[float] = set()
    for _ in range(5):
        handle = await queue.enqueue(job)
        await reached(queue, handle, "delayed")
        delay = (await record_of(queue, handle.id)).run_at - before
        assert 100 <= delay < 170
        delays.add(round(delay))
    assert len(delays) > 1


async def test_only_what_is_named_is_retried(queue: Queue) -> None:
    async def handler(ctx: JobContext[Any]) -> None:
        raise {"value": ValueError, "key": KeyError, "index": IndexError}[ctx.payload]

    some = define(handler, retries=1, retry_on=(ValueError, LookupError), fail_on=(IndexError,))
    queue.process()
    for payload, attempts in (("value", 2), ("key", 2), ("index", 1)):
        info = await ended(queue, await queue.enqueue(some, payload))
        assert (payload, info.status, info.attempts) == (payload, "failed", attempts)
    other = define(handler, retries=1, retry_on=(OSError,))
    info = await ended(queue, await queue.enqueue(other, "value"))
    assert (info.status, info.attempts) == ("failed", 1)


async def test_what_is_retried_is_the_queues_where_the_job_does_not_say(make_queue: Any) -> None:
    queue: Queue = make_queue(default_options=JobOptions(fail_on=(ValueError,)))

    async def handler(ctx: JobContext[Any]) -> None:
        raise ValueError

    queue.process()
    info = await ended(queue, await queue.enqueue(define(handler, retries=3)))
    assert (info.status, info.attempts) == ("failed", 1)


async def test_retry_is_a_failed_attempt_with_its_own_delay(queue: Queue) -> None:
    async def handler(ctx: JobContext[Any]) -> str:
        if ctx.attempt == 1:
            raise Retry(delay=0, reason="the other side sleeps")
        return "done"

    job = define(handler, retries=1, retry_delay=1000, fail_on=(Exception,))
    queue.process()
    handle = await queue.enqueue(job)
    assert await handle.result(30) == "done"
    info = await handle.info()
    assert info.attempts == 2
    assert [(error.type, error.message) for error in info.errors] == [
        ("Retry", "the other side sleeps")
    ]


async def test_retry_without_a_delay_backs_off_and_ends_with_the_attempts(queue: Queue) -> None:
    async def handler(ctx: JobContext[Any]) -> None:
        raise Retry

    queue.process()
    info = await ended(queue, await queue.enqueue(define(handler, retries=2)))
    assert (info.status, info.attempts) == ("failed", 3)
    handle = await queue.enqueue(define(handler, retries=1, retry_delay=1000))
    await reached(queue, handle, "delayed")
    assert (await record_of(queue, handle.id)).run_at > time.time() + 900


@pytest.mark.parametrize("delay", [0.01, timedelta(milliseconds=10), -5])
async def test_a_snooze_spends_no_attempt(queue: Queue, delay: Any) -> None:
    runs: list[int] = []

    async def handler(ctx: JobContext[Any]) -> str:
        runs.append(ctx.attempt)
        if len(runs) < 4:
            raise Snooze(delay, reason="not yet")
        return "done"

    queue.process()
    handle = await queue.enqueue(define(handler, retries=0))
    assert await handle.result(30) == "done"
    assert runs == [1, 1, 1, 1]
    info = await handle.info()
    assert (info.attempts, info.errors) == (1, [])
    assert [line["message"] for line in info.logs] == ["snoozed: not yet"] * 3


@pytest.mark.parametrize("delay", [float("nan"), float("inf"), "soon"])
@pytest.mark.parametrize("kind", [Retry, Snooze])
async def test_a_delay_that_is_none_fails_the_attempt(queue: Queue, kind: Any, delay: Any) -> None:
    async def handler(ctx: JobContext[Any]) -> None:
        raise kind(delay)

    queue.process()
    info = await ended(queue, await queue.enqueue(define(handler, retries=0)))
    assert info.status == "failed"
    assert info.error is not None
    assert info.error.type == "ConfigError"
    assert "delay" in info.error.message


async def test_cancel_and_fail_end_the_job_at_once(queue: Queue) -> None:
    async def handler(ctx: JobContext[Any]) -> None:
        try:
            raise {"cancel": Cancel, "fail": Fail}[ctx.payload]("there is no such user")
        except Exception as error:
            raise AssertionError("swallowed") from error

    job = define(handler, retries=5)
    queue.process()
    for payload, status in (("cancel", "cancelled"), ("fail", "failed")):
        info = await ended(queue, await queue.enqueue(job, payload))
        assert (info.status, info.attempts) == (status, 1)
        assert info.error is not None
        assert info.error.message == "there is no such user"


@pytest.mark.parametrize("what", [SystemExit(3), asyncio.CancelledError(), GeneratorExit()])
@pytest.mark.parametrize("where", ["loop", "thread"])
async def test_odd_exits_are_failed_attempts(queue: Queue, what: BaseException, where: str) -> None:
    async def on_loop(ctx: JobContext[Any]) -> None:
        raise what

    def in_thread(ctx: JobContext[Any]) -> None:
        raise what

    queue.process()
    job = define(on_loop if where == "loop" else in_thread, retries=1)
    info = await ended(queue, await queue.enqueue(job))
    assert info.status == "failed"
    assert info.attempts == (1 if isinstance(what, GeneratorExit) else 2)
    assert info.error is not None
    assert info.error.type == type(what).__name__
    probe = define(_probe)
    assert await (await queue.enqueue(probe)).result(30) == "alive"


async def _probe(ctx: JobContext[Any]) -> str:
    return "alive"


class Loud:
    def __init__(self) -> None:
        self.text = "no JSON"


async def test_a_result_that_is_no_json_fails_without_retry(queue: Queue) -> None:
    errors: list[str] = []
    hooks = JobHooks(on_error=lambda ctx, error: errors.append(type(error).__name__))

    async def handler(ctx: JobContext[Any]) -> Any:
        return Loud()

    queue.process()
    info = await ended(queue, await queue.enqueue(define(handler, retries=3, hooks=hooks)))
    assert (info.status, info.attempts) == ("failed", 1)
    assert info.error is not None
    assert errors == [info.error.type] == ["PayloadError"]


async def test_a_result_that_is_too_large_fails_without_retry(queue: Queue) -> None:
    async def handler(ctx: JobContext[Any]) -> str:
        return "x" * int(ctx.payload)

    job = define(handler, retries=3)
    queue.process()
    fits = await queue.enqueue(job, (1 << 20) - 2)
    assert len(await fits.result(30)) == (1 << 20) - 2
    info = await ended(queue, await queue.enqueue(job, (1 << 20) - 1))
    assert (info.status, info.attempts) == ("failed", 1)
    assert info.error is not None
    assert info.error.type == "PayloadTooLarge"


async def test_ended_records_stay_for_as_long_as_the_job_says(make_queue: Any) -> None:
    queue: Queue = make_queue()

    async def handler(ctx: JobContext[Any]) -> None:
        if ctx.payload:
            raise ctx_errors[ctx.payload]

    ctx_errors: dict[str, BaseException] = {"fail": ValueError(), "cancel": Cancel("")}
    job = define(handler, retries=0, keep_result=100, keep_failed=200)
    queue.process()
    for payload, kept in ((None, 100), ("fail", 200), ("cancel", 200)):
        handle = await queue.enqueue(job, payload)
        await ended(queue, handle)
        record = await record_of(queue, handle.id)
        assert record.ended_at is not None
        assert record.expires_at is not None
        assert abs(record.expires_at - record.ended_at - kept) < 0.001


async def test_expired_records_go_while_a_worker_runs(
    make_queue: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobmill.worker.PRUNE_INTERVAL", 0.05)
    queue: Queue = make_queue()

    async def handler(ctx: JobContext[Any]) -> None: ...

    queue.process()
    gone = await queue.enqueue(define(handler, keep_result=0))
    kept = await queue.enqueue(define(handler, keep_result=1000))
    await ended(queue, kept)

    async def is_gone() -> bool:
        return await queue.get_job(gone.id) is None

    await until(is_gone)
    assert (await kept.info()).status == "completed"


async def test_a_def_runs_in_a_thread_and_an_async_def_on_the_loop(queue: Queue) -> None:
    def in_thread(ctx: JobContext[Any]) -> bool:
        return threading.current_thread() is threading.main_thread()

    async def on_loop(ctx: JobContext[Any]) -> bool:
        return threading.current_thread() is threading.main_thread()

    queue.process()
    for executor in ("auto", "thread"):
        job = define(in_thread, executor=executor)
        assert await (await queue.enqueue(job)).result(30) is False
    assert await (await queue.enqueue(define(on_loop))).result(30) is True


async def test_lower_priority_numbers_run_first_then_the_longest_due(make_queue: Any) -> None:
    queue: Queue = make_queue(concurrency=1)
    order: list[str] = []

    async def handler(ctx: JobContext[Any]) -> None:
        order.append(ctx.payload)

    job = define(handler)
    await queue.enqueue(job, "c", priority=1)
    await queue.enqueue(job, "d", priority=1)
    await queue.enqueue(job, "a", priority=-1)
    await queue.enqueue(job, "b")
    await queue.enqueue(job, "e", priority=2)
    queue.process()
    await until(lambda: len(order) == 5)
    assert order == ["a", "b", "c", "d", "e"]


async def test_a_traceback_begins_at_the_users_code(queue: Queue) -> None:
    async def on_loop(ctx: JobContext[Any]) -> None:
        raise ValueError("here")

    def in_thread(ctx: JobContext[Any]) -> None:
        raise ValueError("here")

    async def layer(ctx: JobContext[Any], inner: Any) -> Any:
        return await inner()

    queue.process()
    for handler in (on_loop, in_thread):
        info = await ended(queue, await queue.enqueue(define(handler, retries=0)))
        assert info.error is not None
        lines = info.error.traceback.splitlines()
        assert lines[0] == "Traceback (most recent call last):"
        assert __file__ in lines[1]
        assert "jobmill/runner.py" not in info.error.traceback
        assert lines[-1] == "ValueError: here"
    job = define(on_loop, retries=0, middleware=layer)
    info = await ended(queue, await queue.enqueue(job))
    assert info.error is not None
    assert __file__ in info.error.traceback.splitlines()[1]
