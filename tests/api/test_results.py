"""Handles: what a job gave, or why it did not, for whoever waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from datetime import timedelta
from typing import Any

import pytest

from jobmill import (
    Cancel,
    ConfigError,
    InMemoryQueue,
    JobCancelled,
    JobError,
    JobFailed,
    JobNotFound,
    PayloadError,
    Queue,
    StoreUnavailable,
    define_job,
    job,
    results,
)
from tests.api.conftest import MakeQueue
from tests.api.jobs import HOUR, Email, broken, data, echo, hold, reply, runs, watched
from tests.waiting import eventually

SOON = 30


@pytest.fixture
async def lazy(make_queue: MakeQueue) -> AsyncIterator[Queue]:
    """A queue that looks by itself for nothing: what it learns, it was told."""
    queue = make_queue(poll_interval=HOUR)
    yield queue
    await queue.shutdown(timeout=0)


async def test_a_result_is_of_the_type_that_the_job_gives(working: Queue) -> None:
    assert await (await working.enqueue(reply, Email("ann", "hi"))).result(SOON) == Email(
        "ann", "Re: hi"
    )
    assert await (await working.enqueue(data.call(256))).result(SOON) == bytes(range(256))
    assert await (await working.enqueue(echo.call({"a": [1, None]}))).result(SOON) == {
        "a": [1, None]
    }
    assert await (await working.enqueue(echo)).result(SOON) is None


async def test_a_result_is_plain_json_in_the_info(working: Queue) -> None:
    handle = await working.enqueue(reply, Email("ann", "hi"))
    await handle.result(SOON)
    info = await handle.info()
    assert info.result == {"to": "ann", "subject": "Re: hi"}
    assert info.status == "completed"
    assert info.error is None
    assert info.worker
    assert info.started_at is not None
    assert info.completed_at is not None
    assert info.duration == (info.completed_at - info.started_at).total_seconds()


async def test_a_failed_job_raises_its_error(working: Queue) -> None:
    handle = await working.enqueue(broken.call("no good"))
    with pytest.raises(JobFailed, match="no good") as failed:
        await handle.result(SOON)
    assert failed.value.job_id == handle.id
    error = failed.value.error
    assert isinstance(error, JobError)
    assert (error.type, error.message, error.attempt) == ("Fail", "no good", 1)
    assert (await handle.info()).error == error


async def test_a_cancelled_job_raises_with_the_reason(queue: Queue) -> None:
    handle = await queue.enqueue(echo, delay=HOUR)
    assert await handle.cancel("too late")
    with pytest.raises(JobCancelled, match="too late") as cancelled:
        await handle.result(SOON)
    assert (cancelled.value.job_id, cancelled.value.reason) == (handle.id, "too late")
    error = (await handle.info()).error
    assert error is not None
    assert error.message == "too late"


async def test_a_job_that_cancels_itself_raises_with_the_reason(working: Queue) -> None:
    @job(name="api.quits")
    async def quits() -> None:
        raise Cancel("enough")

    with pytest.raises(JobCancelled, match="enough"):
        await (await working.enqueue(quits)).result(SOON)


async def test_a_running_job_that_is_cancelled_raises_with_the_reason(working: Queue) -> None:
    handle = await working.enqueue(hold)
    await runs(handle)
    assert await handle.cancel("stop it")
    await handle.cancel("again")  # whether it has ended by now or not, it is too late to say why
    with pytest.raises(JobCancelled) as cancelled:
        await handle.result(SOON)
    assert cancelled.value.reason == "stop it"
    assert not await handle.cancel("too late")


@pytest.mark.parametrize("timeout", [0, 0.01, timedelta(milliseconds=10)])
async def test_a_result_that_does_not_come_in_time_changes_nothing(
    queue: Queue, timeout: Any
) -> None:
    handle = await queue.enqueue(echo.call(1))
    with pytest.raises(TimeoutError, match=handle.id):
        await handle.result(timeout)
    assert (await handle.info()).status == "pending"
    queue.process()
    assert await handle.result(SOON) == 1


async def test_no_time_at_all_is_enough_for_what_has_ended(working: Queue) -> None:
    handle = await working.enqueue(echo.call(1))
    await handle.result(SOON)
    assert await handle.result(0) == 1
    await working.delete(handle.id)
    with pytest.raises(JobNotFound):
        await handle.result(0)


@pytest.mark.parametrize("timeout", [-1, float("nan"), "1", True])
async def test_a_wrong_timeout_is_refused(queue: Queue, timeout: Any) -> None:
    handle = await queue.enqueue(echo)
    with pytest.raises(ConfigError) as refused:
        await handle.result(timeout)
    assert refused.value.field == "timeout"


async def test_a_job_that_is_gone_is_not_found(queue: Queue) -> None:
    handle = await queue.enqueue(echo)
    assert await queue.delete(handle.id)
    for gone in (handle.result(SOON), handle.info()):
        with pytest.raises(JobNotFound) as missing:
            await gone
        assert missing.value.job_id == handle.id
    assert not await handle.cancel()


async def waits(handle: Any) -> asyncio.Task[Any]:
    """A task that has begun to wait for the result."""
    queue = handle._queue
    task = asyncio.create_task(handle.result(SOON))

    def begun() -> bool:
        line = queue._home._line
        return line is not None and line.results._sign is not None

    await eventually(begun)
    return task


async def test_a_waiter_is_told_of_a_delete(lazy: Queue) -> None:
    for verb in ("delete", "clear"):
        handle = await lazy.enqueue(echo)
        task = await waits(handle)
        assert await (lazy.delete(handle.id) if verb == "delete" else lazy.clear()) == 1
        with pytest.raises(JobNotFound):
            await task


async def test_a_waiter_is_told_of_an_end_at_once(lazy: Queue) -> None:
    handle = await lazy.enqueue(echo.call("a"))
    task = await waits(handle)
    lazy.process()
    assert await task == "a"


async def test_one_who_comes_later_is_told_at_once_too(lazy: Queue) -> None:
    early = await waits(await lazy.enqueue(echo, delay=HOUR))
    handle = await lazy.enqueue(echo.call("a"), delay=HOUR)
    late = await waits(handle)
    await eventually(lambda: len(lazy._home._line.results._waiting) == 2)  # type: ignore[union-attr]
    await handle.cancel("told")
    with pytest.raises(JobCancelled, match="told"):
        await late
    early.cancel()


async def test_a_waiter_is_told_of_what_another_queue_object_did(make_queue: MakeQueue) -> None:
    here, there = make_queue(), make_queue()
    task = await waits(await here.enqueue(echo.call("a")))
    there.process()
    assert await task == "a"


async def test_many_wait_for_many(queue: Queue) -> None:
    handles = await queue.enqueue_many([echo.call(n) for n in range(50)])
    results = asyncio.gather(*(handle.result(SOON) for handle in handles for _ in range(3)))
    queue.process()
    assert await results == [n for n in range(50) for _ in range(3)]
    assert await handles[0].result(SOON) == 0


async def test_very_many_are_not_named_to_the_store_each_time(
    lazy: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "_MANY", 5)
    named: list[int] = []
    await lazy.stats()
    line = lazy._home.here()
    assert line is not None
    wait = line.store.wait

    async def note(topics: Collection[str], timeout: float) -> None:
        named.append(len(topics))
        await wait(topics, timeout)

    monkeypatch.setattr(line.store, "wait", note)
    handles = await lazy.enqueue_many([echo.call(n) for n in range(50)])
    waiting = [asyncio.create_task(handle.result(SOON)) for handle in handles]
    await eventually(lambda: named)
    lazy.process()
    assert await asyncio.gather(*waiting) == list(range(50))
    assert max(named) <= 5


@pytest.mark.store("memory")
async def test_results_that_do_not_come_together_come_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    queue = InMemoryQueue(poll_interval=0.02)
    await queue.stats()
    line = queue._home.here()
    assert line is not None
    get = line.store.get

    async def slow(ids: Sequence[str]) -> Any:
        if len(ids) > 3:
            raise StoreUnavailable("so much does not come in time")
        return await get(ids)

    monkeypatch.setattr(line.store, "get", slow)
    handles = await queue.enqueue_many([echo.call(n) for n in range(20)])
    queue.process()
    found = await asyncio.gather(*(handle.result(SOON) for handle in handles))
    assert found == list(range(20))
    await queue.shutdown()


async def test_a_waiter_who_leaves_leaves_the_others(queue: Queue) -> None:
    handle = await queue.enqueue(echo.call(1))
    tasks = [await waits(handle) for _ in range(3)]
    tasks[1].cancel()
    queue.process()
    assert await tasks[0] == await tasks[2] == 1
    assert tasks[1].cancelled()


async def test_a_waiter_of_a_queue_that_is_closed_is_told_so(queue: Queue) -> None:
    task = await waits(await queue.enqueue(echo))
    await queue.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await task


async def test_an_error_while_waiting_reaches_who_waits(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = await queue.enqueue(echo)

    async def events(after: int | None, limit: int) -> Any:
        raise ValueError("something else")

    line = queue._home._line
    assert line is not None
    monkeypatch.setattr(line.store, "events", events)
    with pytest.raises(ValueError, match="something else"):
        await handle.result(SOON)


async def test_a_store_that_is_away_is_waited_for(
    make_queue: MakeQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, _ = watched(make_queue(poll_interval=0.01))
    handle = await queue.enqueue(echo.call(1))
    line = queue._home._line
    assert line is not None
    line.results._poll_interval = 0.01
    away = 3
    events = line.store.events

    async def sometimes(after: int | None, limit: int) -> Any:
        nonlocal away
        away -= 1
        if away >= 0:
            raise StoreUnavailable
        return await events(after, limit)

    monkeypatch.setattr(line.store, "events", sometimes, raising=False)
    queue.process()
    assert await handle.result(SOON) == 1
    assert away < 0
    await queue.shutdown(timeout=0)


async def test_a_handle_of_a_deduplicated_enqueue_waits_for_the_same_job(queue: Queue) -> None:
    first = await queue.enqueue(echo.call("first"), unique_key="k")
    second = await queue.enqueue(echo.call("second"), unique_key="k")
    queue.process()
    assert await first.result(SOON) == await second.result(SOON) == "first"


async def test_a_result_that_is_not_of_its_type_any_more_is_a_payload_error(
    working: Queue,
) -> None:
    handle = await working.enqueue(echo.call("text"), job_id="one")
    await handle.result(SOON)

    @define_job(name="api.numbers")
    async def numbers(ctx: Any) -> int:
        return 1

    handle._job = numbers
    with pytest.raises(PayloadError):
        await handle.result(SOON)


async def test_a_revived_job_is_waited_for_anew(queue: Queue) -> None:
    handle = await queue.enqueue(echo.call(1))
    await handle.cancel()
    assert await queue.retry(handle.id)
    with pytest.raises(TimeoutError):
        await handle.result(0.01)
    queue.process()
    assert await handle.result(SOON) == 1
    assert repr(handle) == f"JobHandle('api.echo', id={handle.id!r})"
