"""The starts and slots of one rate limit."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import NamedTuple

from jobmill.limits import Window, longest, most, slot_for


class _Start(NamedTuple):
    at: float
    until: float
    job_id: str
    token: str


class _Slot(NamedTuple):
    at: float
    until: float
    job_id: str


class Rate:
    """What is known of a key: each start, and the slot of each job that was put off."""

    def __init__(self) -> None:
        self._starts: list[_Start] = []
        self._slots: list[_Slot] = []
        self._slot_of: dict[str, _Slot] = {}
        self._started: set[tuple[str, str]] = set()

    def ask(self, job_id: str, token: str, windows: Sequence[Window], now: float) -> float:
        """0 where the job may start, which is recorded; else the seconds until its slot."""
        self.forget(now)
        if (job_id, token) in self._started:
            return 0.0
        own = self._slot_of.get(job_id)
        last = most(windows)
        slot = slot_for(
            [start.at for start in self._starts[-last:]],
            [slot.at for slot in self._slots[-last - 1 :] if slot is not own],
            own.at if own else None,
            windows,
            now,
        )
        if own is not None:
            del self._slots[bisect_left(self._slots, own)]
            del self._slot_of[job_id]
        if slot is None:
            insort(self._starts, _Start(now, now + longest(windows), job_id, token))
            self._started.add((job_id, token))
            return 0.0
        self._slot_of[job_id] = _Slot(slot, slot + longest(windows), job_id)
        insort(self._slots, self._slot_of[job_id])
        return slot - now

    def forget(self, now: float) -> bool:
        """Drop what is older than its windows; whether nothing is left."""
        while self._starts and self._starts[0].until <= now:
            start = self._starts.pop(0)
            self._started.discard((start.job_id, start.token))
        while self._slots and self._slots[0].until <= now:
            del self._slot_of[self._slots.pop(0).job_id]
        return not self._starts and not self._slots
