"""A monitor tells what happens in a queue: figures, events, health."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from jobmill import (
    Cancel,
    ConfigError,
    InMemoryQueue,
    JobContext,
    JobError,
    JobInfo,
    Monitor,
    Queue,
    SchemaMismatch,
    SystemHealth,
)
from jobmill.follower import MONITORS
from jobmill.job import JobDefinition
from jobmill.records import cancellation
from jobmill.store import Query, Store
from tests.api.running.conftest import MakeQueue
from tests.api.running.kit import define, ended, flaky, fresh, reached, until


async def answer(ctx: JobContext[None]) -> int:
    return 42


async def fail(ctx: JobContext[None]) -> None:
    raise ValueError("on purpose")


def fails_first() -> JobDefinition[Any, Any]:
    async def handler(ctx: JobContext[None]) -> None:
        if ctx.attempt == 1:
            raise KeyError("first")

    return define(handler, retries=1)


class Told:
    """What a monitor's listeners were told, in order."""

    def __init__(self, monitor: Monitor) -> None:
        self.all: list[tuple[str, str]] = []
        self.jobs: list[JobInfo] = []
        self.errors: list[JobError] = []
        for event in ("job_completed", "job_failed", "job_cancelled", "job_retried"):
            monitor.on(event, self._listener(event))

    def _listener(self, event: str) -> Any:
        async def listener(job: JobInfo, error: JobError | None = None) -> None:
            self.all.append((event, job.id))
            self.jobs.append(job)
            if error is not None:
                self.errors.append(error)

        return listener


# -------------------------------------------------------------------------------- figures


async def test_the_figures_are_those_of_what_ended(queue: Queue) -> None:
    good, bad, again = define(answer), define(fail, retries=0), fails_first()
    queue.process()
    monitor = Monitor(queue=queue)
    some = [await queue.enqueue(job) for job in (good, good, good, bad, again)]
    idle = await queue.enqueue(good, delay=600)
    await idle.cancel()
    for handle in some:
        await ended(queue, handle)
    found = await monitor.get_metrics()
    assert (found.total_jobs, found.successful_jobs, found.failed_jobs) == (6, 4, 1)
    assert (found.cancelled_jobs, found.retried, found.error_rate) == (1, 1, 0.2)
    assert found.throughput > 0
    assert found.average_duration >= 0
    assert found.p50_duration <= found.p95_duration <= found.p99_duration
    assert found.p50_wait <= found.p95_wait <= found.p99_wait
    assert set(found.by_job) == {good.name, bad.name, again.name}
    assert found.by_job[good.name].total_jobs == 4
    assert found.by_job[again.name].retried == 1
    assert found.until - found.since == timedelta(seconds=86_400)
    # Whichever process asks, and whether or not the records are there.
    await queue.delete_many()
    other = Monitor(queue)
    assert (await other.get_metrics()).total_jobs == 6
    assert (await monitor.get_metrics()).total_jobs == 6
    (point,) = [each for each in await other.get_metrics_history() if each.total_jobs][-1:]
    assert point.since.second == 0
    assert sum(each.total_jobs for each in await other.get_metrics_history()) == 6


async def test_the_retention_bounds_the_figures(queue: Queue) -> None:
    store = queue.store.handle()
    await store.open()
    job = define(answer)
    await queue.enqueue_many([job.call()] * 3)
    now = (await store.counts()).now
    records = (await store.find(Query(), limit=3)).records
    for record, ago in zip(records, (30.0, 400.0, 4_000.0), strict=True):
        move = {"event": "cancel", "job_id": record.id, "error": cancellation("")}
        await store.move([_move(**move)], now=now - ago)
    await store.close()
    for retention, expected in ((60, 1), (600, 2), (7_200, 3)):
        found = await Monitor(queue, retention=retention).get_metrics()
        assert found.cancelled_jobs == expected, retention
    points = await Monitor(queue, metrics_interval=120, retention=600).get_metrics_history()
    assert sum(point.total_jobs for point in points) == 2
    assert all(point.since.timestamp() % 120 == 0 for point in points)
    gaps = {later.since - sooner.since for sooner, later in itertools.pairwise(points)}
    assert gaps == {timedelta(seconds=120)}


def _move(**fields: Any) -> Any:
    from jobmill.states import Move

    return Move(**fields)


async def test_recent_jobs_and_one_job(queue: Queue) -> None:
    good, bad = define(answer), define(fail, retries=0)
    queue.process()
    handles = [await queue.enqueue(job) for job in (good, bad, good)]
    for handle in handles:
        await ended(queue, handle)
    monitor = Monitor(queue)
    recent = await monitor.get_recent_jobs(limit=2)
    assert [job.id for job in recent] == [handles[2].id, handles[1].id]
    (failed,) = await monitor.get_recent_jobs(status="failed", job_name=bad.name)
    assert failed.id == handles[1].id
    job = await monitor.get_job(handles[0].id)
    assert job is not None
    assert job.result == 42
    assert await monitor.get_job("0190") is None


# -------------------------------------------------------------------------------- events


async def test_each_end_and_retry_is_told_once_and_in_order(queue: Queue) -> None:
    good, bad, again = define(answer), define(fail, retries=0), fails_first()
    before = await queue.enqueue(good)
    queue.process()
    await ended(queue, before)
    monitor = Monitor(queue)
    told = Told(monitor)
    async with monitor:
        handles = [await queue.enqueue(job) for job in (good, bad, again)]
        for handle in handles:
            await ended(queue, handle)
        gone = await queue.enqueue(good, delay=600)
        await gone.cancel("not needed")
        await until(lambda: ("job_cancelled", gone.id) in told.all)
        await until(lambda: len(told.all) == 5)
    ids = [handle.id for handle in handles]
    assert sorted(told.all) == sorted(
        [
            ("job_completed", ids[0]),
            ("job_failed", ids[1]),
            ("job_retried", ids[2]),
            ("job_completed", ids[2]),
            ("job_cancelled", gone.id),
        ]
    )
    assert told.all.index(("job_retried", ids[2])) < told.all.index(("job_completed", ids[2]))
    assert {error.type for error in told.errors} == {"ValueError", "KeyError"}
    by_id = {job.id: job for job in told.jobs}
    assert by_id[ids[0]].result == 42
    assert [error.message for error in by_id[ids[1]].errors] == ["on purpose"]


async def test_a_listener_added_later_hears_what_comes_later(queue: Queue) -> None:
    good = define(answer)
    queue.process()
    told: list[str] = []
    async with Monitor(queue) as monitor:
        await ended(queue, await queue.enqueue(good))

        @monitor.on("job_completed")
        def listener(job: JobInfo) -> None:
            told.append(job.id)

        later: list[str] = []

        async def heard() -> bool:
            # One that ends before the monitor has looked is not later.
            handle = await queue.enqueue(good)
            later.append(handle.id)
            await ended(queue, handle)
            return bool(told)

        await until(heard)
        assert callable(listener)
    assert set(told) <= set(later)


async def test_who_unsubscribed_hears_no_more(queue: Queue) -> None:
    good = define(answer)
    queue.process()
    first: list[str] = []
    second: list[str] = []
    async with Monitor(queue) as monitor:
        stop = monitor.on("job_completed", lambda job: first.append(job.id))
        monitor.on("job_completed", lambda job: second.append(job.id))
        one = await queue.enqueue(good)
        await until(lambda: one.id in first and one.id in second)
        stop()
        two = await queue.enqueue(good)
        await until(lambda: two.id in second)
    assert first == [one.id]


async def test_a_named_monitor_goes_on_where_it_left_off(queue: Queue) -> None:
    good = define(answer)
    queue.process()
    told: list[str] = []
    sent: list[str] = []

    async def send(number: int) -> None:
        for _ in range(number):
            handle = await queue.enqueue(good)
            await ended(queue, handle)
            sent.append(handle.id)

    for _ in range(3):
        async with Monitor(queue, name="mail") as monitor:
            monitor.on("job_completed", lambda job: told.append(job.id))
            await until(lambda: told == sent)
            await send(1)
            await until(lambda: told == sent)
        # While nobody listens.
        await send(3)
    async with Monitor(queue, name="mail") as monitor:
        monitor.on("job_completed", lambda job: told.append(job.id))
        await until(lambda: told == sent)


async def test_a_monitor_that_is_killed_tells_again_what_it_had_not_written(queue: Queue) -> None:
    good = define(answer)
    queue.process()
    first: list[str] = []
    killed = Monitor(queue, name="mail")
    killed.on("job_completed", lambda job: first.append(job.id))
    await killed.start()
    handles = [await queue.enqueue(good) for _ in range(4)]
    await until(lambda: len(first) == 4)
    (doc,) = await queue.ask(lambda store: store.read(MONITORS))
    # As a kill does, right before the last write.
    await killed.stop()
    await queue.ask(lambda store: store.write(MONITORS, "mail", b'{"after": 0}'))
    second: list[str] = []
    async with Monitor(queue, name="mail") as again:
        again.on("job_completed", lambda job: second.append(job.id))
        await until(lambda: len(second) >= 4)
    assert second == [handle.id for handle in handles] == first
    assert doc.key == "mail"


async def test_a_monitor_finds_its_place_among_very_many() -> None:
    queue = InMemoryQueue()
    good = define(answer)
    queue.process()
    async with Monitor(queue, name="watch"):
        pass
    for number in range(1_001):
        await queue.ask(partial(_write_cursor, name=f"m{number:04}"))
    handle = await queue.enqueue(good)
    await ended(queue, handle)
    async with Monitor(queue, name="watch") as monitor:
        told = Told(monitor)
        await until(lambda: told.all == [("job_completed", handle.id)])
    await queue.shutdown(timeout=0)


async def test_a_monitor_takes_no_write_of_its_own_for_that_of_another(
    make_queue: MakeQueue, caplog: pytest.LogCaptureFixture
) -> None:
    queue = make_queue()
    good = define(answer)
    queue.process()
    watched, faults = flaky(queue)
    told: list[str] = []

    async def send(writes: int) -> None:
        handle = await queue.enqueue(good)
        await until(lambda: handle.id in told)
        await until(lambda: faults.count("write") == writes)

    async with Monitor(watched, name="mail") as monitor:
        monitor.on("job_completed", lambda job: told.append(job.id))
        follower = monitor._running[1]  # type: ignore[index]
        # As it starts it writes once, and waits for that.
        faults.lost = {"write": 1}
        await send(2)
        await until(lambda: faults.lost == {"write": 0})
        # Tried at the version that it knows, and then in any case.
        await send(4)
        await until(lambda: follower._saved == follower._after)
        assert "another monitor" not in caplog.text
        await queue.ask(partial(_write_cursor, name="mail"))
        await send(6)
        assert "another monitor of the name mail" in caplog.text
    assert len(set(told)) == 3
    await watched.close()


async def _write_cursor(store: Store, *, name: str) -> None:
    await store.write(MONITORS, name, b'{"after": 0}')


async def test_a_job_whose_record_is_gone_is_told_all_the_same(queue: Queue) -> None:
    queue.process()
    gone = define(answer)
    async with Monitor(queue, name="late"):
        pass
    handle = await queue.enqueue(gone)
    await ended(queue, handle)
    assert await queue.delete(handle.id)
    async with Monitor(queue, name="late") as monitor:
        told = Told(monitor)
        await until(lambda: told.all)
    assert told.all == [("job_completed", handle.id)]
    (job,) = told.jobs
    assert (job.name, job.status, job.queue) == (gone.name, "completed", queue.name)


async def test_what_a_listener_does_wrong_changes_nothing(
    queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    good = define(answer)
    queue.process()
    told: list[str] = []

    def raises(job: JobInfo) -> None:
        raise SystemExit(3)

    async def hangs(job: JobInfo) -> None:
        await asyncio.Event().wait()

    async with Monitor(queue, listener_timeout=0.2) as monitor:
        for listener in (raises, hangs, lambda job: told.append(job.id)):
            monitor.on("job_completed", listener)
        handles = [await queue.enqueue(good) for _ in range(3)]
        await until(lambda: len(told) == 3)
        # The good one counts, too, where the machine keeps it waiting for so long.
        await until(lambda: monitor.listener_failures.get("job_completed", 0) >= 6)
    assert told == [handle.id for handle in handles]
    for handle in handles:
        assert (await ended(queue, handle)).status == "completed"


async def test_a_stop_waits_for_what_is_being_told_and_tells_the_rest_later(queue: Queue) -> None:
    good = define(answer)
    queue.process()
    began, go = asyncio.Event(), asyncio.Event()
    told: list[str] = []

    async def slow(job: JobInfo) -> None:
        began.set()
        await go.wait()
        told.append(job.id)

    monitor = Monitor(queue, name="slow")
    monitor.on("job_completed", slow)
    await monitor.start()
    handles = [await queue.enqueue(good) for _ in range(3)]
    for handle in handles:
        await ended(queue, handle)
    await began.wait()
    stopping = asyncio.create_task(monitor.stop())
    await asyncio.sleep(0)
    assert not stopping.done()
    go.set()
    await stopping
    assert told == [handles[0].id]
    async with Monitor(queue, name="slow") as monitor:
        monitor.on("job_completed", slow)
        await until(lambda: len(told) == 3)
    assert told == [handle.id for handle in handles]


async def test_a_monitor_outlives_an_outage_and_misses_nothing(make_queue: MakeQueue) -> None:
    queue = make_queue()
    good = define(answer)
    queue.process()
    watched, faults = flaky(queue)
    told: list[str] = []
    async with Monitor(watched) as monitor:
        monitor.on("job_completed", lambda job: told.append(job.id))
        first = await queue.enqueue(good)
        await until(lambda: told == [first.id])
        faults.away = {"events", "get"}
        missed = await queue.enqueue(good)
        await ended(queue, missed)
        calls = faults.count("events")
        await until(lambda: faults.count("events") > calls + 1)
        faults.away = set()
        await until(lambda: told == [first.id, missed.id])
    await watched.close()


async def test_a_monitor_of_a_store_that_is_away_starts_and_waits(make_queue: MakeQueue) -> None:
    queue = make_queue()
    good = define(answer)
    queue.process()
    watched, faults = flaky(queue)
    faults.away = {"open", "events"}
    told: list[str] = []
    async with Monitor(watched) as monitor:
        monitor.on("job_completed", lambda job: told.append(job.id))
        await until(lambda: faults.count("open") > 1)
        faults.away = set()

        async def heard() -> bool:
            await ended(queue, await queue.enqueue(good))
            return bool(told)

        await until(heard)
    await watched.close()


async def test_a_listener_that_comes_in_an_outage_hears_what_comes_after(
    make_queue: MakeQueue,
) -> None:
    queue = make_queue()
    good = define(answer)
    queue.process()
    watched, faults = flaky(queue)
    told: list[str] = []
    later: list[str] = []
    async with Monitor(watched) as monitor:
        before = await queue.enqueue(good)
        await ended(queue, before)
        faults.lost = {"events": 1}
        monitor.on("job_completed", lambda job: told.append(job.id))
        await until(lambda: faults.lost == {"events": 0})

        async def heard() -> bool:
            handle = await queue.enqueue(good)
            later.append(handle.id)
            await ended(queue, handle)
            return bool(told)

        await until(heard)
    assert before.id not in told
    await watched.close()


async def test_a_stop_tells_a_listener_nothing_from_before_it_came(make_queue: MakeQueue) -> None:
    queue = make_queue()
    queue.process()
    watched, faults = flaky(queue)
    told: list[str] = []
    async with Monitor(watched) as monitor:
        await ended(queue, await queue.enqueue(define(answer)))
        faults.away = {"events"}
        calls = faults.count("events")
        monitor.on("job_completed", lambda job: told.append(job.id))
        await until(lambda: faults.count("events") > calls)
        faults.away = set()
    assert told == []
    await watched.close()


async def test_what_ended_before_its_stop_is_told_by_a_monitor_without_a_name(
    make_queue: MakeQueue,
) -> None:
    queue = make_queue(poll_interval=300.0)
    queue.process()
    good = define(answer)
    told: list[str] = []
    sent: list[str] = []
    for number in (1, 3):
        monitor = Monitor(queue)
        monitor.on("job_completed", lambda job: told.append(job.id))
        async with monitor:
            for _ in range(number):
                handle = await queue.enqueue(good)
                await ended(queue, handle)
                sent.append(handle.id)
    assert told == sent


async def test_a_stop_does_not_wait_for_ever_for_slow_listeners(
    make_queue: MakeQueue, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("jobmill.follower._LAST", 0.2)
    queue = make_queue()
    good = define(answer)
    queue.process()
    called: list[str] = []
    stopped = asyncio.Event()

    async def slow(job: JobInfo) -> None:
        called.append(job.id)
        await stopped.wait()
        await asyncio.sleep(0.1)

    monitor = Monitor(queue)
    monitor.on("job_completed", slow)
    await monitor.start()
    for handle in [await queue.enqueue(good) for _ in range(20)]:
        await ended(queue, handle)
    await until(lambda: called)
    stopping = asyncio.create_task(monitor.stop())
    await asyncio.sleep(0)
    stopped.set()
    await stopping
    # The one that was under way, and those that began within 0.2 s.
    assert len(called) <= 1 + 3
    assert "may be told in part" in caplog.text


async def test_a_list_of_ends_that_began_anew_is_told_from_its_start(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("jobmill.follower._IDLE_LOOKS", 1)
    queue.process()
    handle = await queue.enqueue(define(answer))
    await ended(queue, handle)
    # As far as it had come in a store that was then emptied.
    await queue.ask(lambda store: store.write(MONITORS, "mail", b'{"after": 1000000000000000000}'))
    told: list[str] = []
    async with Monitor(queue, name="mail") as monitor:
        monitor.on("job_completed", lambda job: told.append(job.id))
        await until(lambda: told == [handle.id])
    assert "began anew" in caplog.text


async def test_a_list_of_ends_that_is_empty_has_not_begun_anew(
    make_queue: MakeQueue, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("jobmill.follower._IDLE_LOOKS", 1)
    queue, faults = flaky(make_queue(poll_interval=0.02))
    await queue.ask(lambda store: store.write(MONITORS, "mail", b'{"after": 7}'))
    async with Monitor(queue, name="mail") as monitor:
        monitor.on("job_completed", print)
        await until(lambda: faults.count("events") > 5)
    assert caplog.text == ""
    await queue.close()


async def test_a_store_that_cannot_be_used_at_all_is_no_outage(make_queue: MakeQueue) -> None:
    queue, faults = flaky(make_queue())
    faults.refused = {"open"}
    monitor = Monitor(queue)
    with pytest.raises(SchemaMismatch):
        await monitor.start()
    faults.refused = set()
    async with monitor:
        pass
    await queue.close()


async def test_an_end_is_told_at_once(make_queue: MakeQueue) -> None:
    queue = make_queue(poll_interval=300.0)
    queue.process()
    told: list[str] = []
    async with Monitor(queue) as monitor:
        monitor.on("job_completed", lambda job: told.append(job.id))
        monitor.on("job_retried", lambda job, error: told.append(job.id))
        for job in (define(answer), fails_first(), define(answer)):
            handle = await queue.enqueue(job)
            # Long before it would look by itself.
            await until(partial(_is_in, told, handle.id))


async def test_while_nothing_happens_it_looks_seldom(make_queue: MakeQueue) -> None:
    queue, faults = flaky(make_queue(poll_interval=0.02))
    async with Monitor(queue) as monitor:
        monitor.on("job_completed", print)
        await until(lambda: faults.count("events") >= 4)
        began, before = time.monotonic(), faults.count("events")
        await until(lambda: faults.count("events") >= before + 4)
        assert time.monotonic() - began >= 3 * 5 * queue.poll_interval * 0.9
        assert not {verb for verb, _ in faults.calls} & {"get", "write", "counts", "metrics"}
    await queue.close()


# -------------------------------------------------------------------------------- health


async def test_health_of_an_idle_and_of_a_working_queue(make_queue: MakeQueue) -> None:
    queue = make_queue()
    monitor = Monitor(queue)
    health = await monitor.get_system_health()
    assert (health.status, health.queue_depth, health.active_workers) == ("healthy", 0, 0)
    assert health.last_heartbeat is None
    await queue.enqueue(define(answer))
    health = await monitor.get_system_health()
    assert (health.status, health.queue_depth, health.issues) == ("healthy", 1, [])
    worker = queue.process()

    async def beats() -> SystemHealth | None:
        health = await monitor.get_system_health()
        return health if health.active_workers else None

    health = await until(beats)
    assert health.last_heartbeat is not None
    assert abs(health.last_heartbeat - datetime.now(UTC)) < timedelta(seconds=60)
    assert health.memory_usage >= 0
    (shown,) = (await monitor.get_workers()).workers
    assert shown.id == worker.id


async def test_unhealthy_without_a_worker_and_healthy_with_the_next(make_queue: MakeQueue) -> None:
    queue = make_queue(lease=0.3)
    changes: list[SystemHealth] = []
    async with Monitor(queue, check_interval=0.05) as monitor:
        monitor.on("health_changed", changes.append)
        await queue.enqueue(define(answer))
        await until(lambda: [each.status for each in changes] == ["unhealthy"])
        assert "no worker" in changes[0].issues[0]
        queue.process()
        await until(lambda: [each.status for each in changes] == ["unhealthy", "healthy"])


async def test_a_store_that_is_away_is_unhealthy_and_no_exception(make_queue: MakeQueue) -> None:
    queue, faults = flaky(make_queue())
    monitor = Monitor(queue)
    assert (await monitor.get_system_health()).status == "healthy"
    for away, refused in (({"read"}, set[str]()), (set[str](), {"read"})):
        faults.away, faults.refused = away, refused
        health = await monitor.get_system_health()
        assert health.status == "unhealthy"
        assert health.issues[0].startswith("the store cannot be reached: read: ")
        assert (health.queue_depth, health.active_workers) == (0, 0)
    faults.away = faults.refused = set()
    assert (await monitor.get_system_health()).status == "healthy"
    await queue.close()


async def test_a_store_that_does_not_answer_is_unhealthy(
    make_queue: MakeQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobmill.monitor._ANSWER_WITHIN", 0.05)
    queue = make_queue()
    await queue.stats()
    silent = asyncio.Event()

    async def ask(verb: Any) -> None:
        await silent.wait()

    monkeypatch.setattr(queue, "ask", ask)
    health = await Monitor(queue).get_system_health()
    assert health.status == "unhealthy"
    assert "no answer" in health.issues[0]
    silent.set()


async def test_many_failures_are_an_illness(queue: Queue) -> None:
    queue.process()
    bad, good = define(fail, retries=0), define(answer)
    handles = [await queue.enqueue(job) for job in [bad] * 3 + [good] * 17]
    for handle in handles:
        await ended(queue, handle)
    for options, status in (
        ({}, "degraded"),
        ({"unhealthy_error_rate": 0.15}, "unhealthy"),
        ({"degraded_error_rate": 0.2}, "healthy"),
        ({"min_runs": 21}, "healthy"),
    ):
        health = await Monitor(queue, **options).get_system_health()
        assert (health.status, health.error_rate) == (status, 0.15), options


async def test_jobs_that_no_worker_knows_show_in_the_issues(make_queue: MakeQueue) -> None:
    from jobmill.registry import isolated

    queue = make_queue(lease=0.3)
    with isolated():
        await queue.enqueue(define(answer, name=fresh("gone")))
        (name,) = (await queue.ask(lambda store: store.counts())).by_name
    queue.process()
    monitor = Monitor(queue)

    async def told() -> bool:
        return any(name in issue for issue in (await monitor.get_system_health()).issues)

    await until(told)


async def test_a_backlog_is_told_once_until_it_fell_under_half(queue: Queue) -> None:
    depths: list[int] = []
    job = define(answer)
    async with Monitor(queue, check_interval=0.02, backlog_threshold=4) as monitor:
        monitor.on("queue_backlog", depths.append)
        checks = _counted(monitor)
        await queue.enqueue_many([job.call()] * 4)
        await until(lambda: len(checks) > 3)
        assert depths == []
        await queue.enqueue(job)
        await until(lambda: depths == [5])
        await queue.enqueue(job)
        seen = len(checks)
        await until(lambda: len(checks) > seen + 3)
        assert depths == [5]
        await queue.clear()
        seen = len(checks)
        await until(lambda: len(checks) > seen + 1)
        await queue.enqueue_many([job.call()] * 6)
        await until(lambda: depths == [5, 6])


async def test_a_backlog_is_told_once_also_around_an_outage(make_queue: MakeQueue) -> None:
    queue, faults = flaky(make_queue())
    depths: list[int] = []
    changes: list[SystemHealth] = []
    job = define(answer)
    async with Monitor(queue, check_interval=0.02, backlog_threshold=4) as monitor:
        monitor.on("queue_backlog", depths.append)
        monitor.on("health_changed", changes.append)
        checks = _counted(monitor)
        await queue.enqueue_many([job.call()] * 5)
        await until(lambda: depths == [5])
        faults.away = {"read"}
        await until(lambda: [each.status for each in changes] == ["unhealthy"])
        faults.away = set()
        await until(lambda: [each.status for each in changes] == ["unhealthy", "healthy"])
        seen = len(checks)
        await until(lambda: len(checks) > seen + 1)
        assert depths == [5]
    await queue.close()


def _counted(monitor: Monitor) -> list[int]:
    """The monitor's own looks at its queue, by number, once each is over."""
    looks: list[int] = []
    look = monitor._look

    async def counted() -> None:
        await look()
        looks.append(len(looks))

    vars(monitor)["_look"] = counted
    return looks


# -------------------------------------------------------------------------------- the rest


async def test_a_monitor_that_nobody_listens_to_asks_nothing(make_queue: MakeQueue) -> None:
    queue, faults = flaky(make_queue(poll_interval=0.02))
    async with Monitor(queue, check_interval=0.02) as monitor:
        at_first = list(faults.calls)
        assert [verb for verb, _ in at_first] == ["open", "events"]
        for _ in range(20):
            await asyncio.sleep(0.01)
        assert faults.calls == at_first
        stop = monitor.on("job_completed", print)
        await until(lambda: faults.count("events") > 3)
        stop()
        await until(lambda: not monitor._running[1]._listens())  # type: ignore[index]
    await queue.close()


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"metrics_interval": 90}, "metrics_interval"),
        ({"metrics_interval": 0}, "metrics_interval"),
        ({"metrics_interval": "1m"}, "metrics_interval"),
        ({"retention": 30}, "retention"),
        ({"retention": timedelta(days=8)}, "retention"),
        ({"retention": 60, "metrics_interval": 120}, "retention"),
        ({"name": ""}, "name"),
        ({"check_interval": 0}, "check_interval"),
        ({"backlog_threshold": 0}, "backlog_threshold"),
        ({"degraded_error_rate": 2}, "degraded_error_rate"),
        ({"unhealthy_error_rate": -1}, "unhealthy_error_rate"),
        ({"min_runs": 1.5}, "min_runs"),
        ({"max_wait": -1}, "max_wait"),
        ({"listener_timeout": 0}, "listener_timeout"),
    ],
)
def test_a_wrong_option_is_refused_by_its_name(options: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Monitor(InMemoryQueue(), **options)
    assert caught.value.field == field


def test_what_is_no_queue_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        Monitor("jobs.db")  # type: ignore[arg-type]
    assert caught.value.field == "queue"


async def test_a_cancelled_handler_is_told_as_cancelled(queue: Queue) -> None:
    async def stops(ctx: JobContext[None]) -> None:
        raise Cancel("enough")

    queue.process()
    monitor = Monitor(queue)
    told = Told(monitor)
    async with monitor:
        handle = await queue.enqueue(define(stops))
        await reached(queue, handle, "cancelled")
        await until(lambda: told.all)
    assert told.all == [("job_cancelled", handle.id)]


def _is_in(some: list[str], one: str) -> bool:
    return one in some
