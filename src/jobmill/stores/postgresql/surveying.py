"""Looks past the dead entries of the indexes, where an old snapshot keeps very many of them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Final

from jobmill.errors import ConfigError, StoreError
from jobmill.stores.postgresql.programs import MANY_DEAD

if TYPE_CHECKING:
    from jobmill.stores.postgresql.connection import Connection

_PAUSE: Final = 0.2
"""Seconds between two surveys: what came since the last one is looked at by each claim."""


class Surveyor:
    """Surveys a queue beside its claims, from the first that met many dead until they are few."""

    def __init__(self, connection: Connection, queue: str) -> None:
        self._connection = connection
        self._queue = queue
        self._task: asyncio.Task[None] | None = None

    def met(self, dead: int) -> None:
        """A claim passed over so many dead entries."""
        if dead > MANY_DEAD and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._survey())

    async def close(self) -> None:
        """Survey no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _survey(self) -> None:
        # Claims are slow without it, not wrong; the next one asks for it again.
        with contextlib.suppress(StoreError, ConfigError):
            next_whole = 0.0
            while True:
                whole = time.monotonic() >= next_whole
                ((pause,),) = await self._connection.run("survey", self._queue, None, whole)
                if pause is None:
                    return
                if whole:
                    next_whole = time.monotonic() + pause
                await asyncio.sleep(_PAUSE)
