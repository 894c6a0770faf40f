from __future__ import annotations

import asyncio
import contextvars
import threading
from datetime import UTC, datetime
from typing import Any, cast, get_args

import pytest

from jobmill.context import CURRENT, AbortReason, AbortSignal, JobContext, current_context
from jobmill.errors import ConfigError, JobCancelled, JobsError, JobTimeout, LeaseLost

RAISED: dict[AbortReason, type[JobsError]] = {
    "cancelled": JobCancelled,
    "timeout": JobTimeout,
    "shutdown": JobCancelled,
    "lease_lost": LeaseLost,
}


def make_context(
    progress: list[tuple[float, str | None]] | None = None,
    lines: list[tuple[str, dict[str, Any]]] | None = None,
) -> JobContext[str]:
    async def progress_sink(value: float, note: str | None) -> None:
        assert progress is not None
        progress.append((value, note))

    def log_sink(message: str, fields: dict[str, Any]) -> None:
        assert lines is not None
        lines.append((message, fields))

    return JobContext(
        job_id="id",
        job_name="app.resize",
        queue_name="default",
        payload="payload",
        attempt=1,
        max_attempts=4,
        enqueued_at=datetime.now(UTC),
        started_at=datetime.now(UTC),
        signal=AbortSignal(),
        metadata={},
        queue=cast("Any", None),
        state=None,
        progress_sink=progress_sink,
        log_sink=log_sink,
    )


def test_a_signal_starts_silent() -> None:
    signal = AbortSignal()
    assert not signal.aborted
    assert signal.reason is None
    signal.raise_if_aborted()


def test_the_first_reason_stays() -> None:
    signal = AbortSignal()
    assert signal.abort("timeout")
    assert not signal.abort("cancelled")
    assert signal.aborted
    assert signal.reason == "timeout"


@pytest.mark.parametrize("reason", get_args(AbortReason))
def test_each_reason_raises_its_error(reason: AbortReason) -> None:
    signal = AbortSignal()
    signal.abort(reason)
    with pytest.raises(RAISED[reason]) as raised:
        signal.raise_if_aborted()
    if isinstance(raised.value, JobCancelled):
        assert raised.value.reason == reason


async def test_waiting_ends_when_another_thread_aborts() -> None:
    signal = AbortSignal()
    waiters = [asyncio.create_task(signal.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    thread = threading.Thread(target=signal.abort, args=("shutdown",))
    thread.start()
    await asyncio.wait_for(asyncio.gather(*waiters), 30)
    thread.join()
    await signal.wait()


async def test_a_waiter_that_gave_up_leaves_nothing_behind() -> None:
    signal = AbortSignal()
    waiter = asyncio.create_task(signal.wait())
    await asyncio.sleep(0)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert not signal._waiters
    signal.abort("cancelled")


def test_a_waiter_whose_loop_is_gone_harms_nobody() -> None:
    signal = AbortSignal()
    loop = asyncio.new_event_loop()
    waiter = loop.create_task(signal.wait())
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert signal.abort("shutdown")
    assert signal.reason == "shutdown"
    assert not waiter.done()


def test_of_many_threads_one_reason_wins() -> None:
    for _ in range(50):
        signal = AbortSignal()
        won: list[AbortReason] = []
        barrier = threading.Barrier(4)

        def abort(reason: AbortReason) -> None:
            barrier.wait(30)  # noqa: B023 - joined before the next round
            if signal.abort(reason):  # noqa: B023
                won.append(reason)  # noqa: B023

        threads = [threading.Thread(target=abort, args=(each,)) for each in RAISED]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert won == [signal.reason]


async def test_progress_and_lines_go_where_the_engine_wants_them() -> None:
    progress: list[tuple[float, str | None]] = []
    lines: list[tuple[str, dict[str, Any]]] = []
    ctx = make_context(progress, lines)
    await ctx.update_progress(0)
    await ctx.update_progress(100, "done \ud800")
    ctx.log("line", n=1, message="field")
    assert progress == [(0.0, None), (100.0, "done ?")]
    assert lines == [("line", {"n": 1, "message": "field"})]


@pytest.mark.parametrize("value", [-0.1, 100.1, float("nan"), float("inf"), "50", None, True])
async def test_progress_outside_of_0_to_100_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError) as refused:
        await make_context().update_progress(value)
    assert refused.value.field == "value"


async def test_a_progress_note_is_text() -> None:
    with pytest.raises(ConfigError) as refused:
        await make_context().update_progress(5, cast("Any", 5))
    assert refused.value.field == "note"


def test_the_payload_is_not_in_the_repr() -> None:
    assert repr(make_context()) == "JobContext(job_id='id', job_name='app.resize')"


def test_the_current_context_is_the_running_jobs() -> None:
    ctx = make_context()

    def run() -> JobContext[Any]:
        CURRENT.set(ctx)
        return current_context()

    assert contextvars.copy_context().run(run) is ctx
    with pytest.raises(JobsError, match="no job is running here"):
        current_context()
