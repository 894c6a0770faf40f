"""Watches a queue: figures, events and health, over the whole fleet."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Self, TypeVar, cast, overload

from jobmill.deadlines import happens
from jobmill.errors import ConfigError, StoreError, StoreUnavailable
from jobmill.follower import Follower
from jobmill.health import (
    Findings,
    HealthStatus,
    SystemHealth,
    Thresholds,
    judged,
    unreachable,
)
from jobmill.listeners import QUEUE_EVENTS, EventName, Listener, Listeners
from jobmill.metrics import JobMetrics, Minutes, attempts_of, history, measured
from jobmill.options import check_duration, check_key, check_whole
from jobmill.queue import Queue
from jobmill.records import JobInfo, JobStatus
from jobmill.roster import Roster, read_roster
from jobmill.store import Bucket, Counts, Query, Store
from jobmill.troubles import Trouble

log: Final = logging.getLogger("jobmill.monitor")

L = TypeVar("L", bound=Listener)
T = TypeVar("T")

_MOST_RETENTION: Final = 7 * 86_400.0
_LATELY: Final = 300.0
"""Seconds over which health judges errors and lapses."""
_ANSWER_WITHIN: Final = 10.0
"""Seconds after which a store that does not answer counts as one that cannot be reached."""


class Monitor:
    """Watches one queue. Figures cover the whole fleet, whichever process asks.

    `metrics_interval`: seconds of a point of the history, a multiple of 60. `retention`: seconds
    back over which figures are taken, 7 days at most. A monitor with a `name` goes on with the
    events where that name left off, one without starts now. `check_interval`: seconds between
    two looks at health and backlog, where somebody listens for them. `listener_timeout`: seconds
    that one call of a listener may take.

    Thresholds: `queue_backlog` is told when more than `backlog_threshold` jobs are due, and again
    only after it fell under half. Health is degraded from an error rate of
    `degraded_error_rate` on, unhealthy from `unhealthy_error_rate`, where there were `min_runs` in
    the last five minutes; and degraded where a job that is due has waited for `max_wait` seconds.

    Cost: nothing while it is not asked and nobody listens; with listeners for jobs, while nothing
    happens, two statements at most in five `poll_interval`s of the queue, with listeners for
    health or backlog three or four in each `check_interval`.
    """

    def __init__(
        self,
        queue: Queue,
        *,
        metrics_interval: float | timedelta = 60,
        retention: float | timedelta = 86_400,
        name: str | None = None,
        check_interval: float | timedelta = 10.0,
        backlog_threshold: int = 1_000,
        degraded_error_rate: float = 0.1,
        unhealthy_error_rate: float = 0.25,
        min_runs: int = 20,
        max_wait: float | timedelta = 60.0,
        listener_timeout: float | timedelta = 10.0,
    ) -> None:
        if not isinstance(cast("object", queue), Queue):
            message = f"queue: {type(queue).__name__} is no queue; give a Queue"
            raise ConfigError(message, field="queue")
        self.queue: Final = queue
        self.name: Final = None if name is None else check_key("name", name)
        self.metrics_interval: Final = _interval(metrics_interval)
        self.retention: Final = _retention(retention, self.metrics_interval)
        self.check_interval: Final = check_duration("check_interval", check_interval, positive=True)
        self.backlog_threshold: Final = check_whole("backlog_threshold", backlog_threshold, 1)
        self._limits = Thresholds(
            degraded_error_rate=degraded_error_rate,
            unhealthy_error_rate=unhealthy_error_rate,
            min_runs=min_runs,
            max_wait=check_duration("max_wait", max_wait, positive=True),
            lease=queue.lease,
        )
        self._listeners = Listeners(
            check_duration("listener_timeout", listener_timeout, positive=True)
        )
        self._minutes = Minutes()
        self._running: tuple[Store, Follower, list[asyncio.Task[None]]] | None = None
        self._stopping = asyncio.Event()
        self._wanted = asyncio.Event()
        self._status: HealthStatus = "healthy"
        self._flooded = False

    # -- asking -----------------------------------------------------------------------------

    async def get_metrics(self) -> JobMetrics:
        """What ended within the retention; `throughput` is that of the last interval.

        Raises: StoreError. Cost: two statements; minutes that are over are read once.
        """
        now, buckets = await self._buckets()
        since = now - self.retention
        recent = (now - self.metrics_interval) // 60 * 60
        return measured(buckets, since, now, rate_since=recent)

    async def get_metrics_history(self) -> list[JobMetrics]:
        """One point for each interval within the retention, the oldest first.

        It begins with the first in which a job ended; the last one is not over yet.

        Raises: StoreError. Cost: as `get_metrics`.
        """
        now, buckets = await self._buckets()
        return history(buckets, self.metrics_interval, now)

    async def get_job(self, id: str) -> JobInfo | None:  # noqa: A002  the public name
        """The job as it is now; None where there is no record of it."""
        return await self.queue.get_job(id)

    async def get_recent_jobs(
        self, limit: int = 50, *, status: JobStatus | None = None, job_name: str | None = None
    ) -> list[JobInfo]:
        """The jobs that were accepted last, newest first."""
        page = await self.queue.list_jobs(status=status, job_name=job_name, limit=limit)
        return page.jobs

    async def get_system_health(self) -> SystemHealth:
        """How the queue is; where its store cannot be reached, that is the answer.

        Cost: three statements, and a fourth where jobs wait.
        """
        health, _ = await self._health()
        return health

    async def get_workers(self) -> Roster:
        """The workers of the queue: what each is, how it is, and what it runs now.

        Raises: StoreError. Cost: two statements.
        """

        async def read(store: Store) -> Roster:
            return await read_roster(store, (await _light_counts(store)).now)

        return await self.queue.ask(read)

    # -- telling ----------------------------------------------------------------------------

    @overload
    def on(self, event: EventName) -> Callable[[L], L]: ...
    @overload
    def on(self, event: EventName, listener: Listener) -> Callable[[], None]: ...
    def on(
        self, event: EventName, listener: Listener | None = None
    ) -> Callable[[], None] | Callable[[L], L]:
        """Have `listener`, sync or async, called at an event; what is given ends that.

        As a decorator, `@monitor.on("job_failed")`, it gives back the function. Told are:
        "job_completed" (job), "job_cancelled" (job), "job_failed" (job, error), "job_retried"
        (job, error), "queue_backlog" (depth), "health_changed" (health). A plain function
        runs in a thread. What it raises is logged and counted, and changes nothing.

        Raises: ConfigError where there is no such event.
        """
        if listener is not None:
            unsubscribe = self._listeners.add(event, listener)
            self._heed()
            return unsubscribe

        def decorate(function: L) -> L:
            self._listeners.add(event, function)
            self._heed()
            return function

        return decorate

    @property
    def listener_failures(self) -> Mapping[str, int]:
        """Calls of listeners that failed or took too long, by event."""
        return dict(self._listeners.failures)

    def _heed(self) -> None:
        self._wanted.set()
        if self._running is not None:
            self._running[1].wanted()

    # -- its life ---------------------------------------------------------------------------

    async def start(self) -> None:
        """Tell listeners from now on; repeating it does nothing.

        A store that cannot be reached yet is waited for, in the background.

        Raises: SchemaMismatch and ConfigError where the store cannot be used at all.
        """
        if self._running is not None:
            return
        store = self.queue.store.handle()
        follower = Follower(
            store, self._listeners, name=self.name, poll_interval=self.queue.poll_interval
        )
        self._stopping.clear()
        is_open = False
        try:
            await store.open()
            is_open = True
            await follower.begin()
        except StoreUnavailable as error:
            log.warning("the store of %s cannot be reached: %s", self.queue.name, error)
        except BaseException:
            await store.close()
            raise
        loop = asyncio.get_running_loop()
        name = f"jobmill monitor of {self.queue.name}"
        steps = (self._follow(store, follower, is_open=is_open), self._watch())
        tasks = [loop.create_task(step, name=name) for step in steps]
        self._running = store, follower, tasks

    async def stop(self) -> None:
        """Tell no more: with a name, after what is being told; without, after what has ended.

        The latter for 5 seconds, and what is being told then, at most.
        """
        running, self._running = self._running, None
        if running is None:
            return
        store, follower, tasks = running
        self._stopping.set()
        self._wanted.set()
        follower.stop()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._listeners.close()
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

    async def _buckets(self) -> tuple[float, list[Bucket]]:
        """The store's now, and the buckets within the retention."""

        async def read(store: Store) -> tuple[float, list[Bucket]]:
            now = (await _light_counts(store)).now
            since = now - self.retention
            stale_from = self._minutes.stale_from(since)
            self._minutes.learn(await store.metrics(stale_from), stale_from, since, now)
            return now, self._minutes.since(since)

        return await self.queue.ask(read)

    async def _health(self) -> tuple[SystemHealth, bool]:
        """How the queue is, and whether its store said so."""
        looking = asyncio.ensure_future(self.queue.ask(self._findings))
        # It is not cancelled where it takes too long: a call is never broken off half-way.
        await asyncio.wait([looking], timeout=_ANSWER_WITHIN)
        at = self.queue.seams.clock.wall()
        if not looking.done():
            looking.add_done_callback(_retrieve)
            return unreachable(f"no answer within {_ANSWER_WITHIN:g} s", at), False
        try:
            return judged(looking.result(), self._limits), True
        except (StoreError, ConfigError) as error:
            return unreachable(str(error), at), False

    async def _findings(self, store: Store) -> Findings:
        counts = await store.counts()
        roster = await read_roster(store, counts.now)
        buckets = await store.metrics(counts.now - _LATELY)
        failed, attempts = attempts_of(buckets)
        paused = bool(counts.due) and any(doc.key == "*" for doc in await store.read("pauses"))
        return Findings(
            counts=counts,
            roster=roster,
            failed=failed,
            attempts=attempts,
            lapsed=sum(bucket.lapsed for bucket in buckets),
            paused=paused,
        )

    async def _follow(self, store: Store, follower: Follower, *, is_open: bool) -> None:
        trouble = Trouble(f"opening {self.queue.name}", first_pause=0.1, max_pause=2.0)
        while not is_open and not self._stopping.is_set():
            try:
                await store.open()
            except (StoreError, ConfigError) as error:
                await happens(self._stopping, trouble.say(error))
            else:
                is_open = True
        await follower.run()

    async def _watch(self) -> None:
        """Look at health and backlog now and then, while somebody wants to hear of them."""
        while not self._stopping.is_set():
            if not self._listeners.any_of(QUEUE_EVENTS):
                self._wanted.clear()
                await self._wanted.wait()
                continue
            try:
                await self._look()
            except Exception:
                log.exception("looking at the health of %s failed", self.queue.name)
            await happens(self._stopping, self.check_interval)

    async def _look(self) -> None:
        health, is_known = await self._health()
        if health.status != self._status:
            self._status = health.status
            await self._listeners.tell("health_changed", health)
        if not is_known:
            return
        if health.queue_depth > self.backlog_threshold and not self._flooded:
            self._flooded = True
            await self._listeners.tell("queue_backlog", health.queue_depth)
        elif health.queue_depth < self.backlog_threshold / 2:
            self._flooded = False


def _interval(metrics_interval: object) -> float:
    seconds = check_duration("metrics_interval", metrics_interval, positive=True)
    if seconds % 60:
        message = f"metrics_interval: {seconds:g} s is no multiple of 60, as figures are by minute"
        raise ConfigError(message, field="metrics_interval")
    return seconds


def _retention(retention: object, least: float) -> float:
    seconds = check_duration("retention", retention, positive=True)
    if not least <= seconds <= _MOST_RETENTION:
        message = f"retention: give {least:g} s, the metrics_interval, to 7 days, not {seconds:g} s"
        raise ConfigError(message, field="retention")
    return seconds


async def _light_counts(store: Store) -> Counts:
    """Counts for the sake of the store's now."""
    return await store.counts(Query(states=("processing",)))


def _retrieve(future: asyncio.Future[Any]) -> None:
    """Have its exception looked at, also where nobody waits any more."""
    if not future.cancelled():
        future.exception()
