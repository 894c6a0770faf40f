"""Wake-ups, sent apart from the transactions that they tell of."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from jobmill.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from jobmill.stores.postgresql.channels import Channels
    from jobmill.stores.postgresql.connection import Connection

_PAUSE: Final = 0.005
"""Seconds between two wake-ups of one process: NOTIFY takes a lock that all who commit share."""
_PAUSE_OF_ENDS: Final = 0.02
_PAUSE_UNHEARD: Final = 0.1
"""The same for ends of jobs, and for those while nobody waits for one."""
_TRIES: Final = 2


class Teller:
    """Tells a queue that jobs came or ended: at once, then at most every few milliseconds."""

    def __init__(self, connection: Connection, channels: Channels) -> None:
        self._connection = connection
        self._channels = channels
        self._jobs = False
        self._ends = False
        self._closing = False
        self._next_ends = 0.0
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def tell(self, *, jobs: bool, ends: bool = False) -> None:
        """Have it told; what comes meanwhile is told together."""
        self._jobs |= jobs
        self._ends |= ends
        if not (self._jobs or self._ends):
            return
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._tell())
        elif jobs:
            self._woken.set()

    async def close(self) -> None:
        """Tell what is left."""
        self._closing = True
        self._woken.set()
        if self._task is not None:
            await asyncio.wait({self._task})

    async def _tell(self) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        while self._jobs or self._ends:
            if not self._jobs and not self._closing:
                pause = self._next_ends - loop.time()
                if pause > 0:
                    await self._sleep(pause)
            jobs, self._jobs = self._jobs, False
            ends, self._ends = self._ends, False
            ours = self._channels
            words = ours.jobs if jobs else None, ours.ends if ends else None
            try:
                ((heard,),) = await self._connection.run("tell", *words, *ours.lock)
                failures = 0
                if ends:
                    pause = _PAUSE_OF_ENDS if heard else _PAUSE_UNHEARD
                    self._next_ends = loop.time() + pause
            except (StoreError, ConfigError):
                # A connection may have been lost since its last use. Polling is behind it.
                failures += 1
                if failures < _TRIES:
                    self._jobs |= jobs
                    self._ends |= ends
            if not self._closing:
                await asyncio.sleep(_PAUSE)

    async def _sleep(self, pause: float) -> None:
        """Sleep, but not where jobs came."""
        self._woken.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._woken.wait()
