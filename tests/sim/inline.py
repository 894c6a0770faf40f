"""A store in Redis whose every call blocks until a real server has answered it.

So a simulation can use it: virtual time stands still meanwhile, and what the server told to
those who wait is heard before the call returns, in the same order in each run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Never

from hiredis import PushNotification
from redis.exceptions import NoScriptError, ResponseError

from jobmill.clock import Clock
from jobmill.stores.redis import Address, RedisStore
from jobmill.stores.redis.connection import Connection
from jobmill.stores.redis.keys import ends_channel, jobs_channel
from jobmill.stores.redis.listening import Listener
from jobmill.stores.redis.scripts import SCRIPTS
from tests.servers import by_another


class Wire:
    """A connection to a server that asks, and that hears what is told."""

    def __init__(self, client: Any) -> None:
        pool = client.connection_pool
        pool.connection_kwargs["protocol"] = 3  # the one in which a connection does both
        # Time stands still while it waits, and an answer that came too late would be lost.
        pool.connection_kwargs["socket_timeout"] = None
        self._line: Any = pool.get_connection()
        self._ears: dict[bytes, list[Ears]] = {}

    def ask(self, *words: str | bytes | int) -> Any:
        """The answer to a command, once everybody has heard what it told."""
        # A server may tell before it answers, or after that; when it answers to a PING it has.
        self._line.send_packed_command(self._line.pack_commands([words, ("PING",)]))
        answers: list[Any] = []
        told: list[Any] = []
        while len(answers) < 2:
            try:
                heard = self._line.read_response(push_request=True)
            except ResponseError as error:
                heard = error
            (told if isinstance(heard, PushNotification) else answers).append(heard)
        for _, channel, data in told:
            for ears in tuple(self._ears[channel]):
                ears.hear(channel, data)
        if isinstance(answers[0], ResponseError):
            raise answers[0]
        return answers[0]

    def subscribe(self, channel: bytes, ears: Ears) -> None:
        """Let these hear what is told to the channel."""
        if channel not in self._ears:
            self._line.send_command("SUBSCRIBE", channel)
            self._line.read_response(push_request=True)
        self._ears.setdefault(channel, []).append(ears)

    def unsubscribe(self, channel: bytes, ears: Ears) -> None:
        """Let these hear no more."""
        self._ears[channel].remove(ears)


@contextlib.contextmanager
def wire_to(address: Address) -> Iterator[Wire]:
    """A wire to a server, for one thread."""
    with by_another(address) as client:
        yield Wire(client)


class Ears(Listener):
    """Hears, by a wire that others share."""

    def __init__(self, queue: str, wire: Wire) -> None:
        super().__init__(queue, _nothing)
        self._wire = wire
        self._channels = (jobs_channel(queue).encode(), ends_channel(queue).encode())
        for channel in self._channels:
            wire.subscribe(channel, self)
        self._stand()

    def hear(self, channel: bytes, data: bytes) -> None:
        """Wake whom it concerns."""
        self._hear(channel, data)

    async def close(self) -> None:
        """Hear nothing more."""
        for channel in self._channels:
            self._wire.unsubscribe(channel, self)

    async def _listen(self) -> None:
        """Nothing: the wire listens."""


class Inline(Connection):
    """Commands over a wire that others share."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def run(self, name: str, tag: str, arguments: bytes, *, copied: bool = False) -> Any:
        """The answer of a script on the keys of one queue."""
        script = SCRIPTS[name]
        try:
            return self._wire.ask("EVALSHA", script.sha, 1, tag, arguments)
        except NoScriptError:
            return self._wire.ask("EVAL", script.text, 1, tag, arguments)

    async def command(self, *words: str) -> Any:
        """The answer to one command."""
        return self._wire.ask(*words)

    async def close(self) -> None:
        """Nothing: the wire is closed by whoever opened it."""


class InlineRedisStore(RedisStore):
    """The store in Redis, for a simulation."""

    def __init__(
        self, address: Address, wire: Wire, queue: str = "default", *, clock: Clock | None = None
    ) -> None:
        super().__init__(address, queue, clock=clock)
        self._wire = wire

    def handle(self, queue: str | None = None) -> InlineRedisStore:
        """Another, unopened store by the same wire."""
        other = InlineRedisStore(self._address, self._wire, queue or self._queue)
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
            self._listener = Ears(self._queue, self._wire)


def _nothing() -> Never:
    raise NotImplementedError
