"""A server that says what a test wants it to, for what no real one can be brought to say."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable

import hiredis

from jobmill.stores.redis import Address

INFO = b"redis_version:7.2.4\r\nrole:master\r\nmaxmemory_policy:noeviction"

Answers = Callable[[list[bytes]], bytes | None]
"""Gives the bytes that answer a command; None leaves it without an answer."""


@contextlib.asynccontextmanager
async def scripted(answers: Answers) -> AsyncGenerator[Address]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        commands = hiredis.Reader()
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                commands.feed(data)
                while (command := commands.gets()) is not False:
                    answer = answers(command)
                    if answer is not None:
                        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield Address(host="127.0.0.1", port=server.sockets[0].getsockname()[1])
    finally:
        server.close()
        await server.wait_closed()


def bulk(text: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(text), text)


def refusing(refusal: bytes, *, info: bytes = INFO) -> Answers:
    """Healthy, but for its scripts."""

    def answer(command: list[bytes]) -> bytes:
        return bulk(info) if command[0] == b"INFO" else b"-%b\r\n" % refusal

    return answer
