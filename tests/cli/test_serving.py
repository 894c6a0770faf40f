"""A stop has two stages, however the words for it come."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import cast

import pytest

from jobmill import InMemoryQueue, Worker
from jobmill.cli.line import Line
from jobmill.cli.serving import Serving, told_early
from jobmill.cli.working import leave_on_signals
from tests.waiting import eventually


class Stopped:
    """A worker that only remembers how it was told to stop."""

    def __init__(self) -> None:
        self.timeouts: list[float] = []

    async def stop(self, timeout: float) -> None:
        self.timeouts.append(timeout)


def twice(serving: Serving) -> None:
    """As systemd and a supervisor do: each process hears it, and then it is passed on."""
    serving._stop_once()
    serving._obey("stop")
    serving._stop_once()
    serving._obey("stop")


def by_signals(serving: Serving) -> None:
    serving.stop()
    serving.stop()


def at_once(serving: Serving) -> None:
    serving._obey("now")


def one_by_one(serving: Serving) -> None:
    twice(serving)
    serving._obey("now")


@pytest.mark.parametrize(
    ("tell", "timeouts"),
    [(twice, [7.0]), (by_signals, [7.0, 0.0]), (at_once, [7.0, 0.0]), (one_by_one, [7.0, 0.0])],
)
async def test_each_stage_comes_once(
    tell: Callable[[Serving], None], timeouts: list[float]
) -> None:
    worker = Stopped()
    serving = Serving(queues=(), worker=cast("Worker", worker), shutdown_timeout=7.0)
    assert not serving.stopping
    tell(serving)
    assert serving.stopping
    await asyncio.gather(*serving._stops)
    assert worker.timeouts == timeouts


class Working:
    """A worker whose stores come and go."""

    def __init__(self) -> None:
        self.working = asyncio.Event()
        self.reaches_stores = False


class Heard:
    """A line that only remembers what it was told."""

    def __init__(self) -> None:
        self.news: list[str] = []

    def tell(self, news: str, reason: str = "") -> None:
        self.news.append(news)


async def test_the_supervisor_is_told_when_a_store_goes_and_comes() -> None:
    worker, line = Working(), Heard()
    serving = Serving(queues=(), worker=cast("Worker", worker), line=cast("Line", line))
    telling = asyncio.create_task(serving._tell_ready())
    worker.reaches_stores = True
    worker.working.set()
    await eventually(lambda: line.news == ["ready"], within=50)
    worker.reaches_stores = False
    await eventually(lambda: line.news == ["ready", "away"], within=50)
    assert not serving._is_ready()
    worker.reaches_stores = True
    await eventually(lambda: line.news == ["ready", "away", "ready"], within=50)
    assert serving._is_ready()
    telling.cancel()


async def test_a_signal_that_came_too_early_is_not_forgotten() -> None:
    kept = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        leave_on_signals()
        with pytest.raises(SystemExit):
            # Here it ends the process; at the end of an import Python would swallow it.
            signal.raise_signal(signal.SIGTERM)
        queue = InMemoryQueue()
        async with asyncio.timeout(30):
            assert await Serving(queues=[queue], worker=Worker([queue])).run() == 0
        assert not told_early.is_set()
    finally:
        for each, handler in kept.items():
            signal.signal(each, handler)
