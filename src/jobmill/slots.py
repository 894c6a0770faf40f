"""Who may run beside whom in one worker: free slots, and suspects that run alone."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from typing import Generic, Literal, NamedTuple, TypeVar

from jobmill.run import Run

F = TypeVar("F", bound=Hashable)


class Grant(NamedTuple):
    """How many jobs may be claimed now, and what will run beside them."""

    limit: int
    room: Literal["busy", "idle", "alone"]


class Slots(Generic[F]):
    """The slots of a worker, shared by the feeds of its queues.

    A claim reserves its slots before it is asked, so that a claim is a start. An idle worker
    reserves them all, since what it gets may be a suspect, which runs alone. A worker that
    is busy leaves suspects to others; when one has waited for a lease, it claims nothing
    more until it is idle, and then takes the suspect.

    Feeds that found no slot stand in line, so that a busy queue does not starve the others.
    """

    def __init__(self, concurrency: int, budget: int | None = None) -> None:
        self.concurrency = concurrency
        self.budget = budget
        """How many runs may start; None where that is not limited."""
        self.started: int = 0
        """How many runs have started."""
        self.quiet = False
        """Whether nothing is to be claimed any more."""
        self.idle: asyncio.Event = asyncio.Event()
        """Set while nothing runs."""
        self.idle.set()
        self.running: dict[Run, F] = {}
        """What runs, in the order of the starts, and for which feed."""
        self._reserved: dict[F, int] = {}
        self._granted: dict[F, int] = {}
        self._suspects: dict[F, float] = {}
        self.line: dict[F, None] = {}
        """The feeds that found no slot when they last asked."""

    def grant(self, feed: F, feeds: int, *, lease: float, now: float) -> Grant:
        """Reserve slots for one claim of `feed`, one of `feeds`, until it gives them back."""
        taken = len(self.running) + sum(self._reserved.values())
        free = self.concurrency - taken
        suspect = any(run.claim.suspect for run in self.running)
        idle = not taken
        if self.budget is not None:
            granted = sum(self._granted[each] for each in self._reserved)
            free = min(free, self.budget - self.started - granted)
        since = self._suspects.get(feed)
        patient = since is None or now - since <= lease
        others = any(
            now - seen > lease for other, seen in self._suspects.items() if other is not feed
        )
        grant = Grant(0, "busy")
        spent = self.started == self.budget
        if self.quiet or spent or suspect or (others if patient else not idle):
            self.line.pop(feed, None)
        elif not patient:
            self.line.pop(feed, None)
            grant = Grant(1, "alone")
        elif (free := free - self._ahead_of(feed)) < 1:
            self.line.setdefault(feed)
        else:
            self.line.pop(feed, None)
            grant = Grant(-(-free // feeds), "idle" if idle else "busy")
        self._granted[feed] = grant.limit
        self._reserved[feed] = self.concurrency if grant.room != "busy" else grant.limit
        return grant

    def _ahead_of(self, feed: F) -> int:
        """How many others have waited for a slot for longer."""
        line = list(self.line)
        return line.index(feed) if feed in self.line else len(line)

    def give_back(self, feed: F) -> bool:
        """End the reservation of `feed`; whether that may help another."""
        return self._reserved.pop(feed, 0) > 0 and bool(self.line)

    def step_aside(self, feed: F) -> None:
        """Let the others go on: `feed` cannot reach its store, and keeps only what it may hold."""
        self.line.pop(feed, None)
        self._suspects.pop(feed, None)
        if feed in self._reserved:
            self._reserved[feed] = self._granted[feed]

    def begin(self, run: Run, feed: F) -> None:
        """A run of a feed starts."""
        if not self.running:
            self.idle.clear()
        self.running[run] = feed
        self.started += 1

    def end(self, run: Run) -> None:
        """A run is over."""
        self.running.pop(run, None)
        if not self.running:
            self.idle.set()

    def suspect_waits(self, feed: F, now: float, *, waits: bool) -> None:
        """Note whether `feed` has a suspect that was left, and since when."""
        if waits:
            self._suspects.setdefault(feed, now)
        else:
            self._suspects.pop(feed, None)
