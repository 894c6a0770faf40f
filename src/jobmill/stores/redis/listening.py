"""Wake-ups, pushed by the server over a connection of their own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from jobmill.errors import JobsError
from jobmill.stores.redis.keys import ends_channel, jobs_channel
from jobmill.stores.redis.line import Line, Refusal

_SILENCE: Final = 10.0
"""Seconds of silence after which the server is asked whether it is there."""
_BACK_OFF: Final = (0.1, 0.5, 1.0, 2.0)


class Listener:
    """Hears what is told to a queue, on one event loop.

    `tellings` counts how often jobs came. Whenever a subscription stands, everybody is woken,
    because something may have been missed before.
    """

    def __init__(self, queue: str, connect: Callable[[], Awaitable[Line]]) -> None:
        self._connect = connect
        self._jobs = jobs_channel(queue).encode()
        self._ends = ends_channel(queue).encode()
        self._waiters: dict[str | None, set[asyncio.Future[None]]] = {}
        self._subscribed = asyncio.Event()
        self._was_lost = False
        self._failures = 0
        self._closing = False
        self.tellings: int = 0
        self._task: asyncio.Task[None] = asyncio.create_task(self._listen())

    async def close(self) -> None:
        """Hear nothing more."""
        self._closing = True
        self._task.cancel()
        await asyncio.wait({self._task})

    @property
    def stands(self) -> bool:
        """Whether who enters now hears all, or is woken when a lost subscription stands again."""
        return self._was_lost or self._subscribed.is_set()

    async def ready(self, timeout: float) -> None:
        """Return when the first subscription stands, or after `timeout`."""
        if not self._was_lost:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._subscribed.wait()

    def enter(self, topics: Iterable[str | None]) -> asyncio.Future[None]:
        """What is done when jobs came (None), or one of these jobs ended."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for topic in topics:
            self._waiters.setdefault(topic, set()).add(waiter)
        return waiter

    def leave(self, topics: Iterable[str | None], waiter: asyncio.Future[None]) -> None:
        """Wait no more."""
        for topic in topics:
            waiters = self._waiters.get(topic, set())
            waiters.discard(waiter)
            if not waiters:
                self._waiters.pop(topic, None)

    async def _listen(self) -> None:
        while not self._closing:
            # The commands tell what is wrong; here it is enough to come back.
            with contextlib.suppress(JobsError, Refusal, OSError):
                await self._session()
            self._was_lost = True
            self._subscribed.clear()
            await asyncio.sleep(_BACK_OFF[min(self._failures, len(_BACK_OFF) - 1)])
            self._failures += 1

    async def _session(self) -> None:
        line = await self._connect()
        try:
            line.hear = self._hear
            for channel in (self._jobs, self._ends):
                await line.ask("SUBSCRIBE", channel)
            self._stand()
            while not line.gone.done():
                await asyncio.wait([line.gone], timeout=_SILENCE)
                if asyncio.get_running_loop().time() - line.heard_at >= _SILENCE:
                    await line.send("PING")  # a refusal, too, is a sign of life
        finally:
            line.abort()

    def _stand(self) -> None:
        self._failures = 0
        self._subscribed.set()
        # What was told before it stood was not heard.
        self.tellings += 1
        for topic in list(self._waiters):
            self._wake(topic)

    def _hear(self, channel: bytes, data: bytes) -> None:
        if channel == self._jobs:
            self.tellings += 1
            self._wake(None)
        else:
            self._wake(data.decode())

    def _wake(self, topic: str | None) -> None:
        for waiter in self._waiters.pop(topic, ()):
            if not waiter.done():
                waiter.set_result(None)
