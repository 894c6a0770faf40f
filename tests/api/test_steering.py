"""Steering: cancel, retry, run now, delete, one and many; pause and clear."""

from __future__ import annotations

from typing import Any

import pytest

from jobmill import ConfigError, JobHandle, Queue
from tests.api.conftest import MakeQueue
from tests.api.jobs import HOUR, Email, broken, echo, echoes, hold, runs, send, statuses


async def running(queue: Queue) -> JobHandle[None]:
    """A job that runs until it is cancelled."""
    handle = await queue.enqueue(hold, priority=-100)
    if queue._worker is None:
        queue.process()
    await runs(handle)
    return handle


async def ended(queue: Queue, handle: Any) -> str:
    waited = await queue.wait_for_end(handle.id, 30)
    assert waited is not None
    return str(waited[0].status)


async def test_cancel_of_a_job_that_waits_ends_it(queue: Queue) -> None:
    for delay in (None, HOUR):
        handle = await queue.enqueue(echo, delay=delay)
        assert await queue.cancel(handle.id, "no more")
        info = await handle.info()
        assert info.status == "cancelled"
        assert info.completed_at is not None
        assert info.error is not None
        assert (info.error.type, info.error.message) == ("JobCancelled", "no more")
        assert not await queue.cancel(handle.id)
        assert not await queue.run_now(handle.id)


async def test_cancel_without_a_reason_has_none(queue: Queue) -> None:
    handle = await queue.enqueue(echo)
    await handle.cancel()
    error = (await handle.info()).error
    assert error is None or error.message == ""


@pytest.mark.parametrize("reason", [None, 3, b"why", "\ud800"])
async def test_a_reason_is_text(queue: Queue, reason: Any) -> None:
    handle = await queue.enqueue(echo)
    for cancel in (
        queue.cancel(handle.id, reason),
        handle.cancel(reason),
        queue.cancel_many(reason=reason),
    ):
        with pytest.raises(ConfigError) as refused:
            await cancel
        assert refused.value.field == "reason"
    assert await statuses(queue) == {"pending": 1}


async def test_retry_starts_over_and_keeps_the_errors(queue: Queue) -> None:
    handle = await queue.enqueue(broken.call("no"))
    queue.process()
    assert await ended(queue, handle) == "failed"
    await queue.pause()
    assert await queue.retry(handle.id)
    info = await handle.info()
    assert (info.status, info.attempts, info.error) != ("failed", 1, None)
    assert (info.status, info.attempts) == ("pending", 0)
    assert [error.message for error in info.errors] == ["no"]
    assert not await queue.retry(handle.id)
    await queue.resume()
    assert await ended(queue, handle) == "failed"
    assert len((await handle.info()).errors) == 2


async def test_retry_is_for_each_end_and_for_nothing_else(queue: Queue) -> None:
    done = await queue.enqueue(echo)
    queue.process()
    await done.result(30)
    await queue.pause()
    waits = await queue.enqueue(echo)
    later = await queue.enqueue(echo, delay=HOUR)
    assert await queue.retry(done.id)
    assert not await queue.retry(waits.id)
    assert not await queue.retry(later.id)
    assert (await done.info()).result is None


async def test_run_now_makes_a_delayed_job_due(queue: Queue) -> None:
    handle = await queue.enqueue(echo.call(1), delay=HOUR)
    assert await queue.run_now(handle.id)
    assert (await handle.info()).status == "pending"
    assert not await queue.run_now(handle.id)
    queue.process()
    assert await handle.result(30) == 1


async def test_delete_removes_what_does_not_run(queue: Queue) -> None:
    for delay in (None, HOUR):
        handle = await queue.enqueue(echo, delay=delay)
        assert await queue.delete(handle.id)
        assert not await queue.delete(handle.id)
        assert await queue.get_job(handle.id) is None
    held = await running(queue)
    assert not await queue.delete(held.id)
    assert await held.cancel()
    assert await ended(queue, held) == "cancelled"
    assert await queue.delete(held.id)
    assert await statuses(queue) == {}


async def test_many_are_cancelled_by_status_and_name(queue: Queue) -> None:
    await queue.enqueue_many(echoes(3))
    await queue.enqueue_many(echoes(2), delay=HOUR)
    mail = await queue.enqueue(send, Email("ann"))
    assert await queue.cancel_many(job_name="api.echo", status="delayed", reason="r") == 2
    assert await statuses(queue) == {"pending": 4, "cancelled": 2}
    assert await queue.cancel_many(job_name="api.echo") == 3
    assert (await mail.info()).status == "pending"
    assert await queue.cancel_many(status="completed") == 0
    assert await queue.cancel_many(status="cancelled") == 0
    assert await queue.cancel_many() == 1
    assert await queue.cancel_many() == 0
    infos = (await queue.list_jobs(status="cancelled")).jobs
    assert sorted(info.error.message for info in infos if info.error) == ["", "", "", "", "r", "r"]


async def test_many_are_more_than_a_page(queue: Queue) -> None:
    await queue.enqueue_many(echoes(1_201))
    assert await queue.cancel_many() == 1_201
    assert await queue.retry_many(status="cancelled") == 1_201
    assert await statuses(queue) == {"pending": 1_201}
    assert await queue.delete_many(status="pending") == 1_201
    assert await statuses(queue) == {}


async def test_many_that_run_are_asked_to_cancel(queue: Queue) -> None:
    held = await running(queue)
    assert await queue.delete_many() == await queue.clear() == 0
    assert await queue.cancel_many(status="processing") == 1
    assert await ended(queue, held) == "cancelled"


async def test_retry_many_is_for_the_failed_unless_told_otherwise(queue: Queue) -> None:
    bad = [await queue.enqueue(broken.call("no")) for _ in range(2)]
    good = await queue.enqueue(echo)
    stopped = await queue.enqueue(echo, delay=HOUR)
    await stopped.cancel()
    queue.process()
    for handle in (*bad, good):
        await ended(queue, handle)
    await queue.pause()
    assert await queue.retry_many() == 2
    assert await statuses(queue) == {"pending": 2, "completed": 1, "cancelled": 1}
    assert await queue.retry_many(job_name="api.echo") == 0
    assert await queue.retry_many(status="completed", job_name="api.echo") == 1
    assert await queue.retry_many(status="cancelled") == 1
    assert await queue.retry_many(status="pending") == 0


async def test_retry_many_leaves_those_whose_key_is_held(queue: Queue) -> None:
    for _ in range(3):
        await (await queue.enqueue(echo, unique_key="k")).cancel()
    assert await queue.retry_many(status="cancelled") == 1
    assert await statuses(queue) == {"pending": 1, "cancelled": 2}


async def test_many_are_deleted_by_status_and_name(queue: Queue) -> None:
    await queue.enqueue_many(echoes(3))
    await queue.enqueue_many(echoes(2), delay=HOUR)
    await queue.enqueue(send, Email("ann"))
    assert await queue.delete_many(status="delayed") == 2
    assert await queue.delete_many(status="processing") == 0
    assert await queue.delete_many(job_name="api.echo") == 3
    assert await statuses(queue) == {"pending": 1}


async def test_clear_drops_all_but_what_runs(queue: Queue) -> None:
    held = await running(queue)
    await queue.pause()
    await queue.enqueue_many(echoes(5))
    await queue.enqueue_many(echoes(5), delay=HOUR)
    await (await queue.enqueue(echo)).cancel()
    assert await queue.clear() == 11
    assert await statuses(queue) == {"processing": 1}
    await held.cancel()


async def test_steering_is_of_one_queue(make_queue: MakeQueue) -> None:
    here, there = make_queue(name="here"), make_queue(name="there")
    for each in (here, there):
        await each.enqueue(echo, job_id="one")
    await here.pause()
    assert not await there.is_paused()
    assert await here.cancel_many() == 1
    assert await here.clear() == 1
    assert await statuses(there) == {"pending": 1}


async def test_a_paused_queue_is_paused_for_every_queue_object(make_queue: MakeQueue) -> None:
    here, there = make_queue(), make_queue()
    assert not await here.is_paused()
    await here.pause()
    await here.pause()
    assert await there.is_paused()
    there.process()
    handle = await here.enqueue(echo.call(1))
    with pytest.raises(TimeoutError):
        await handle.result(0.05)
    await there.resume()
    await there.resume()
    assert not await here.is_paused()
    assert await handle.result(30) == 1


async def test_a_paused_job_leaves_the_others(queue: Queue) -> None:
    await queue.pause(job_name="api.send")
    assert await queue.is_paused("api.send")
    assert not await queue.is_paused("api.echo")
    assert not await queue.is_paused()
    queue.process()
    mail = await queue.enqueue(send, Email("ann"))
    assert await (await queue.enqueue(echo.call(1))).result(30) == 1
    assert (await mail.info()).status == "pending"
    await queue.resume(job_name="api.send")
    assert not await queue.is_paused("api.send")
    assert await mail.result(30) == "ann"


async def test_a_pause_of_the_queue_and_one_of_a_job_are_two(queue: Queue) -> None:
    await queue.pause()
    await queue.pause("api.echo")
    assert await queue.is_paused("api.send")
    await queue.resume()
    assert await queue.is_paused("api.echo")
    assert not await queue.is_paused()


@pytest.mark.parametrize("name", ["", "*", "a b", "\ud800", 3, echo])
async def test_a_pause_is_of_a_job_that_could_be(queue: Queue, name: Any) -> None:
    for verb in (queue.pause, queue.resume, queue.is_paused):
        with pytest.raises(ConfigError) as refused:
            await verb(name)
        assert refused.value.field == "job_name"
    assert not await queue.is_paused()
