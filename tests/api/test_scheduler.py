"""The scheduler's public face, on every store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from jobmill import (
    ConfigError,
    CronError,
    InMemoryQueue,
    JobNotFound,
    PayloadError,
    Queue,
    Schedule,
    Scheduler,
    StoreError,
    Worker,
    carrier,
    job,
)
from jobmill.schedule import step
from jobmill.store import Store
from jobmill.timezones import zone_named
from tests.api.conftest import MakeQueue
from tests.api.jobs import Email, echo, hold, send
from tests.waiting import PATIENCE, eventually

EVERY_SECOND = "* * * * * *"
NEVER_SOON = "0 0 29 2 *"
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
BERLIN = "Europe/Berlin"
zone_named(BERLIN)  # a Scheduler reads the file of its own zone, as a program does at its start
FAR = datetime(2090, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def scheduler(queue: Queue) -> Scheduler:
    return Scheduler(queue=queue)


async def names(scheduler: Scheduler) -> list[str]:
    return [each.name for each in await scheduler.get_scheduled_jobs()]


async def one(scheduler: Scheduler, name: str) -> Schedule:
    (found,) = [each for each in await scheduler.get_scheduled_jobs() if each.name == name]
    return found


LOOK = 0.02


async def done(queue: Queue, count: int, within: float = PATIENCE) -> int:
    """Return once so many jobs are completed; how often it was looked, each time after a LOOK."""
    looks = 0
    async with asyncio.timeout(within):
        while (await queue.stats()).completed < count:
            await asyncio.sleep(LOOK)
            looks += 1
    return looks


async def comes(check: Any, within: float = PATIENCE) -> Any:
    async with asyncio.timeout(within):
        while not (found := await check()):
            await asyncio.sleep(LOOK)
        return found


# ------------------------------------------------------------------------------- writing


async def test_a_schedule_is_read_back_as_it_was_written(scheduler: Scheduler) -> None:
    written = await scheduler.schedule(
        "daily_digest",
        "0 8 * * *",
        send,
        Email("ada@example.com"),
        timezone="America/New_York",
        allow_concurrent=False,
        max_runs=100,
        start_date=FAR,
        end_date=FAR + timedelta(days=9),
        misfire="skip",
    )
    assert await scheduler.get_scheduled_jobs() == [written]
    assert written.name == "daily_digest"
    assert written.job_name == "api.send"
    assert (written.cron, written.timezone) == ("0 8 * * *", "America/New_York")
    assert "08:00" in written.description
    assert written.payload == {"to": "ada@example.com", "subject": ""}
    assert (written.runs, written.max_runs, written.paused) == (0, 100, False)
    assert (written.allow_concurrent, written.misfire) == (False, "skip")
    assert (written.start_date, written.end_date) == (FAR, FAR + timedelta(days=9))
    assert written.last_run is None
    # Noon in UTC is seven in New York, so that it is still to come on that day.
    expected = datetime(2090, 1, 1, 8, tzinfo=zone_named("America/New_York"))
    assert written.next_run == expected
    assert written.next_run.isoformat() == "2090-01-01T08:00:00-05:00"
    assert await scheduler.get_next_run_time("daily_digest") == expected


async def test_what_is_not_there_is_said_so(scheduler: Scheduler) -> None:
    assert await scheduler.get_scheduled_jobs() == []
    assert await scheduler.get_next_run_time("none") is None
    assert not await scheduler.unschedule("none")
    assert not await scheduler.pause("none")
    assert not await scheduler.resume("none")
    assert await scheduler.history("none") == []
    with pytest.raises(JobNotFound, match="'none'"):
        await scheduler.trigger("none")


async def test_a_name_is_found_among_those_around_it(scheduler: Scheduler) -> None:
    around = ["a", "a-", "a.b", "a:", "aa", "az", "b", "B", "_", "ab", "a0"]
    for name in around:
        await scheduler.schedule(name, NEVER_SOON, echo)
    for name in around:
        assert await scheduler.get_next_run_time(name) is not None
        assert await scheduler.unschedule(name)
        assert name not in await names(scheduler)


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"name": "no spaces"}, "name"),
        ({"name": ""}, "name"),
        ({"name": 7}, "name"),
        ({"name": "'; DROP TABLE"}, "name"),
        ({"cron": "61 * * * *"}, "minute"),
        ({"cron": "0 0 30 2 *"}, "day of month"),
        ({"cron": 5}, "cron"),
        ({"timezone": "Mars/Base"}, "timezone"),
        ({"timezone": 1}, "timezone"),
        ({"start_date": datetime(2026, 1, 1)}, "start_date"),  # noqa: DTZ001
        ({"end_date": datetime(2026, 1, 1)}, "end_date"),  # noqa: DTZ001
        ({"end_date": "tomorrow"}, "end_date"),
        ({"start_date": FAR, "end_date": LONG_AGO}, "end_date"),
        ({"max_runs": 0}, "max_runs"),
        ({"max_runs": 1.5}, "max_runs"),
        ({"misfire": "whatever"}, "misfire"),
        ({"misfire_grace": -1}, "misfire_grace"),
        ({"run_on_start": 1}, "run_on_start"),
        ({"allow_concurrent": "no"}, "allow_concurrent"),
    ],
)
async def test_bad_input_is_refused_before_anything_is_stored(
    scheduler: Scheduler, changed: dict[str, Any], field: str
) -> None:
    given: dict[str, Any] = {"name": "mine", "cron": "0 8 * * *", **changed}
    name, cron = given.pop("name"), given.pop("cron")
    with pytest.raises(ConfigError) as caught:
        await scheduler.schedule(name, cron, echo.call(1), **given)
    assert caught.value.field == field
    assert isinstance(caught.value, CronError) == ("cron" in changed)
    assert await scheduler.get_scheduled_jobs() == []


async def test_a_payload_that_does_not_fit_is_refused(scheduler: Scheduler) -> None:
    with pytest.raises(PayloadError) as caught:
        await scheduler.schedule("mine", "@daily", send, Email(to=5))  # type: ignore[arg-type]
    assert caught.value.path == "$.to"
    with pytest.raises(TypeError, match="no job"):
        await scheduler.schedule("mine", "@daily", print)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="max_run"):
        await scheduler.schedule("mine", "@daily", echo, max_run=3)  # type: ignore[call-overload]
    with pytest.raises(ConfigError) as naive:
        await scheduler.schedule_once("mine", datetime(2026, 1, 1), echo)  # noqa: DTZ001
    assert naive.value.field == "at"
    assert await scheduler.get_scheduled_jobs() == []


def test_a_scheduler_of_no_queue_or_zone_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        Scheduler(queue=5)  # type: ignore[arg-type]
    assert caught.value.field == "queue"
    with pytest.raises(ConfigError) as caught:
        Scheduler(queue=InMemoryQueue(), timezone="UTC+1")
    assert caught.value.field == "timezone"


# ------------------------------------------------------------------------------- ticking


async def test_a_worker_ticks_the_schedules_of_its_queue(
    working: Queue, scheduler: Scheduler
) -> None:
    await scheduler.schedule("often", EVERY_SECOND, send, Email("ada@example.com"), max_runs=2)
    await done(working, 2)
    ended = await one(scheduler, "often")
    assert (ended.runs, ended.next_run) == (2, None)
    ticks = await scheduler.history("often")
    fired = [tick for tick in ticks if tick.outcome == "fired"]
    assert len(fired) == 2
    assert ended.last_run == fired[0].at
    for tick in fired:
        assert tick.job_id is not None
        info = await working.get_job(tick.job_id)
        assert info is not None
        assert info.result == "ada@example.com"
        assert info.metadata == {"schedule": "often"}
        assert info.started_at is not None
        assert info.started_at >= tick.at


async def test_a_worker_without_schedules_leaves_them_to_others(
    queue: Queue, scheduler: Scheduler, make_queue: MakeQueue
) -> None:
    worker = Worker(queue, schedules=False)
    running = asyncio.create_task(worker.run())
    await scheduler.schedule_once("now", LONG_AGO, echo)
    handle = await queue.enqueue(echo.call(1), delay=2.5)
    await handle.result(timeout=30)
    assert (await one(scheduler, "now")).runs == 0
    async with Scheduler(queue=make_queue()):
        await done(queue, 2)
    assert (await one(scheduler, "now")).runs == 1
    await worker.stop()
    await running
    with pytest.raises(ConfigError):
        Worker(queue, schedules=1)  # type: ignore[arg-type]


async def test_a_change_made_elsewhere_is_seen_within_a_second(
    make_queue: MakeQueue, queue: Queue
) -> None:
    queue.process()
    await (await queue.enqueue(echo.call(1))).result(timeout=30)
    elsewhere = Scheduler(queue=make_queue())
    for number in range(3):
        name = f"s{number}"
        await elsewhere.schedule(name, NEVER_SOON, echo, run_on_start=True)
        looks = await done(queue, number + 2)
        # By looks at the store and not by a clock, which goes on while this process, or its
        # store, does not. A second to be seen; the rest is the worker's way to the job.
        assert looks * LOOK < 2.0


async def test_a_tick_that_is_past_fires_at_once_and_once(
    working: Queue, scheduler: Scheduler
) -> None:
    for _ in range(3):
        await scheduler.schedule_once("launch", LONG_AGO, echo.call("off"))
    await done(working, 1)
    again = await scheduler.schedule_once("launch", LONG_AGO, echo.call("off"))
    assert (again.runs, again.next_run, again.cron) == (1, None, None)
    assert "2020-01-01" in again.description
    await scheduler.schedule_once("launch", LONG_AGO + timedelta(1), echo.call("off"))
    await done(working, 2)
    other = await scheduler.schedule_once("launch", FAR, echo.call("off"))
    assert other.next_run == FAR


async def test_run_on_start_is_a_first_tick_and_not_one_of_each_process(
    make_queue: MakeQueue, queue: Queue, scheduler: Scheduler
) -> None:
    schedulers = [Scheduler(queue=make_queue()) for _ in range(4)]
    for each in schedulers:
        each.cron(NEVER_SOON, name="first", run_on_start=True)(echo)
    queue.process()
    await asyncio.gather(*(each.start() for each in schedulers))
    await done(queue, 1)
    for each in schedulers:
        await each.stop()
        await each.start()
    found = await comes(lambda: scheduler.history("first"))
    assert [tick.outcome for tick in found] == ["fired"]
    assert (await one(scheduler, "first")).runs == 1
    assert (await one(scheduler, "first")).next_run is not None
    assert (await queue.stats()).total == 1
    for each in schedulers:
        await each.stop()


async def test_max_runs_holds_over_several_processes(
    make_queue: MakeQueue, queue: Queue, scheduler: Scheduler
) -> None:
    queues = [make_queue() for _ in range(3)]
    for each in queues:
        each.process()
    await scheduler.schedule("thrice", EVERY_SECOND, echo, max_runs=3, misfire="catch_up")
    await comes(lambda: _ended(scheduler, "thrice"))
    # Others may still have it as it was: they had time to tick once more.
    for each in queues:
        await (await each.enqueue(echo.call(1), delay=1.5)).result(timeout=30)
    ticks = await scheduler.history("thrice")
    assert [tick.outcome for tick in ticks] == ["fired"] * 3
    assert (await queue.stats()).total == 3 + len(queues)


async def _ended(scheduler: Scheduler, name: str) -> bool:
    return (await one(scheduler, name)).next_run is None


# ------------------------------------------------------------------------------- overlaps


async def test_runs_do_not_overlap_where_they_may_not(working: Queue, scheduler: Scheduler) -> None:
    await scheduler.schedule("long", EVERY_SECOND, hold, allow_concurrent=False)
    await comes(lambda: _outcomes(scheduler, "long", "skipped", 2))
    fired = await _outcomes(scheduler, "long", "fired", 1)
    assert len(fired) == 1
    stats = await working.stats()
    assert stats.total == 1
    # A trigger does not overlap either: it gives the run that there is.
    handle = await scheduler.trigger("long")
    assert (handle.id, handle.deduplicated) == (fired[0].job_id, True)
    await handle.cancel("enough")
    await comes(lambda: _outcomes(scheduler, "long", "fired", 2))


async def test_a_run_whose_record_is_gone_holds_up_no_tick(
    queue: Queue, scheduler: Scheduler
) -> None:
    await scheduler.schedule("gone", EVERY_SECOND, echo.call(1), allow_concurrent=False)
    async with scheduler:
        # No worker runs them, so each would hold up the next.
        await comes(lambda: _outcomes(scheduler, "gone", "fired", 1))
        await comes(lambda: _outcomes(scheduler, "gone", "skipped", 1))
        assert await queue.clear() == 1
        await comes(lambda: _outcomes(scheduler, "gone", "fired", 2))


async def _outcomes(scheduler: Scheduler, name: str, outcome: str, count: int) -> list[Any]:
    found = [tick for tick in await scheduler.history(name) if tick.outcome == outcome]
    return found if len(found) >= count else []


@job(name="api.unique", unique="payload")
async def unique() -> None: ...


async def test_a_tick_whose_unique_key_is_held_is_skipped_and_is_no_run(
    queue: Queue, scheduler: Scheduler
) -> None:
    held = await queue.enqueue(unique, delay=3600)
    await scheduler.schedule("unique", EVERY_SECOND, unique, max_runs=1)
    async with scheduler:
        ticks = await comes(lambda: _outcomes(scheduler, "unique", "skipped", 2))
        assert {tick.job_id for tick in ticks} == {held.id}
        assert (await one(scheduler, "unique")).runs == 0
        # A trigger, too, gives the job that there is.
        handle = await scheduler.trigger("unique")
        assert (handle.id, handle.deduplicated) == (held.id, True)
        assert (await queue.stats()).total == 1
        assert await held.cancel()
        (fired,) = await comes(lambda: _outcomes(scheduler, "unique", "fired", 1))
    assert fired.job_id != held.id
    ended = await one(scheduler, "unique")
    assert (ended.runs, ended.next_run) == (1, None)


async def test_a_trigger_finds_a_held_key_by_itself(queue: Queue, scheduler: Scheduler) -> None:
    await scheduler.schedule("unique", NEVER_SOON, unique)
    held = await queue.enqueue(unique, delay=3600)
    for _ in range(2):
        handle = await scheduler.trigger("unique")
        assert (handle.id, handle.deduplicated) == (held.id, True)
    (tick,) = await scheduler.history("unique")
    assert (tick.outcome, tick.job_id) == ("skipped", held.id)


async def test_the_jobs_of_a_schedule_hold_up_its_ticks_by_their_unique_key(
    queue: Queue, scheduler: Scheduler
) -> None:
    await scheduler.schedule("unique", EVERY_SECOND, unique)
    async with scheduler:
        (fired,) = await comes(lambda: _outcomes(scheduler, "unique", "fired", 1))
        (skipped, *_) = await comes(lambda: _outcomes(scheduler, "unique", "skipped", 1))
        assert skipped.job_id == fired.job_id
        # Another key is none of its business.
        await scheduler.schedule("unique", EVERY_SECOND, send, Email("ada@example.com"))
        await comes(lambda: _outcomes(scheduler, "unique", "fired", 2))


# ------------------------------------------------------------------------------- steering


async def test_a_pause_lets_nothing_tick_and_makes_nothing_up(
    working: Queue, scheduler: Scheduler
) -> None:
    await scheduler.schedule("mine", EVERY_SECOND, echo, misfire="catch_up")
    await done(working, 1)
    assert await scheduler.pause("mine")
    before = await one(scheduler, "mine")
    assert before.paused
    assert before.next_run is None
    # Replacing it, as each start of a program does, leaves it paused.
    await scheduler.schedule("mine", EVERY_SECOND, echo, misfire="catch_up")
    await (await working.enqueue(echo.call(1), delay=2.5)).result(timeout=30)
    assert (await one(scheduler, "mine")).runs == before.runs
    assert await scheduler.resume("mine")
    await comes(lambda: _runs_again(scheduler, before.runs))
    ats = [tick.at for tick in reversed(await scheduler.history("mine"))]
    gaps = [later - sooner for sooner, later in pairwise(ats)]
    assert max(gaps) >= timedelta(seconds=2)
    assert await scheduler.resume("mine")


async def _runs_again(scheduler: Scheduler, runs: int) -> bool:
    return (await one(scheduler, "mine")).runs > runs


async def test_a_trigger_runs_off_the_clock(working: Queue, scheduler: Scheduler) -> None:
    before = await scheduler.schedule("yearly", NEVER_SOON, echo.call("hi"), max_runs=1)
    handle = await scheduler.trigger("yearly")
    assert await handle.result(timeout=30) == "hi"
    after = await one(scheduler, "yearly")
    assert (after.runs, after.next_run) == (0, before.next_run)
    (tick,) = await scheduler.history("yearly")
    assert (tick.outcome, tick.job_id) == ("fired", handle.id)


async def test_a_schedule_that_is_removed_leaves_no_history(
    working: Queue, scheduler: Scheduler
) -> None:
    await scheduler.schedule_once("mine", LONG_AGO, echo)
    await done(working, 1)
    assert await scheduler.unschedule("mine")
    assert await scheduler.get_scheduled_jobs() == []
    await scheduler.schedule("mine", NEVER_SOON, echo)
    assert await scheduler.history("mine") == []
    # It is another one now, and the same instant another tick.
    await scheduler.schedule_once("mine", LONG_AGO, echo)
    await done(working, 2)


async def test_replacing_keeps_the_runs_and_the_next_tick_of_the_same_instants(
    scheduler: Scheduler,
) -> None:
    first = await scheduler.schedule("mine", "0 0 * * 0", echo, run_on_start=True)
    same = await scheduler.schedule("mine", "@weekly", send, Email("ada@example.com"))
    assert same.next_run == first.next_run
    assert same.job_name == "api.send"
    zoned = await scheduler.schedule("mine", "@weekly", echo, timezone="Asia/Tokyo")
    assert zoned.next_run != first.next_run
    other = await scheduler.schedule("mine", NEVER_SOON, echo, timezone="Asia/Tokyo")
    assert other.next_run != zoned.next_run


async def test_what_is_declared_is_written_at_start_and_nothing_else_removed(
    make_queue: MakeQueue, queue: Queue, scheduler: Scheduler
) -> None:
    await scheduler.schedule("older", NEVER_SOON, echo)
    declaring = Scheduler(queue=make_queue(), timezone=BERLIN)

    @declaring.cron("0 8 * * *")
    @job(name="api.declared")
    async def declared() -> None: ...

    declaring.cron("@daily", name="second", payload=Email("bob@example.com"))(send)
    with pytest.raises(ConfigError, match="declared already"):
        declaring.cron("@daily", name="second")(echo)
    with pytest.raises(CronError):
        declaring.cron("8 o'clock")
    with pytest.raises(ConfigError) as bare:
        declaring.cron("@daily")(print)  # type: ignore[type-var]
    assert bare.value.field == "job"
    assert await names(scheduler) == ["older"]
    async with declaring:
        assert await names(scheduler) == ["api.declared", "older", "second"]
    assert await names(scheduler) == ["api.declared", "older", "second"]
    assert (await one(scheduler, "api.declared")).timezone == BERLIN
    assert (await one(scheduler, "second")).payload["to"] == "bob@example.com"


async def test_a_declared_payload_that_does_not_fit_lets_nothing_be_written(
    scheduler: Scheduler,
) -> None:
    scheduler.cron("@daily", name="good")(echo)
    scheduler.cron("@daily", name="wrong", payload=7)(send)
    with pytest.raises(PayloadError):
        await scheduler.start()
    assert await scheduler.get_scheduled_jobs() == []


# ------------------------------------------------------------------------------- trouble


async def written(queue: Queue, key: str, value: bytes) -> None:
    async def write(store: Store) -> None:
        await store.write("schedules", key, value)

    await queue.ask(write)


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.INFO, logger="jobmill.scheduler"):
        yield caplog


async def test_a_schedule_that_cannot_be_read_is_told_once_and_stops_no_other(
    working: Queue, scheduler: Scheduler, told: pytest.LogCaptureFixture
) -> None:
    bad = {
        "bad-json": b"{",
        "bad-shape": b'{"cron": 5}',
        "bad-cron": b'{"id":"1","job":"j","payload":1,"policy":{},"cron":"99 * * * *"}',
        "bad-zone": b'{"id":"1","job":"j","payload":1,"policy":{},"timezone":"Mars/X"}',
        "bad-deep": b'{"id":"1","job":"j","payload":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
    }
    for key, value in bad.items():
        await written(working, key, value)
    await scheduler.schedule("zz", EVERY_SECOND, echo, max_runs=3)
    await done(working, 3)
    said = [each.getMessage() for each in told.records if each.levelno >= logging.WARNING]
    for key in bad:
        assert len([text for text in said if key in text]) == 1, said
    assert await names(scheduler) == ["zz"]


async def test_an_unknown_job_stops_no_other_schedule(working: Queue, scheduler: Scheduler) -> None:
    plan = b'{"id":"1","job":"api.nobody","payload":{},"policy":{},"at":1.0,"next_run":1.0}'
    await written(working, "aa", plan)
    await scheduler.schedule_once("zz", LONG_AGO, echo)
    await done(working, 1)
    await comes(lambda: _outcomes(scheduler, "aa", "fired", 1))


async def test_a_schedule_that_cannot_be_read_is_a_config_error_to_who_asks_for_it(
    queue: Queue, scheduler: Scheduler
) -> None:
    await written(queue, "bad", b"{")
    for ask in (scheduler.pause, scheduler.resume, scheduler.trigger, scheduler.get_next_run_time):
        with pytest.raises(ConfigError):
            await ask("bad")
    # It can be replaced, and it can be removed.
    await scheduler.schedule("bad", NEVER_SOON, echo)
    await written(queue, "bad", b"{")
    assert await scheduler.unschedule("bad")


@pytest.mark.parametrize("error", [StoreError("refused"), LookupError("a mistake")])
async def test_a_tick_that_fails_stops_no_other_and_is_tried_again(
    working: Queue,
    scheduler: Scheduler,
    told: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    tried: list[str] = []

    def fails_at_first(plan: Any, now: float, *, name: str, **rest: Any) -> Any:
        tried.append(name)
        if tried.count("aa") == 1 and name == "aa":
            raise error
        return step(plan, now, name=name, **rest)

    monkeypatch.setattr(carrier, "step", fails_at_first)
    await scheduler.schedule_once("aa", LONG_AGO, echo)
    await scheduler.schedule("zz", EVERY_SECOND, echo, max_runs=3)
    await comes(lambda: _outcomes(scheduler, "zz", "fired", 3))
    await comes(lambda: _outcomes(scheduler, "aa", "fired", 1))
    assert tried.count("aa") == 2
    assert any("aa could not tick" in each.getMessage() for each in told.records)


async def test_stop_ends_this_object_only(queue: Queue, scheduler: Scheduler) -> None:
    await scheduler.start()
    await scheduler.start()
    await scheduler.stop()
    await scheduler.stop()
    await scheduler.schedule_once("mine", LONG_AGO, echo)
    queue.process()
    await eventually(lambda: queue.carries_schedules)
    await done(queue, 1)
