"""Takes jobs, and answers what became of them."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Any, Final, Self, TypeVar, Unpack, cast, overload
from weakref import WeakSet

from jobmill.context import JobContext
from jobmill.errors import (
    ConfigError,
    DuplicateJob,
    PayloadError,
    PayloadTooLarge,
    StoreUnavailable,
)
from jobmill.gathering import portions, unavailable
from jobmill.handle import JobHandle
from jobmill.home import Home, Line, SyncSide
from jobmill.infos import info_of, stats_of
from jobmill.job import Call, FunctionJob, JobDefinition, JobMiddleware, as_middleware
from jobmill.options import (
    UNSET,
    EnqueueOptions,
    EnqueueRequest,
    JobOptions,
    check_duration,
    check_enqueue,
    check_named,
    check_queue_name,
    check_text,
    check_whole,
    is_job_id,
)
from jobmill.policy import Policy
from jobmill.records import JobInfo, JobPage, JobStatus, QueueStats, cancellation
from jobmill.seams import Seams
from jobmill.states import STATES, UNFINISHED, Move, State
from jobmill.store import Added, Moved, NewJob, Query, Record, Store, Window
from jobmill.tracing import UNTRACED, Tracing
from jobmill.worker import Jobs, Worker

log: Final = logging.getLogger("jobmill.worker")

P = TypeVar("P")
R = TypeVar("R")
T = TypeVar("T")

Lifespan = Callable[["Queue"], AbstractAsyncContextManager[Any]]

_LEAST_LEASE: Final = 0.1
_MOST_LISTED: Final = 1_000
_MOVED_AT_ONCE: Final = 500
_DROPPED_AT_ONCE: Final = 1_000
_ALL: Final = "*"


class Queue:
    """One queue of a store: `enqueue` puts jobs in, a worker takes them out.

    `store` is where it lives. `concurrency`: jobs that a worker of it runs at once.
    `poll_interval`: seconds after which a worker looks for jobs that nothing announced.
    `lease`: seconds after which the jobs of a worker that died run again.
    `lifespan(queue)` is entered when a worker starts; what it gives is `ctx.state`.
    """

    _worker: Worker | None
    _working: asyncio.Task[None] | None

    def __init__(
        self,
        store: Store,
        *,
        concurrency: int = 10,
        poll_interval: float | timedelta = 1.0,
        lease: float | timedelta = 30.0,
        middleware: JobMiddleware | Sequence[JobMiddleware] = (),
        default_options: JobOptions | None = None,
        max_payload_bytes: int = 1 << 20,
        lifespan: Lifespan | None = None,
        seams: Seams | None = None,
    ) -> None:
        self.name: Final = check_queue_name(store.queue)
        self.store: Final = store
        self.concurrency: Final = check_whole("concurrency", concurrency, 1)
        self.poll_interval: Final = check_duration("poll_interval", poll_interval, positive=True)
        self.lease: Final = check_duration("lease", lease, positive=True)
        if self.lease < _LEAST_LEASE:
            message = f"lease: {self.lease:g} s is too short to be held; give 0.1 at least"
            raise ConfigError(message, field="lease")
        self.middleware: tuple[JobMiddleware, ...] = as_middleware(middleware)
        if default_options is not None and not isinstance(
            cast("object", default_options), JobOptions
        ):
            message = "default_options: give JobOptions(...)"
            raise ConfigError(message, field="default_options")
        self.default_options: Final = default_options
        self.max_payload_bytes: Final = check_whole("max_payload_bytes", max_payload_bytes, 1)
        if lifespan is not None and not callable(lifespan):
            message = "lifespan: give a function of the queue, as of @asynccontextmanager"
            raise ConfigError(message, field="lifespan")
        self.lifespan: Final = lifespan
        self.seams: Final = seams or Seams()
        self.tracing: Tracing = UNTRACED
        """What is told of each enqueue and each run, by a bridge to a tracer."""
        self._merged: dict[str, tuple[JobDefinition[Any, Any], JobOptions, Policy]] = {}
        self._start_here()
        _QUEUES.add(self)

    # -- putting jobs in --------------------------------------------------------------------

    @overload
    async def enqueue(self, job: Call[R], /, **options: Unpack[EnqueueOptions]) -> JobHandle[R]: ...
    @overload
    async def enqueue(
        self, job: FunctionJob[[], R], /, **options: Unpack[EnqueueOptions]
    ) -> JobHandle[R]: ...
    @overload
    async def enqueue(
        self, job: JobDefinition[None, R], /, **options: Unpack[EnqueueOptions]
    ) -> JobHandle[R]: ...
    @overload
    async def enqueue(
        self, job: JobDefinition[P, R], payload: P, /, **options: Unpack[EnqueueOptions]
    ) -> JobHandle[R]: ...
    async def enqueue(
        self, job: Any, payload: Any = None, /, **options: Unpack[EnqueueOptions]
    ) -> JobHandle[Any]:
        """Put a job into the queue; when it returns, the job is as durable as its store.

        `delay` (seconds) and `run_at` exclude each other. Where an unfinished job of the
        same name holds `unique_key`, its handle is given. Calls of one turn of the loop go
        to the store together. `tx`: the caller's own connection; the job is there when its
        transaction commits.

        Raises: ConfigError, PayloadError, before anything is stored; DuplicateJob where
        `job_id` is taken by another job; StoreUnavailable, with `job_ids` under which
        sending again is harmless; Unsupported for a `tx` that the store cannot use.
        """
        call = _call_of(job, payload)
        request = check_enqueue(cast("Mapping[str, Any]", options))
        new = self._new(call, request)
        if self.tracing is UNTRACED:
            return self._handle(call, await self._add(new, request))
        with self.tracing.sending([new]) as (new,):
            return self._handle(call, await self._add(new, request))

    async def _add(self, new: NewJob, request: EnqueueRequest) -> Added:
        wake = request.wake is not False
        try:
            if request.tx is None:
                if (here := self._home.here()) is not None:
                    return await here.gatherer.add(new, wake=wake)
                return await self._home.call(lambda line: line.gatherer.add(new, wake=wake))
            (added,) = await self.store.add_with(request.tx, [new], wake=request.wake is True)
            return added
        except StoreUnavailable as error:
            raise unavailable(error, [new]) from error

    async def enqueue_many(
        self, calls: Iterable[Call[R]], /, **options: Unpack[EnqueueOptions]
    ) -> list[JobHandle[R]]:
        """Put many jobs into the queue: one round trip, all or nothing, for each thousand.

        Of great payloads, for each 8 MiB.

        Raises: as `enqueue`; what was stored by earlier round trips stays. The `job_ids` of
        StoreUnavailable are those of all the calls, in their order.
        """
        request = check_enqueue(cast("Mapping[str, Any]", options))
        if isinstance(calls, Call):
            message = "enqueue_many takes a list of calls; a single one goes with enqueue"
            raise TypeError(message)
        some = [_call_of(call, None) for call in calls]
        if request.job_id is not None and len(some) > 1:
            message = "job_id: many jobs cannot share one; leave it out"
            raise ConfigError(message, field="job_id")
        with self.tracing.sending([self._new(call, request) for call in some]) as new:
            added: list[Added] = []
            try:
                for some_new in portions(new):
                    added += await self._add_whole(some_new, request)
            except StoreUnavailable as error:
                raise unavailable(error, new) from error
            return [self._handle(call, one) for call, one in zip(some, added, strict=True)]

    async def _add_whole(self, jobs: Sequence[NewJob], request: EnqueueRequest) -> list[Added]:
        if request.tx is not None:
            return await self.store.add_with(request.tx, jobs, wake=request.wake is True)
        wake = request.wake is not False
        added = await self._home.call(lambda line: line.store.add(jobs, wake=wake, whole=True))
        for one in added:
            _refuse_conflict(one)
        return added

    @overload
    def enqueue_sync(self, job: Call[R], /, **options: Unpack[EnqueueOptions]) -> JobHandle[R]: ...
    @overload
    def enqueue_sync(
        self, job: FunctionJob[[], R], /, **options: Unpack[EnqueueOptions]
    ) -> JobHandle[R]: ...
    @overload
    def enqueue_sync(
        self, job: JobDefinition[None, R], /, **options: Unpack[EnqueueOptions]
    ) -> JobHandle[R]: ...
    @overload
    def enqueue_sync(
        self, job: JobDefinition[P, R], payload: P, /, **options: Unpack[EnqueueOptions]
    ) -> JobHandle[R]: ...
    def enqueue_sync(
        self, job: Any, payload: Any = None, /, **options: Unpack[EnqueueOptions]
    ) -> JobHandle[Any]:
        """As `enqueue`, from code without a loop; safe from any thread.

        With `tx`, a sync connection of the caller, it runs in the caller's own thread.
        """
        call = _call_of(job, payload)
        request = check_enqueue(cast("Mapping[str, Any]", options))
        with self.tracing.sending([self._new(call, request)]) as (new,):
            return self._handle(call, self._add_sync(new, request))

    def _add_sync(self, new: NewJob, request: EnqueueRequest) -> Added:
        wake = request.wake is not False

        async def add(line: Line) -> Added:
            return await line.gatherer.add(new, wake=wake)

        try:
            if request.tx is None:
                return self._sync.call(add)
            (added,) = self.store.add_with_sync(request.tx, [new], wake=request.wake is True)
            return added
        except StoreUnavailable as error:
            raise unavailable(error, [new]) from error

    # -- working ----------------------------------------------------------------------------

    def process(self, jobs: Jobs | None = None) -> Worker:
        """Start a worker of this queue on the running loop; `jobs` restricts it to these.

        The loop is then the queue's home, where it has none. An error that ends the worker is
        logged at once, and raised by `shutdown`.

        Raises: RuntimeError where it was started before, or no loop runs.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            message = "process() needs a running loop; call it inside an async function"
            raise RuntimeError(message) from None
        if self._worker is not None:
            message = "this queue has a worker already; shut it down first"
            raise RuntimeError(message)
        self._worker = Worker(self, jobs=jobs)
        self._home.settle()
        self._working = loop.create_task(self._worker.run(), name=f"jobmill worker of {self.name}")
        self._working.add_done_callback(_report_end)
        return self._worker

    def stop(self) -> None:
        """Let the worker claim no more; running jobs go on."""
        if self._worker is not None:
            self._worker.quiet()

    async def shutdown(self, timeout: float = 30.0) -> None:
        """Stop, wait `timeout` seconds for running jobs, hand back what has not ended, close.

        What cannot be stopped keeps its lease until it, or the process, ends.
        """
        worker, working = self._worker, self._working
        try:
            if worker is not None and working is not None:
                await worker.stop(timeout)
                self._worker = self._working = None
                await working
        finally:
            await self.close()

    # -- asking -----------------------------------------------------------------------------

    async def stats(self) -> QueueStats:
        """How many jobs there are now, by state; a delayed job that is due is pending."""
        return stats_of(await self._home.call(lambda line: line.store.counts()))

    async def get_job(self, id: str) -> JobInfo | None:  # noqa: A002  the public name
        """The job as it is now; None where there is no record of it."""
        if not is_job_id("id", id):
            return None
        (record,) = await self._home.call(lambda line: line.store.get([id]))
        return None if record is None else info_of(record, self.name)

    async def list_jobs(
        self,
        *,
        status: JobStatus | None = None,
        job_name: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> JobPage:
        """Jobs, newest first; `cursor` is the `next_cursor` of the page before.

        Raises: ConfigError for a status that is none, a limit outside 1 to 1,000, or a
        cursor that is none.
        """
        query = _query(status, job_name)
        limit = check_whole("limit", limit, 1, _MOST_LISTED)
        if cursor is not None:
            check_text("cursor", cursor)
        page = await self._home.call(
            lambda line: line.store.find(query, limit=limit, cursor=cursor)
        )
        jobs = [info_of(record, self.name) for record in page.records]
        return JobPage(jobs=jobs, next_cursor=page.cursor)

    async def wait_for_end(
        self, job_id: str, timeout: float | timedelta | None
    ) -> tuple[JobInfo, bytes] | None:
        """The job and its result's JSON once it has ended; None where there is no record.

        Raises: TimeoutError after `timeout` seconds.
        """
        seconds = None if timeout is None else check_duration("timeout", timeout)
        try:
            if seconds == 0:
                record = await self._home.call(partial(_ended_now, job_id))
            else:
                async with asyncio.timeout(seconds):
                    record = await self._home.call(lambda line: line.results.wait(job_id))
        except TimeoutError:
            message = f"the job {job_id} has not ended within {seconds:g} s"
            raise TimeoutError(message) from None
        if record is None:
            return None
        return info_of(record, self.name), record.result or b"null"

    # -- steering ---------------------------------------------------------------------------

    async def cancel(self, id: str, reason: str = "") -> bool:  # noqa: A002  the public name
        """Cancel the job: it never runs again, and is told so where it runs.

        False where it has ended or is not there.
        """
        reason = check_text("reason", reason)
        return (await self._move(_cancel(id, reason))).status == "applied"

    async def retry(self, id: str) -> bool:  # noqa: A002  the public name
        """Start an ended job over, with attempts 0; its errors stay. False where it has not.

        Raises: DuplicateJob where its unique key is held by another job.
        """
        moved = await self._move(Move(event="revive", job_id=id))
        if moved.status == "held":
            message = f"the unique key of {id} is held by the job {moved.job_id}"
            raise DuplicateJob(message, job_id=moved.job_id)
        return moved.status == "applied"

    async def run_now(self, id: str) -> bool:  # noqa: A002  the public name
        """Make a delayed job due now; False where it is not delayed."""
        return (await self._move(Move(event="hasten", job_id=id))).status == "applied"

    async def delete(self, id: str) -> bool:  # noqa: A002  the public name
        """Remove the job for good; False where it runs or is not there."""
        if not is_job_id("id", id):
            return False
        return await self._home.call(partial(_drop, Query(), [id], 1)) > 0

    async def cancel_many(
        self, *, status: JobStatus | None = None, job_name: str | None = None, reason: str = ""
    ) -> int:
        """Cancel all unfinished jobs of that status and name; how many."""
        reason = check_text("reason", reason)
        query = _query(status, job_name, tuple(state for state in STATES if state in UNFINISHED))
        return await self._move_all(query, lambda job_id: _cancel(job_id, reason))

    async def retry_many(
        self, *, status: JobStatus | None = None, job_name: str | None = None
    ) -> int:
        """Start all ended jobs of that status and name over; how many.

        Without a status: the failed ones. A job whose unique key is held is left as it is.
        """
        query = _query(status, job_name, ("failed",))
        return await self._move_all(query, lambda job_id: Move(event="revive", job_id=job_id))

    async def delete_many(
        self, *, status: JobStatus | None = None, job_name: str | None = None
    ) -> int:
        """Remove all jobs of that status and name that do not run; how many."""
        return await self._drop_all(_query(status, job_name))

    async def clear(self) -> int:
        """Drop every job that is not running; how many."""
        return await self._drop_all(Query())

    async def pause(self, job_name: str | None = None) -> None:
        """Let no worker claim from this queue, or no job of this name; running jobs go on."""
        await self._home.call(lambda line: line.store.write("pauses", _pause(job_name), b"{}"))

    async def resume(self, job_name: str | None = None) -> None:
        """Undo the `pause` of the queue, or of the job name."""
        await self._home.call(lambda line: line.store.write("pauses", _pause(job_name), None))

    async def is_paused(self, job_name: str | None = None) -> bool:
        """Whether the queue is paused, or, with a name, that job or the whole queue."""
        docs = await self._home.call(lambda line: line.store.read("pauses"))
        keys = {doc.key for doc in docs}
        return _pause(None) in keys or _pause(job_name) in keys

    async def reserve(self, ctx: JobContext[Any], key: str, windows: Sequence[Window]) -> float:
        """For middleware: ask for a start under a rate limit; 0, or the seconds to wait."""
        wait = await self._reserve(ctx, key, windows)
        if wait <= 0:
            ctx.note_start(key)
        return wait

    async def give_back(self, ctx: JobContext[Any]) -> None:
        """For the engines: take back the starts recorded for a run that did not start."""
        for key in ctx.take_starts():
            await self._reserve(ctx, key, ())

    async def _reserve(self, ctx: JobContext[Any], key: str, windows: Sequence[Window]) -> float:
        job_id, token = ctx.job_id, ctx.token
        return await self._home.call(lambda line: line.store.reserve(key, job_id, token, windows))

    async def ask(self, verb: Callable[[Store], Awaitable[T]]) -> T:
        """For the engines: run `verb` on the queue's open store, at the queue's home."""
        return await self._home.call(lambda line: verb(line.store))

    def ask_sync(self, verb: Callable[[Store], Coroutine[Any, Any, T]]) -> T:
        """As `ask`, from code without a loop; safe from any thread."""
        return self._sync.call(lambda line: verb(line.store))

    def new_job(self, job: Any, payload: object = None) -> tuple[Call[Any], NewJob]:
        """For the engines: a job as `enqueue` would add it, checked and not added.

        Raises: as `enqueue`, before anything is stored.
        """
        call = _call_of(job, payload)
        return call, self._new(call, EnqueueRequest())

    def new_id(self) -> str:
        """For the engines: an id for a job, as `enqueue` would give it."""
        return self._ids()

    @property
    def carries_schedules(self) -> bool:
        """Whether a worker of this very object ticks the queue's schedules."""
        return self._worker is not None and self._worker.carries_schedules

    # -- its life ---------------------------------------------------------------------------

    async def close(self) -> None:
        """Let go of the store's connections; jobs stay as they are."""
        await self._home.close()
        if self._sync.used:
            await asyncio.to_thread(self._sync.close)

    async def __aenter__(self) -> Self:
        await self._home.call(_nothing)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.shutdown()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    # -- inside -----------------------------------------------------------------------------

    def _start_here(self) -> None:
        """Make what belongs to one process: after a fork it would be the parent's."""
        self._ids = self.seams.job_ids()
        self._home = Home(self.store, self.poll_interval)
        self._sync = SyncSide(self.store, self.poll_interval)
        self._worker = None
        self._working = None

    def _new(self, call: Call[Any], request: EnqueueRequest) -> NewJob:
        job = call.job
        known = self._merged.get(job.name)
        if known is None or known[0] is not job:
            options = job.options.over(self.default_options)
            known = self._merged[job.name] = (job, options, options.policy())
        _, options, plain = known
        data = _encoded(call, self.max_payload_bytes)
        key = request.unique_key
        if key is None and options.unique is not None:
            key = job.unique_key_for(call.payload, data, options.unique)
        if request.max_attempts is None and request.timeout is UNSET:
            policy = plain
        else:
            policy = options.policy(max_attempts=request.max_attempts, timeout=request.timeout)
        # By place, since there is one for each job: keywords take several times as long.
        return NewJob(
            request.job_id or self._ids(),
            job.name,
            data,
            policy,
            options.priority if request.priority is None else request.priority,
            request.delay,
            request.run_at,
            key,
            request.metadata or {},
        )

    def _handle(self, call: Call[R], added: Added) -> JobHandle[R]:
        _refuse_conflict(added)
        deduplicated = added.status != "added"
        return JobHandle(self, call.job, added.job_id, deduplicated=deduplicated)

    async def _move(self, move: Move) -> Moved:
        if not is_job_id("id", move.job_id):
            return Moved("missing", move.job_id)
        (moved,) = await self._home.call(lambda line: line.store.move([move]))
        return moved

    async def _move_all(self, query: Query, move: Callable[[str], Move]) -> int:
        """Move all that the query finds, page by page, each page atomically."""
        count = 0
        cursor: str | None = None
        while True:
            moved, cursor = await self._home.call(partial(_move_page, query, move, cursor))
            count += moved
            if cursor is None:
                return count

    async def _drop_all(self, query: Query) -> int:
        count = 0
        while dropped := await self._home.call(partial(_drop, query, None, _DROPPED_AT_ONCE)):
            count += dropped
        return count


_QUEUES: Final[WeakSet[Queue]] = WeakSet()


def _after_fork() -> None:
    for queue in list(_QUEUES):
        queue._start_here()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


async def _move_page(
    query: Query, move: Callable[[str], Move], cursor: str | None, line: Line
) -> tuple[int, str | None]:
    page = await line.store.find(query, limit=_MOVED_AT_ONCE, cursor=cursor)
    moved = await line.store.move([move(record.id) for record in page.records])
    return sum(one.status == "applied" for one in moved), page.cursor


async def _drop(query: Query, ids: Sequence[str] | None, limit: int, line: Line) -> int:
    dropped = await line.store.drop(query, ids=ids, limit=limit)
    if dropped:
        # The store tells nobody that a record is gone.
        line.results.look_at()
    return dropped


async def _ended_now(job_id: str, line: Line) -> Record | None:
    (record,) = await line.store.get([job_id])
    if record is not None and record.state in UNFINISHED:
        raise TimeoutError
    return record


def _report_end(working: asyncio.Task[None]) -> None:
    """A worker that ends by an error says so at once, not only to who shuts it down."""
    if not working.cancelled() and (error := working.exception()) is not None:
        log.error("the worker ended: %s", error, exc_info=error)


def _encoded(call: Call[Any], limit: int) -> bytes:
    """The payload's JSON; what is wrong with it says also how this job takes its payload."""
    try:
        return call.job.encode_payload(call.payload, limit=limit)
    except PayloadTooLarge:
        raise
    except PayloadError as error:
        name = call.job.name
        payload: object = call.payload
        if isinstance(call.job, FunctionJob) and not isinstance(payload, dict):
            hint = f"{name} takes arguments; enqueue its .call(...)"
        elif payload is None:
            hint = f"{name} takes a payload; give it after the job"
        else:
            raise
        message = f"{error}; {hint}"
        raise PayloadError(message, path=error.path) from None


async def _nothing(line: Line) -> None:
    """Only open the store."""


def _call_of(job: Call[Any] | JobDefinition[Any, Any], payload: object) -> Call[Any]:
    if isinstance(job, Call):
        if payload is not None:
            message = "a Call has its payload already; give the job itself with another payload"
            raise TypeError(message)
        return job
    if not isinstance(cast("object", job), JobDefinition):
        message = f"{job!r} is no job; decorate the function with @job, or give job.call(...)"
        raise TypeError(message)
    return Call(job, payload)


def _refuse_conflict(added: Added) -> None:
    if added.status in ("conflict", "dropped"):
        message = f"the job_id {added.job_id} is taken by a job with another name or payload"
        raise DuplicateJob(message, job_id=added.job_id)


def _cancel(job_id: str, reason: str) -> Move:
    return Move(event="cancel", job_id=job_id, error=cancellation(reason))


def _query(
    status: JobStatus | None, job_name: str | None, default: tuple[State, ...] | None = None
) -> Query:
    if job_name is not None:
        check_named("job_name", job_name)
    if status is None:
        return Query(states=default, name=job_name)
    if status not in STATES:
        message = f"status: {status!r} is none of {', '.join(STATES)}"
        raise ConfigError(message, field="status")
    return Query(states=(status,), name=job_name)


def _pause(job_name: str | None) -> str:
    return _ALL if job_name is None else f"job:{check_named('job_name', job_name)}"
