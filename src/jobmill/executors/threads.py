"""Threads for calls that may block: daemons, reused, as many as there are calls at once."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from contextvars import Context, copy_context
from itertools import count
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar

T = TypeVar("T")

IDLE_SECONDS: Final = 10.0
"""How long a thread waits for its next call before it ends."""

_numbers = count(1)


class ThreadExecutor:
    """Runs calls in daemon threads, so that one that is stuck never keeps the process alive.

    That is why it is no ThreadPoolExecutor: the interpreter waits for the threads of those.
    """

    def __init__(self, *, idle_seconds: float = IDLE_SECONDS) -> None:
        self._idle_seconds = idle_seconds
        self._lock = threading.Lock()
        self._idle: dict[_Inbox, None] = {}
        self._closed = False

    def start(self, call: Callable[[], T]) -> asyncio.Future[T]:
        """Run the call in a thread, in a copy of the caller's context.

        The future holds what it returns or raises, SystemExit and KeyboardInterrupt too.
        Cancelling the future does not stop the call. Raises: RuntimeError after `close`.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        work = _Work(loop, future, copy_context(), call)
        with self._lock:
            if self._closed:
                message = "this executor is closed"
                raise RuntimeError(message)
            # The thread that was idle for the shortest time: the others may then end.
            idle = self._idle.popitem()[0] if self._idle else None
        inbox: _Inbox = idle or SimpleQueue()
        # By the inbox also to a new thread, which keeps what it is started with.
        inbox.put(work)
        if idle is None:
            name = f"jobmill-{next(_numbers)}"
            threading.Thread(target=self._serve, args=(inbox,), name=name, daemon=True).start()
        return future

    def close(self) -> None:
        """Let idle threads end now, and the others after their call."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, {}
        for inbox in idle:
            inbox.put(None)

    def _serve(self, inbox: _Inbox) -> None:
        work = inbox.get()
        while work is not None:
            result, error = _outcome(work.context, work.call)
            loop, future = work.loop, work.future
            # Idle before the outcome is told: who waits for it may start the next call at once.
            open_ = self._rest(inbox)
            # An idle thread holds on to nothing of the call that it ran.
            work = None
            # The loop may be closed by now: then nobody is left to tell.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_settle, future, result, error)
            del loop, future, result, error
            if not open_:
                return
            work = self._next(inbox)

    def _rest(self, inbox: _Inbox) -> bool:
        with self._lock:
            if not self._closed:
                self._idle[inbox] = None
            return not self._closed

    def _next(self, inbox: _Inbox) -> _Work | None:
        try:
            return inbox.get(timeout=self._idle_seconds)
        except Empty:
            with self._lock:
                if inbox in self._idle:
                    del self._idle[inbox]
                    return None
        # Taken meanwhile, so there is work, or the word to end, on its way.
        return inbox.get()


class _Work:
    __slots__ = ("call", "context", "future", "loop")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        future: asyncio.Future[Any],
        context: Context,
        call: Callable[[], Any],
    ) -> None:
        self.loop = loop
        self.future = future
        self.context = context
        self.call = call


_Inbox = SimpleQueue[_Work | None]


def _outcome(context: Context, call: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    try:
        return context.run(call), None
    except StopIteration as error:
        # No future takes a StopIteration: it would end the coroutine that awaits it.
        stopped = RuntimeError("the call raised StopIteration")
        stopped.__cause__ = error
        return None, stopped
    except BaseException as error:  # noqa: BLE001 - whatever it raises is the caller's to judge
        return None, error


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
