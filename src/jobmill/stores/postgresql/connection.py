"""Calls to a server: on a few connections, each bounded in time, none cut off half-way."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from jobmill.errors import StoreUnavailable
from jobmill.stores.postgresql import migrating
from jobmill.stores.postgresql.faults import DRIVER_ERRORS, is_race, outward
from jobmill.stores.postgresql.patience import PATIENCE, bounded, limited
from jobmill.stores.postgresql.pool import POOLS
from jobmill.stores.postgresql.programs import call

if TYPE_CHECKING:
    from jobmill.stores.postgresql.address import Address
    from jobmill.stores.postgresql.channels import Channels
    from jobmill.stores.postgresql.listening import Ears
    from jobmill.stores.postgresql.pool import Pool

T = TypeVar("T")

_MIGRATING: Final = 60.0
_AT_ONCE: Final = 4
"""Calls of one store at once: so many of the pool's connections may one queue take up."""
_RACES: Final = 5
_PAUSE: Final = 0.02
"""Seconds, about, that who lost twice leaves to the winner; twice as many each further time."""


class Connection:
    """The calls of one store, on one event loop, by connections that it shares.

    All stores of one address on that loop have the same; see `Pool`.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._pool: Pool = POOLS.acquire(address)
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._statements: dict[tuple[str, int], str] = {}
        self._under_way: set[asyncio.Task[Any]] = set()

    async def check(self) -> None:
        """See that the server and the schema are what this release works with.

        A database without the schema is given it.
        """
        if await migrating.wants_migration(self.fetch, self._address):
            await self._whole(partial(self._ask, self._migrate, _MIGRATING, looks=False))

    async def run(self, name: str, *arguments: object, looks: bool = False) -> Sequence[Any]:
        """The rows that a function of this release answers with; `looks`: it searches or counts."""
        key = name, len(arguments)
        statement = self._statements.get(key)
        if statement is None:
            statement = self._statements[key] = call(self._address.schema, *key)
        return await self.fetch(statement, *arguments, looks=looks)

    async def fetch(self, statement: str, *arguments: object, looks: bool = False) -> Sequence[Any]:
        """The rows of one statement, which is a transaction of its own."""

        async def ask(connection: Any) -> Sequence[Any]:
            found: Sequence[Any] = await connection.fetch(statement, *arguments)
            return found

        return await self._whole(partial(self._again, ask, looks=looks))

    def hear(self, channels: Channels) -> Ears:
        """Ears for what is told by these channels, until they are closed."""
        return self._pool.hear(channels)

    async def close(self) -> None:
        """Be done with the connections, after what is under way; the last one ends them."""
        while self._under_way:
            await asyncio.wait(self._under_way)
        await POOLS.release(self._pool)

    async def _migrate(self, connection: Any) -> None:
        await migrating.up(connection, self._address)

    async def _again(self, ask: Callable[[Any], Awaitable[T]], *, looks: bool) -> T:
        """The answer; a call that lost a race was undone, and is sent again."""
        for lost in range(_RACES):
            try:
                return await self._ask(ask, PATIENCE, looks=looks)
            except StoreUnavailable as error:
                if error.__cause__ is None or not is_race(error.__cause__):
                    raise
            if lost:
                # Who is awake would take the lock again before the winner has woken up to it.
                await asyncio.sleep(random.uniform(0.5, 1.0) * _PAUSE * 2 ** (lost - 1))
        return await self._ask(ask, PATIENCE, looks=looks)

    async def _ask(self, ask: Callable[[Any], Awaitable[T]], patience: float, *, looks: bool) -> T:
        pool = self._pool
        if self._turns.locked() or pool.crowded(looks=looks):
            try:
                # To wait behind others is no silence of the server, while they get their answers.
                async with limited(patience, lambda: pool.answered):
                    await self._enter(looks=looks)
            except TimeoutError as error:
                raise outward(error, self._address) from error
        else:
            await self._enter(looks=looks)
        try:
            return await self._in_turn(ask, patience)
        finally:
            pool.leave(looks=looks)
            self._turns.release()

    async def _enter(self, *, looks: bool) -> None:
        await self._turns.acquire()
        try:
            await self._pool.enter(looks=looks)
        except BaseException:
            self._turns.release()
            raise

    async def _in_turn(self, ask: Callable[[Any], Awaitable[T]], patience: float) -> T:
        pool = self._pool
        connection: Any = None
        silent = False

        def give_up() -> None:
            nonlocal silent
            silent = True
            connection.terminate()

        try:
            connection = await pool.take()
            with bounded(give_up, patience):
                answer = await ask(connection)
        except BaseException as error:
            # Where it was given up, the driver may stumble over what is left of the connection.
            expected = (Exception,) if silent else DRIVER_ERRORS
            if not isinstance(error, expected):
                # Cut off half-way, as at the end of the loop: its answer may be on its way.
                if connection is not None:
                    pool.drop(connection)
                raise
            if connection is None or connection.is_closed():
                pool.forget_idle()
            else:
                pool.answered += 1
            if connection is not None:
                pool.put_back(connection)
            raise outward(error, self._address, silent=silent) from error
        pool.answered += 1
        pool.put_back(connection)
        return answer

    async def _whole(self, ask: Callable[[], Awaitable[T]]) -> T:
        """The answer; where the caller is cancelled, the call still runs to its end.

        A call cut off half-way would leave its connection out of step.
        """
        told: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(_tell(ask, told))
        self._under_way.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._under_way.discard(task)
            if task.cancelled():
                told.cancel()  # at the end of the loop, perhaps before its first step

        task.add_done_callback(done)
        return await told


async def _tell(ask: Callable[[], Awaitable[T]], told: asyncio.Future[T]) -> None:
    """Tell the answer to who waits for it, in the step in which it comes, if they are there."""
    try:
        answer = await ask()
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        if not told.done():
            told.set_exception(error)
            told.exception()  # its caller may be cancelled before it hears of it
        if not isinstance(error, Exception):
            raise
    else:
        if not told.done():
            told.set_result(answer)
