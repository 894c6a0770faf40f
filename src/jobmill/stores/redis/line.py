"""One connection to a server: commands go out at once, answers come back in their order."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import hiredis

from jobmill.stores.redis.address import Place

PATIENCE: Final = 5.0
"""Seconds for which a connection, and each sign of an answer, is waited for."""

_LATE: Final = 0.1
_KEEPALIVE: Final = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}


class Refusal(Exception):
    """An error that the server answered with; `code` is its first word."""

    @property
    def code(self) -> str:
        """What kind of error it is, such as NOSCRIPT."""
        return str(self).partition(" ")[0]


class Line(asyncio.Protocol):
    """A connection, used from the loop that opened it.

    Whoever asks gets a future; where it is cancelled the command still runs to its end, and
    its answer is passed over. So nothing gets out of step, and it takes neither tasks nor locks.
    A line is up until it is lost; it never comes back. It is lost when the server falls
    silent for PATIENCE while somebody waits.
    """

    def __init__(self, place: Place) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: Any = None
        self._reader = hiredis.Reader(replyError=Refusal)
        self._waiting: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._watch: asyncio.TimerHandle | None = None
        self._unsent = 0
        self._why: Exception | None = None
        self.place: Place = place
        self.up: bool = False
        self.heard_at: float = 0.0
        self.gone: asyncio.Future[None] = self._loop.create_future()
        self.hear: Callable[[bytes, bytes], None] | None = None
        """Called with channel and message, on a line that subscribes."""

    def send(self, *words: str | bytes | float) -> asyncio.Future[Any]:
        """Send a command; the answer, which may be a Refusal.

        Raises: OSError where the line is lost, here or out of the future.
        """
        if not self.up:
            raise ConnectionError("the connection is lost") from self._why
        packed = hiredis.pack_command(words)  # type: ignore[arg-type]
        answer: asyncio.Future[Any] = self._loop.create_future()
        now = self._loop.time()
        self._waiting.append((answer, now))
        self._transport.write(packed)
        if self._watch is None:
            self._look_at(now + PATIENCE)
        return answer

    async def ask(self, *words: str | bytes | float) -> Any:
        """Send a command; the answer.

        Raises: Refusal, OSError.
        """
        answer = await self.send(*words)
        if isinstance(answer, Refusal):
            raise answer
        return answer

    async def close(self) -> None:
        """Let go of the connection, after all answers that are still to come."""
        if self._waiting and self.up:
            with contextlib.suppress(OSError):
                await self.send("PING")  # its answer comes after all others
        if self._transport is not None:
            self._transport.close()
            await asyncio.wait([self.gone], timeout=1.0)
        self.abort()

    def abort(self, why: Exception | None = None) -> None:
        """Let go of the connection at once; who waits for an answer hears why."""
        self._lose(why or ConnectionError("the connection was closed"))
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = transport
        self.up = True
        self.heard_at = self._loop.time()
        raw: socket.socket | None = transport.get_extra_info("socket")
        if raw is not None and raw.family != getattr(socket, "AF_UNIX", None):
            # A network may forget a connection that is quiet, and tell nobody.
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in _KEEPALIVE.items():
                if hasattr(socket, name):
                    raw.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self.heard_at = self._loop.time()
        reader = self._reader
        try:
            reader.feed(data)
            while (answer := reader.gets()) is not False:
                self._take(answer)
        except (hiredis.HiredisError, IndexError):
            self.abort(ConnectionError("it does not speak as a Redis server does"))

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._lose(exc or ConnectionError("the server closed the connection"))
        if not self.gone.done():
            self.gone.set_result(None)

    def _take(self, answer: Any) -> None:
        if self.hear is not None and not isinstance(answer, Refusal) and answer[0] == b"message":
            self.hear(answer[1], answer[2])
            return
        future, _ = self._waiting.popleft()
        if not future.done():
            future.set_result(answer)

    def _look_at(self, due: float) -> None:
        self._watch = self._loop.call_at(due, self._look, due)

    def _look(self, due: float) -> None:
        """Lose the line where nothing moved for too long."""
        self._watch = None
        if not self._waiting or not self.up:
            return
        unsent: int = self._transport.get_write_buffer_size()
        if unsent < self._unsent:
            self.heard_at = self._loop.time()
        self._unsent = unsent
        now = self._loop.time()
        until = max(self._waiting[0][1], self.heard_at) + PATIENCE
        if until <= now and now - due < _LATE:
            self.abort(TimeoutError("no answer"))
            return
        # Where this loop was held up itself, the answer may be there and only not read yet.
        self._look_at(max(until, now + _LATE))

    def _lose(self, why: Exception) -> None:
        if self._why is not None:
            return
        self._why = why
        self.up = False
        if self._watch is not None:
            self._watch.cancel()
        for future, _ in self._waiting:
            if not future.done():
                # Each its own, because a traceback grows where it is raised.
                future.set_exception(_alike(why))
        self._waiting.clear()


def _alike(error: Exception) -> Exception:
    return type(error)(*error.args) if isinstance(error, OSError) else ConnectionError(str(error))
