"""One worker in this process: started, told to stop, watched for its limits, and ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from jobmill.cli import systemd
from jobmill.cli.ending import Ended, Exit
from jobmill.cli.line import Line, Order
from jobmill.cli.probes import Probes, probes
from jobmill.errors import JobsError, StoreUnavailable
from jobmill.queue import Queue
from jobmill.scheduler import Scheduler
from jobmill.store import Store
from jobmill.worker import Worker

T = TypeVar("T")

log: Final = logging.getLogger("jobmill.worker")

told_early: Final = threading.Event()
"""A signal came before anybody heard signals, and what it raised may have been swallowed."""
_MEGABYTE: Final = 1 << 20
_LOOK_AT_MEMORY: Final = 1.0
_COUNT_JOBS: Final = 0.1
_LOOK_AT_STORES: Final = 0.25
_LOOK_SOON: Final = 0.02
_LOOK_LATE: Final = 0.5


@dataclass(kw_only=True)
class Serving:
    """How one worker is served.

    `line` leads to its supervisor, where there is one: that one hears the signals, and replaces
    the worker before it ends it for its limits. `beside` goes on as long as the worker does.
    """

    queues: Sequence[Queue]
    worker: Worker
    schedulers: Sequence[Scheduler] = ()
    shutdown_timeout: float = 30.0
    burst: bool = False
    max_jobs: int | None = None
    max_memory: int | None = None
    health: tuple[str, int] | None = None
    beside: Callable[[], Coroutine[Any, Any, None]] | None = None
    line: Line | None = None
    _stops: list[asyncio.Task[None]] = field(default_factory=list[asyncio.Task[None]])
    _code: Exit = Exit.DONE

    async def run(self) -> Exit:
        """Run the worker until it is told to stop, or has done what it was started for."""
        loop = asyncio.get_running_loop()
        async with self._probed():
            if self.line is None:
                self._hear_signals(loop)
                systemd.notify("READY=1")
            else:
                loop.add_signal_handler(signal.SIGTERM, self._stop_once)
                self.line.hear(loop, self._obey)
                self.line.tell("loaded")
            running = loop.create_task(self.worker.run(), name="jobmill worker")
            chores = [loop.create_task(each) for each in self._chores()]
            try:
                await self._until_the_end(running, chores)
            finally:
                for chore in chores:
                    chore.cancel()
                await asyncio.gather(*chores, return_exceptions=True)
                if self.line is not None:
                    self.line.hang_up(loop)
        try:
            await running
        except JobsError as error:
            raise Ended(Exit.UNREACHABLE, f"the worker cannot work: {error}") from error
        for stop in self._stops:
            # The first still waits for what the second left to itself.
            stop.cancel()
        await asyncio.gather(*self._stops, return_exceptions=True)
        for queue in self.queues:
            await queue.close()
        return self._code

    def stop(self) -> None:
        """Claim no more, wait for what runs; the second call hands it back and goes."""
        if not self._stops:
            systemd.notify("STOPPING=1")
        timeout = 0.0 if self._stops else self.shutdown_timeout
        self._stops.append(asyncio.get_running_loop().create_task(self.worker.stop(timeout)))

    def _stop_once(self) -> None:
        if not self.stopping:
            self.stop()

    def _obey(self, order: Order) -> None:
        if order == "now":
            self._stop_once()
        if order == "now" or not self.stopping:
            self.stop()

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop."""
        return bool(self._stops)

    async def _until_the_end(
        self, running: asyncio.Task[None], chores: Sequence[asyncio.Task[None]]
    ) -> None:
        watched: set[asyncio.Task[None]] = {running, *chores}
        while not running.done():
            done, _ = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            for chore in done & watched:
                watched.discard(chore)
                if chore is not running and (error := chore.exception()) is not None:
                    # Whatever watched the worker is gone: better no worker than a blind one.
                    log.error("a part of the command failed: %s", error, exc_info=error)
                    self._code = Exit.FAILED
                    self._stop_once()

    def _hear_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        for name in ("SIGTERM", "SIGINT", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is None:
                continue
            try:
                loop.add_signal_handler(number, self.stop)
            except NotImplementedError:
                # Windows: its loop hears no signals.
                signal.signal(number, partial(self._called, loop))

        if told_early.is_set():
            told_early.clear()
            self.stop()

    def _called(self, loop: asyncio.AbstractEventLoop, *_: object) -> None:
        loop.call_soon_threadsafe(self.stop)

    def _chores(self) -> list[Coroutine[Any, Any, None]]:
        chores: list[Coroutine[Any, Any, None]] = [self._declare(), self._tell_ready()]
        if (every := systemd.watchdog()) is not None:
            chores.append(self._feed_watchdog(every / 2))
        if self.beside is not None:
            chores.append(self.beside())
        if self.burst:
            chores.append(self._end_when_worked_off())
        if self.max_jobs is not None:
            chores.append(self._count_jobs(self.max_jobs))
        if self.max_memory is not None:
            chores.append(self._look_at_memory(self.max_memory))
        return chores

    @contextlib.asynccontextmanager
    async def _probed(self) -> AsyncGenerator[None]:
        if self.health is None:
            yield
            return
        async with probes(self.health, Probes(ready=self._is_ready)):
            yield

    def _is_ready(self) -> bool:
        return self.worker.reaches_stores and not self.stopping

    # -- chores -----------------------------------------------------------------------------

    async def _declare(self) -> None:
        """Write the schedules that the program declares, once the store can be reached."""
        await self.worker.working.wait()
        for scheduler in self.schedulers:
            try:
                await _until_available(scheduler.start)
            except JobsError as error:
                # Jobs do not wait for a schedule that is wrong.
                log.error("schedules of %s are not written: %s", scheduler.queue.name, error)  # noqa: TRY400  it says it all
            await scheduler.stop()

    async def _tell_ready(self) -> None:
        await self.worker.working.wait()
        if self.line is None:
            return
        told = False
        while True:
            if (ready := self.worker.reaches_stores) != told:
                told = ready
                self.line.tell("ready" if ready else "away")
            await asyncio.sleep(_LOOK_AT_STORES)

    async def _feed_watchdog(self, every: float) -> None:
        while True:
            systemd.feed_watchdog()
            await asyncio.sleep(every)

    async def _count_jobs(self, limit: int) -> None:
        while self.worker.started < limit:  # noqa: ASYNC110  a worker has no time to tell of each
            await asyncio.sleep(_COUNT_JOBS)
        self._end_for(f"it has started {self.worker.started} jobs, and --max-jobs is {limit}")

    async def _look_at_memory(self, limit: int) -> None:
        used = memory_used()
        while used <= limit * _MEGABYTE:
            await asyncio.sleep(_LOOK_AT_MEMORY)
            used = memory_used()
        self._end_for(f"it has {used // _MEGABYTE} MB, more than --max-memory {limit}")

    def _end_for(self, reason: str) -> None:
        if self.stopping:
            return
        if self.line is not None:
            self.line.tell("recycle", reason)
        else:
            log.info("stopping: %s", reason)
            self.stop()

    async def _end_when_worked_off(self) -> None:
        await self.worker.working.wait()
        pause = _LOOK_SOON
        while not (self.worker.idle and await self._is_worked_off() and self.worker.idle):
            await asyncio.sleep(pause)
            pause = min(_LOOK_LATE, pause * 2) if self.worker.idle else _LOOK_SOON
        self.stop()

    async def _is_worked_off(self) -> bool:
        """Whether nothing is due that no pause holds back."""
        for queue in self.queues:
            if await _until_available(partial(_is_due, queue, self.worker.names)):
                return False
        return True


async def _is_due(queue: Queue, names: Sequence[str] | None) -> bool:
    async def count(store: Store) -> bool:
        counts = await store.counts()
        for name, states in counts.by_name.items():
            wanted = names is None or name in names
            if wanted and states.get("pending") and not await queue.is_paused(name):
                return True
        return False

    return await queue.ask(count)


async def _until_available(call: Callable[[], Awaitable[T]]) -> T:
    pause = 0.1
    while True:
        try:
            return await call()
        except StoreUnavailable:
            await asyncio.sleep(pause)
            pause = min(1.0, pause * 2)


def memory_used() -> int:
    """Bytes of memory that this process has; where nobody knows, the most it ever had."""
    import resource

    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * resource.getpagesize()
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024


def run_serving(serving: Serving) -> Exit:
    """Serve in a loop of its own: uvloop's, where that is installed."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    with contextlib.suppress(ImportError):
        import uvloop

        factory = uvloop.new_event_loop

    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(serving.run())
