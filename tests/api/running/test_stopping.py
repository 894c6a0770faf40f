"""P11: stopping loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from jobmill import JobContext, JobHooks, Worker
from jobmill.queue import Queue
from jobmill.records import JobInfo
from jobmill.stores.sqlite import SQLiteStore
from tests.api.running.kit import Leashed, define, ended, flaky, reached, record_of, until


async def test_stop_claims_no_more_and_running_jobs_go_on(queue: Queue) -> None:
    free = asyncio.Event()

    async def handler(ctx: JobContext[Any]) -> str:
        await free.wait()
        return "done"

    job = define(handler)
    queue.process()
    first = await queue.enqueue(job)
    await reached(queue, first, "processing")
    queue.stop()
    second = await queue.enqueue(job)
    free.set()
    assert (await ended(queue, first)).result == "done"
    await queue.shutdown()
    info = await second.info()
    assert (info.status, info.attempts) == ("pending", 0)


async def test_shutdown_waits_for_running_jobs(queue: Queue) -> None:
    free = asyncio.Event()

    async def handler(ctx: JobContext[Any]) -> str:
        await free.wait()
        return "done"

    queue.process()
    handle = await queue.enqueue(define(handler))
    await reached(queue, handle, "processing")
    down = asyncio.create_task(queue.shutdown())
    await asyncio.sleep(0)
    assert not down.done()
    free.set()
    await down
    info = await handle.info()
    assert (info.status, info.result) == ("completed", "done")


@pytest.mark.parametrize("kind", ["deaf", "polite", "real"])
async def test_shutdown_aborts_and_hands_back_unspent(queue: Queue, kind: str) -> None:
    log: list[Any] = []
    started = asyncio.Event()

    async def handler(ctx: JobContext[Any]) -> str:
        started.set()
        if kind == "deaf":
            await asyncio.Event().wait()
        await ctx.signal.wait()
        log.append(ctx.signal.reason)
        if kind == "polite":
            ctx.signal.raise_if_aborted()
        return "real"

    hooks = JobHooks(
        on_error=lambda ctx, error: log.append("on_error"),
        on_finally=lambda ctx: log.append("on_finally"),
    )
    queue.process()
    # Who hears it gets the time to obey; a machine may be busy at just that moment.
    grace = 0.02 if kind == "deaf" else 60.0
    handle = await queue.enqueue(define(handler, hooks=hooks, abort_grace=grace))
    await started.wait()
    await queue.shutdown(timeout=0.01)
    info = await handle.info()
    if kind == "real":
        assert (info.status, info.result) == ("completed", "real")
    else:
        assert (info.status, info.attempts, info.errors) == ("pending", 0, [])
    assert log == ([] if kind == "deaf" else ["shutdown"]) + ["on_finally"]
    assert (await record_of(queue, handle.id)).lapses == 0


def gated(ways: list[Any]) -> Any:
    """Middleware at whose gate each run waits for ever, and is told of in `ways`."""

    async def pass_on(ctx: JobContext[Any], inner: Callable[[], Awaitable[Any]]) -> Any:
        return await inner()

    async def gate(ctx: JobContext[Any]) -> float:
        ways.append("asked")
        try:
            await asyncio.Event().wait()
        finally:
            ways.append("cut")
        return 0.0

    pass_on.gate = gate  # type: ignore[attr-defined]
    return pass_on


async def test_a_run_at_its_gate_is_handed_back_at_once(
    queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    ways: list[Any] = []

    async def handler(ctx: JobContext[Any]) -> None:
        ways.append("handler")

    hooks = JobHooks(on_finally=lambda ctx: ways.append("on_finally"))
    job = define(handler, middleware=gated(ways), hooks=hooks, abort_grace=60.0)
    handle = await queue.enqueue(job)
    queue.process()
    await until(lambda: ways)
    async with asyncio.timeout(30):
        await queue.shutdown(timeout=0)
    info = await handle.info()
    assert (info.status, info.attempts, info.lapses) == ("pending", 0, 0)
    assert ways == ["asked", "cut"], "nothing of it had begun"
    assert "cannot be stopped" not in caplog.text


async def test_a_run_at_its_gate_is_cancelled_at_once(queue: Queue) -> None:
    ways: list[Any] = []

    async def handler(ctx: JobContext[Any]) -> None:
        ways.append("handler")

    handle = await queue.enqueue(define(handler, middleware=gated(ways), abort_grace=60.0))
    queue.process()
    await until(lambda: ways)
    assert await handle.cancel("enough")
    info = await ended(queue, handle)
    assert info.error is not None
    assert (info.status, info.attempts, info.error.message) == ("cancelled", 0, "enough")
    assert ways == ["asked", "cut"]


async def test_what_was_handed_back_runs_at_the_next_worker(make_queue: Any) -> None:
    queue: Queue = make_queue()
    runs: list[int] = []

    async def handler(ctx: JobContext[Any]) -> str:
        runs.append(ctx.attempt)
        if len(runs) == 1:
            await asyncio.Event().wait()
        return "done"

    queue.process()
    handle = await queue.enqueue(define(handler, abort_grace=0.01))
    await until(lambda: runs)
    await queue.shutdown(timeout=0)
    other: Queue = make_queue()
    other.process()
    assert await handle.result(30) == "done"
    assert runs == [1, 1]


async def test_shutdown_at_once_after_the_start_loses_nothing(queue: Queue) -> None:
    async def handler(ctx: JobContext[Any]) -> str:
        return "done"

    handle = await queue.enqueue(define(handler))
    queue.process()
    await queue.shutdown()
    assert (await handle.info()).status == "pending"
    queue.process()
    assert await handle.result(30) == "done"


@pytest.mark.parametrize("turns", range(0, 12, 2))
async def test_a_stop_during_start_up_is_heard(queue: Queue, turns: int) -> None:
    async def handler(ctx: JobContext[Any]) -> str:
        return "done"

    handle = await queue.enqueue(define(handler))
    worker = Worker(queue)
    running = asyncio.create_task(worker.run())
    for _ in range(turns):
        await asyncio.sleep(0)
    await worker.stop()
    await asyncio.wait_for(running, 30)
    info = await handle.info()
    assert (info.status, info.attempts) in {("pending", 0), ("completed", 1)}


async def test_a_stop_during_the_lifespan_is_heard(make_queue: Any) -> None:
    entered, go_on, left = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @contextlib.asynccontextmanager
    async def lifespan(queue: Queue) -> AsyncIterator[None]:
        entered.set()
        await go_on.wait()
        yield
        left.set()

    queue: Queue = make_queue(lifespan=lifespan)
    worker = Worker(queue)
    running = asyncio.create_task(worker.run())
    await entered.wait()
    stopping = asyncio.create_task(worker.stop())
    await asyncio.sleep(0)
    go_on.set()
    await stopping
    await running
    assert left.is_set()


@pytest.mark.parametrize("timeout", [0, 0.05])
async def test_a_stop_says_once_what_it_waits_for(
    queue: Queue, caplog: pytest.LogCaptureFixture, timeout: float
) -> None:
    started: list[str] = []

    async def handler(ctx: JobContext[Any]) -> None:
        started.append(ctx.job_id)
        await asyncio.Event().wait()

    job = define(handler, abort_grace=0.25)
    queue.process()
    for _ in range(2):
        await queue.enqueue(job)
    await until(lambda: len(started) == 2)
    await queue.shutdown(timeout=timeout)
    (line,) = [each for each in caplog.messages if each.startswith("stopping")]
    assert line == (
        "stopping: waiting up to 0.05 s for 2 running jobs"
        if timeout
        else "stopping: aborting 2 running jobs, with up to 0.25 s to end"
    )


async def test_a_stop_with_nothing_to_wait_for_is_silent(
    queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    queue.process()
    assert await (await queue.enqueue(define(_probe))).result(30) == "alive"
    await queue.shutdown()
    assert "stopping" not in caplog.text


async def test_a_stop_gives_up_a_lifespan_that_does_not_enter(
    make_queue: Any, caplog: pytest.LogCaptureFixture
) -> None:
    log: list[str] = []
    entered = asyncio.Event()

    @contextlib.asynccontextmanager
    async def lifespan(queue: Queue) -> AsyncIterator[None]:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            log.append("undone")
        yield

    queue: Queue = make_queue(lifespan=lifespan)
    worker = Worker(queue)
    running = asyncio.create_task(worker.run())
    await entered.wait()
    await asyncio.wait_for(worker.stop(timeout=0.01), 30)
    await asyncio.wait_for(running, 30)
    assert log == ["undone"]
    assert "was cancelled while it was entered" in caplog.text
    assert "left to itself" not in caplog.text


@pytest.mark.parametrize("how", ["shutdown", "cancel"])
async def test_a_stop_cancels_a_lifespan_that_does_not_exit(
    make_queue: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    how: str,
) -> None:
    monkeypatch.setattr("jobmill.lifespans.EXIT_WITHIN", 0.05)
    log: list[str] = []

    @contextlib.asynccontextmanager
    async def lifespan(queue: Queue) -> AsyncIterator[None]:
        yield
        try:
            await asyncio.Event().wait()
        finally:
            log.append("cut")

    queue: Queue = make_queue(lifespan=lifespan)
    worker = Worker(queue)
    running = asyncio.create_task(worker.run())
    assert await (await queue.enqueue(define(_probe))).result(30) == "alive"
    if how == "cancel":
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(running, 30)
    else:
        await asyncio.wait_for(worker.stop(timeout=0.01), 30)
        await asyncio.wait_for(running, 30)
    assert log == ["cut"]
    assert "to exit; cancelling" in caplog.text


async def test_a_stop_returns_beside_a_lifespan_that_ignores_its_cancellation(
    make_queue: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("jobmill.lifespans.EXIT_WITHIN", 0.05)
    monkeypatch.setattr("jobmill.worker.EXIT_WITHIN", 0.05)
    monkeypatch.setattr("jobmill.worker.LAST_SETTLE", 0.2)
    go_on = asyncio.Event()

    @contextlib.asynccontextmanager
    async def lifespan(queue: Queue) -> AsyncIterator[None]:
        yield
        while not go_on.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await go_on.wait()

    queue: Queue = make_queue(lifespan=lifespan)
    worker = Worker(queue)
    running = asyncio.create_task(worker.run())
    assert await (await queue.enqueue(define(_probe))).result(30) == "alive"
    await asyncio.wait_for(worker.stop(timeout=0.01), 30)
    await asyncio.wait_for(running, 30)
    assert "left to itself" in caplog.text
    go_on.set()
    assert worker._main is not None
    await asyncio.wait_for(worker._main, 30)


async def test_stopping_twice_and_at_once_is_one_stop(queue: Queue) -> None:
    async def handler(ctx: JobContext[Any]) -> None:
        await asyncio.Event().wait()

    worker = Worker(queue)
    running = asyncio.create_task(worker.run())
    handle = await queue.enqueue(define(handler, abort_grace=0.01))
    await reached(queue, handle, "processing")
    patient = asyncio.create_task(worker.stop(timeout=1000))
    await asyncio.sleep(0)
    # The second time it is in a hurry, and that goes.
    await worker.stop(timeout=0)
    await patient
    await running
    await worker.stop()
    assert (await handle.info()).status == "pending"


async def test_a_lifespan_that_fails_ends_the_worker_with_its_error(make_queue: Any) -> None:
    @contextlib.asynccontextmanager
    async def lifespan(queue: Queue) -> AsyncIterator[None]:
        raise OSError("no pool")
        yield

    with pytest.raises(OSError, match="no pool"):
        await Worker(make_queue(lifespan=lifespan)).run()


async def test_a_thread_that_cannot_be_stopped_keeps_its_slot_and_lease(make_queue: Any) -> None:
    queue: Queue = make_queue(lease=0.3, concurrency=1)
    free, threads = threading.Event(), []

    def handler(ctx: JobContext[Any]) -> str:
        threads.append(threading.current_thread())
        free.wait()
        return "done"

    job = define(handler, timeout=0.05, abort_grace=0.01, retries=0)
    queue.process()
    handle = await queue.enqueue(job)
    await until(lambda: threads)
    waiting = await queue.enqueue(define(_probe))
    first = (await record_of(queue, handle.id)).lease_until
    assert first is not None

    async def renewed_often() -> bool:
        record = await record_of(queue, handle.id)
        assert record.state == "processing"
        return record.lease_until is not None and record.lease_until > first + 0.6

    await until(renewed_often)
    assert (await waiting.info()).status == "pending"
    free.set()
    info = await ended(queue, handle)
    # After the abort its reason decides, whatever the handler returns.
    assert info.status == "failed"
    assert len(threads) == 1
    assert await waiting.result(30) == "alive"


async def test_shutdown_returns_beside_a_thread_that_cannot_be_stopped(
    make_queue: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Leashed()
    queue: Queue = make_queue(lease=0.3, clock=clock)
    clock.watch(queue, monkeypatch)
    free, started = threading.Event(), threading.Event()

    def stuck(ctx: JobContext[Any]) -> str:
        started.set()
        free.wait()
        return "real"

    begun: list[str] = []

    async def quick(ctx: JobContext[Any]) -> None:
        begun.append(ctx.job_id)
        await ctx.signal.wait()

    worker = queue.process()
    handle = await queue.enqueue(define(stuck, abort_grace=0.01))
    other = await queue.enqueue(define(quick))
    await until(lambda: started.is_set() and begun)
    await asyncio.wait_for(queue.shutdown(timeout=0), 30)
    assert "cannot be stopped" in caplog.text
    assert (await other.info()).status == "completed"
    # Nobody takes it over while the thread goes on.
    await until(lambda: clock.leashed)
    rival: Queue = make_queue(lease=0.3, clock=clock)
    rival.process()
    first = (await record_of(queue, handle.id)).lease_until
    assert first is not None

    async def renewed_often() -> bool:
        record = await record_of(queue, handle.id)
        assert (record.state, record.lapses) == ("processing", 0)
        return record.lease_until is not None and record.lease_until > first + 0.6

    await until(renewed_often)
    free.set()
    info = await ended(queue, handle)
    assert (info.status, info.result, info.attempts) == ("completed", "real", 1)
    assert worker._main is not None
    await asyncio.wait_for(worker._main, 30)


async def test_run_returns_when_a_stop_left_a_thread_behind(queue: Queue) -> None:
    free, started = threading.Event(), threading.Event()

    def stuck(ctx: JobContext[Any]) -> str:
        started.set()
        free.wait()
        return "real"

    worker = Worker(queue)
    running = asyncio.create_task(worker.run())
    handle = await queue.enqueue(define(stuck, abort_grace=0.01))
    await until(started.is_set)
    await worker.stop(timeout=0)
    await asyncio.wait_for(running, 30)
    free.set()
    assert (await ended(queue, handle)).result == "real"


async def test_outcomes_that_no_store_takes_do_not_keep_a_worker(
    make_queue: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("jobmill.worker.LAST_SETTLE", 0.2)
    queue, faults = flaky(make_queue())
    go_on = asyncio.Event()

    async def handler(ctx: JobContext[Any]) -> None:
        await go_on.wait()

    worker = Worker(queue)
    running = asyncio.create_task(worker.run())
    handle = await queue.enqueue(define(handler))
    await reached(queue, handle, "processing")
    faults.away |= {"claim", "move"}
    go_on.set()
    await asyncio.wait_for(worker.stop(), 30)
    await running
    assert "could not be settled any more" in caplog.text
    faults.away.clear()
    assert (await handle.info()).status == "processing"
    await queue.close()


async def test_a_cancelled_run_hands_back(queue: Queue) -> None:
    async def handler(ctx: JobContext[Any]) -> None:
        await asyncio.Event().wait()

    running = asyncio.create_task(Worker(queue).run())
    handle = await queue.enqueue(define(handler, abort_grace=0.01))
    await reached(queue, handle, "processing")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    info = await handle.info()
    assert (info.status, info.attempts) == ("pending", 0)


async def _probe(ctx: JobContext[Any]) -> str:
    return "alive"


# -- processes that end ------------------------------------------------------------------------

HEAD = """
import asyncio, signal, sys, threading
from typing import Any
from jobmill import JobContext, JobHooks, SQLiteQueue, Worker, define_job

started = threading.Event()

def said(what: str) -> None:
    print(what, flush=True)

@define_job(name="waits", abort_grace=0.05)
async def waits(ctx: JobContext[Any]) -> str:
    said("started")
    await asyncio.Event().wait()
    return "never"

@define_job(name="stuck", abort_grace=0.05)
def stuck(ctx: JobContext[Any]) -> str:
    said("started")
    started.set()
    threading.Event().wait()
    return "never"

@define_job(name="interrupts")
async def interrupts(ctx: JobContext[Any]) -> None:
    said("started")
    raise KeyboardInterrupt

after = asyncio.Event()

async def slow_hook(ctx: JobContext[Any], result: str) -> None:
    after.set()
    await asyncio.Event().wait()

@define_job(name="hooked", hooks=JobHooks(after_run=slow_hook))
async def hooked(ctx: JobContext[Any]) -> str:
    said("started")
    return "real"

@define_job(name="soon", abort_grace=60.0)
def soon(ctx: JobContext[Any]) -> str:
    said("started")
    started.set()
    import time
    time.sleep(0.3)
    return "real"

queue = SQLiteQueue(sys.argv[1], lease=1.0, poll_interval=0.05)
"""


def script(tmp_path: Path, body: str) -> subprocess.Popen[str]:
    file = tmp_path / "script.py"
    file.write_text(HEAD + textwrap.dedent(body))
    return subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "ignore", file, tmp_path / "jobs.db"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    try:
        return process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()


async def look(tmp_path: Path) -> tuple[JobInfo, int]:
    queue = Queue(SQLiteStore(tmp_path / "jobs.db"))
    (info,) = (await queue.list_jobs()).jobs
    await queue.close()
    return info, info.lapses


@pytest.mark.store("sqlite")
@pytest.mark.parametrize("name", ["waits", "stuck"])
async def test_a_loop_that_is_torn_down_hands_back_unspent(tmp_path: Path, name: str) -> None:
    process = script(
        tmp_path,
        f"""
        async def main() -> None:
            queue.process()
            handle = await queue.enqueue({name})
            while (await handle.info()).status != "processing":
                await asyncio.sleep(0.01)
        asyncio.run(main())
        """,
    )
    out, err = await asyncio.to_thread(finish, process)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    assert out.count("started") <= 1
    info, lapses = await look(tmp_path)
    assert (info.status, info.attempts, lapses) == ("pending", 0, 0)


@pytest.mark.store("sqlite")
@pytest.mark.parametrize(
    ("name", "wait"),
    [("hooked", "await after.wait()"), ("soon", "await asyncio.to_thread(started.wait)")],
)
async def test_a_loop_that_is_torn_down_keeps_the_real_outcome(
    tmp_path: Path, name: str, wait: str
) -> None:
    process = script(
        tmp_path,
        f"""
        async def main() -> None:
            queue.process()
            await queue.enqueue({name})
            {wait}
        asyncio.run(main())
        """,
    )
    _, err = await asyncio.to_thread(finish, process)
    assert process.returncode == 0, err
    info, _ = await look(tmp_path)
    assert (info.status, info.result, info.attempts) == ("completed", "real", 1)


@pytest.mark.store("sqlite")
async def test_a_thread_left_by_a_shutdown_is_handed_back_at_the_very_end(tmp_path: Path) -> None:
    process = script(
        tmp_path,
        """
        async def main() -> None:
            queue.process()
            handle = await queue.enqueue(stuck)
            await asyncio.to_thread(started.wait)
            await queue.shutdown(timeout=0)
            said((await handle.info()).status)
        asyncio.run(main())
        said("main is over")
        """,
    )
    out, err = await asyncio.to_thread(finish, process)
    assert process.returncode == 0, err
    assert out.split("\n")[:-1] == ["started", "processing", "main is over"]
    assert "could not be handed back" not in err
    info, lapses = await look(tmp_path)
    assert (info.status, info.attempts, lapses) == ("pending", 0, 0)


@pytest.mark.store("sqlite")
@pytest.mark.parametrize("where", ["process", "worker"])
async def test_a_keyboard_interrupt_of_a_handler_stops_the_worker(
    tmp_path: Path, where: str
) -> None:
    start = "queue.process()" if where == "process" else "asyncio.create_task(Worker(queue).run())"
    process = script(
        tmp_path,
        f"""
        async def main() -> None:
            keep = {start}
            await queue.enqueue(interrupts)
            await asyncio.Event().wait()
        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            said("interrupted")
        """,
    )
    out, err = await asyncio.to_thread(finish, process)
    assert out.split() == ["started", "interrupted"], err
    info, lapses = await look(tmp_path)
    assert (info.status, info.attempts, lapses) == ("pending", 0, 0)


@pytest.mark.store("sqlite")
@pytest.mark.parametrize("name", ["waits", "stuck"])
async def test_ctrl_c_hands_back_unspent(tmp_path: Path, name: str) -> None:
    process = script(
        tmp_path,
        f"""
        async def main() -> None:
            await queue.enqueue({name})
            await Worker(queue).run()
        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            said("interrupted")
        """,
    )
    assert process.stdout is not None
    assert await asyncio.to_thread(process.stdout.readline) == "started\n"
    os.kill(process.pid, signal.SIGINT)
    out, err = await asyncio.to_thread(finish, process)
    assert out == "interrupted\n", err
    info, lapses = await look(tmp_path)
    assert (info.status, info.attempts, lapses) == ("pending", 0, 0)


@pytest.mark.store("sqlite")
async def test_ctrl_c_does_not_wait_for_a_thread_that_cannot_be_stopped(tmp_path: Path) -> None:
    process = script(
        tmp_path,
        """
        import time
        from jobmill import job

        @job(name="sleeps", retries=0)
        def sleeps() -> None:
            said("started")
            time.sleep(600)

        async def main() -> None:
            await queue.enqueue(sleeps)
            await Worker(queue).run()
        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            said("interrupted")
        """,
    )
    assert process.stdout is not None
    assert await asyncio.to_thread(process.stdout.readline) == "started\n"
    os.kill(process.pid, signal.SIGINT)
    out, err = await asyncio.to_thread(finish, process)
    assert out == "interrupted\n", err
    assert err.count("cannot be stopped") == 1, err
    assert "Traceback" not in err
    info, lapses = await look(tmp_path)
    assert (info.status, info.attempts, lapses) == ("pending", 0, 0)


async def test_a_queue_without_work_does_not_hold_up_the_stop_of_the_others(
    make_queue: Any,
) -> None:
    idle = make_queue("idle", poll_interval=300)
    slow, faults = flaky(make_queue("slow", poll_interval=300))
    free = asyncio.Event()

    async def handler(ctx: JobContext[Any]) -> None:
        await free.wait()

    worker = Worker([idle, slow])
    running = asyncio.create_task(worker.run())
    handle = await slow.enqueue(define(handler))
    await until(lambda: worker._slots.running)
    faults.away |= {"claim", "move"}
    stopping = asyncio.create_task(worker.stop())
    free.set()
    tries = faults.count("claim") + faults.count("move")
    await until(lambda: faults.count("claim") + faults.count("move") > tries)
    faults.away.clear()
    async with asyncio.timeout(30):
        await stopping
        await running
    assert (await handle.info()).status == "completed"
