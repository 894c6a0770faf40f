"""A store in PostgreSQL whose every call blocks until a real server has answered it.

So a simulation can use it: virtual time stands still meanwhile, and what the server told to
those who wait is heard before the call returns, in the same order in each run.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any, TypeVar

from jobmill.clock import Clock
from jobmill.stores.postgresql import Address, PostgresStore
from jobmill.stores.postgresql.channels import Channels
from jobmill.stores.postgresql.connection import Connection
from jobmill.stores.postgresql.driver import connect
from jobmill.stores.postgresql.faults import translated
from jobmill.stores.postgresql.listening import Ears
from jobmill.stores.postgresql.programs import call
from jobmill.stores.postgresql.telling import Teller

T = TypeVar("T")


class Wire:
    """A connection to a server that asks and that listens, on a loop of its own.

    A server that tells its own connection something does so before it is ready for the next
    statement.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self._loop = asyncio.new_event_loop()
        self._connection: Any = self._do(_connected(address))
        self._ears: dict[str, list[WireEars]] = {}
        self._told: list[str] = []

    def fetch(self, statement: str, *arguments: object) -> Sequence[Any]:
        """The rows of a statement, once everybody has heard what the server told."""
        rows: Sequence[Any] = self._do(self._connection.fetch(statement, *arguments))
        told, self._told = self._told, []
        for channel in told:
            for ears in tuple(self._ears[channel]):
                ears.hear(channel)
        return rows

    def execute(self, statements: str) -> None:
        """Run statements whose answer nobody asks for."""
        self._do(self._connection.execute(statements))

    def subscribe(self, channels: Channels, ears: WireEars) -> None:
        """Let these hear what is told to the channels."""
        if channels.ends not in self._ears:
            # As who waits for ends does; here somebody always may.
            self.fetch("SELECT pg_advisory_lock_shared($1::integer, $2::integer)", *channels.lock)
        for channel in (channels.jobs, channels.ends):
            if channel not in self._ears:
                self._do(self._connection.add_listener(channel, self._note))
            self._ears.setdefault(channel, []).append(ears)

    def unsubscribe(self, channels: Channels, ears: WireEars) -> None:
        """Let these hear no more; the wire itself listens on."""
        for channel in (channels.jobs, channels.ends):
            self._ears[channel].remove(ears)

    def close(self) -> None:
        """Let go of the connection."""
        self._do(self._connection.close())
        self._loop.close()

    def _note(self, _connection: object, _pid: int, channel: str, _payload: object) -> None:
        self._told.append(channel)

    def _do(self, asked: Coroutine[Any, Any, T]) -> T:
        with _no_loop():
            return self._loop.run_until_complete(asked)


@contextlib.contextmanager
def _no_loop() -> Iterator[None]:
    """Let another loop run inside the one that runs here, which stands still meanwhile."""
    outer = asyncio._get_running_loop()
    task = None if outer is None else asyncio.current_task(outer)
    if outer is not None and task is not None:
        asyncio.tasks._leave_task(outer, task)
    asyncio._set_running_loop(None)
    try:
        yield
    finally:
        asyncio._set_running_loop(outer)
        if outer is not None and task is not None:
            asyncio.tasks._enter_task(outer, task)


async def _connected(address: Address) -> Any:
    return await connect(**address.options(), ssl=False)


@contextlib.contextmanager
def wire_to(address: Address) -> Iterator[Wire]:
    """A wire to a server, for one thread."""
    wire = Wire(address)
    try:
        yield wire
    finally:
        wire.close()


class WireEars(Ears):
    """Hears, by a wire that others share."""

    def __init__(self, channels: Channels, wire: Wire) -> None:
        super().__init__(channels, None, lost=False)
        self._wire = wire
        wire.subscribe(channels, self)
        self.watch()
        self.stand()

    def hear(self, channel: str) -> None:
        """Wake whom it concerns."""
        if channel == self.channels.jobs:
            self.hear_jobs()
        else:
            self.hear_ends()

    async def close(self) -> None:
        """Hear nothing more."""
        self._wire.unsubscribe(self.channels, self)


class Inline(Connection):
    """Statements over a wire that others share."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def run(self, name: str, *arguments: object, looks: bool = False) -> Sequence[Any]:
        """The rows that a function of this release answers with."""
        address = self._wire.address
        with translated(address):
            return self._wire.fetch(call(address.schema, name, len(arguments)), *arguments)

    async def close(self) -> None:
        """Nothing: the wire is closed by whoever opened it."""


class InlinePostgresStore(PostgresStore):
    """The store in PostgreSQL, for a simulation."""

    def __init__(self, wire: Wire, queue: str = "default", *, clock: Clock | None = None) -> None:
        super().__init__(wire.address, queue, clock=clock)
        self._wire = wire

    def handle(self, queue: str | None = None) -> InlinePostgresStore:
        """Another, unopened store by the same wire."""
        other = InlinePostgresStore(self._wire, queue or self._queue)
        other._time = self._time
        return other

    def instant(self) -> float:
        """That of a call: the server takes the one that it is told."""
        assert self._time is not None
        return self._time.now()

    async def open(self) -> None:
        """Use the wire."""
        if self._connection is None:
            self._connection = Inline(self._wire)
            self._teller = Teller(self._connection, self._channels)
            self._ears = WireEars(self._channels, self._wire)

    async def close(self) -> None:
        """Let go, but wait for no hint: whoever would tell it may be dead."""
        self._teller = None
        await super().close()
