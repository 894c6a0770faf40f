"""Wake-ups, pushed by the server over a connection of their own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from jobmill.stores.postgresql.faults import DRIVER_ERRORS
from jobmill.stores.postgresql.patience import bounded

if TYPE_CHECKING:
    from jobmill.stores.postgresql.channels import Channels

_SILENCE: Final = 5.0
"""Seconds between two looks whether the server is there."""
_BACK_OFF: Final = (0.1, 0.5, 1.0, 2.0)
_JOBS: Final = True
_ENDS: Final = False


class Listener:
    """Hears what is told to a queue, on one event loop.

    `tellings` counts how often jobs came. After a lost connection everybody is woken, because
    something may have been missed.
    """

    def __init__(self, channels: Channels, connect: Callable[[], Awaitable[Any]]) -> None:
        self._connect = connect
        self._channels = channels
        self._waiters: dict[bool, set[asyncio.Future[None]]] = {_JOBS: set(), _ENDS: set()}
        self._subscribed = asyncio.Event()
        self._watched = asyncio.Event()
        self._called = asyncio.Event()
        self._was_lost = False
        self._failures = 0
        self.tellings: int = 0
        self._task: asyncio.Task[None] = asyncio.create_task(self._listen())

    async def close(self) -> None:
        """Hear nothing more."""
        self._task.cancel()
        await asyncio.wait({self._task})

    async def ready(self, timeout: float, *, ends: bool) -> None:
        """Return when the first subscription stands, or after `timeout`."""
        stands = self._watched if ends else self._subscribed
        if self._was_lost or stands.is_set():
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await stands.wait()

    def enter(self, *, jobs: bool, ends: bool) -> asyncio.Future[None]:
        """What is done when jobs came, or when a job ended."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if jobs:
            self._waiters[_JOBS].add(waiter)
        if ends:
            self._waiters[_ENDS].add(waiter)
            if not self._watched.is_set():
                self._called.set()
        return waiter

    def leave(self, waiter: asyncio.Future[None]) -> None:
        """Wait no more."""
        for waiters in self._waiters.values():
            waiters.discard(waiter)

    async def _listen(self) -> None:
        while True:
            # The calls tell what is wrong; here it is enough to come back.
            with contextlib.suppress(*DRIVER_ERRORS):
                await self._session()
            self._was_lost = True
            self._subscribed.clear()
            self._watched.clear()
            await asyncio.sleep(_BACK_OFF[min(self._failures, len(_BACK_OFF) - 1)])
            self._failures += 1

    async def _session(self) -> None:
        connection = await self._connect()
        try:
            connection.add_termination_listener(self._end_session)
            with bounded(connection.terminate):
                await connection.add_listener(self._channels.jobs, self._hear_jobs)
                await connection.add_listener(self._channels.ends, self._hear_ends)
            self._stand()
            while True:
                if self._waiters[_ENDS] and not self._watched.is_set():
                    with bounded(connection.terminate):
                        await connection.execute(
                            "SELECT pg_advisory_lock_shared($1::integer, $2::integer)",
                            *self._channels.lock,
                        )
                    self._watched.set()
                self._called.clear()
                try:
                    async with asyncio.timeout(_SILENCE):
                        await self._called.wait()
                except TimeoutError:
                    await self._look(connection)
                if connection.is_closed():
                    return
        finally:
            connection.terminate()

    async def _look(self, connection: Any) -> None:
        with bounded(connection.terminate):
            if self._watched.is_set() and not self._waiters[_ENDS]:
                self._watched.clear()
                await connection.execute(
                    "SELECT pg_advisory_unlock_shared($1::integer, $2::integer)",
                    *self._channels.lock,
                )
            else:
                await connection.execute("SELECT 1")

    def _stand(self) -> None:
        self._failures = 0
        self._subscribed.set()
        if self._was_lost:
            self._hear_jobs()
            self._hear_ends()

    def _hear_jobs(self, *_: object) -> None:
        self.tellings += 1
        self._wake(_JOBS)

    def _hear_ends(self, *_: object) -> None:
        self._wake(_ENDS)

    def _end_session(self, *_: object) -> None:
        self._called.set()

    def _wake(self, kind: bool) -> None:
        waiters, self._waiters[kind] = self._waiters[kind], set()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
