"""Wrong uses: each type checker finds every one, on its line, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypedDict

from jobmill import (
    JobContext,
    JobDefinition,
    JobHooks,
    JobOptions,
    PostgresQueue,
    Queue,
    Scheduler,
    define_job,
    job,
)

NOW = datetime.now(UTC)


@dataclass
class Email:
    to: str


class Picture(TypedDict):
    path: str


@define_job(name="send_email")
async def send_email(ctx: JobContext[Email]) -> str:
    return ctx.payload.subject  # E: the payload has no such field


@define_job(name="shrink")
def shrink(ctx: JobContext[Picture]) -> bytes:
    return ctx.payload["path"]  # E: the result is not of the type that is promised


@define_job(name="sweep")
async def sweep(ctx: JobContext[None]) -> None:
    await ctx.update_progress("half")  # E: progress is a number


@job
def resize(path: str, width: int = 100) -> bytes:
    return path.encode() * width


@job(retries=5)
async def fetch(url: str) -> str:
    return url


def before(ctx: JobContext[Any], result: Any) -> None:
    ctx.log("before", result=result)


def after(ctx: JobContext[Any]) -> None:
    ctx.log("after")


def failed(ctx: JobContext[Any], error: str) -> None:
    ctx.log(error)


def two(ctx: JobContext[Email], more: str) -> str:
    return ctx.payload.to + more


def layer(ctx: JobContext[Any]) -> None:
    ctx.log("layer")


async def plain(ctx: JobContext[Email]) -> str:
    return ctx.payload.to


JobHooks(before_run=before)  # E: before_run takes no result
JobHooks(after_run=after)  # E: after_run takes a result
JobHooks(on_error=failed)  # E: the error is an exception
JobHooks(on_start=after)  # E: there is no such hook

JobOptions(timeout="30")  # E: seconds are no text
JobOptions(backoff="quadratic")  # E: there is no such backoff
JobOptions(retry=3)  # E: the option is called retries
JobOptions(retry_on=("OSError",))  # E: exceptions by type, not by name
JobOptions(executor="fork")  # E: there is no such executor

define_job(name="two", handler=two)  # E: a handler takes one context
define_job(name="plain", handler=plain, retries="3")  # E: retries is a number
define_job(name="layers", handler=plain, middleware=[layer])  # E: middleware takes next
job(unique=True)  # E: unique is "payload" or a function

wrong: JobDefinition[Picture, str] = send_email  # E: the job takes an Email
other: JobDefinition[Email, int] = send_email  # E: the job gives a str

send_email.call("a@example.org")  # E: the payload is an Email
send_email.call()  # E: the payload is missing
resize.call(3)  # E: path is text
resize.call("a.png", height=3)  # E: there is no such argument
resize.call()  # E: path is missing
resize("a.png", "3")  # E: width is a number
fetch.call(url=b"https://a")  # E: url is text


async def enqueues(queue: Queue) -> None:
    await queue.enqueue(send_email, {"to": "a"})  # E: the payload is an Email
    await queue.enqueue(send_email)  # E: the payload is missing
    await queue.enqueue(shrink, {"path": 3})  # E: path is text
    await queue.enqueue(sweep, "payload")  # E: the job takes none
    await queue.enqueue(resize.call("a"), Email("a"))  # E: a call has its payload
    await queue.enqueue(resize)  # E: the arguments are missing
    await queue.enqueue(send_email, Email("a"), delay="5")  # E: seconds are no text
    await queue.enqueue(send_email, Email("a"), retries=3)  # E: there is no such keyword
    await queue.enqueue(send_email, Email("a"), metadata={"n": 1})  # E: text as values
    await queue.enqueue("send_email", Email("a"))  # E: a job, not its name
    length: int = await (await queue.enqueue(fetch.call("a"))).result()  # E: the result is text
    print(length)
    await queue.enqueue_many([resize])  # E: calls, not jobs
    await queue.enqueue_many([resize.call("a")], delay="5")  # E: seconds are no text
    queue.enqueue_sync(send_email, {"to": "a"})  # E: the payload is an Email
    queue.enqueue_sync(sweep, 3)  # E: the job takes none
    await queue.list_jobs(status="done")  # E: there is no such status
    await queue.pause(send_email)  # E: a job by its name
    PostgresQueue("postgresql://localhost/app", statement_cache_size="0")  # E: a number


async def schedules(queue: Queue) -> None:
    scheduler = Scheduler(queue=queue)
    await scheduler.schedule("a", "@daily", send_email, {"to": "a"})  # E: the payload is an Email
    await scheduler.schedule("a", "@daily", send_email)  # E: the payload is missing
    await scheduler.schedule("a", "@daily", sweep, "payload")  # E: the job takes none
    await scheduler.schedule("a", "@daily", resize)  # E: the arguments are missing
    await scheduler.schedule("a", "@daily", "send_email")  # E: a job, not its name
    await scheduler.schedule("a", 8, sweep)  # E: cron is text
    await scheduler.schedule("a", "@daily", sweep, misfire="later")  # E: there is no such rule
    await scheduler.schedule("a", "@daily", sweep, max_runs="3")  # E: a number
    await scheduler.schedule("a", "@daily", sweep, end_date="2030")  # E: a datetime
    await scheduler.schedule("a", "@daily", sweep, retries=3)  # E: there is no such keyword
    await scheduler.schedule_once("a", "tomorrow", sweep)  # E: a datetime
    await scheduler.schedule_once("a", NOW, sweep, max_runs=1)  # E: there is no such keyword
    await scheduler.get_next_run_time(sweep)  # E: a schedule by its name
