"""Calls to a server: on a few connections, each bounded in time, none cut off half-way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from jobmill.errors import StoreUnavailable
from jobmill.stores.postgresql import migrating
from jobmill.stores.postgresql.dialing import Dialer
from jobmill.stores.postgresql.faults import DRIVER_ERRORS, is_race, outward
from jobmill.stores.postgresql.patience import PATIENCE, bounded, limited
from jobmill.stores.postgresql.programs import call

if TYPE_CHECKING:
    from jobmill.stores.postgresql.address import Address

T = TypeVar("T")

_MIGRATING: Final = 60.0
_CONNECTIONS: Final = 4
_RACES: Final = 5


class Connection:
    """The calls of one store, on one event loop."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self.dialer: Dialer = Dialer(address)
        self._turns = asyncio.Semaphore(_CONNECTIONS)
        self._idle: list[Any] = []
        self._all: set[Any] = set()
        self._over = False
        self._answered = 0
        self._statements: dict[tuple[str, int], str] = {}
        self._under_way: set[asyncio.Task[Any]] = set()
        self._keeper: asyncio.Task[None] = asyncio.create_task(self._keep())

    async def check(self) -> None:
        """See that the server and the schema are what this release works with."""
        await self._whole(self._ask(self._check, _MIGRATING))

    async def run(self, name: str, *arguments: object) -> Sequence[Any]:
        """The rows that a function of this release answers with."""
        key = name, len(arguments)
        statement = self._statements.get(key)
        if statement is None:
            statement = self._statements[key] = call(self._address.schema, *key)
        return await self.fetch(statement, *arguments)

    async def fetch(self, statement: str, *arguments: object) -> Sequence[Any]:
        """The rows of one statement, which is a transaction of its own."""

        async def ask(connection: Any) -> Sequence[Any]:
            found: Sequence[Any] = await connection.fetch(statement, *arguments)
            return found

        rows: Sequence[Any] = await self._whole(self._again(ask))
        return rows

    async def close(self) -> None:
        """Let go of all connections, after what is under way."""
        while self._under_way:
            await asyncio.wait(self._under_way)
        self._keeper.cancel()
        await asyncio.wait({self._keeper})

    async def _check(self, connection: Any) -> None:
        await migrating.check(connection, self._address)

    async def _again(self, ask: Callable[[Any], Awaitable[T]]) -> T:
        """The answer; a call that lost a race was undone, and is sent again."""
        for _ in range(_RACES):
            try:
                return await self._ask(ask, PATIENCE)
            except StoreUnavailable as error:
                if error.__cause__ is None or not is_race(error.__cause__):
                    raise
        return await self._ask(ask, PATIENCE)

    async def _ask(self, ask: Callable[[Any], Awaitable[T]], patience: float) -> T:
        try:
            # To wait behind others is no silence of the server, while they get their answers.
            async with limited(patience, lambda: self._answered):
                await self._turns.acquire()
        except TimeoutError as error:
            raise outward(error, self._address) from error
        try:
            return await self._in_turn(ask, patience)
        finally:
            self._turns.release()

    async def _in_turn(self, ask: Callable[[Any], Awaitable[T]], patience: float) -> T:
        connection: Any = None
        silent = False

        def give_up() -> None:
            nonlocal silent
            silent = True
            connection.terminate()

        try:
            connection = await self._take()
            with bounded(give_up, patience):
                answer = await ask(connection)
        except BaseException as error:
            # Where it was given up, the driver may stumble over what is left of the connection.
            expected = (Exception,) if silent else DRIVER_ERRORS
            if not isinstance(error, expected):
                # Cut off half-way, as at the end of the loop: its answer may be on its way.
                if connection is not None:
                    self._drop(connection)
                raise
            if connection is None or connection.is_closed():
                self._forget_idle()
            else:
                self._answered += 1
            if connection is not None:
                self._put_back(connection)
            raise outward(error, self._address, silent=silent) from error
        self._answered += 1
        self._put_back(connection)
        return answer

    async def _take(self) -> Any:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
            self._drop(connection)
        connection = await self.dialer.connect()
        self._all.add(connection)
        return connection

    def _put_back(self, connection: Any) -> None:
        if self._over or connection.is_closed() or connection.is_in_transaction():
            self._drop(connection)
        else:
            self._idle.append(connection)

    def _drop(self, connection: Any) -> None:
        connection.terminate()
        self._all.discard(connection)

    def _forget_idle(self) -> None:
        """Where one connection broke, the others are not trusted either."""
        idle, self._idle = self._idle, []
        for connection in idle:
            self._drop(connection)

    async def _keep(self) -> None:
        """Hold the connections until `close`, or until the loop ends and cancels its tasks.

        Then they are ended without waiting, since what goes on beside this may use them: a
        connection says goodbye and is closed by the loop's next turn.
        """
        try:
            await asyncio.Event().wait()
        finally:
            self._over = True
            self._idle.clear()
            for connection in list(self._all):
                self._drop(connection)
            await asyncio.sleep(0)

    async def _whole(self, answer: Any) -> Any:
        """The answer; where the caller is cancelled, the call still runs to its end.

        A call cut off half-way would leave its connection out of step.
        """
        task: asyncio.Task[Any] = asyncio.create_task(answer)
        self._under_way.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # its caller may be gone
