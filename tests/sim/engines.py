"""The real queues and workers, with jobs that do whatever jobs do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from jobmill import (
    Cancel,
    Fail,
    JobCancelled,
    JobContext,
    JobFailed,
    JobHandle,
    JobHooks,
    JobNotFound,
    JobOptions,
    Queue,
    Retry,
    Snooze,
    Worker,
    create_rate_limit_middleware,
    create_retry_middleware,
    define_job,
)
from jobmill.errors import DuplicateJob, StoreUnavailable
from jobmill.policy import Policy
from jobmill.seams import Seams
from jobmill.store import NewJob, Store
from jobmill.testing.eventlog import Begins, Disturbs, Ends, Gone, Stops
from jobmill.testing.sim import Process
from tests.sim.world import LEASE, TROUBLE, Inhabitant, World

SLACK = 25.0
"""Seconds that a stop may take beyond its timeout: grace, last settles, a slow store."""
OPTIONS = JobOptions(retry_delay=0.5, max_retry_delay=5.0, jitter=0.5)


class Simulated(Exception):
    """A handler failed, as it was told to."""


def world_of(ctx: JobContext[Any]) -> EngineWorld:
    world: EngineWorld = ctx.state
    return world


async def disturb(ctx: JobContext[Any], what: str) -> None:
    """A hook that sometimes raises, which must change nothing."""
    world = world_of(ctx)
    await asyncio.sleep(0)
    if not world.faults.quiet and world.dice.random() < 0.2:
        world.tell(Disturbs, job_id=ctx.job_id, what=what)
        raise LookupError(what)


async def after_run(ctx: JobContext[Any], _result: object) -> None:
    await disturb(ctx, "after_run")


async def on_error(ctx: JobContext[Any], _error: BaseException) -> None:
    await disturb(ctx, "on_error")


async def on_retry(ctx: JobContext[Any], _number: int) -> None:
    await disturb(ctx, "on_retry")


async def on_progress(ctx: JobContext[Any], _value: float) -> None:
    await disturb(ctx, "on_progress")


async def on_finally(ctx: JobContext[Any]) -> None:
    await disturb(ctx, "on_finally")


async def witness(ctx: JobContext[Any], act: Callable[[], Awaitable[Any]]) -> Any:
    """Tell the log when the handler begins and ends."""
    world = world_of(ctx)
    run = {"job_id": ctx.job_id, "attempt": ctx.attempt, "token": ctx.token}
    world.tell(Begins, **run)
    how = "returned"
    try:
        return await act()
    except BaseException as error:
        how = type(error).__name__
        raise
    finally:
        if not world.sim.over:
            world.tell(Ends, **run, how=how)


async def act(ctx: JobContext[Any]) -> Any:
    """What a handler may do, by the dice; once it is quiet, it returns."""
    world = world_of(ctx)
    dice = world.dice
    longest = dice.choice((0.0, 1.0, 5.0, 20.0))
    seconds = dice.uniform(0.0, min(longest, 1.0) if world.faults.quiet else longest)
    roll = 0.0 if world.faults.quiet else dice.random()
    if roll > 0.9:
        await ctx.update_progress(dice.uniform(0, 100), "on its way")
        ctx.log("half way", seconds=seconds)
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        if dice.random() < 0.3:
            # Some swallow their cancellation, and take a moment more.
            await asyncio.sleep(dice.uniform(0.0, 0.5))
            return "stubborn"
        raise
    if ctx.signal.aborted:
        return "too late"
    if roll < 0.5:
        return "done"
    if roll < 0.7:
        raise Simulated
    if roll < 0.75:
        raise Retry(dice.uniform(0.0, 5.0))
    if roll < 0.85:
        raise Snooze(dice.uniform(0.0, 5.0))
    if roll < 0.88:
        raise Cancel("of itself")
    if roll < 0.91:
        raise Fail("for good")
    if roll < 0.94:
        # No codec knows this.
        return object()
    if roll < 0.97:
        raise asyncio.CancelledError
    await ctx.queue.enqueue(work, {}, job_id=f"{ctx.job_id}-child")
    return "done"


async def run(ctx: JobContext[Any]) -> Any:
    return await witness(ctx, partial(act, ctx))


HOOKS = JobHooks(
    after_run=after_run,
    on_error=on_error,
    on_retry=on_retry,
    on_progress=on_progress,
    on_finally=on_finally,
)


async def run_work(ctx: JobContext[dict[str, int]]) -> Any:
    return await run(ctx)


async def run_hooked(ctx: JobContext[dict[str, int]]) -> Any:
    return await run(ctx)


async def run_limited(ctx: JobContext[dict[str, int]]) -> Any:
    return await run(ctx)


async def run_timed(ctx: JobContext[dict[str, int]]) -> Any:
    return await run(ctx)


async def run_again(ctx: JobContext[dict[str, int]]) -> Any:
    return await run(ctx)


work = define_job(run_work, name="sim.work", options=OPTIONS)
hooked = define_job(run_hooked, name="sim.hooked", options=OPTIONS, hooks=HOOKS)
limited = define_job(
    run_limited,
    name="sim.limited",
    options=OPTIONS,
    middleware=create_rate_limit_middleware(max_per_second=2, max_per_minute=40),
)
timed = define_job(
    run_timed,
    name="sim.timed",
    options=JobOptions(timeout=3.0, retry_delay=0.5, max_retry_delay=5.0, on_lapse="fail"),
)
again = define_job(
    run_again,
    name="sim.again",
    options=OPTIONS,
    middleware=create_retry_middleware(2, delay=0.5, retry_on=(Simulated,)),
)
JOBS = (work, hooked, limited, timed, again)


class Engine:
    """A process with a real worker of a real queue."""

    def __init__(self, world: EngineWorld, process: Process, store: Store) -> None:
        self._world = world
        self._process = process
        dice = world.dice
        self.queue = world.queue(store, process.name, concurrency=dice.choice((1, 2, 6, 40)))
        some = [job for job in JOBS if dice.random() < 0.7] or [work]
        # One of the workers takes everything, so that all can end.
        jobs = None if process.name.startswith("w0") or dice.random() < 0.7 else some
        self.worker = Worker(self.queue, jobs=jobs)
        self._stopping: asyncio.Task[None] | None = None

    async def run(self) -> None:
        try:
            await self.worker.run()
        except Exception as error:
            self._world.tell(Gone, error=repr(error))
            raise
        self._world.tell(Gone)

    def stop(self, grace: float) -> None:
        if self._stopping is None:
            stamp = self._world.faults.stamp(by=self._process.name)
            self._world.faults.log.append(Stops(**stamp, grace=grace + SLACK))
            self._stopping = self._process.start(self.worker.stop(grace))


class EngineWorld(World):
    """Queues and workers as users have them."""

    paused = ("*", f"job:{work.name}")

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.waiting: set[asyncio.Task[None]] = set()

    def queue(self, store: Store, name: str, concurrency: int = 10) -> Queue:
        @asynccontextmanager
        async def lifespan(_queue: Queue) -> AsyncIterator[EngineWorld]:
            yield self

        return Queue(
            store,
            concurrency=concurrency,
            lease=LEASE,
            lifespan=lifespan,
            seams=Seams(clock=self.sim.clock, random=self.sim.dice(name), threads=False),
        )

    def tell(self, kind: Callable[..., Any], **fields: Any) -> None:
        self.faults.log.append(kind(**self.faults.stamp(), **fields))

    def worker(self, process: Process, store: Store) -> Inhabitant:
        return Engine(self, process, store)

    async def produce(self, store: Store, number: int) -> None:
        dice = self.sim.dice(f"producer {number}")
        queue = self.queue(store, f"producer {number}")
        ids = self.sim.ids(f"producer {number}")
        left = self.jobs // 3
        while left > 0:
            await asyncio.sleep(dice.uniform(0.0, TROUBLE / self.jobs * 4))
            left -= 1
            roll = dice.random()
            if roll < 0.1:
                # The bytes of no job: it must fail, and hold nobody up.
                bad = NewJob(id=ids(), name=work.name, payload=b'{"n":', policy=Policy())
                await self.persist(partial(store.add, [bad]))
                self.ids.append(bad.id)
            elif roll < 0.3:
                calls = [dice.choice(JOBS).call({"n": n}) for n in range(3)]
                left -= 2
                handles = await self.enqueue_many(queue, calls)
                self.ids += [handle.id for handle in handles]
            else:
                options = {
                    "priority": dice.choice((0, 0, 1, -5)),
                    "delay": dice.choice((None, 0.0, dice.uniform(0.0, 30.0))),
                    "unique_key": dice.choice((None, None, "a", "b")),
                    "job_id": ids(),
                }
                job = dice.choice(JOBS)
                handle = await self.persist(partial(queue.enqueue, job, {"n": left}, **options))
                self.ids.append(handle.id)
                if dice.random() < 0.3:
                    self.waiting.add(asyncio.create_task(self.see_end(handle)))

    async def enqueue_many(self, queue: Queue, calls: list[Any]) -> list[JobHandle[Any]]:
        """All of them, or, where that is not known, some more: N requests make N jobs."""
        while True:
            try:
                return await queue.enqueue_many(calls)
            except StoreUnavailable as error:
                if len(error.job_ids) != len(calls):
                    raise AssertionError("the error does not say under which ids") from error
                self.ids += error.job_ids
                await self.sim.checkpoint(1.0)

    async def see_end(self, handle: JobHandle[Any]) -> None:
        """Whoever waits for a result learns of the end."""
        try:
            await self.persist(handle.result)
        except (JobFailed, JobCancelled, JobNotFound):
            return

    async def settle_down(self) -> None:
        if self.waiting:
            _, pending = await asyncio.wait(self.waiting, timeout=60.0)
            if pending:
                raise AssertionError(f"{len(pending)} wait for results of jobs that have ended")
            for task in self.waiting:
                task.result()

    async def operate(self, store: Store) -> None:
        queue = self.queue(store, "operator")
        while True:
            await asyncio.sleep(self.dice.uniform(0.0, 4.0))
            if self.ids:
                try:
                    await self.operate_once(queue, self.dice.choice(self.ids), self.dice.random())
                except (StoreUnavailable, DuplicateJob):
                    continue

    async def operate_once(self, queue: Queue, job_id: str, roll: float) -> None:
        if roll < 0.4:
            await queue.cancel(job_id, "an operator's wish")
        elif roll < 0.65:
            await queue.retry(job_id)
        elif roll < 0.75:
            await queue.run_now(job_id)
        elif roll < 0.8:
            await queue.delete(job_id)
        elif roll < 0.85:
            await queue.cancel_many(job_name=work.name)
        elif roll < 0.9:
            await queue.retry_many()
        else:
            name = self.dice.choice((None, work.name))
            await queue.pause(name)
            await asyncio.sleep(self.dice.uniform(0.0, 5.0))
            await self.persist(partial(queue.resume, name))
