"""Commands to a server: on a pool of connections, each call bounded, none cut off half-way."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, TypeVar

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from jobmill.errors import ConfigError, SchemaMismatch
from jobmill.stores.redis.address import Address
from jobmill.stores.redis.faults import translated
from jobmill.stores.redis.scripts import SCRIPTS
from jobmill.stores.redis.wire import Argument

T = TypeVar("T")

PATIENCE: Final = 5.0
"""Seconds for which a connection, and each answer, is waited for."""
_CONNECTIONS: Final = 8
_OLDEST: Final = (6, 2)


def client(address: Address) -> Redis:
    """A client that never tries again by itself: whoever asked decides that."""
    return Redis(
        **address.options(),
        socket_timeout=PATIENCE,
        socket_connect_timeout=PATIENCE,
        socket_keepalive=True,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
        driver_info=None,  # telling it would cost commands, and looking it up blocks
    )


class Connection:
    """The commands of one store, on one event loop."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._client: Any = client(address)
        self._send: Callable[..., Awaitable[Any]] = self._client.execute_command
        self._turns = asyncio.Semaphore(_CONNECTIONS)
        self._under_way: set[asyncio.Task[Any]] = set()
        self._keeper: asyncio.Task[None] = asyncio.create_task(self._keep())

    async def check(self) -> None:
        """See that the server is one that keeps what it is given.

        Raises: ConfigError where it may throw keys away; SchemaMismatch where it is too old;
        StoreUnavailable.
        """
        info: dict[str, Any] = await self._whole(self._ask(self._client.info()))
        version = str(info.get("redis_version", "0"))
        if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < _OLDEST:
            raise SchemaMismatch(f"{self._address} is Redis {version}: take 6.2 or later")
        policy = info.get("maxmemory_policy", "noeviction")
        if policy != "noeviction" and not self._address.allow_eviction:
            raise ConfigError(
                f"the server {self._address} has maxmemory-policy {policy}, so it may throw jobs "
                "away: set noeviction, or say allow_eviction=true",
                field="allow_eviction",
            )

    async def run(self, name: str, tag: str, arguments: Iterable[Argument]) -> Any:
        """The answer of a script on the keys of one queue."""
        return await self._whole(self._ask(self._run(name, tag, tuple(arguments))))

    async def command(self, *words: str) -> Any:
        """The answer to one command."""
        return await self._whole(self._ask(self._send(*words)))

    async def close(self) -> None:
        """Let go of all connections, after what is under way."""
        if self._under_way:
            await asyncio.wait(self._under_way)
        self._keeper.cancel()
        await asyncio.wait({self._keeper})

    async def _keep(self) -> None:
        """Hold the connections until `close`, or until the loop ends and cancels its tasks."""
        try:
            await asyncio.Event().wait()
        finally:
            with contextlib.suppress(RedisError, OSError):
                await self._client.aclose()
                await self._client.connection_pool.disconnect(inuse_connections=True)

    async def _run(self, name: str, tag: str, arguments: tuple[Argument, ...]) -> Any:
        script = SCRIPTS[name]
        try:
            return await self._send("EVALSHA", script.sha, 1, tag, *arguments)
        except NoScriptError:
            return await self._send("EVAL", script.text, 1, tag, *arguments)

    async def _ask(self, answer: Awaitable[T]) -> T:
        async with self._turns:
            with translated(self._address):
                return await answer

    async def _whole(self, answer: Any) -> Any:
        """The answer; where the caller is cancelled, the command still runs to its end.

        A command cut off half-way would leave its connection out of step.
        """
        task: asyncio.Task[Any] = asyncio.create_task(answer)
        self._under_way.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # its caller may be gone
