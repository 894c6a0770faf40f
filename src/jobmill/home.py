"""The loops from which a queue talks to its store."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from jobmill.gathering import Gatherer
from jobmill.results import Results
from jobmill.store import Store

T = TypeVar("T")


class Line:
    """An open store on one loop, with what gathers and waits there."""

    def __init__(self, store: Store, poll_interval: float) -> None:
        self.loop = asyncio.get_running_loop()
        self.pid = os.getpid()
        self.store = store
        self.gatherer = Gatherer(store)
        self.results = Results(store, poll_interval)
        self._opening: asyncio.Future[None] | None = None

    @property
    def usable(self) -> bool:
        """Whether its loop still runs, in this process."""
        return self.loop.is_running() and self.pid == os.getpid()

    async def open(self) -> None:
        """Open the store, once, whoever asks first."""
        if self._opening is None or (self._opening.done() and not _went_well(self._opening)):
            self._opening = asyncio.ensure_future(self.store.open())
        await asyncio.shield(self._opening)

    async def close(self) -> None:
        """Let go of the store."""
        await self.results.close()
        await self.store.close()


def _went_well(future: asyncio.Future[None]) -> bool:
    return not future.cancelled() and future.exception() is None


class Home:
    """The loop that first uses a queue; calls from other loops are passed to it.

    When that loop has ended, the next one that asks becomes the home.
    """

    def __init__(self, store: Store, poll_interval: float) -> None:
        self._origin = store
        self._poll_interval = poll_interval
        self._line: Line | None = None
        self._lock = threading.Lock()

    async def call(self, verb: Callable[[Line], Awaitable[T]]) -> T:
        """Run `verb` at home, with the store open."""
        here = asyncio.get_running_loop()
        with self._lock:
            line = self._line
            if line is None or not line.usable:
                line = self._line = Line(self._origin.handle(), self._poll_interval)
        if line.loop is here:
            await line.open()
            return await verb(line)

        async def there() -> T:
            await line.open()
            return await verb(line)

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(there(), line.loop))

    async def close(self) -> None:
        """Let go of the store; the next call opens it anew."""
        with self._lock:
            line, self._line = self._line, None
        if line is None or not line.usable:
            return
        if line.loop is asyncio.get_running_loop():
            await line.close()
        else:
            closing = asyncio.run_coroutine_threadsafe(line.close(), line.loop)
            await asyncio.wrap_future(closing)


class SyncSide:
    """A daemon thread with a loop and a store of its own, for callers without a loop.

    It is made anew in a process that was forked.
    """

    def __init__(self, store: Store, poll_interval: float) -> None:
        self._origin = store
        self._poll_interval = poll_interval
        self._lock = threading.Lock()
        self._pid = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._home: Home | None = None

    def call(self, verb: Callable[[Line], Coroutine[Any, Any, T]]) -> T:
        """Run `verb` in the thread, and wait for it."""
        loop, home = self._ready()
        return asyncio.run_coroutine_threadsafe(home.call(verb), loop).result()

    def close(self) -> None:
        """End the thread."""
        loop, home = self._loop, self._home
        self._loop = self._home = None
        if loop is None or home is None or self._pid != os.getpid():
            return
        with contextlib.suppress(RuntimeError):
            asyncio.run_coroutine_threadsafe(home.close(), loop).result()
            loop.call_soon_threadsafe(loop.stop)

    def _ready(self) -> tuple[asyncio.AbstractEventLoop, Home]:
        if self._pid != os.getpid():
            # A lock that another thread held at the fork would never be free here.
            self._lock = threading.Lock()
            self._loop = None
            self._pid = os.getpid()
        with self._lock:
            if self._loop is None or self._home is None:
                self._home = Home(self._origin, self._poll_interval)
                self._loop = asyncio.new_event_loop()
                target = partial(_run_forever, self._loop)
                threading.Thread(target=target, name="jobmill-sync", daemon=True).start()
            return self._loop, self._home


def _run_forever(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()
