"""What a browser that listens is told, and when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

import pytest

from jobmill import Queue
from jobmill.dashboard import stream
from jobmill.dashboard.board import Board
from jobmill.dashboard.reads.figures import Surveyor
from jobmill.dashboard.stream import Streams
from tests.dashboard.kit import later
from tests.waiting import PATIENCE


@pytest.fixture
async def streams(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Streams]:
    """The streams of a dashboard of the queue, which say nothing only to stay awake."""
    monkeypatch.setattr(stream, "_PING", 600.0)
    made = Streams(Board([queue]), Surveyor())
    yield made
    made.end()


async def opened(streams: Streams) -> AsyncGenerator[bytes]:
    """A stream that has answered, and is told of nothing so far."""
    events = streams.events()
    assert (await anext(events)).startswith(b"retry:")
    return events


async def told(events: AsyncGenerator[bytes]) -> int:
    """The number of the next change."""
    async with asyncio.timeout(PATIENCE):
        name, number, *_ = (await anext(events)).splitlines()
    assert name == b"event: change"
    return int(number.removeprefix(b"id: "))


async def test_a_change_before_the_first_look_is_told(queue: Queue, streams: Streams) -> None:
    events = await opened(streams)
    # The page was read before it; the first look comes after.
    await queue.enqueue(later)
    await told(events)


async def test_a_change_that_was_told_before_a_stream_began_is_told(
    queue: Queue, streams: Streams
) -> None:
    first = await opened(streams)
    await told(first)
    await queue.enqueue(later)
    last = await told(first)
    # Its page may be from before that.
    second = await opened(streams)
    assert await told(second) == last


async def test_each_change_is_told_once(queue: Queue, streams: Streams) -> None:
    events = await opened(streams)
    before = await told(events)
    await queue.enqueue(later)
    assert await told(events) == before + 1
