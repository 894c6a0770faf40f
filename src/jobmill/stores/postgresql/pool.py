"""The connections of one process and event loop to one database, which all its handles share."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from jobmill.sharing import Shared
from jobmill.stores.postgresql.dialing import Dialer
from jobmill.stores.postgresql.listening import Listener

if TYPE_CHECKING:
    from jobmill.stores.postgresql.address import Address
    from jobmill.stores.postgresql.channels import Channels
    from jobmill.stores.postgresql.listening import Ears

MOST: Final = 12
"""Connections of a pool, beside the one that listens."""
MOST_LOOKING: Final = 4
"""Of these, how many may search and count at once: the others are left to the jobs."""


class Pool:
    """Connections to one database, on one event loop; they are made as they are needed.

    `answered` counts the answers, by whatever connection they came.
    """

    def __init__(self, address: Address) -> None:
        self.answered: int = 0
        self._dialer = Dialer(address)
        self._turns = asyncio.Semaphore(MOST)
        self._looks = asyncio.Semaphore(MOST_LOOKING)
        self._idle: list[Any] = []
        self._all: set[Any] = set()
        self._over = False
        self._listener = Listener(self._dialer.connect)
        self._keeper: asyncio.Task[None] = asyncio.create_task(self._keep())

    def crowded(self, *, looks: bool) -> bool:
        """Whether `enter` would have to wait."""
        return self._turns.locked() or (looks and self._looks.locked())

    async def enter(self, *, looks: bool) -> None:
        """Wait for one's turn to use a connection, until `leave`; `looks`: to search or count.

        Order: as they asked.
        """
        if looks:
            await self._looks.acquire()
        try:
            await self._turns.acquire()
        except BaseException:
            if looks:
                self._looks.release()
            raise

    def leave(self, *, looks: bool) -> None:
        """The turn is over."""
        self._turns.release()
        if looks:
            self._looks.release()

    async def take(self) -> Any:
        """A connection that is open. Raises what the driver raises; TimeoutError in time."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
            self.drop(connection)
        connection = await self._dialer.connect()
        self._all.add(connection)
        return connection

    def put_back(self, connection: Any) -> None:
        """Have it ready for the next, if it can still be used."""
        if self._over or connection.is_closed() or connection.is_in_transaction():
            self.drop(connection)
        else:
            self._idle.append(connection)

    def drop(self, connection: Any) -> None:
        """Let go of one connection."""
        connection.terminate()
        self._all.discard(connection)

    def forget_idle(self) -> None:
        """Where one connection broke, the others are not trusted either."""
        idle, self._idle = self._idle, []
        for connection in idle:
            self.drop(connection)

    def hear(self, channels: Channels) -> Ears:
        """Ears for one queue; one connection listens for all of them."""
        return self._listener.join(channels)

    async def close(self) -> None:
        """Let go of all connections."""
        await self._listener.close()
        self._keeper.cancel()
        await asyncio.wait({self._keeper})

    async def _keep(self) -> None:
        """Hold the connections until `close`, or until the loop ends and cancels its tasks.

        Then they are ended without waiting, since what goes on beside this may use them: a
        connection says goodbye and is closed by the loop's next turn.
        """
        try:
            await asyncio.Event().wait()
        finally:
            self._over = True
            POOLS.forget(self)
            self._idle.clear()
            for connection in list(self._all):
                self.drop(connection)
            await asyncio.sleep(0)


POOLS: Final = Shared(Pool)
"""The pools of this process."""
