"""Hooks: when they run, and that they change nothing."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import pytest

from jobmill import Cancel, Fail, JobContext, JobHooks, Retry, Snooze
from jobmill.queue import Queue
from jobmill.worker import Worker
from tests.api.running.kit import define, ended, reached, until


def telling(log: list[str], *, sync: bool) -> JobHooks:
    def tell(name: str) -> Any:
        def hook(ctx: JobContext[Any], *args: Any) -> None:
            shown = [type(arg).__name__ if isinstance(arg, Exception) else arg for arg in args]
            log.append(" ".join(str(part) for part in (name, *shown)))

        async def async_hook(ctx: JobContext[Any], *args: Any) -> None:
            hook(ctx, *args)

        return hook if sync else async_hook

    names = ("before_run", "after_run", "on_error", "on_retry", "on_progress", "on_finally")
    return JobHooks(**{name: tell(name) for name in names})


@pytest.mark.parametrize("sync", [True, False])
async def test_hooks_run_in_order_and_before_the_settle(queue: Queue, sync: bool) -> None:
    log: list[str] = []

    async def handler(ctx: JobContext[Any]) -> str:
        log.append("handler")
        await ctx.update_progress(50)
        if ctx.attempt < 3:
            raise ValueError
        return "result"

    job = define(handler, retries=2, hooks=telling(log, sync=sync))
    queue.process()
    await ended(queue, await queue.enqueue(job))
    run = ["before_run", "handler", "on_progress 50.0"]
    failed = [*run, "on_error ValueError"]
    assert log == [
        *[*failed, "on_retry 1", "on_finally"],
        *[*failed, "on_retry 2", "on_finally"],
        *[*run, "after_run result", "on_finally"],
    ]


async def test_the_last_failure_is_an_error_and_no_retry(queue: Queue) -> None:
    log: list[str] = []

    async def handler(ctx: JobContext[Any]) -> None:
        raise ValueError

    queue.process()
    await ended(
        queue, await queue.enqueue(define(handler, retries=0, hooks=telling(log, sync=False)))
    )
    assert log == ["before_run", "on_error ValueError", "on_finally"]


@pytest.mark.parametrize(
    ("what", "hooks"),
    [
        (Snooze(1000), []),
        (Cancel("no"), []),
        (Fail("no"), ["on_error Fail"]),
        (Retry(1000), ["on_error Retry", "on_retry 1"]),
    ],
)
async def test_hooks_of_a_run_that_steers_itself(
    queue: Queue, what: BaseException, hooks: list[str]
) -> None:
    log: list[str] = []

    async def handler(ctx: JobContext[Any]) -> None:
        raise what

    told = telling(log, sync=False)

    async def on_error(ctx: JobContext[Any], error: BaseException) -> None:
        log.append(f"on_error {type(error).__name__}")

    given = JobHooks(
        before_run=told.before_run,
        after_run=told.after_run,
        on_error=on_error,
        on_retry=told.on_retry,
        on_finally=told.on_finally,
    )
    queue.process()
    handle = await queue.enqueue(define(handler, hooks=given))
    await until(lambda: "on_finally" in log)
    assert log == ["before_run", *hooks, "on_finally"]
    wanted = {"Snooze": "delayed", "Retry": "delayed", "Cancel": "cancelled", "Fail": "failed"}
    await reached(queue, handle, wanted[type(what).__name__])


async def test_a_timeout_is_an_error_for_the_hooks(queue: Queue) -> None:
    log: list[str] = []

    async def handler(ctx: JobContext[Any]) -> None:
        await ctx.signal.wait()

    job = define(handler, timeout=0.05, retries=0, hooks=telling(log, sync=False))
    queue.process()
    await ended(queue, await queue.enqueue(job))
    assert log == ["before_run", "on_error JobTimeout", "on_finally"]


RAISED = (
    ValueError("hook"),
    SystemExit(3),
    asyncio.CancelledError(),
    Retry(1000),
    Cancel("hook"),
    Snooze(1000),
    Fail("hook"),
)


@pytest.mark.parametrize("what", RAISED, ids=lambda what: type(what).__name__)
@pytest.mark.parametrize("sync", [True, False])
async def test_a_hook_that_fails_changes_nothing_and_is_logged_and_counted(
    queue: Queue, what: BaseException, sync: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def raising(ctx: JobContext[Any], *args: Any) -> None:
        raise what

    async def raising_async(ctx: JobContext[Any], *args: Any) -> None:
        raise what

    hook: Any = raising if sync else raising_async
    names = ("after_run", "on_error", "on_retry", "on_progress", "on_finally")
    hooks = JobHooks(**dict.fromkeys(names, hook))

    async def handler(ctx: JobContext[Any]) -> str:
        await ctx.update_progress(10)
        if ctx.attempt == 1:
            raise ValueError("handler")
        return "done"

    worker = queue.process()
    handle = await queue.enqueue(define(handler, hooks=hooks, retries=1))
    with caplog.at_level(logging.ERROR, "jobmill.worker"):
        assert await handle.result(30) == "done"
    info = await handle.info()
    assert [error.message for error in info.errors] == ["handler"]
    assert _faults(worker) == {
        "on_progress": 2,
        "on_error": 1,
        "on_retry": 1,
        "after_run": 1,
        "on_finally": 2,
    }
    logged = [record.getMessage() for record in caplog.records if "hook" in record.getMessage()]
    assert len(logged) == 7


def _faults(worker: Worker) -> dict[str, int]:
    (feed,) = worker._feeds
    return dict(feed.runner.faults)


@pytest.mark.parametrize("sync", [True, False])
async def test_a_before_run_that_raises_fails_the_attempt(queue: Queue, sync: bool) -> None:
    log: list[str] = []

    def before(ctx: JobContext[Any]) -> None:
        if ctx.attempt == 1:
            raise ValueError("not ready")

    async def before_async(ctx: JobContext[Any]) -> None:
        before(ctx)

    async def handler(ctx: JobContext[Any]) -> int:
        log.append("handler")
        return ctx.attempt

    told = telling(log, sync=False)
    hooks = JobHooks(
        before_run=before if sync else before_async,
        on_error=told.on_error,
        on_finally=told.on_finally,
    )
    queue.process()
    handle = await queue.enqueue(define(handler, hooks=hooks, retries=1))
    assert await handle.result(30) == 2
    assert log == ["on_error ValueError", "on_finally", "handler", "on_finally"]


async def test_before_run_may_steer(queue: Queue) -> None:
    async def before(ctx: JobContext[Any]) -> None:
        raise Cancel("too late")

    async def handler(ctx: JobContext[Any]) -> None: ...

    queue.process()
    info = await ended(
        queue, await queue.enqueue(define(handler, hooks=JobHooks(before_run=before)))
    )
    assert info.status == "cancelled"
    assert info.error is not None
    assert info.error.message == "too late"


@pytest.mark.parametrize("sync", [True, False])
async def test_hooks_are_bounded(queue: Queue, sync: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobmill.runner.HOOK_TIMEOUT", 0.05)
    free = threading.Event()

    def stuck(ctx: JobContext[Any], *args: Any) -> None:
        free.wait()

    async def stuck_async(ctx: JobContext[Any], *args: Any) -> None:
        await asyncio.Event().wait()

    hook: Any = stuck if sync else stuck_async

    async def handler(ctx: JobContext[Any]) -> str:
        await ctx.update_progress(10)
        return "done"

    hooks = JobHooks(after_run=hook, on_progress=hook, on_finally=hook)
    worker = queue.process()
    assert await (await queue.enqueue(define(handler, hooks=hooks))).result(30) == "done"
    assert _faults(worker) == {"on_progress": 1, "after_run": 1, "on_finally": 1}
    info = await ended(
        queue, await queue.enqueue(define(handler, hooks=JobHooks(before_run=hook), retries=0))
    )
    free.set()
    assert info.status == "failed"
    assert info.error is not None
    assert info.error.type == "TimeoutError"


async def test_hooks_of_a_lost_lease_only_say_that_it_is_over(queue: Queue) -> None:
    log: list[str] = []

    async def handler(ctx: JobContext[Any]) -> None:
        ctx.signal.abort("lease_lost")

    queue.process()
    await queue.enqueue(define(handler, hooks=telling(log, sync=False)))
    await until(lambda: "on_finally" in log)
    assert log == ["before_run", "on_finally"]
