"""ThreadExecutor: what a call returns or raises arrives, and threads neither leak nor block."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import AsyncIterator

import pytest

from jobmill.errors import Retry
from jobmill.executors import ThreadExecutor
from tests.waiting import eventually, eventually_sync

VAR: contextvars.ContextVar[str] = contextvars.ContextVar("VAR", default="outside")


@pytest.fixture
async def threads() -> AsyncIterator[ThreadExecutor]:
    executor = ThreadExecutor()
    before = set(threading.enumerate())
    yield executor
    executor.close()
    await eventually(lambda: set(threading.enumerate()) <= before)


async def test_a_result_arrives_from_another_thread(threads: ThreadExecutor) -> None:
    ident = await threads.start(threading.get_ident)
    assert ident != threading.get_ident()


@pytest.mark.parametrize("kind", [ValueError, Retry, SystemExit, asyncio.CancelledError])
async def test_whatever_the_call_raises_arrives(
    threads: ThreadExecutor, kind: type[BaseException]
) -> None:
    error = kind()

    def call() -> None:
        raise error

    future = threads.start(call)
    await asyncio.wait([future])
    if kind is asyncio.CancelledError:
        with pytest.raises(asyncio.CancelledError):
            await future
    else:
        assert future.exception() is error


async def test_a_keyboard_interrupt_arrives_and_does_not_break_the_loop(
    threads: ThreadExecutor,
) -> None:
    def call() -> None:
        raise KeyboardInterrupt

    future = threads.start(call)
    await asyncio.wait([future])
    assert isinstance(future.exception(), KeyboardInterrupt)


async def test_stop_iteration_comes_as_a_runtime_error(threads: ThreadExecutor) -> None:
    def call() -> None:
        raise StopIteration(7)

    with pytest.raises(RuntimeError) as caught:
        await threads.start(call)
    assert isinstance(caught.value.__cause__, StopIteration)


async def test_the_call_runs_in_a_copy_of_the_callers_context(threads: ThreadExecutor) -> None:
    def call() -> str:
        seen = VAR.get()
        VAR.set("inside")
        return seen

    VAR.set("caller")
    assert await threads.start(call) == "caller"
    assert VAR.get() == "caller"


async def test_ten_thousand_calls_one_by_one_need_one_thread(threads: ThreadExecutor) -> None:
    idents = {await threads.start(threading.get_ident) for _ in range(10_000)}
    assert len(idents) == 1


async def test_there_are_as_many_threads_as_calls_at_once(threads: ThreadExecutor) -> None:
    # Those of tests before this one may end meanwhile.
    before = set(threading.enumerate())
    for _ in range(20):
        barrier = threading.Barrier(8)
        await asyncio.gather(*(threads.start(barrier.wait) for _ in range(8)))
    assert len(set(threading.enumerate()) - before) == 8


async def test_idle_threads_end_after_their_time() -> None:
    executor = ThreadExecutor(idle_seconds=0.01)
    before = set(threading.enumerate())
    for _ in range(50):
        assert await executor.start(lambda: 1) == 1
        await eventually(lambda: set(threading.enumerate()) <= before)
    executor.close()


async def test_calls_are_never_lost_between_two_threads_idle_times() -> None:
    executor = ThreadExecutor(idle_seconds=0.0)
    for _ in range(2_000):
        assert await executor.start(lambda: 1) == 1
    executor.close()


async def test_nothing_of_a_call_is_kept_alive(threads: ThreadExecutor) -> None:
    class Thing:
        pass

    async def run() -> tuple[weakref.ref[Thing], weakref.ref[Thing]]:
        given, made = Thing(), Thing()
        assert await threads.start(lambda: (given, made)[1]) is made

        def fail() -> None:
            local = given
            raise ValueError(local)

        with pytest.raises(ValueError, match="Thing"):
            await threads.start(fail)
        return weakref.ref(given), weakref.ref(made)

    refs = await run()
    # The exception and its traceback are a cycle, as every raised exception that is kept is.
    await eventually(lambda: gc.collect() >= 0 and [ref() for ref in refs] == [None, None])


async def test_a_cancelled_future_leaves_the_thread_fit_for_the_next_call(
    threads: ThreadExecutor,
) -> None:
    go, ran = threading.Event(), threading.Event()

    def call() -> int:
        go.wait(60)
        ran.set()
        return threading.get_ident()

    future = threads.start(call)
    future.cancel()
    go.set()
    await eventually(ran.is_set)
    assert await threads.start(lambda: "next") == "next"


async def test_after_close_no_call_starts_and_running_ones_end() -> None:
    executor = ThreadExecutor()
    go = threading.Event()
    before = set(threading.enumerate())
    future = executor.start(lambda: go.wait(60))
    executor.close()
    with pytest.raises(RuntimeError):
        executor.start(lambda: None)
    go.set()
    assert await future is True
    await eventually(lambda: set(threading.enumerate()) <= before)


def test_a_loop_that_is_closed_meanwhile_is_tolerated() -> None:
    executor = ThreadExecutor()
    go = threading.Event()
    raised: list[object] = []
    hook, threading.excepthook = threading.excepthook, raised.append

    async def start() -> None:
        executor.start(lambda: go.wait(60))

    try:
        before = set(threading.enumerate())
        asyncio.run(start())
        executor.close()
        go.set()
        eventually_sync(lambda: set(threading.enumerate()) <= before)
    finally:
        threading.excepthook = hook
    assert not raised


def test_a_stuck_thread_does_not_keep_the_process_alive() -> None:
    script = (
        "import asyncio, threading\n"
        "from jobmill.executors import ThreadExecutor\n"
        "async def main():\n"
        "    ThreadExecutor().start(threading.Event().wait)\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], timeout=60, check=False)
    assert done.returncode == 0
