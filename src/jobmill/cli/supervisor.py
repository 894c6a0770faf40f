"""Keeps worker processes at work: starts them, replaces them one at a time, passes on a stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jobmill.cli import systemd
from jobmill.cli.child import Child
from jobmill.cli.ending import Ended, Exit
from jobmill.cli.loading import find
from jobmill.cli.logs import start_log
from jobmill.cli.probes import Probes, address_of, probes

if TYPE_CHECKING:
    from jobmill.cli.working import How

log: Final = logging.getLogger("jobmill.supervisor")

_FIRST_PAUSE: Final = 0.1
_MAX_PAUSE: Final = 10.0
_STEADY: Final = 10.0
"""Seconds after which a process that dies is started anew at once."""
_MERCY: Final = 30.0
"""Seconds over its shutdown timeout after which a process that does not end is killed."""
_AT_RELOAD: Final = 2.0
"""Seconds that running jobs have when a file has changed."""
_HOPELESS: Final = frozenset({Exit.USAGE, Exit.NOT_FOUND})
"""Codes of a process that could not load the app; another one would end with them, too."""


def supervise(apps: Sequence[str], how: How) -> Exit:
    """Run the worker in processes of their own until told to stop.

    Raises: Ended where that is not possible here.
    """
    if sys.platform == "win32":
        message = "--processes, --reload: on Windows a worker is one process; leave them out"
        raise Ended(Exit.USAGE, message)
    if how.reload:
        # A program that is broken is waited for, but one that is not there was misspelt.
        for app in apps:
            find(app)
    changes = Changes(apps) if how.reload else None
    start_log(how.log_format, how.log_level, pids=how.processes > 1)
    supervisor = Supervisor(how, [sys.executable, "-m", "jobmill", *sys.argv[1:]], changes)
    return asyncio.run(supervisor.run())


class Changes:
    """The changes of the Python files of some apps.

    Raises: Ended where nothing is installed that could see them.
    """

    def __init__(self, apps: Sequence[str]) -> None:
        try:
            import watchfiles
        except ImportError:
            message = '--reload: it needs watchfiles; run pip install "jobmill[reload]"'
            raise Ended(Exit.USAGE, message) from None
        self._watch = watchfiles
        self._folders = {self._folder(app) for app in apps}

    @staticmethod
    def _folder(app: str) -> Path:
        path = Path(app.rpartition(":")[0] or app)
        folder = path if path.is_dir() else path.parent
        return folder.resolve() if folder.is_dir() else Path.cwd()

    async def come(self, stop: asyncio.Event) -> AsyncGenerator[str]:
        """The file of each change, until the stop."""
        seen = self._watch.awatch(  # pyright: ignore[reportUnknownMemberType]
            *self._folders,
            watch_filter=self._watch.PythonFilter(),
            stop_event=stop,
            debounce=200,
            step=20,
        )
        async for changes in seen:
            yield min(path for _, path in changes)


class Supervisor:
    """The processes of one `jobmill worker`, each started by the same words as this one."""

    def __init__(self, how: How, words: Sequence[str], changes: Changes | None = None) -> None:
        self._how = how
        self._words = words
        self._changes = changes
        self._children: set[Child] = set()
        self._on_terminal = sys.stderr.isatty()
        self._replacing = asyncio.Lock()
        self._stopping = asyncio.Event()
        self._changed = asyncio.Event()
        self._loaded = asyncio.Event()
        self._worked = False
        self._code = Exit.DONE
        self._farewells: set[asyncio.Task[None]] = set()

    async def run(self) -> Exit:
        """Keep the processes at work until told to stop; the exit code."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.stop)
        loop.add_signal_handler(signal.SIGINT, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        chores = [loop.create_task(self._feed_watchdog())]
        if self._changes is not None:
            chores.append(loop.create_task(self._look_for_changes(self._changes)))
        try:
            async with self._probed(), asyncio.TaskGroup() as group:
                for slot in range(self._how.processes):
                    group.create_task(self._keep(slot))
        except BaseException:
            # No process is left without the one that keeps it.
            if not self._stopping.is_set():
                self.stop()
            raise
        finally:
            for chore in chores:
                chore.cancel()
            await asyncio.gather(*chores, *self._farewells, return_exceptions=True)
        return self._code

    def stop(self) -> None:
        """Let all end in order; the second call lets them hand back what runs, and go."""
        again = self._stopping.is_set()
        if not again:
            systemd.notify("STOPPING=1")
            log.info("stopping, with all processes: %d", len(self._children))
        self._stopping.set()
        for child in self._children:
            child.order("now" if again else "stop")

    # -- one process after the other --------------------------------------------------------

    async def _keep(self, slot: int) -> None:
        """Have a process in this slot until the stop."""
        pause = _FIRST_PAUSE
        first = slot == 0
        if not first:
            # So that an app that cannot be loaded says so once.
            await self._happens(self._loaded)
        while not self._stopping.is_set():
            try:
                child = await self._spawn(first=first)
            except OSError as error:
                pause = min(_MAX_PAUSE, pause * 2)
                log.error("no process can be started: %s; trying again in %.1f s", error, pause)  # noqa: TRY400  it says it all
                await self._happens(self._stopping, within=pause)
                continue
            first = False
            child = await self._see_through(child)
            code = child.ended.result()
            if self._stopping.is_set() or (self._how.burst and code == Exit.DONE):
                return
            if self._changes is not None and (
                # A change of the app is no cure of a store.
                code != Exit.UNREACHABLE or self._changed.is_set()
            ):
                if not self._changed.is_set():
                    log.info("waiting for a change of the app's files")
                await self._happens(self._changed)
                self._changed.clear()
                continue
            if self._is_hopeless(code):
                # It has said itself what is wrong.
                self._code = Exit(code)
                self._stopping.set()
                return
            pause = _FIRST_PAUSE if child.age > _STEADY else min(_MAX_PAUSE, pause * 2)
            log.warning("%s; starting another in %.1f s", child.told_end(code), pause)
            await self._happens(self._changed, within=pause)
            self._changed.clear()

    def _is_hopeless(self, code: int) -> bool:
        """Whether each process would end so; where one has worked, another may do so again."""
        if code == Exit.UNREACHABLE:
            # A store that is only away ends no process.
            return not self._worked
        return code in _HOPELESS and not self._loaded.is_set()

    async def _see_through(self, child: Child) -> Child:
        """The slot's process that has ended: this one, or what took its place on its wish."""
        while True:
            changed = self._changed if self._changes is not None else None
            await child.until_ended_or(child.wants, changed)
            if child.ended.done():
                return child
            if changed is not None and changed.is_set():
                await self._end_soon(child)
                return child
            child = await self._replaced(child)

    async def _replaced(self, child: Child) -> Child:
        """The process that took the place of this one, or the same where that failed."""
        async with self._replacing:
            if self._stopping.is_set() or child.ended.done():
                child.wants.clear()
                await child.until_ended_or()
                return child
            log.info("replacing process %d: %s", child.pid, child.reason)
            child.wants.clear()
            new = await self._successor(child)
        if new is None:
            # No longer one at a time: the others may be more lucky.
            await child.until_ended_or(self._stopping, self._changed, within=_MAX_PAUSE)
            child.wants.set()
            return child
        if not self._stopping.is_set():
            farewell = asyncio.get_running_loop().create_task(self._end(child))
            self._farewells.add(farewell)
            farewell.add_done_callback(self._farewells.discard)
        return new

    async def _successor(self, child: Child) -> Child | None:
        """A process that works as this one does, or None where there comes none."""
        try:
            new = await self._spawn(first=False)
        except OSError as error:
            log.warning("no process can be started: %s; %d stays", error, child.pid)
            return None
        await new.until_ended_or(new.ready, self._stopping)
        if new.ended.done():
            log.warning("%s; %d stays", new.told_end(new.ended.result()), child.pid)
            return None
        return new

    async def _spawn(self, *, first: bool) -> Child:
        child = await Child.start(self._words, first=first, heard=self._heard)
        self._children.add(child)
        farewell = asyncio.get_running_loop().create_task(self._bury(child))
        self._farewells.add(farewell)
        farewell.add_done_callback(self._farewells.discard)
        if self._stopping.is_set():
            child.order("stop")
        return child

    async def _bury(self, child: Child) -> None:
        """Forget a process when it has ended; kill it where it does not end in its time."""
        await child.until_ended_or(self._stopping)
        if not child.ended.done():
            await self._end(child)
        self._children.discard(child)

    async def _end(self, child: Child) -> None:
        child.order("stop")
        within = self._how.shutdown_timeout + _MERCY
        await asyncio.wait([child.ended], timeout=within)
        if not child.ended.done():
            log.error("process %d does not end; killing it", child.pid)
            self._code = Exit.FAILED
            child.kill()
        await asyncio.wait([child.ended])

    async def _end_soon(self, child: Child) -> None:
        child.order("stop")
        await asyncio.wait([child.ended], timeout=_AT_RELOAD)
        child.order("now")
        await asyncio.wait([child.ended], timeout=_MERCY)
        if not child.ended.done():
            child.kill()
        await asyncio.wait([child.ended])

    # -- what it hears ----------------------------------------------------------------------

    def _heard(self, child: Child) -> None:
        self._worked = self._worked or child.ready.is_set()
        if child.loaded and not self._loaded.is_set():
            self._loaded.set()
            systemd.notify("READY=1")

    def _hang_up(self) -> None:
        """SIGHUP: start each anew, one after the other; from a terminal that is gone, a stop."""
        if self._on_terminal:
            self.stop()
            return
        for child in tuple(self._children):
            child.want("SIGHUP")

    async def _look_for_changes(self, changes: Changes) -> None:
        async for path in changes.come(self._stopping):
            log.info("%s has changed: starting anew", path)
            self._changed.set()

    async def _feed_watchdog(self) -> None:
        every = systemd.watchdog()
        while every is not None:
            systemd.feed_watchdog()
            await asyncio.sleep(every / 2)

    @contextlib.asynccontextmanager
    async def _probed(self) -> AsyncGenerator[None]:
        if self._how.health_port is None:
            yield
            return
        async with probes(address_of(self._how.health_port), Probes(ready=self._is_ready)):
            yield

    def _is_ready(self) -> bool:
        return not self._stopping.is_set() and any(child.ready.is_set() for child in self._children)

    async def _happens(self, event: asyncio.Event, *, within: float | None = None) -> None:
        """Return when that happens, or the stop."""
        waits = [asyncio.ensure_future(each.wait()) for each in (event, self._stopping)]
        await asyncio.wait(waits, timeout=within, return_when=asyncio.FIRST_COMPLETED)
        for each in waits:
            each.cancel()
