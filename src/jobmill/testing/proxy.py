"""A TCP proxy that harms what passes, on command: for tests of stores that are servers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import Counter
from random import Random
from types import TracebackType
from typing import Final, Literal, Self, TypeAlias

Direction: TypeAlias = Literal["to_server", "to_client"]
DIRECTIONS: Final[tuple[Direction, ...]] = ("to_server", "to_client")

_PIECE: Final = 65_536
_AHEAD: Final = 256
"""Pieces that a slow direction keeps before it takes no more."""
_Pieces: TypeAlias = "asyncio.Queue[tuple[float, bytes] | None]"
"""What is to be passed on, and when; None at the end."""
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
"""SO_LINGER: on, for no time."""


class _Link:
    """One connection of a client, and the one to the server that stands for it."""

    def __init__(self, client: asyncio.StreamWriter) -> None:
        self.writers = [client]
        self.mute: set[Direction] = set()
        self.lost_reply: asyncio.Event | None = None
        self.over = asyncio.Event()
        self._at_end = 0
        self._by_reset = False

    def reset(self) -> None:
        """End it, and let both ends see a reset."""
        self._by_reset = True
        self.over.set()

    def at_end(self) -> None:
        """One of its directions has ended in order."""
        self._at_end += 1
        if self._at_end == len(DIRECTIONS):
            self.over.set()

    def close(self) -> None:
        """Let go of its connections."""
        for writer in self.writers:
            if self._by_reset:
                at: socket.socket = writer.get_extra_info("socket")
                with contextlib.suppress(OSError):
                    at.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                writer.transport.abort()
            else:
                writer.close()


class Proxy:
    """Passes connections on to a server, from a free port of this machine.

    It works on one event loop, as an async context manager or from `start` to `close`. A harm
    lasts until `mend`, or where it is told to happen once, until it has happened: then its
    event is set. Where bytes of a connection were lost, nothing follows in that direction, since
    no TCP connection goes on after a gap.
    """

    def __init__(self, host: str, port: int, *, random: Random | None = None) -> None:
        self._server_at = (host, port)
        self._random = Random() if random is None else random
        self._listening: asyncio.Server | None = None
        self._links: dict[_Link, asyncio.Task[None] | None] = {}
        self._refuses = False
        self._swallowed: frozenset[Direction] = frozenset()
        self._delays: dict[Direction, tuple[float, float]] = {}
        self._open = {direction: asyncio.Event() for direction in DIRECTIONS}
        self._ends: dict[Direction, tuple[int, asyncio.Event]] = {}
        self._lost_requests: list[tuple[bytes, asyncio.Event]] = []
        self._lost_replies: list[tuple[bytes, asyncio.Event]] = []
        self.port: int = 0
        """Where clients find it, on 127.0.0.1, once it is started."""
        self.passed: Counter[Direction] = Counter()
        """Bytes passed on, in all."""
        self.accepted: int = 0
        """Connections taken, in all."""
        self.mend()

    @property
    def connections(self) -> int:
        """How many connections there are now."""
        return len(self._links)

    async def start(self) -> None:
        """Listen, on the port that `port` tells then."""
        self._listening = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._listening.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Listen no more, and reset every connection."""
        if self._listening is not None:
            self._listening.close()
        self.cut()
        if tasks := [task for task in self._links.values() if task is not None]:
            await asyncio.wait(tasks)

    def lead_to(self, host: str, port: int) -> None:
        """Pass new connections on to this server, as a name that another machine was given."""
        self._server_at = (host, port)

    def mend(self) -> None:
        """Do no harm from now on."""
        self._refuses = False
        self._swallowed = frozenset()
        self._delays = {}
        self._ends = {}
        self._lost_requests, self._lost_replies = [], []
        for gate in self._open.values():
            gate.set()

    def cut(self) -> None:
        """Reset every connection that there is; new ones pass."""
        for link in self._links:
            link.reset()

    def refuse(self) -> None:
        """Reset every connection, new ones too."""
        self._refuses = True
        self.cut()

    def swallow(self, *directions: Direction) -> None:
        """Take what is sent in these directions, or in both, and pass nothing on."""
        self._swallowed = frozenset(directions or DIRECTIONS)

    def forget(self) -> None:
        """Pass nothing on, for good, of the connections that there are; new ones pass.

        So does a firewall that lost its table: either end takes the connection for whole.
        """
        for link in self._links:
            link.mute.update(DIRECTIONS)

    def hold(self, *directions: Direction) -> None:
        """Keep what is sent in these directions, or in both, until `mend` lets it pass."""
        for direction in directions or DIRECTIONS:
            self._open[direction].clear()

    def delay(self, least: float, most: float | None = None, *directions: Direction) -> None:
        """Pass on in order, each piece `least` to `most` seconds late.

        In these directions, or in both; for what comes from now on.
        """
        for direction in directions or DIRECTIONS:
            self._delays[direction] = (least, least if most is None else most)

    def reset_after(self, count: int, direction: Direction) -> asyncio.Event:
        """Pass on `count` more bytes in this direction, then once reset the connection.

        The bytes of all connections count; the one that the last of them came on is reset.
        """
        done = asyncio.Event()
        self._ends[direction] = (self.passed[direction] + count, done)
        return done

    def lose_request(self, match: bytes = b"") -> asyncio.Event:
        """Do not pass on the next request with `match` in it, and reset its connection."""
        done = asyncio.Event()
        self._lost_requests.append((match, done))
        return done

    def lose_reply(self, match: bytes = b"") -> asyncio.Event:
        """Pass on the next request with `match` in it, drop its reply, reset its connection.

        When that has happened, the server has done what it was asked.
        """
        done = asyncio.Event()
        self._lost_replies.append((match, done))
        return done

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        link = _Link(writer)
        self._links[link] = asyncio.current_task()
        tasks: list[asyncio.Task[None]] = []
        try:
            if self._refuses:
                link.reset()
                return
            from_server, to_server = await asyncio.open_connection(*self._server_at)
            link.writers.append(to_server)
            tasks += self._carry(link, "to_server", reader, to_server)
            tasks += self._carry(link, "to_client", from_server, writer)
            await link.over.wait()
        except OSError:
            link.reset()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            link.close()
            del self._links[link]

    def _carry(
        self,
        link: _Link,
        direction: Direction,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> list[asyncio.Task[None]]:
        pieces: _Pieces = asyncio.Queue(_AHEAD)
        return [
            asyncio.create_task(self._take(link, direction, reader, pieces)),
            asyncio.create_task(self._give(link, direction, pieces, writer)),
        ]

    async def _take(
        self, link: _Link, direction: Direction, reader: asyncio.StreamReader, pieces: _Pieces
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                piece = await reader.read(_PIECE)
            except OSError:
                if direction not in link.mute:
                    link.reset()
                    return
                piece = b""
            if direction in self._swallowed:
                link.mute.add(direction)
            if direction in link.mute:
                if not piece:
                    # The other end is not told.
                    link.at_end()
                    return
                continue
            if not piece:
                await pieces.put(None)
                return
            if self._loses(link, direction, piece):
                return
            seconds = self._random.uniform(*self._delays.get(direction, (0.0, 0.0)))
            await pieces.put((loop.time() + seconds, piece))

    def _loses(self, link: _Link, direction: Direction, piece: bytes) -> bool:
        """Whether this piece is one that is to be lost, once."""
        if direction == "to_client":
            if link.lost_reply is None:
                return False
            link.lost_reply.set()
            link.reset()
            return True
        for lost in self._lost_requests:
            if lost[0] in piece:
                self._lost_requests.remove(lost)
                lost[1].set()
                link.reset()
                return True
        for lost in self._lost_replies:
            if lost[0] in piece and link.lost_reply is None:
                self._lost_replies.remove(lost)
                link.lost_reply = lost[1]
                break
        return False

    async def _give(
        self, link: _Link, direction: Direction, pieces: _Pieces, writer: asyncio.StreamWriter
    ) -> None:
        loop = asyncio.get_running_loop()
        try:
            while (late := await pieces.get()) is not None:
                at, piece = late
                if (seconds := at - loop.time()) > 0:
                    await asyncio.sleep(seconds)
                await self._open[direction].wait()
                if direction in link.mute:
                    continue
                left, ended = self._ends.get(direction, (None, None))
                if left is not None:
                    piece = piece[: max(0, left - self.passed[direction])]
                writer.write(piece)
                self.passed[direction] += len(piece)
                await writer.drain()
                if ended is not None and self.passed[direction] == left:
                    self._ends.pop(direction, None)
                    ended.set()
                    link.reset()
                    return
            writer.write_eof()
            link.at_end()
        except OSError:
            link.reset()
