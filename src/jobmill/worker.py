"""Runs the jobs of queues: slots, leases, deadlines, and a stop that loses nothing."""

from __future__ import annotations

import asyncio
import atexit
import inspect
import logging
import os
import platform
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from contextvars import Context
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, Final, cast

from jobmill.context import AbortReason
from jobmill.deadlines import Deadlines, happens
from jobmill.errors import ConfigError, JobsError, StoreError, StoreUnavailable
from jobmill.executors import ProcessExecutor, ThreadExecutor
from jobmill.failures import failure_of, log_failure
from jobmill.feed import Feed
from jobmill.job import JobDefinition
from jobmill.lifespans import EXIT_WITHIN, Lifespans
from jobmill.options import check_duration, check_flag, check_whole
from jobmill.presence import Profile
from jobmill.registry import described
from jobmill.renewal import Renewer
from jobmill.run import Abandoned, Run
from jobmill.runner import Runner
from jobmill.slots import Slots
from jobmill.states import Claim, after_failure, after_stop
from jobmill.troubles import Trouble

if TYPE_CHECKING:
    from jobmill.carrier import Carrier
    from jobmill.queue import Queue

log: Final = logging.getLogger("jobmill.worker")

PRUNE_INTERVAL: Final = 5.0
PRUNED_AT_ONCE: Final = 1_000
NOTES_INTERVAL: Final = 1.0
SWEEP_INTERVAL: Final = 1.0
STUCK_AFTER: Final = 10.0
"""Seconds after which a run that goes on although it was cut is reported as stuck."""
LAST_SETTLE: Final = 5.0
"""Seconds that a stop waits for the store to take the last outcomes."""

Jobs = Sequence[JobDefinition[Any, Any] | str] | JobDefinition[Any, Any] | str


class Worker:
    """Claims jobs of one or more queues, runs them and settles them.

    `concurrency` is how many jobs run at once, over all its queues; without it, the highest
    of theirs. `jobs` restricts it to these. `stall_after`: seconds of a blocked event loop
    after which it gives its leases up. `schedules`: whether it also ticks the schedules of its
    queues. `max_jobs`: how many runs it starts at most.
    """

    def __init__(
        self,
        queues: Queue | Sequence[Queue],
        *,
        concurrency: int | None = None,
        jobs: Jobs | None = None,
        stall_after: float = 600.0,
        schedules: bool = True,
        max_jobs: int | None = None,
    ) -> None:
        self._queues = _queues(queues)
        self.concurrency: int = (
            max(queue.concurrency for queue in self._queues)
            if concurrency is None
            else check_whole("concurrency", concurrency, 1)
        )
        self.names: Final = _names(jobs)
        """The jobs that it is restricted to; None for all."""
        self._stall_after = check_duration("stall_after", stall_after, positive=True)
        self._schedules = check_flag("schedules", schedules)
        self._seams = self._queues[0].seams
        self._boot = self._seams.clock.boot
        self._christen()
        budget = None if max_jobs is None else check_whole("max_jobs", max_jobs, 1)
        self._slots: Slots[Feed] = Slots(self.concurrency, budget)
        self.working: Final = asyncio.Event()
        """Set when its stores are open and it claims."""
        self._feeds: list[Feed] = []
        self._lifespans = Lifespans()
        self._settle_until = float("inf")
        self._interrupted: asyncio.Task[None] | None = None
        self._told = asyncio.Event()
        self._left = asyncio.Event()
        self._lingers = False
        self._said_stop = False
        self._main: asyncio.Task[None] | None = None

    @property
    def started(self) -> int:
        """How many runs it has started."""
        return self._slots.started

    @property
    def idle(self) -> bool:
        """Whether it runs nothing now, and has told its stores of all that it ran."""
        return not self._slots.running and all(feed.settled for feed in self._feeds)

    @property
    def reaches_stores(self) -> bool:
        """Whether it works, and each of its stores answered when it was last asked."""
        return self.working.is_set() and all(feed.reached for feed in self._feeds)

    @property
    def carries_schedules(self) -> bool:
        """Whether it ticks the schedules of its queues now."""
        return self._schedules and bool(self._feeds) and not self._is_stopping()

    async def run(self) -> None:
        """Run jobs until stopped.

        Where a run cannot be stopped it returns all the same, and what is left goes on in
        the background until that run ends, or the loop.

        Raises: RuntimeError where it was run before; SchemaMismatch and ConfigError where a
        store cannot be used at all. A store that cannot be reached is waited for.
        """
        if self._main is not None:
            message = "this worker was run before; make a new one"
            raise RuntimeError(message)
        if self._pid != os.getpid():
            # It was made before a fork, and may run on either side of it.
            self._christen()
        self._loop = asyncio.get_running_loop()
        self._main = self._loop.create_task(self._live(), name="jobmill worker")
        left = self._loop.create_task(self._left.wait())
        try:
            await asyncio.wait([self._main, left], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            if not self._main.done():
                await self.stop(timeout=0)
            raise
        finally:
            left.cancel()
        if self._main.done():
            self._main.result()
        if self._interrupted is not None:
            raise KeyboardInterrupt

    def quiet(self) -> None:
        """Claim no more; running jobs go on."""
        self._slots.quiet = True
        self._stir()

    async def stop(self, timeout: float = 30.0) -> None:
        """Claim no more, wait up to `timeout` seconds for running jobs, hand back the rest.

        What cannot be stopped, a thread or a handler that ignores its cancellation, keeps
        its lease until it, or the process, ends. A lifespan that is still being entered has
        `timeout` seconds for it, too.
        """
        self.quiet()
        if self._main is None or self._main.done():
            return
        self._say_stop(timeout)
        if not await happens(self._lifespans.entered, timeout):
            self._lifespans.give_up()
        if not await happens(self._slots.idle, timeout):
            await self._abort_all()
        self._settle_until = self._loop.time() + LAST_SETTLE
        self._stir()
        if self._lingers:
            await happens(self._told, LAST_SETTLE)
        else:
            # For the last outcomes, each lifespan, and what else there is to be closed.
            last = 2 * LAST_SETTLE + EXIT_WITHIN * len(self._queues)
            await asyncio.wait([self._main], timeout=last)
            if not self._main.done():
                log.warning("the worker does not end; it is left to itself")
        self._left.set()

    def _christen(self) -> None:
        """Give it what no other worker has, in any process: its name, and its tokens."""
        self._pid = os.getpid()
        start = f"{self._seams.random.getrandbits(64):016x}"
        self.id: str = f"{platform.node()}:{self._pid}:{start[:8]}"
        """What this worker is called in its jobs' records."""
        self._tokens = (f"{start}.{n}" for n in count(1))

    async def _live(self) -> None:
        self._deadlines = Deadlines(self._loop)
        self._threads = ThreadExecutor()
        self._processes = ProcessExecutor(self.concurrency)
        async with AsyncExitStack() as stack:
            stack.callback(self._deadlines.close)
            stack.callback(self._threads.close)
            stack.push_async_callback(self._processes.close)
            for queue in self._queues:
                feed = self._feed(queue)
                if not await self._opened(feed):
                    return
                stack.push_async_callback(feed.store.close)
                entered, feed.runner.state = await self._lifespans.enter(queue, stack)
                if not entered:
                    return
                self._feeds.append(feed)
            await self._work()

    async def _opened(self, feed: Feed) -> bool:
        """Open the store, waiting for it where it is away; False where stopped meanwhile."""
        pause, said = 0.1, ""
        while not self._slots.quiet:
            try:
                await feed.store.open()
            except StoreUnavailable as error:
                if str(error) != said:
                    said = str(error)
                    log.warning("the store of %s cannot be reached: %s", feed.queue.name, said)
                await asyncio.sleep(pause)
                pause = min(1.0, pause * 2)
            else:
                if said:
                    log.info("the store of %s is back", feed.queue.name)
                return True
        return False

    async def _work(self) -> None:
        profile = Profile(
            self.id,
            queues=[feed.queue.name for feed in self._feeds],
            slots=self._slots,
            names=self.names,
            boot=self._seams.clock.boot,
        )
        self._leases = [feed.leases(profile) for feed in self._feeds]
        self._renewer = Renewer(
            self._leases,
            abort=self._abort,
            clock=self._seams.clock,
            stall_after=self._stall_after,
        )
        await self._renewer.start(threads=self._seams.threads)
        steps: list[tuple[str, float, Callable[[], Awaitable[None]]]] = []
        for feed in self._feeds:
            name = feed.queue.name
            steps.append((f"listening to {name}", 0.0, feed.listen))
            steps.append((f"storing progress of {name}", NOTES_INTERVAL, feed.write_notes))
            steps.append((f"pruning {name}", PRUNE_INTERVAL, partial(_prune, feed)))
            if self._schedules:
                # Before the first claim, which tells it the time.
                feed.carrier = self._carrier(feed)
                steps.append((f"scheduling in {name}", 1.0, feed.carrier.run))
        steps.append(("freeing slots", SWEEP_INTERVAL, self._free_lost_slots))
        loops = [
            self._loop.create_task(feed.loop(partial(self._finished, feed))) for feed in self._feeds
        ]
        background = [self._loop.create_task(_every(*step)) for step in steps]
        self.working.set()
        try:
            await asyncio.gather(*loops)
        except asyncio.CancelledError:
            await self._tear_down(loops)
            raise
        finally:
            for each in background:
                each.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            for feed in self._feeds:
                if not feed.settled:
                    log.warning("outcomes of %s could not be settled any more", feed.queue.name)
            if not any(run.abandoned for feed in self._feeds for run in feed.held.values()):
                await self._renewer.stop()
                atexit.unregister(self._hand_back_at_exit)

    def _carrier(self, feed: Feed) -> Carrier:
        """What ticks the queue's schedules, by the time and the news that the claims bring."""
        from jobmill.carrier import Carrier

        return Carrier(
            feed.store,
            boot=self._seams.clock.boot,
            dice=self._seams.random,
            threads=self._seams.threads,
            alone=False,
            rests=self._is_stopping,
        )

    def _finished(self, feed: Feed) -> bool:
        """Whether nothing runs, and all of the feed is settled or there was time enough for it.

        It does not wait for the other feeds, since nobody would wake it when they are done.
        """
        if self._settle_until == float("inf"):
            return False
        late = self._loop.time() >= self._settle_until
        if late or all(each.settled for each in self._feeds):
            self._told.set()
        if self._slots.running:
            return False
        return late or (feed.settled and not feed.held)

    async def _tear_down(self, loops: Sequence[asyncio.Task[None]]) -> None:
        """Stop at once, as far as a loop that is being closed allows it."""
        self._slots.quiet = True
        for run in tuple(self._slots.running):
            # The loop cancels all that it has, also what has not begun.
            if run.asyncio_task is not None:
                run.asyncio_task.add_done_callback(partial(self._free, run))
        for each in loops:
            each.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        self._say_stop(0)
        if self._slots.running and not self._lingers:
            await self._abort_all()
        for run in tuple(self._slots.running):
            # Nobody is left to wait for its thread.
            run.cut()
        await happens(self._slots.idle, 1.0)
        for feed in self._feeds:
            flush = self._loop.create_task(feed.flush())
            await asyncio.wait([flush], timeout=LAST_SETTLE)
            if not flush.cancel() and (error := flush.exception()) is not None:
                log.warning("%s could not be told all outcomes: %s", feed.queue.name, error)
        self._told.set()

    def _say_stop(self, timeout: float) -> None:
        """Say once what the stop waits for."""
        running = len(self._slots.running)
        if not running or self._said_stop:
            return
        self._said_stop = True
        jobs = "1 running job" if running == 1 else f"{running} running jobs"
        if timeout > 0:
            log.warning("stopping: waiting up to %g s for %s", timeout, jobs)
        else:
            log.warning("stopping: aborting %s, with up to %g s to end", jobs, self._grace())

    def _grace(self) -> float:
        return max(run.claim.policy.abort_grace for run in self._slots.running)

    async def _abort_all(self) -> None:
        """Abort what runs; what then still runs keeps its lease as long as this process."""
        grace = self._grace()
        for run in tuple(self._slots.running):
            self._abort(run, "shutdown")
        if await happens(self._slots.idle, grace + 1.0):
            return
        for run in self._slots.running:
            if run.abandoned:
                continue
            run.abandoned = True
            log.warning("%s cannot be stopped; it keeps its lease", _name(run), extra=run.fields)
        if not self._lingers:
            self._lingers = True
            atexit.register(self._hand_back_at_exit)

    def _hand_back_at_exit(self) -> None:
        """The very last act: nothing of this process runs on after it."""
        for held in self._leases:
            moves = [after_stop(run.claim) for run in held.runs.values()]
            if not moves:
                continue
            try:
                self._renewer.hand_back(held, moves, LAST_SETTLE)
            except Exception as error:  # noqa: BLE001  the leases lapse instead
                log.warning("jobs of %s could not be handed back: %s", held.store.queue, error)

    # -- its runs ---------------------------------------------------------------------------

    def _feed(self, queue: Queue) -> Feed:
        runner = Runner(
            queue,
            deadlines=self._deadlines,
            threads=self._threads,
            processes=self._processes,
            abort=self._abort,
            interrupt=self._interrupt,
            stopping=self._is_stopping,
        )
        return Feed(
            queue,
            store=queue.store.handle(),
            runner=runner,
            slots=self._slots,
            names=self.names,
            feeds=len(self._queues),
            worker=self.id,
            tokens=self._tokens,
            boot=self._seams.clock.boot,
            start=self._start,
            abort=self._abort,
            stir=self._stir_waiting,
        )

    def _start(self, feed: Feed, claim: Claim, claimed_at: float) -> None:
        run = Run(claim, self._seams.clock, claimed_at, feed.queue.name)
        feed.held[claim.id] = run
        if self._slots.quiet or (claim.suspect and self._slots.running):
            feed.settle(run, after_stop(claim, untried=True))
            return
        self._slots.begin(run, feed)
        # A context of its own: what the worker was started in is no business of the job.
        run.asyncio_task = self._loop.create_task(
            self._execute(feed, run), name=_name(run), context=Context()
        )

    async def _execute(self, feed: Feed, run: Run) -> None:
        claim = run.claim
        run.entered = True
        try:
            if run.signal.reason is not None:
                # Before its first step: it need not be cut, and nobody did.
                raise asyncio.CancelledError  # noqa: TRY301  as a cut would be
            if self._boot() - run.renewed > feed.late_after:
                await self._check_lease(run)
            move = await feed.runner.run(run, self._check_lease)
        except Abandoned:
            # Its thread goes on; so does its lease.
            self._end(run)
            return
        except asyncio.CancelledError:
            lost = run.signal.reason == "lease_lost"
            move = None if lost else after_stop(claim, untried=not run.begun)
        except KeyboardInterrupt:
            self._interrupt()
            move = after_stop(claim)
        except BaseException as error:  # noqa: BLE001  an exit, too, is no reason to end the worker
            text = "running %s failed outside its handler"
            log_failure(log, error, text, _name(run), **run.fields)
            delay = claim.policy.retry_delay
            move = after_failure(claim, failure_of(run, error), retryable=True, delay=delay)
        run.abandoned = False
        self._end(run)
        feed.settle(run, move)

    async def _free_lost_slots(self) -> None:
        """Free the slots of runs that ended in a way that `_execute` did not see.

        None should. But somebody may cancel an asyncio task that has not even begun, and a
        slot that stays taken would be lost for good.
        """
        for run in tuple(self._slots.running):
            if run.asyncio_task is not None and run.asyncio_task.done():
                self._free(run, run.asyncio_task)

    def _free(self, run: Run, ended: asyncio.Task[None]) -> None:
        feed = self._slots.running.get(run)
        if feed is None:
            return
        if ended.cancelled():
            # Cancelled before its first step.
            move = after_stop(run.claim, untried=True)
        else:
            broken = JobsError(f"the run broke off: {type(ended.exception()).__name__}")
            log.error("%s: %s", _name(run), broken, extra=run.fields)
            delay = run.claim.policy.retry_delay
            failure = failure_of(run, broken)
            move = after_failure(run.claim, failure, retryable=True, delay=delay)
        self._end(run)
        feed.settle(run, move)

    def _end(self, run: Run) -> None:
        self._slots.end(run)
        if self._settle_until < float("inf"):
            self._settle_until = self._loop.time() + LAST_SETTLE
        if self._slots.line:
            self._stir_waiting()

    async def _check_lease(self, run: Run) -> None:
        """After a freeze, before anything of the run starts: see whether its lease is held."""
        feed = self._slots.running[run]
        while not run.signal.aborted and self._boot() - run.renewed > feed.late_after:
            asked = self._boot()
            try:
                (beat,) = await feed.store.renew([run.lease], feed.queue.lease)
            except StoreUnavailable:
                await asyncio.sleep(1.0)
                continue
            if beat != "ok":
                run.signal.abort("lease_lost" if beat == "lost" else "cancelled")
            run.renewed = asked

    def _abort(self, run: Run, reason: AbortReason) -> None:
        """Ask the run to stop, and cancel it when its grace is over."""
        if run not in self._slots.running:
            # Its outcome is known; an answer about its lease comes late.
            return
        if run.signal.abort(reason):
            if not run.begun:
                run.cut()
                return
            at = self._loop.time() + run.claim.policy.abort_grace
            self._deadlines.add(at, partial(self._cut, run))

    def _cut(self, run: Run) -> None:
        run.cut()
        if run.cuttable:
            self._deadlines.add(self._loop.time() + STUCK_AFTER, partial(_report_stuck, run))

    def _interrupt(self) -> None:
        """A handler raised KeyboardInterrupt: stop, as if it had come from the terminal."""
        if self._interrupted is None:
            self._interrupted = self._loop.create_task(self.stop(timeout=0))

    def _is_stopping(self) -> bool:
        return self._slots.quiet or (self._main is not None and self._main.cancelling() > 0)

    def _stir(self) -> None:
        for feed in self._feeds:
            feed.wake.set()

    def _stir_waiting(self) -> None:
        for feed in self._slots.line:
            feed.wake.set()


async def _every(what: str, pause: float, step: Callable[[], Awaitable[None]]) -> None:
    """Keep a background step going, whatever it raises."""
    trouble = Trouble(what, first_pause=1.0, max_pause=30.0)
    while True:
        try:
            await step()
        except StoreUnavailable as error:
            log.debug("the store cannot be reached: %s", error)
        except StoreError as error:
            await asyncio.sleep(trouble.say(error))
        except Exception:
            log.exception("a background step of the worker failed")
            await asyncio.sleep(1.0)
        else:
            trouble.over()
        await asyncio.sleep(pause)


async def _prune(feed: Feed) -> None:
    while True:
        if await feed.store.prune(PRUNED_AT_ONCE) < PRUNED_AT_ONCE:
            return


def _report_stuck(run: Run) -> None:
    if run.cuttable:
        reason = run.signal.reason
        text = "%s is stuck: it goes on %g s after %s"
        log.warning(text, _name(run), STUCK_AFTER, reason, extra=run.fields)


def _name(run: Run) -> str:
    return f"{run.claim.name} {run.claim.id}"


def _names(jobs: Jobs | None) -> tuple[str, ...] | None:
    if jobs is None:
        return None
    given: object = jobs
    if isinstance(given, Sequence) and not isinstance(given, str | bytes):
        some = tuple(cast("Sequence[object]", given))
    else:
        some = (given,)
    if not some:
        message = "jobs: give one job at least, or leave it out to run all"
        raise ConfigError(message, field="jobs")
    return tuple(_job_name(each) for each in some)


def _job_name(job: object) -> str:
    if isinstance(job, JobDefinition):
        return job.name
    if isinstance(job, str) and job:
        # It may be defined elsewhere, or later.
        return job
    if inspect.isroutine(job):
        message = f"jobs: {described(job)} is no job; decorate the function with @job"
    else:
        message = f"jobs: {job!r} is no job; give jobs, or their names, one or a list of them"
    raise ConfigError(message, field="jobs")


def _queues(queues: object) -> tuple[Queue, ...]:
    from jobmill.queue import Queue

    some: list[object] = [queues]
    if isinstance(queues, Sequence) and not isinstance(queues, str | bytes):
        some = list(cast("Sequence[object]", queues))
    if not some:
        message = "queues: a worker needs one queue at least"
        raise ConfigError(message, field="queues")
    found: list[Queue] = []
    for each in some:
        if not isinstance(each, Queue):
            message = f"queues: {each!r} is no queue; give a Queue or a list of them"
            raise ConfigError(message, field="queues")
        if each in found:
            # It would stand on the roster twice, by one name.
            message = f"queues: {each!r} is given twice"
            raise ConfigError(message, field="queues")
        for other in found:
            if _is_one(each, other):
                # By whose middleware and lifespan a job runs would be chance, too.
                place = each.store.place
                message = f"queues: {other!r} and {each!r} are one queue of {place}; give one"
                raise ConfigError(message, field="queues")
        found.append(each)
    return tuple(found)


def _is_one(queue: Queue, other: Queue) -> bool:
    """Whether both are the same queue of the same store, as far as their places say."""
    place = queue.store.place
    private = place.endswith("://")
    return queue.name == other.name and place == other.store.place and not private
