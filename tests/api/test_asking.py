"""Asking: how many jobs there are, which, and how one stands."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobmill import ConfigError, JobContext, Queue, define_job
from jobmill.seams import Seams
from tests.api.conftest import MakeQueue
from tests.api.jobs import HOUR, Email, HandClock, broken, echo, echoes, hold, runs, send, statuses


async def test_stats_count_each_state(queue: Queue) -> None:
    ended = [
        await queue.enqueue(echo, priority=-9),
        await queue.enqueue(broken.call("no"), priority=-9),
        await queue.enqueue(echo),
        await queue.enqueue(echo),
    ]
    for handle in ended[2:]:
        await handle.cancel()
    worker = queue.process([echo, broken])
    for handle in ended:
        await queue.wait_for_end(handle.id, 30)
    await queue.enqueue(send, Email("ann"))
    for _ in range(3):
        await queue.enqueue(echo, delay=HOUR)
    assert await statuses(queue) == {
        "completed": 1,
        "failed": 1,
        "cancelled": 2,
        "pending": 1,
        "delayed": 3,
    }
    stats = await queue.stats()
    assert (stats.total, stats.processing) == (8, 0)
    assert worker is not None


async def test_a_delayed_job_that_is_due_counts_as_pending(make_queue: MakeQueue) -> None:
    clock = HandClock()
    queue = make_queue(seams=Seams(clock=clock))
    handle = await queue.enqueue(echo, delay=10)
    at = datetime.fromtimestamp(clock.at + 10, UTC)
    later = await queue.enqueue(echo, run_at=at)
    assert await statuses(queue) == {"delayed": 2}
    clock.at += 9.9
    assert await statuses(queue) == {"delayed": 2}
    clock.at += 0.2
    assert await statuses(queue) == {"pending": 2}
    assert (await handle.info()).status == "pending"
    assert (await later.info()).run_at == at
    assert len((await queue.list_jobs(status="pending")).jobs) == 2
    assert (await queue.list_jobs(status="delayed")).jobs == []
    assert not await queue.run_now(handle.id)


async def test_times_are_aware_and_come_from_the_store(make_queue: MakeQueue) -> None:
    clock = HandClock()
    queue = make_queue(seams=Seams(clock=clock))
    info = await (await queue.enqueue(echo)).info()
    assert info.enqueued_at == datetime.fromtimestamp(clock.at, UTC)
    assert info.enqueued_at.utcoffset() == timedelta(0)


async def test_a_running_job_tells_its_progress_and_its_worker(queue: Queue) -> None:
    @define_job(name="api.steps")
    async def steps(ctx: JobContext[None]) -> None:
        ctx.log("begun", step=1)
        await ctx.update_progress(40, "almost half")

    handle = await queue.enqueue(steps)
    worker = queue.process()
    await handle.result(30)
    info = await handle.info()
    assert (info.progress, info.progress_note) == (40, "almost half")
    (line,) = info.logs
    assert (line["message"], line["fields"]) == ("begun", {"step": 1})
    assert isinstance(line["at"], datetime)
    assert info.worker == worker.id
    assert info.attempts == 1


async def test_a_job_that_is_not_there_is_none(queue: Queue) -> None:
    for job_id in ("never", "", "a b", "\ud800", "\0", "x" * 10_000, "'; drop table jobs; --"):
        assert await queue.get_job(job_id) is None
        assert not await queue.cancel(job_id)
        assert not await queue.retry(job_id)
        assert not await queue.delete(job_id)
        assert not await queue.run_now(job_id)


@pytest.mark.parametrize("no_id", [None, 3, b"one", ["one"]])
async def test_what_is_no_id_is_refused(queue: Queue, no_id: Any) -> None:
    await queue.enqueue(echo, job_id="one")
    for verb in (queue.get_job, queue.cancel, queue.retry, queue.delete, queue.run_now):
        with pytest.raises(ConfigError) as refused:
            await verb(no_id)
        assert refused.value.field == "id"


async def test_jobs_are_listed_newest_first_page_by_page(queue: Queue) -> None:
    handles = await queue.enqueue_many(echoes(25))
    seen = []
    cursor = None
    sizes = []
    while True:
        page = await queue.list_jobs(limit=10, cursor=cursor)
        sizes.append(len(page.jobs))
        seen += [info.id for info in page.jobs]
        # What comes meanwhile is on none of the later pages, and moves none of them.
        await queue.enqueue(echo.call("new"))
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == [handle.id for handle in reversed(handles)]
    assert sizes == [10, 10, 5]
    assert len((await queue.list_jobs()).jobs) == 28
    await queue.enqueue_many(echoes(30))
    assert len((await queue.list_jobs()).jobs) == 50


async def test_jobs_are_listed_by_status_and_name(queue: Queue) -> None:
    a = await queue.enqueue(send, Email("ann"))
    b = await queue.enqueue(send, Email("bob"), delay=HOUR)
    c = await queue.enqueue(echo)
    d = await queue.enqueue(echo)
    await d.cancel()

    async def listed(**options: Any) -> list[str]:
        page = await queue.list_jobs(**options)
        assert page.next_cursor is None
        return [info.id for info in page.jobs]

    assert await listed() == [d.id, c.id, b.id, a.id]
    assert await listed(job_name="api.send") == [b.id, a.id]
    assert await listed(status="pending") == [c.id, a.id]
    assert await listed(status="delayed", job_name="api.send") == [b.id]
    assert await listed(status="cancelled") == [d.id]
    assert await listed(status="completed") == []
    assert await listed(job_name="api.other") == []


@pytest.mark.parametrize("limit", [0, -1, 1_001, 1.5, True, "5"])
async def test_a_limit_out_of_bounds_is_refused(queue: Queue, limit: Any) -> None:
    with pytest.raises(ConfigError) as refused:
        await queue.list_jobs(limit=limit)
    assert refused.value.field == "limit"


async def test_the_bounds_of_the_limit_are_limits(queue: Queue) -> None:
    await queue.enqueue_many(echoes(2))
    assert len((await queue.list_jobs(limit=1)).jobs) == 1
    assert len((await queue.list_jobs(limit=1_000)).jobs) == 2


@pytest.mark.parametrize("cursor", ["", "nonsense", "'", "-1", "\0", "é", "\ud800", 3, b"1"])
async def test_a_cursor_that_is_none_is_refused(queue: Queue, cursor: Any) -> None:
    with pytest.raises(ConfigError) as refused:
        await queue.list_jobs(cursor=cursor)
    assert refused.value.field == "cursor"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("status", bad) for bad in ("", "done", "PENDING", 3, ["pending"])),
        *(("job_name", bad) for bad in ("", "a b", "\ud800", 3, echo)),
    ],
)
async def test_a_filter_that_fits_nothing_is_refused(queue: Queue, field: str, value: Any) -> None:
    await queue.enqueue(echo)
    for verb in (queue.list_jobs, queue.cancel_many, queue.retry_many, queue.delete_many):
        with pytest.raises(ConfigError) as refused:
            await verb(**{field: value})
        assert refused.value.field == field
    assert await statuses(queue) == {"pending": 1}


async def test_a_running_job_counts_as_processing(working: Queue) -> None:
    handle = await working.enqueue(hold)
    await runs(handle)
    assert await statuses(working) == {"processing": 1}
    assert [job.id for job in (await working.list_jobs(status="processing")).jobs] == [handle.id]
    await handle.cancel()
