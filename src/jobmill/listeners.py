"""Calls what users want to be told by, and lets no failure of it matter."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import Counter
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, Final, Literal, TypeAlias, get_args

from jobmill.errors import ConfigError
from jobmill.executors import ThreadExecutor
from jobmill.failures import log_failure

log: Final = logging.getLogger("jobmill.monitor")

Listener: TypeAlias = Callable[..., Any]

JobEvent: TypeAlias = Literal["job_completed", "job_failed", "job_cancelled", "job_retried"]
QueueEvent: TypeAlias = Literal["queue_backlog", "health_changed"]
EventName: TypeAlias = JobEvent | QueueEvent

JOB_EVENTS: Final[frozenset[str]] = frozenset(get_args(JobEvent))
QUEUE_EVENTS: Final[frozenset[str]] = frozenset(get_args(QueueEvent))


class Listeners:
    """What is to be called for which event.

    A listener is called for one event after the other, in their order; those of one event beside
    each other. An async one that takes more than `timeout` seconds is cancelled; a plain one,
    which runs in a thread, is left to itself. Either way, as when it raises, that is logged and
    counted, and the next event comes. A plain one that has not returned yet is passed over, which
    is counted too: it never holds more than one thread.
    """

    def __init__(self, timeout: float) -> None:
        self.failures: Counter[str] = Counter()
        """Calls that failed or took too long, by event."""
        self._timeout = timeout
        self._by_event: dict[str, dict[object, Listener]] = {}
        self._threads: ThreadExecutor | None = None
        self._in_threads: dict[object, asyncio.Future[Any]] = {}

    def add(self, event: str, listener: Listener) -> Callable[[], None]:
        """Have it called from now on; what is given ends that."""
        if event not in JOB_EVENTS | QUEUE_EVENTS:
            names = ", ".join(sorted(JOB_EVENTS | QUEUE_EVENTS))
            message = f"event: {event!r} is none of {names}"
            raise ConfigError(message, field="event")
        if not callable(listener):
            message = f"listener: give a function to be called at {event}, not {listener!r}"
            raise ConfigError(message, field="listener")
        key = object()
        self._by_event.setdefault(event, {})[key] = listener

        def unsubscribe() -> None:
            self._by_event[event].pop(key, None)

        return unsubscribe

    def any_of(self, events: Collection[str]) -> bool:
        """Whether somebody is to be told of one of these events."""
        return any(self._by_event.get(event) for event in events)

    async def tell(self, event: str, *told: object) -> None:
        """Call all listeners of an event, and return when they are done."""
        some = list(self._by_event.get(event, {}).items())
        if len(some) == 1:
            await self._call(event, *some[0], told)
        elif some:
            await asyncio.gather(*[self._call(event, *each, told) for each in some])

    def close(self) -> None:
        """Let go of the threads."""
        if self._threads is not None:
            self._threads.close()
            self._threads = None
        self._in_threads.clear()

    async def _call(
        self, event: str, key: object, listener: Listener, told: tuple[object, ...]
    ) -> None:
        if key in self._in_threads:
            # That it hangs is in the log already.
            self.failures[event] += 1
            return
        try:
            async with asyncio.timeout(self._timeout):
                if inspect.iscoroutinefunction(listener):
                    await listener(*told)
                    return
                answer = await self._in_thread(key, partial(listener, *told))
                if inspect.isawaitable(answer):
                    await answer
        except BaseException as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise
            # Whatever it is, also an exit: a listener decides nothing.
            self.failures[event] += 1
            name = getattr(listener, "__qualname__", None) or type(listener).__name__
            log_failure(log, error, "the listener %s of %s failed", name, event)

    async def _in_thread(self, key: object, call: Callable[[], Any]) -> Any:
        """What it returns; it is known to run until it has, also where nobody waits any more."""
        self._threads = self._threads or ThreadExecutor()
        running = self._in_threads[key] = self._threads.start(call)

        def over(future: asyncio.Future[Any]) -> None:
            # Not where `close` came between, and it was called anew.
            if self._in_threads.get(key) is future:
                del self._in_threads[key]
            if not future.cancelled():
                future.exception()

        running.add_done_callback(over)
        # To be cancelled while it awaits the future itself would end that, and not the call.
        await asyncio.wait([running])
        return running.result()
