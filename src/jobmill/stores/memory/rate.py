"""The starts and slots of one rate limit."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import NamedTuple, overload

from jobmill.limits import Window, longest, slot_for


class _Start(NamedTuple):
    at: float
    until: float
    job_id: str
    token: str


class _Slot(NamedTuple):
    at: float
    until: float
    job_id: str


class _Instants(Sequence[float]):
    """The instants of a list, which is not copied."""

    def __init__(self, entries: Sequence[_Start | _Slot]) -> None:
        self._entries = entries

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, place: int) -> float: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[float]: ...

    def __getitem__(self, place: int | slice) -> float | Sequence[float]:
        if isinstance(place, slice):
            return [entry.at for entry in self._entries[place]]
        return self._entries[place].at


class Rate:
    """What is known of a key: each start, and the slot of each job that was put off."""

    def __init__(self) -> None:
        self._starts: list[_Start] = []
        self._slots: list[_Slot] = []
        self._slot_of: dict[str, _Slot] = {}
        self._started: dict[tuple[str, str], _Start] = {}

    def ask(self, job_id: str, token: str, windows: Sequence[Window], now: float) -> float:
        """0 where the job may start, which is recorded; else the seconds until its slot.

        Without windows a recorded start is given back.
        """
        self.forget(now)
        if not windows:
            if (start := self._started.pop((job_id, token), None)) is not None:
                del self._starts[bisect_left(self._starts, start)]
            return 0.0
        if (job_id, token) in self._started:
            return 0.0
        own = self._slot_of.pop(job_id, None)
        if own is not None:
            del self._slots[bisect_left(self._slots, own)]
        slot = slot_for(
            _Instants(self._starts),
            _Instants(self._slots),
            own.at if own else None,
            windows,
            now,
        )
        if slot is None:
            start = _Start(now, now + longest(windows), job_id, token)
            insort(self._starts, start)
            self._started[job_id, token] = start
            return 0.0
        self._slot_of[job_id] = _Slot(slot, slot + longest(windows), job_id)
        insort(self._slots, self._slot_of[job_id])
        return slot - now

    def forget(self, now: float) -> bool:
        """Drop what is older than its windows; whether nothing is left."""
        while self._starts and self._starts[0].until <= now:
            start = self._starts.pop(0)
            del self._started[start.job_id, start.token]
        while self._slots and self._slots[0].until <= now:
            del self._slot_of[self._slots.pop(0).job_id]
        return not self._starts and not self._slots
