"""Schedules of a queue: written, steered and asked for; and carried, where no worker does."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Any, Final, Self, TypeVar, Unpack, cast, overload
from weakref import WeakSet

import msgspec

from jobmill.carrier import Carrier
from jobmill.cron import CronExpression
from jobmill.errors import ConfigError, JobNotFound, UnknownJob
from jobmill.handle import JobHandle
from jobmill.job import Call, FunctionJob, JobDefinition
from jobmill.options import check_whole
from jobmill.plans import Plans, off_loop
from jobmill.queue import Queue
from jobmill.registry import lookup
from jobmill.schedule import (
    KEPT_TICKS,
    Plan,
    Schedule,
    Tick,
    decode_plan,
    paused,
    resumed,
    schedule_of,
    tick_of,
)
from jobmill.store import Doc, Store
from jobmill.timezones import zone_named
from jobmill.wish import OnceOptions, ScheduleOptions, Wish, check_schedule_name, recurring, single

log: Final = logging.getLogger("jobmill.scheduler")

P = TypeVar("P")
R = TypeVar("R")
T = TypeVar("T")
J = TypeVar("J", bound=JobDefinition[Any, Any])


class Scheduler:
    """The schedules of one queue.

    They are kept in the queue's store: whichever worker of the queue runs, anywhere, ticks
    them. `start` lets this object tick them too, for a program without a worker, and writes what
    `cron` declared. `timezone` is that of a schedule that names none.
    """

    def __init__(self, queue: Queue, *, timezone: str = "UTC") -> None:
        if not isinstance(cast("object", queue), Queue):
            message = f"queue: {type(queue).__name__} is no queue; give a Queue"
            raise ConfigError(message, field="queue")
        zone_named(timezone)
        self.queue: Final = queue
        self.timezone: Final = timezone
        self._declared: dict[str, tuple[Any, Any, Wish]] = {}
        self._carrying: tuple[asyncio.Task[None], Store] | None = None
        _SCHEDULERS.add(self)

    @property
    def declared(self) -> frozenset[str]:
        """The names of the schedules that `cron` declared."""
        return frozenset(self._declared)

    # -- writing ----------------------------------------------------------------------------

    @overload
    async def schedule(
        self,
        name: str,
        cron: str | CronExpression,
        job: Call[Any],
        **options: Unpack[ScheduleOptions],
    ) -> Schedule: ...
    @overload
    async def schedule(
        self,
        name: str,
        cron: str | CronExpression,
        job: FunctionJob[[], Any],
        **options: Unpack[ScheduleOptions],
    ) -> Schedule: ...
    @overload
    async def schedule(
        self,
        name: str,
        cron: str | CronExpression,
        job: JobDefinition[None, Any],
        **options: Unpack[ScheduleOptions],
    ) -> Schedule: ...
    @overload
    async def schedule(
        self,
        name: str,
        cron: str | CronExpression,
        job: JobDefinition[P, Any],
        payload: P,
        **options: Unpack[ScheduleOptions],
    ) -> Schedule: ...
    async def schedule(
        self,
        name: str,
        cron: str | CronExpression,
        job: Any,
        payload: Any = None,
        **options: Unpack[ScheduleOptions],
    ) -> Schedule:
        """Let a job be added at each tick of `cron`; the schedule as it is now.

        One of that name is replaced: its runs and its pause stay, and so does its next tick where
        the instants are the same, so that a restart swallows none.

        `timezone`: of the clock on the wall that `cron` means. `run_on_start`: it also ticks
        when it is first created. `allow_concurrent`: False skips a tick while the job of the last
        one has not ended. `max_runs`: ticks that fire, at most. `start_date`, `end_date`: the
        first and last instant allowed. `misfire`: of the ticks that nobody fired in time,
        "run_once" fires the last, "skip" too, where it is at most `misfire_grace` seconds late;
        "catch_up" fires up to 100 of them.

        Raises: CronError, ConfigError, PayloadError, before anything is stored.
        """
        given = cast("Mapping[str, Any]", options)
        check = partial(recurring, name, cron, given, self.timezone)
        return await self._put(job, payload, await self._off_loop(check))

    @overload
    async def schedule_once(
        self, name: str, at: datetime, job: Call[Any], **options: Unpack[OnceOptions]
    ) -> Schedule: ...
    @overload
    async def schedule_once(
        self,
        name: str,
        at: datetime,
        job: FunctionJob[[], Any],
        **options: Unpack[OnceOptions],
    ) -> Schedule: ...
    @overload
    async def schedule_once(
        self,
        name: str,
        at: datetime,
        job: JobDefinition[None, Any],
        **options: Unpack[OnceOptions],
    ) -> Schedule: ...
    @overload
    async def schedule_once(
        self,
        name: str,
        at: datetime,
        job: JobDefinition[P, Any],
        payload: P,
        **options: Unpack[OnceOptions],
    ) -> Schedule: ...
    async def schedule_once(
        self,
        name: str,
        at: datetime,
        job: Any,
        payload: Any = None,
        **options: Unpack[OnceOptions],
    ) -> Schedule:
        """Let a job be added at the instant `at`, once; the schedule as it is now.

        It stays in the list when it is over. The same name with the same instant never fires
        again; with another instant it does.

        Raises: ConfigError, PayloadError, before anything is stored.
        """
        given = cast("Mapping[str, Any]", options)
        check = partial(single, name, at, given, self.timezone)
        return await self._put(job, payload, await self._off_loop(check))

    def cron(
        self,
        cron: str | CronExpression,
        /,
        *,
        name: str | None = None,
        payload: Any = None,
        **options: Unpack[ScheduleOptions],
    ) -> Callable[[J], J]:
        """Declare a schedule of the job below; `start` writes it.

        It is called as the job, where `name` says nothing else. What the code no longer declares
        stays in the store, since an old and a new release may run side by side.

        Raises: CronError and ConfigError at once; PayloadError at `start`.
        """
        given = cast("Mapping[str, Any]", options)
        wish = recurring("declared" if name is None else name, cron, given, self.timezone)

        def declare(job: J) -> J:
            if not isinstance(cast("object", job), JobDefinition):
                message = "job: put @scheduler.cron above @job or @define_job"
                raise ConfigError(message, field="job")
            own = job.name if name is None else wish.name
            if own in self._declared:
                message = f"name: a schedule {own!r} is declared already; give another name"
                raise ConfigError(message, field="name")
            declared = replace(wish, name=own, fields={**wish.fields, "declared": True})
            self._declared[own] = job, payload, declared
            return job

        return declare

    async def unschedule(self, name: str) -> bool:
        """Remove the schedule and its history; its jobs stay. False where there is none."""
        check_schedule_name(name)
        return await self._ask(lambda plans: plans.remove(name))

    async def pause(self, name: str) -> bool:
        """Let it tick no more until it is resumed; False where there is none."""
        return await self._change(name, lambda plan, _: paused(plan))

    async def resume(self, name: str) -> bool:
        """Let it tick again; what fell into the pause is not made up. False where there is none."""

        def resume(plan: Plan, now: float) -> Plan:
            return resumed(plan, now) if plan.paused else plan

        return await self._change(name, resume)

    async def trigger(self, name: str) -> JobHandle[Any]:
        """Add its job now, off the clock: neither its runs nor its next tick change.

        Where its runs may not overlap and the last has not ended: the handle of that one, with
        `deduplicated` True.

        Raises: JobNotFound where there is no such schedule; UnknownJob, with the `job_id`, where
        this process does not define its job.
        """
        check_schedule_name(name)
        job_id = self.queue.new_id()
        done = await self._ask(lambda plans: plans.trigger(name, job_id))
        if done is None:
            message = f"no schedule is called {name!r}"
            raise JobNotFound(message)
        job = lookup(done.job_name)
        if job is None:
            message = f"the job {done.job_name} was added, but this process does not define it"
            raise UnknownJob(message, job_name=done.job_name, job_id=done.job_id)
        return JobHandle(self.queue, job, done.job_id, deduplicated=done.there)

    # -- asking -----------------------------------------------------------------------------

    async def get_scheduled_jobs(self) -> list[Schedule]:
        """All schedules of the queue, by name; one that cannot be read is left out."""
        docs = await self._ask(Plans.docs)
        return await self._off_loop(partial(_readable, docs))

    async def get_next_run_time(self, name: str) -> datetime | None:
        """Its next tick, in its own zone; None where it is paused, has ended, or is not there."""
        check_schedule_name(name)
        doc = await self._ask(lambda plans: plans.doc(name))
        if doc is None:
            return None
        return (await self._off_loop(partial(_schedule, doc))).next_run

    async def history(self, name: str, limit: int = 50) -> list[Tick]:
        """What became of its last ticks, the last first; nothing where there is no such schedule.

        The last 1,000 are kept.
        """
        check_schedule_name(name)
        limit = check_whole("limit", limit, 1, KEPT_TICKS)

        async def read(plans: Plans) -> tuple[list[Doc], Doc | None]:
            return await plans.history(name), await plans.doc(name)

        entries, doc = await self._ask(read)
        if doc is None:
            return []
        return await self._off_loop(partial(_ticks, entries[: -limit - 1 : -1], doc))

    # -- its life ---------------------------------------------------------------------------

    def on(self, queue: Queue) -> Scheduler:
        """For the commands: a scheduler of this queue, which declares the same."""
        other = Scheduler(queue, timezone=self.timezone)
        other._declared.update(self._declared)
        return other

    async def start(self) -> None:
        """Write what was declared, and tick the queue's schedules on this loop until `stop`.

        Where a worker of the same queue object runs here, that one ticks. Repeating it writes
        the declared ones again.

        Raises: PayloadError, ConfigError, before anything is stored; StoreUnavailable.
        """
        for job, payload, _ in self._declared.values():
            self.queue.new_job(job, payload)
        for declared in self._declared.values():
            await self._put(*declared)
        if self._carrying is not None:
            return
        seams = self.queue.seams
        store = self.queue.store.handle()
        await store.open()
        carrier = Carrier(
            store,
            boot=seams.clock.boot,
            dice=seams.random,
            threads=seams.threads,
            alone=True,
            rests=lambda: self.queue.carries_schedules,
        )
        name = f"jobmill scheduler of {self.queue.name}"
        task = asyncio.get_running_loop().create_task(carrier.run(), name=name)
        self._carrying = task, store

    async def stop(self) -> None:
        """Let this object tick no more; workers go on, and the schedules stay."""
        carrying, self._carrying = self._carrying, None
        if carrying is None:
            return
        task, store = carrying
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await store.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.queue.name!r})"

    # -- inside -----------------------------------------------------------------------------

    async def _put(self, wanted: Any, payload: Any, wish: Wish) -> Schedule:
        """Write it, whatever is there."""
        _, job = self.queue.new_job(wanted, payload)
        fresh = Plan(
            id=self.queue.new_id(),
            job=job.name,
            payload=msgspec.Raw(job.payload),
            policy=job.policy,
            priority=job.priority,
            unique_key=job.unique_key,
            **wish.fields,
        )

        plan = await self._ask(lambda to: to.put(wish.name, fresh, at_once=wish.run_on_start))
        return await self._off_loop(partial(schedule_of, wish.name, plan))

    async def _change(self, name: str, change: Callable[[Plan, float], Plan]) -> bool:
        check_schedule_name(name)
        return await self._ask(lambda plans: plans.change(name, change))

    async def _ask(self, what: Callable[[Plans], Awaitable[T]]) -> T:
        threads = self.queue.seams.threads
        return await self.queue.ask(lambda store: what(Plans(store, threads=threads)))

    async def _off_loop(self, work: Callable[[], T]) -> T:
        """Do it in a thread: it may read the file of a zone."""
        return await off_loop(work, threads=self.queue.seams.threads)


_SCHEDULERS: Final[WeakSet[Scheduler]] = WeakSet()


def _after_fork() -> None:
    for scheduler in list(_SCHEDULERS):
        # What ticks is the parent's.
        scheduler._carrying = None  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _schedule(doc: Doc) -> Schedule:
    return schedule_of(doc.key, decode_plan(doc.value))


def _readable(docs: list[Doc]) -> list[Schedule]:
    found: list[Schedule] = []
    for doc in docs:
        try:
            found.append(_schedule(doc))
        except ValueError as error:
            log.warning("the schedule %s cannot be read: %s", doc.key, error)
    return found


def _ticks(entries: list[Doc], doc: Doc) -> list[Tick]:
    timezone = decode_plan(doc.value).timezone
    return [tick_of(entry.key, entry.value, timezone) for entry in entries]
