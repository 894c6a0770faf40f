"""What was settled, counted by minute and job name."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

import msgspec

from jobmill.states import NEEDS_TOKEN, Event, Move, State

HISTOGRAM_BOUNDS: Final[tuple[float, ...]] = tuple(0.001 * 2**n for n in range(24))
"""Upper bounds, in seconds, of the buckets of run and wait times: 1 ms doubling to 2.3 h.

A histogram has one count more than there are bounds: the last is for what is longer.
"""

_BARS: Final = len(HISTOGRAM_BOUNDS) + 1
TIMED: Final[frozenset[Event]] = frozenset({"succeed", "retry", "fail"})


class Bucket(msgspec.Struct, frozen=True, kw_only=True):
    """What was settled in one minute under one job name.

    `minute` is its first instant. `started` counts runs that were settled, without those
    whose handler was not reached. `completed`, `failed` and `cancelled` count jobs that
    ended so, with or without a run; `retried` attempts that are to be tried again; `lapsed`
    runs whose worker died. Times are seconds; the histograms count by HISTOGRAM_BOUNDS:
    wait times (due to start) of all that started, run times of those whose attempt
    succeeded or failed, without the lapsed. A histogram is () where it is all zeros.
    """

    minute: float
    job_name: str
    started: int = 0
    completed: int = 0
    failed: int = 0
    retried: int = 0
    cancelled: int = 0
    lapsed: int = 0
    run_sum: float = 0.0
    wait_sum: float = 0.0
    run_histogram: tuple[int, ...] = ()
    wait_histogram: tuple[int, ...] = ()


def minute_of(at: float) -> float:
    """The first instant of the minute of `at`."""
    return at // 60 * 60


def bar_of(seconds: float) -> int:
    """The index, in a histogram, of a time."""
    return bisect_left(HISTOGRAM_BOUNDS, seconds)


class Tally:
    """A bucket while it is counted."""

    __slots__ = (
        "_runs",
        "_waits",
        "cancelled",
        "completed",
        "failed",
        "job_name",
        "lapsed",
        "minute",
        "retried",
        "run_sum",
        "started",
        "wait_sum",
    )

    def __init__(self, minute: float, job_name: str) -> None:
        self.minute: float = minute
        self.job_name: str = job_name
        self.started: int = 0
        self.completed: int = 0
        self.failed: int = 0
        self.retried: int = 0
        self.cancelled: int = 0
        self.lapsed: int = 0
        self.run_sum: float = 0.0
        self.wait_sum: float = 0.0
        self._runs: list[int] = []
        self._waits: list[int] = []

    def count(
        self,
        move: Move,
        after: State,
        *,
        due: float,
        started: float | None,
        now: float,
    ) -> None:
        """Count a move that was applied and led to the state `after`.

        `due` and `started` are those of the run that it settled.
        """
        if after == "completed":
            self.completed += 1
        elif after == "failed":
            self.failed += 1
        elif after == "cancelled":
            self.cancelled += 1
        elif move.event == "retry":
            self.retried += 1
        event = move.event
        lapsed = move.lapsed or event == "lapse"
        if lapsed:
            self.lapsed += 1
        if started is None or move.untried or event not in NEEDS_TOKEN:
            return
        self.started += 1
        self.wait_sum += _observe(self._waits, started - due)
        if event in TIMED and not lapsed:
            self.run_sum += _observe(self._runs, now - started)

    def add(self, bucket: Bucket) -> None:
        """Count all that a bucket counted."""
        self.started += bucket.started
        self.completed += bucket.completed
        self.failed += bucket.failed
        self.retried += bucket.retried
        self.cancelled += bucket.cancelled
        self.lapsed += bucket.lapsed
        self.run_sum += bucket.run_sum
        self.wait_sum += bucket.wait_sum
        self._runs = _sum(self._runs, bucket.run_histogram)
        self._waits = _sum(self._waits, bucket.wait_histogram)

    def bucket(self) -> Bucket:
        """What was counted so far."""
        return Bucket(
            minute=self.minute,
            job_name=self.job_name,
            started=self.started,
            completed=self.completed,
            failed=self.failed,
            retried=self.retried,
            cancelled=self.cancelled,
            lapsed=self.lapsed,
            run_sum=self.run_sum,
            wait_sum=self.wait_sum,
            run_histogram=tuple(self._runs),
            wait_histogram=tuple(self._waits),
        )


def _observe(bars: list[int], seconds: float) -> float:
    if not bars:
        bars.extend([0] * _BARS)
    seconds = max(seconds, 0.0)
    bars[bisect_left(HISTOGRAM_BOUNDS, seconds)] += 1
    return seconds


def _sum(bars: list[int], others: tuple[int, ...]) -> list[int]:
    if not bars:
        return list(others)
    return [bar + other for bar, other in zip(bars, others or (0,) * _BARS, strict=True)]
