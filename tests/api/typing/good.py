"""Right uses: no type checker finds a fault in them, and each type is the exact one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypedDict, Unpack, assert_type

import msgspec
import pydantic

from jobmill import (
    AbortSignal,
    Call,
    CronExpression,
    CronPatterns,
    EnqueueOptions,
    JobContext,
    JobDefinition,
    JobHandle,
    JobHandler,
    JobHooks,
    JobMiddleware,
    JobOptions,
    PostgresQueue,
    Queue,
    Schedule,
    Scheduler,
    Timezones,
    current_context,
    define_job,
    job,
)


@dataclass(frozen=True, slots=True)
class Email:
    to: str
    subject: str = ""


class Picture(TypedDict):
    path: str
    width: int


class Order(msgspec.Struct):
    number: int


class Person(pydantic.BaseModel):
    name: str


async def deliver(ctx: JobContext[Email]) -> str:
    assert_type(ctx.payload, Email)
    assert_type(ctx.signal, AbortSignal)
    await ctx.update_progress(50, "half")
    await ctx.signal.wait()
    ctx.log("sent", to=ctx.payload.to)
    return ctx.payload.to


def shrink(ctx: JobContext[Picture]) -> bytes:
    return ctx.payload["path"].encode()


def note_start(ctx: JobContext[Email]) -> None:
    ctx.log("start")


async def note_result(ctx: JobContext[Any], result: str) -> None:
    ctx.log("done", result=result)


def note_error(ctx: JobContext[Any], error: BaseException) -> None:
    ctx.log(str(error))


def note_retry(ctx: JobContext[Any], n: int) -> None:
    ctx.log("again", n=n)


def note_progress(ctx: JobContext[Any], value: float) -> None:
    ctx.log("progress", value=value)


async def timed(ctx: JobContext[Any], next: Callable[[], Awaitable[Any]]) -> Any:  # noqa: A002
    ctx.log("timed")
    return await next()


send_email = define_job(
    name="send_email",
    handler=deliver,
    options=JobOptions(timeout=30, retries=3, retry_delay=1, backoff="exponential", priority=1),
    hooks=JobHooks(
        before_run=note_start,
        after_run=note_result,
        on_error=note_error,
        on_retry=note_retry,
        on_progress=note_progress,
        on_finally=note_start,
    ),
    middleware=[timed],
)
assert_type(send_email, JobDefinition[Email, str])

make_thumbnail = define_job(shrink, name="thumbnail", middleware=timed, executor="process")
assert_type(make_thumbnail, JobDefinition[Picture, bytes])


def seconds(attempt: int, error: BaseException) -> float:
    return attempt if isinstance(error, OSError) else 1.5


@define_job(name="welcome", retries=3, timeout=timedelta(seconds=30), backoff=seconds)
async def welcome(ctx: JobContext[Email]) -> str:
    return ctx.payload.to


assert_type(welcome, JobDefinition[Email, str])


@define_job(retry_on=(OSError,), fail_on=ValueError, unique=lambda payload: payload["key"])
def count(ctx: JobContext[dict[str, Any]]) -> dict[str, Any]:
    return ctx.payload


assert_type(count, JobDefinition[dict[str, Any], dict[str, Any]])


@define_job
async def sweep(ctx: JobContext[None]) -> None:
    ctx.log("swept")


assert_type(sweep, JobDefinition[None, None])


@define_job(unique="payload")
async def ship(ctx: JobContext[Order]) -> list[int]:
    return [ctx.payload.number]


assert_type(ship, JobDefinition[Order, list[int]])


@define_job()
def greet(ctx: JobContext[Person]) -> Person:
    return ctx.payload


assert_type(greet, JobDefinition[Person, Person])


@job
def resize(path: str, width: int = 100) -> bytes:
    return path.encode() * width


@job(retries=5, executor="process", options=JobOptions(jitter=0))
def crunch(n: int) -> float:
    return n / 2


@job(timeout=10)
async def fetch(url: str, *, depth: int = 1) -> str:
    ctx = current_context()
    assert_type(ctx, JobContext[Any])
    return url * depth


@job
def tidy() -> int:
    return 0


def returns(url: str) -> Coroutine[Any, Any, str]:
    return fetch(url)


def inherits(definition: JobDefinition[Mapping[str, Any], bytes]) -> None:
    assert_type(definition.name, str)


def wraps(handler: JobHandler[Email, str], layer: JobMiddleware) -> JobDefinition[Email, str]:
    return JobDefinition(
        "wrapped", handler, options=JobOptions(), hooks=JobHooks(), middleware=(layer,)
    )


async def calls(ctx: JobContext[Email]) -> None:
    inherits(resize)
    assert_type(send_email.call(Email("a")), Call[str])
    assert_type(sweep.call(), Call[None])
    assert_type(resize.call("a.png", width=3), Call[bytes])
    assert_type(fetch.call("https://a", depth=2), Call[str])
    assert_type(crunch.call(n=4), Call[float])
    assert_type(resize("a.png", 3), bytes)
    assert_type(await fetch("https://a"), str)
    await send_email(ctx)


async def enqueues(queue: Queue, **options: Unpack[EnqueueOptions]) -> None:
    handle = await queue.enqueue(send_email, Email("a"), delay=5, priority=1, wake=True)
    assert_type(handle, JobHandle[str])
    assert_type(await handle.result(timeout=5), str)
    assert_type(await queue.enqueue(count, {"a": 1}), JobHandle[dict[str, Any]])
    picture = Picture(path="a", width=1)
    assert_type(await queue.enqueue(make_thumbnail, picture), JobHandle[bytes])
    literal = make_thumbnail.call({"path": "a", "width": 1})
    assert_type(await queue.enqueue(literal), JobHandle[bytes])
    assert_type(await queue.enqueue(sweep), JobHandle[None])
    assert_type(await queue.enqueue(sweep, None), JobHandle[None])
    assert_type(await queue.enqueue(ship, Order(1), timeout=None), JobHandle[list[int]])
    assert_type(await queue.enqueue(greet, Person(name="a")), JobHandle[Person])
    assert_type(await queue.enqueue(resize.call("a"), delay=timedelta(hours=1)), JobHandle[bytes])
    assert_type(await queue.enqueue(fetch.call("a"), run_at=datetime.now(UTC)), JobHandle[str])
    assert_type(await queue.enqueue(resize, {"path": "a"}), JobHandle[bytes])
    assert_type(await queue.enqueue(tidy), JobHandle[int])
    assert_type(await queue.enqueue(send_email, Email("a"), **options), JobHandle[str])
    wide: list[Call[object]] = [resize.call("a"), crunch.call(1)]
    assert_type(await queue.enqueue(wide[0], metadata={"from": "test"}), JobHandle[object])
    many = await queue.enqueue_many([resize.call("a"), resize.call("b")], priority=1)
    assert_type(many, list[JobHandle[bytes]])
    assert_type(queue.enqueue_sync(send_email, Email("a")), JobHandle[str])
    assert_type(queue.enqueue_sync(crunch.call(1), tx=object()), JobHandle[float])
    assert_type(queue.enqueue_sync(tidy), JobHandle[int])
    assert_type(await handle.cancel("reason"), bool)


async def schedules(queue: Queue) -> None:
    scheduler = Scheduler(queue=queue, timezone=Timezones.NEW_YORK)
    daily = await scheduler.schedule("digest", "0 8 * * *", send_email, Email("a"))
    assert_type(daily, Schedule)
    assert_type(daily.next_run, datetime | None)
    await scheduler.schedule(
        *("digest", CronExpression("@daily"), send_email, Email("a")),
        timezone="UTC",
        run_on_start=True,
        allow_concurrent=False,
        max_runs=100,
        start_date=datetime.now(UTC),
        end_date=None,
        misfire="catch_up",
        misfire_grace=timedelta(minutes=1),
    )
    await scheduler.schedule("sweep", CronPatterns.DAILY, sweep)
    await scheduler.schedule("tidy", CronPatterns.weekdays(hour=9), tidy)
    await scheduler.schedule("resize", CronPatterns.at(8, 30), resize.call("a", width=3))
    once = await scheduler.schedule_once("launch", datetime.now(UTC), send_email, Email("a"))
    assert_type(once, Schedule)
    await scheduler.schedule_once("tidy-once", datetime.now(UTC), tidy, misfire="skip")
    declared = scheduler.cron("@hourly", name="hourly", max_runs=3)(tidy)
    assert_type(await queue.enqueue(declared), JobHandle[int])
    assert_type(await scheduler.pause("digest"), bool)
    assert_type(await scheduler.resume("digest"), bool)
    assert_type(await scheduler.unschedule("digest"), bool)
    assert_type(await scheduler.get_scheduled_jobs(), list[Schedule])
    assert_type(await scheduler.get_next_run_time("digest"), datetime | None)
    assert_type(await scheduler.trigger("digest"), JobHandle[Any])
    (tick,) = await scheduler.history("digest", limit=1)
    assert_type(tick.at, datetime)
    assert_type(tick.job_id, str | None)
    async with scheduler as same:
        assert_type(same, Scheduler)


async def on_a_server() -> None:
    queue = PostgresQueue(
        "postgresql://localhost/app",
        queue_name="mail",
        concurrency=5,
        schema="mill",
        listen=False,
        statement_cache_size=0,
        sslmode="verify-full",
    )
    async with queue as same:
        assert_type(same, PostgresQueue)
