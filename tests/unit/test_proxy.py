"""The TCP proxy does each harm that it is told to, and no other."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from random import Random

import pytest

from jobmill.testing.proxy import Proxy
from tests.waiting import eventually

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Echo:
    """A server that answers each line in capitals."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.begun = self.ended = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.begun += 1
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                self.heard.append(line)
                writer.write(line.upper())
                await writer.drain()
        self.ended += 1
        writer.close()


@pytest.fixture
async def echo() -> Echo:
    return Echo()


@pytest.fixture
async def proxy(echo: Echo) -> AsyncIterator[Proxy]:
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with Proxy("127.0.0.1", port, random=Random(0)) as made:
        yield made
    await eventually(lambda: echo.ended == echo.begun)
    server.close()


_streams: list[Stream] = []


@pytest.fixture(autouse=True)
async def closed() -> AsyncIterator[None]:
    yield
    for _, writer in _streams:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    _streams.clear()


async def connect(proxy: Proxy) -> Stream:
    _streams.append(await asyncio.open_connection("127.0.0.1", proxy.port))
    return _streams[-1]


async def ask(stream: Stream, line: bytes) -> bytes:
    stream[1].write(line)
    async with asyncio.timeout(30):
        return await stream[0].readline()


async def is_mute(stream: Stream, line: bytes) -> bool:
    stream[1].write(line)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.1):
            await stream[0].readline()
            return False
    return True


async def is_reset(stream: Stream) -> bool:
    try:
        async with asyncio.timeout(30):
            await stream[0].read()
    except ConnectionResetError:
        return True
    return False


async def test_it_passes_all_on_both_ways(proxy: Proxy, echo: Echo) -> None:
    stream = await connect(proxy)
    assert await ask(stream, b"one\n") == b"ONE\n"
    big = b"x" * 60_000 + b"\n"
    assert await ask(stream, big) == big.upper()
    assert proxy.passed == {"to_server": 4 + len(big), "to_client": 4 + len(big)}
    stream[1].write(b"last\n")
    stream[1].write_eof()
    assert await stream[0].read() == b"LAST\n", "an end in one direction is not one in both"
    await eventually(lambda: not proxy.connections)
    assert (proxy.accepted, echo.ended) == (1, 1)


async def test_a_cut_resets_what_is_there(proxy: Proxy) -> None:
    stream = await connect(proxy)
    await ask(stream, b"one\n")
    proxy.cut()
    assert await is_reset(stream)
    assert await ask(await connect(proxy), b"two\n") == b"TWO\n"


async def test_refuse_resets_new_ones_too(proxy: Proxy) -> None:
    proxy.refuse()
    assert await is_reset(await connect(proxy))
    proxy.mend()
    assert await ask(await connect(proxy), b"two\n") == b"TWO\n"


async def test_what_is_swallowed_never_comes(proxy: Proxy, echo: Echo) -> None:
    stream = await connect(proxy)
    proxy.swallow()
    assert await is_mute(stream, b"one\n")
    proxy.mend()
    assert await is_mute(stream, b"two\n"), "bytes came after a gap"
    assert not echo.heard
    assert await ask(await connect(proxy), b"three\n") == b"THREE\n"
    stream[1].close()
    assert echo.ended == 0, "an end was passed on"


async def test_replies_alone_may_be_swallowed(proxy: Proxy, echo: Echo) -> None:
    proxy.swallow("to_client")
    assert await is_mute(await connect(proxy), b"one\n")
    await eventually(lambda: echo.heard == [b"one\n"])


async def test_a_forgotten_connection_stays_mute_and_new_ones_pass(proxy: Proxy) -> None:
    stream = await connect(proxy)
    await ask(stream, b"one\n")
    proxy.forget()
    assert await ask(await connect(proxy), b"two\n") == b"TWO\n"
    assert await is_mute(stream, b"three\n")


async def test_what_is_held_comes_when_mended(proxy: Proxy, echo: Echo) -> None:
    stream = await connect(proxy)
    proxy.hold("to_server")
    assert await is_mute(stream, b"one\n")
    assert not echo.heard
    proxy.mend()
    assert await stream[0].readline() == b"ONE\n"


async def test_a_delay_keeps_the_order(proxy: Proxy) -> None:
    stream = await connect(proxy)
    await ask(stream, b"one\n")
    loop = asyncio.get_running_loop()
    proxy.delay(0.05, 0.1)
    began = loop.time()
    for n in range(20):
        stream[1].write(b"%d\n" % n)
        await stream[1].drain()
    assert [await stream[0].readline() for _ in range(20)] == [b"%d\n" % n for n in range(20)]
    assert loop.time() - began >= 0.1


async def test_a_reset_comes_after_so_many_bytes(proxy: Proxy, echo: Echo) -> None:
    stream = await connect(proxy)
    await ask(stream, b"one\n")
    done = proxy.reset_after(6, "to_server")
    assert await ask(stream, b"two\n") == b"TWO\n"
    stream[1].write(b"three\n")
    assert await is_reset(stream)
    assert done.is_set()
    assert proxy.passed["to_server"] == 10
    assert echo.heard[:2] == [b"one\n", b"two\n"]
    assert await ask(await connect(proxy), b"four\n") == b"FOUR\n"


async def test_a_request_is_lost_once(proxy: Proxy, echo: Echo) -> None:
    stream = await connect(proxy)
    lost = proxy.lose_request(b"two")
    assert await ask(stream, b"one\n") == b"ONE\n"
    stream[1].write(b"two\n")
    assert await is_reset(stream)
    assert lost.is_set()
    assert echo.heard == [b"one\n"]
    assert await ask(await connect(proxy), b"two\n") == b"TWO\n"


async def test_a_reply_is_lost_once(proxy: Proxy, echo: Echo) -> None:
    stream = await connect(proxy)
    lost = proxy.lose_reply(b"two")
    assert await ask(stream, b"one\n") == b"ONE\n"
    stream[1].write(b"two\n")
    assert await is_reset(stream)
    assert lost.is_set()
    assert echo.heard == [b"one\n", b"two\n"]
    assert await ask(await connect(proxy), b"two\n") == b"TWO\n"


async def test_without_a_server_connections_are_reset() -> None:
    server = await asyncio.start_server(Echo().serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    async with Proxy("127.0.0.1", port) as proxy:
        assert await is_reset(await connect(proxy))
