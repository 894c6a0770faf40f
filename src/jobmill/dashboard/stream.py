"""Tells browsers that something changed, so that they ask anew."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from typing import Any, Final

import msgspec

from jobmill.dashboard.board import Board
from jobmill.dashboard.reads.figures import HOUR, Surveyor
from jobmill.errors import ConfigError, StoreError
from jobmill.plans import SCHEDULES

MOST: Final = 50
"""Streams at once; who comes later polls."""
_EVERY: Final = 1.0
"""Seconds between two looks, at least; a store that is slow to count is looked at less often."""
_SHARE: Final = 20.0
_SCHEDULES: Final = 500
"""Schedules of a queue that are looked at."""
_PING: Final = 15.0
_LASTS: Final = 600.0
"""Seconds after which a stream ends; a browser opens the next by itself."""


class Streams:
    """All streams of a dashboard: one look at the stores serves them all, however many."""

    def __init__(self, board: Board, surveyor: Surveyor) -> None:
        self._board = board
        self._surveyor = surveyor
        self._open = 0
        self._looking: asyncio.Task[None] | None = None
        self._number = 0
        """Changes that were seen; what the first look saw is one."""
        self._said: Any = None
        self._news = asyncio.Event()
        self._ended = False

    @property
    def full(self) -> bool:
        """Whether there are as many as may be."""
        return self._open >= MOST

    def begin(self) -> None:
        """A server starts, perhaps not the first."""
        self._ended, self._news = False, asyncio.Event()

    def end(self) -> None:
        """End all: the server stops."""
        self._ended = True
        self._news.set()
        if self._looking is not None:
            self._looking.cancel()

    async def events(self) -> AsyncGenerator[bytes]:
        """What one browser is told: `change` with a number that rises, and a line to stay awake."""
        self._open += 1
        try:
            if self._looking is None or self._looking.done():
                self._looking = asyncio.ensure_future(self._look())
            until = time.monotonic() + _LASTS
            yield b"retry: 2000\n\n"
            # The page may be older than what was seen last: so that is told first, or the first
            # look that there is.
            seen = 0
            while not self._ended and time.monotonic() < until:
                news = self._news
                if seen == self._number:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(news.wait(), _PING)
                if seen == self._number:
                    yield b": ping\n\n"
                    continue
                seen = self._number
                told = msgspec.json.encode({"number": seen, "at": time.time()}).decode()
                yield f"event: change\nid: {seen}\ndata: {told}\n\n".encode()
        finally:
            self._open -= 1
            if self._open == 0 and self._looking is not None:
                self._looking.cancel()
                self._looking = None

    async def _look(self) -> None:
        """Look, as long as somebody listens, whether anything moved."""
        while True:
            began = time.monotonic()
            said = [await self._one(label) for label in self._board.labels]
            if said != self._said:
                self._said = said
                self._number += 1
                news, self._news = self._news, asyncio.Event()
                news.set()
            await asyncio.sleep(max(_EVERY, _SHARE * (time.monotonic() - began)))

    async def _one(self, label: str) -> Any:
        watched = self._board.get(label)
        if watched is None:
            return label
        try:
            survey = await self._surveyor.of(watched, HOUR)
            plans = await watched.ask(lambda store: store.read(SCHEDULES, limit=_SCHEDULES))
        except (StoreError, ConfigError) as error:
            return type(error).__name__
        running = [
            (worker.id, worker.alive, [run.id for run in worker.entry.running])
            for worker in survey.roster.workers
        ]
        counts = {name: dict(states) for name, states in survey.counts.by_name.items()}
        moved = [
            (each.minute, each.job_name, each.started, each.retried, each.failed, each.completed)
            for each in survey.buckets[-50:]
        ]
        return counts, running, sorted(survey.pauses), moved, [doc.version for doc in plans]
