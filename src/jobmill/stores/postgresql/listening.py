"""Wake-ups, pushed by the server over one connection for all queues of a pool."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
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

_Hear = Callable[..., None]


class Ears:
    """What one store hears of its queue.

    `tellings` counts how often jobs came. When its queue is listened to, at first and after a lost
    connection, everybody is woken, because something may have been missed.
    """

    def __init__(self, channels: Channels, listener: Listener | None, *, lost: bool) -> None:
        self.channels: Final = channels
        self._listener = listener
        self._waiters: dict[bool, set[asyncio.Future[None]]] = {_JOBS: set(), _ENDS: set()}
        self._subscribed = asyncio.Event()
        self._watched = asyncio.Event()
        self._was_lost = lost
        self.tellings: int = 0

    async def close(self) -> None:
        """Hear nothing more."""
        if self._listener is not None:
            await self._listener.leave(self)

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
            if not self._watched.is_set() and self._listener is not None:
                self._listener.look()
        return waiter

    def leave(self, waiter: asyncio.Future[None]) -> None:
        """Wait no more."""
        for waiters in self._waiters.values():
            waiters.discard(waiter)

    @property
    def hears_ends(self) -> bool:
        """Whether who enters now hears of all ends, or is woken when they are told again."""
        return self._was_lost or self._watched.is_set()

    @property
    def awaits_ends(self) -> bool:
        """Whether somebody waits for an end."""
        return bool(self._waiters[_ENDS])

    def stand(self) -> None:
        """Its queue is listened to now."""
        if self._subscribed.is_set():
            return
        self._subscribed.set()
        # What was told before was not heard.
        self.hear_jobs()
        if self._was_lost:
            self.hear_ends()

    def watch(self) -> None:
        """Ends are told from now on."""
        if self._watched.is_set():
            return
        self._watched.set()
        if self._was_lost:
            self.hear_ends()

    def look_away(self) -> None:
        """Ends are told no more: nobody waited for one."""
        self._watched.clear()

    def lose(self) -> None:
        """The connection is gone."""
        self._was_lost = True
        self._subscribed.clear()
        self._watched.clear()

    def hear_jobs(self) -> None:
        """Jobs came."""
        self.tellings += 1
        self._wake(_JOBS)

    def hear_ends(self) -> None:
        """A job ended."""
        self._wake(_ENDS)

    def _wake(self, kind: bool) -> None:
        waiters, self._waiters[kind] = self._waiters[kind], set()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


class Listener:
    """One connection that listens for all ears that joined, on one event loop."""

    def __init__(self, connect: Callable[[], Awaitable[Any]]) -> None:
        self._connect = connect
        self._ears: dict[Channels, set[Ears]] = {}
        self._called = asyncio.Event()
        self._failures = 0
        self._task: asyncio.Task[None] | None = None

    def join(self, channels: Channels) -> Ears:
        """Ears for a queue; they stand when the server has been told to tell of it."""
        ears = Ears(channels, self, lost=self._failures > 0)
        self._ears.setdefault(channels, set()).add(ears)
        self.look()
        if self._task is None:
            self._task = asyncio.create_task(self._listen())
        return ears

    async def leave(self, ears: Ears) -> None:
        """Hear nothing more by these; the last to leave ends the connection."""
        there = self._ears.get(ears.channels, set())
        there.discard(ears)
        if not there:
            self._ears.pop(ears.channels, None)
        self.look()
        if not self._ears:
            await self.close()

    def look(self) -> None:
        """See at once who is there, and waits for what."""
        self._called.set()

    async def close(self) -> None:
        """End the connection; who joins later begins another."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def _listen(self) -> None:
        while True:
            # The calls tell what is wrong; here it is enough to come back.
            with contextlib.suppress(*DRIVER_ERRORS):
                await self._session()
            for ears in self._all():
                ears.lose()
            failures, self._failures = self._failures, self._failures + 1
            await asyncio.sleep(_BACK_OFF[min(failures, len(_BACK_OFF) - 1)])

    async def _session(self) -> None:
        connection = await self._connect()
        try:
            connection.add_termination_listener(self._end_session)
            tuned = _Tuned(connection)
            while True:
                self._called.clear()
                await self._tune(tuned)
                self._failures = 0
                try:
                    async with asyncio.timeout(_SILENCE):
                        await self._called.wait()
                except TimeoutError:
                    await self._ease(tuned)
                if connection.is_closed():
                    return
        finally:
            connection.terminate()

    async def _tune(self, tuned: _Tuned) -> None:
        """Have the server tell what those who are there want to hear."""
        for channels in list(self._ears):
            if channels not in tuned.heard:
                await tuned.listen(channels, partial(self._hear, channels))
            for ears in self._of(channels):
                ears.stand()
            if channels not in tuned.watched and self._awaited(channels):
                await tuned.watch(channels)
            if channels in tuned.watched:
                for ears in self._of(channels):
                    ears.watch()
        for channels in [each for each in tuned.heard if each not in self._ears]:
            await tuned.leave(channels)

    async def _ease(self, tuned: _Tuned) -> None:
        """Watch for no ends that nobody waits for; ask a silent server whether it is there."""
        bored = [each for each in tuned.watched if not self._awaited(each)]
        for channels in bored:
            for ears in self._of(channels):
                ears.look_away()
            await tuned.look_away(channels)
        if not bored:
            await tuned.ping()

    def _hear(self, channels: Channels, kind: bool) -> None:
        for ears in self._of(channels):
            if kind is _JOBS:
                ears.hear_jobs()
            else:
                ears.hear_ends()

    def _awaited(self, channels: Channels) -> bool:
        return any(ears.awaits_ends for ears in self._of(channels))

    def _of(self, channels: Channels) -> list[Ears]:
        return list(self._ears.get(channels, ()))

    def _all(self) -> list[Ears]:
        return [ears for there in self._ears.values() for ears in there]

    def _end_session(self, *_: object) -> None:
        self.look()


class _Tuned:
    """A connection, what it listens to, and whose ends it is told."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.heard: dict[Channels, tuple[_Hear, _Hear]] = {}
        self.watched: set[Channels] = set()

    async def listen(self, channels: Channels, hear: Callable[[bool], None]) -> None:
        """Call `hear` with what is told to a queue."""

        def jobs(*_: object) -> None:
            hear(_JOBS)

        def ends(*_: object) -> None:
            hear(_ENDS)

        with bounded(self._connection.terminate):
            await self._connection.add_listener(channels.jobs, jobs)
            await self._connection.add_listener(channels.ends, ends)
        self.heard[channels] = jobs, ends

    async def leave(self, channels: Channels) -> None:
        """Listen to a queue no more."""
        await self.look_away(channels)
        jobs, ends = self.heard.pop(channels)
        with bounded(self._connection.terminate):
            await self._connection.remove_listener(channels.jobs, jobs)
            await self._connection.remove_listener(channels.ends, ends)

    async def watch(self, channels: Channels) -> None:
        """Tell others that the ends of a queue are wanted."""
        with bounded(self._connection.terminate):
            await self._connection.execute(
                "SELECT pg_advisory_lock_shared($1::integer, $2::integer)", *channels.lock
            )
        self.watched.add(channels)

    async def look_away(self, channels: Channels) -> None:
        """They are wanted no more."""
        if channels not in self.watched:
            return
        self.watched.discard(channels)
        with bounded(self._connection.terminate):
            await self._connection.execute(
                "SELECT pg_advisory_unlock_shared($1::integer, $2::integer)", *channels.lock
            )

    async def ping(self) -> None:
        """Ask the server whether it is there."""
        with bounded(self._connection.terminate):
            await self._connection.execute("SELECT 1")
