"""For tests of programs that use jobmill: run what is due, run one job, see what was enqueued."""

from __future__ import annotations

import asyncio
import reprlib
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Any, Final, TypedDict, TypeVar, Unpack, overload

import msgspec

from jobmill.context import AbortSignal, JobContext, LogSink, ProgressSink, Told
from jobmill.errors import JobFailed, Snooze
from jobmill.factory import InMemoryQueue
from jobmill.job import Call, FunctionJob, JobDefinition
from jobmill.queue import Queue
from jobmill.records import JobInfo
from jobmill.states import ENDED
from jobmill.store import Store
from jobmill.worker import Worker

P = TypeVar("P")
R = TypeVar("R")

_FIRST_PAUSE: Final = 0.001
_MAX_PAUSE: Final = 0.02
"""Seconds between looks: no store tells that a queue has become empty."""
_INLINE: Final = "inline"
_NEVER: Final = 86_400.0
_LISTED: Final = 1_000


_ANYTHING: Final = object()


class ContextFields(TypedDict, total=False):
    """The fields of a JobContext, as keywords of `make_context`."""

    job_id: str
    job_name: str
    queue_name: str
    attempt: int
    max_attempts: int
    enqueued_at: datetime
    started_at: datetime
    signal: AbortSignal
    metadata: Mapping[str, str]
    queue: Queue
    state: Any
    progress_sink: ProgressSink
    log_sink: LogSink


async def drain(queue: Queue, *, timeout: float = 30.0) -> int:
    """Run every job that is due, and those that they enqueue; how many runs there were.

    What is not due stays: delayed jobs, retries that wait, runs that a rate limit put off; and
    so does what is paused.

    Raises: TimeoutError after `timeout` seconds.
    """
    store = queue.store.handle()

    async def worked_off() -> bool:
        return not await _is_due(queue, store)

    await store.open()
    try:
        async with asyncio.timeout(timeout):
            since = (await store.counts()).now
            before = await _started(store, since)
            while await _is_due(queue, store):
                await _work_until(worked_off, Worker(queue), timeout)
            return await _started(store, since) - before
    finally:
        await store.close()


@overload
async def run_inline(job: Call[R], /, *, state: Any = None, timeout: float = 30.0) -> R: ...
@overload
async def run_inline(
    job: FunctionJob[[], R], /, *, state: Any = None, timeout: float = 30.0
) -> R: ...
@overload
async def run_inline(
    job: JobDefinition[None, R], /, *, state: Any = None, timeout: float = 30.0
) -> R: ...
@overload
async def run_inline(
    job: JobDefinition[P, R], payload: P, /, *, state: Any = None, timeout: float = 30.0
) -> R: ...
async def run_inline(
    job: Any, payload: Any = None, /, *, state: Any = None, timeout: float = 30.0
) -> Any:
    """Run one job to its end, with its hooks and middleware, and give its result.

    Its retries and snoozes do not wait. It has a queue of its own, in memory; what it
    enqueues there does not run. `state` is its `ctx.state`.

    Raises: JobFailed, whose cause is what the last attempt raised; JobCancelled;
    TimeoutError after `timeout` seconds.
    """
    raised: list[BaseException] = []

    async def witness(ctx: JobContext[Any], next: Callable[[], Awaitable[Any]]) -> Any:  # noqa: A002  the public name
        if ctx.job_id != _INLINE:
            raise Snooze(_NEVER)
        raised.clear()
        try:
            return await next()
        except BaseException as error:
            raised.append(error)
            raise

    queue = InMemoryQueue(
        concurrency=1, middleware=witness, lifespan=lambda _: nullcontext(enter_result=state)
    )
    call = _call_of(job, payload)
    try:
        async with asyncio.timeout(timeout):
            handle = await queue.enqueue(call, job_id=_INLINE)
            worker = Worker(queue, jobs=call.job)
            await _work_until(lambda: _is_over(queue), worker, timeout)
            return await handle.result()
    except JobFailed as failed:
        raise failed from (raised[0] if raised else None)
    finally:
        await queue.close()


async def assert_enqueued(
    queue: Queue, job: JobDefinition[Any, Any] | Call[Any], *, payload: object = _ANYTHING
) -> JobInfo:
    """The newest record of this job, with this payload where one is given.

    It counts whatever became of it since, while its record is kept.

    Raises: AssertionError that says what is there instead.
    """
    if isinstance(job, Call):
        payload = job.payload
        job = job.job
    wanted = None
    if payload is not _ANYTHING:
        wanted = msgspec.json.decode(job.encode_payload(payload))
    others: list[Any] = []
    cursor: str | None = None
    while True:
        page = await queue.list_jobs(job_name=job.name, limit=_LISTED, cursor=cursor)
        for info in page.jobs:
            if payload is _ANYTHING or (info.raw_payload is None and info.payload == wanted):
                return info
            others.append(info.payload)
        if (cursor := page.next_cursor) is None:
            break
    with_payload = "" if payload is _ANYTHING else f" with the payload {reprlib.repr(wanted)}"
    instead = f"those that are have {reprlib.repr(others)}" if others else "none is at all"
    message = f"no job {job.name!r}{with_payload} is in the queue {queue.name!r}; {instead}"
    raise AssertionError(message)


def make_context(
    job: JobDefinition[P, Any], payload: P, /, **fields: Unpack[ContextFields]
) -> JobContext[P]:
    """A context as the job's handler gets it, for a unit test that calls the handler.

    The payload takes the way through JSON, as it does in a queue. Progress and log lines go
    nowhere unless `progress_sink` and `log_sink` are given.

    Raises: PayloadError where the payload does not fit the job.
    """
    now = datetime.now(UTC)
    defaults: ContextFields = {
        "job_id": "test",
        "job_name": job.name,
        "attempt": 1,
        "max_attempts": job.options.max_attempts,
        "enqueued_at": now,
        "started_at": now,
        "signal": AbortSignal(),
        "metadata": {},
        "state": None,
        "progress_sink": _no_progress,
        "log_sink": _no_line,
    }
    chosen = defaults | fields
    queue = chosen.setdefault("queue", InMemoryQueue())
    chosen.setdefault("queue_name", queue.name)
    return JobContext(payload=job.decode_payload(job.encode_payload(payload)), **chosen)


def _call_of(job: JobDefinition[Any, Any] | Call[Any], payload: object) -> Call[Any]:
    return job if isinstance(job, Call) else Call(job, payload)


def _no_progress(*_: object) -> Awaitable[None]:
    """Forget it."""
    return Told()


def _no_line(message: str, fields: dict[str, Any]) -> None:
    """Forget it."""


async def _work_until(
    reached: Callable[[], Awaitable[bool]], worker: Worker, timeout: float
) -> None:
    """Let the worker work until that is so, then until its running jobs have ended."""
    running = asyncio.create_task(worker.run())
    pause = _FIRST_PAUSE
    try:
        while not running.done() and not await reached():
            await asyncio.sleep(pause)
            pause = min(pause * 2, _MAX_PAUSE)
        await worker.stop(timeout)
        await running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def _is_due(queue: Queue, store: Store) -> bool:
    """Whether a job is due that no pause holds back."""
    counts = await store.counts()
    for name, states in counts.by_name.items():
        if states.get("pending") and not await queue.is_paused(name):
            return True
    return False


async def _is_over(queue: Queue) -> bool:
    """Whether the job that runs inline has ended; where it waits, it goes on now."""
    info = await queue.get_job(_INLINE)
    if info is not None and info.status == "delayed":
        await queue.run_now(_INLINE)
    return info is None or info.status in ENDED


async def _started(store: Store, since: float) -> int:
    return sum(bucket.started for bucket in await store.metrics(since))
