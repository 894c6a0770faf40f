"""The loops from which a queue talks to its store."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Final, TypeVar

from jobmill.errors import StoreUnavailable
from jobmill.gathering import Gatherer
from jobmill.results import Results
from jobmill.store import Store

T = TypeVar("T")

_LOOK_AFTER: Final = 1.0
"""Seconds after which a call to another loop looks whether that loop still runs."""


class Line:
    """An open store on one loop, with what gathers and waits there."""

    def __init__(self, store: Store, poll_interval: float) -> None:
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.store = store
        self.gatherer: Gatherer = Gatherer(store)
        self.results: Results = Results(store, poll_interval)
        self._opening: asyncio.Future[None] | None = None
        self.is_open: bool = False
        """Whether its store is open, so that there is nothing to wait for."""

    @property
    def usable(self) -> bool:
        """Whether its loop still runs."""
        return self.loop.is_running()

    async def open(self) -> None:
        """Open the store, once, whoever asks first."""
        if self._opening is None or (self._opening.done() and not _went_well(self._opening)):
            self._opening = asyncio.ensure_future(self.store.open())
        await asyncio.shield(self._opening)
        self.is_open = True

    async def close(self) -> None:
        """Let go of the store; who still waits for a job's end is told so."""
        self.is_open = False
        await self.results.close()
        await self.store.close()


def _went_well(future: asyncio.Future[None]) -> bool:
    return not future.cancelled() and future.exception() is None


class Home:
    """The loop that first uses a queue; calls from other loops are passed to it.

    When that loop has ended, the next one that asks becomes the home. A call that it did not
    answer any more raises StoreUnavailable.
    """

    def __init__(self, store: Store, poll_interval: float) -> None:
        self._origin = store
        self._poll_interval = poll_interval
        self._line: Line | None = None
        self._lock = threading.Lock()

    def settle(self) -> None:
        """Make the running loop the home, where there is none."""
        self._current()

    async def call(self, verb: Callable[[Line], Awaitable[T]]) -> T:
        """Run `verb` at home, with the store open."""
        if (here := self.here()) is not None:
            return await verb(here)
        while True:
            line = self._current()
            if line.loop is asyncio.get_running_loop():
                return await _on(line, verb)
            sent = _send(line, _on(line, verb))
            if sent is not None:
                return await _answer(line, sent)

    def here(self) -> Line | None:
        """The open line of the running loop; None where this is not the home, or it is not open.

        Cost: no lock is taken, since no other loop may open or close it.
        """
        line = self._line
        if line is not None and line.is_open and line.loop is asyncio.get_running_loop():
            return line
        return None

    async def close(self) -> None:
        """Let go of the store; the next call opens it anew."""
        with self._lock:
            line, self._line = self._line, None
        if line is None or not line.usable:
            return
        if line.loop is asyncio.get_running_loop():
            await line.close()
        elif (sent := _send(line, line.close())) is not None:
            await _answer(line, sent)

    def _current(self) -> Line:
        with self._lock:
            line = self._line
            if line is None or not line.usable:
                line = self._line = Line(self._origin.handle(), self._poll_interval)
            return line


async def _on(line: Line, verb: Callable[[Line], Awaitable[T]]) -> T:
    await line.open()
    return await verb(line)


def _send(line: Line, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T] | None:
    """Pass the work to the loop of the line; None where it is closed by now."""
    try:
        return asyncio.run_coroutine_threadsafe(work, line.loop)
    except RuntimeError:
        work.close()
        return None


async def _answer(line: Line, sent: concurrent.futures.Future[T]) -> T:
    """What the other loop answers; StoreUnavailable where it ends without an answer."""
    answer = asyncio.wrap_future(sent)
    try:
        while not answer.done():
            await asyncio.wait({answer}, timeout=_LOOK_AFTER)
            if not answer.done() and not line.usable:
                raise _ended()
    finally:
        answer.cancel()
    if answer.cancelled():
        raise _ended()
    return answer.result()


def _ended() -> StoreUnavailable:
    return StoreUnavailable("the loop that the queue lives on ended before the store answered")


class SyncSide:
    """A daemon thread with a loop and a store of its own, for callers without a loop."""

    def __init__(self, store: Store, poll_interval: float) -> None:
        self._origin = store
        self._poll_interval = poll_interval
        self._lock = threading.Lock()
        self._running: tuple[asyncio.AbstractEventLoop, Home] | None = None

    @property
    def used(self) -> bool:
        """Whether its thread runs."""
        return self._running is not None

    def call(self, verb: Callable[[Line], Coroutine[Any, Any, T]]) -> T:
        """Run `verb` in the thread, and wait for it.

        Raises: StoreUnavailable where the thread ends before it has an answer.
        """
        with self._lock:
            loop, home = self._running or self._start()
            # Under the lock, so that a `close` beside it finds the call on its loop.
            sent = asyncio.run_coroutine_threadsafe(home.call(verb), loop)
        try:
            return sent.result()
        except concurrent.futures.CancelledError:
            message = "the queue was closed before the store answered"
            raise StoreUnavailable(message) from None

    def close(self) -> None:
        """End the thread; the next call starts another."""
        with self._lock:
            running, self._running = self._running, None
        if running is not None:
            loop, home = running
            try:
                asyncio.run_coroutine_threadsafe(home.close(), loop).result()
            finally:
                loop.call_soon_threadsafe(loop.stop)

    def _start(self) -> tuple[asyncio.AbstractEventLoop, Home]:
        loop, home = asyncio.new_event_loop(), Home(self._origin, self._poll_interval)
        target = partial(_run_forever, loop, home)
        threading.Thread(target=target, name="jobmill-sync", daemon=True).start()
        self._running = loop, home
        return self._running


def _run_forever(loop: asyncio.AbstractEventLoop, _home: Home) -> None:
    # It holds the home: a loop holds its tasks weakly, and those of a queue that was dropped
    # without a `close` would be destroyed while they wait.
    try:
        loop.run_forever()
        loop.run_until_complete(_cancel_the_rest())
    finally:
        loop.close()


async def _cancel_the_rest() -> None:
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
