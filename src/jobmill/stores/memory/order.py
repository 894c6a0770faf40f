"""Two orders of jobs: by a key, and by acceptance."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from typing import Final

from jobmill.stores.memory.job import Job

_TIDY_FROM: Final = 64

Key = tuple[float, ...]


class JobHeap:
    """Jobs by a key, the least first.

    Cost: logarithmic. What is discarded stays until it comes first, or until half is such.
    """

    __slots__ = ("_entries", "_heap", "_pushed")

    def __init__(self) -> None:
        self._heap: list[tuple[Key, int, Job]] = []
        self._entries: dict[str, tuple[Key, int, Job]] = {}
        self._pushed = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Job]:
        return (job for _key, _pushed, job in self._entries.values())

    def push(self, key: Key, job: Job) -> None:
        """Put a job in, or elsewhere where it is in already."""
        self._pushed += 1
        entry = (key, self._pushed, job)
        self._entries[job.id] = entry
        heappush(self._heap, entry)
        self._tidy()

    def discard(self, job: Job) -> None:
        """Take a job out, if it is in."""
        if self._entries.pop(job.id, None) is not None:
            self._tidy()

    def first(self) -> Job | None:
        """The job of the least key."""
        return self._heap[0][2] if self._heap else None

    def until(self, key: Key) -> Iterator[Job]:
        """The jobs whose key is not greater, in no order.

        Cost: that of what it gives.
        """
        heap, entries = self._heap, self._entries
        indices = [0]
        while indices:
            index = indices.pop()
            if index < len(heap) and heap[index][0] <= key:
                if entries.get(heap[index][2].id) is heap[index]:
                    yield heap[index][2]
                indices += (2 * index + 1, 2 * index + 2)

    def _tidy(self) -> None:
        heap, entries = self._heap, self._entries
        while heap and entries.get(heap[0][2].id) is not heap[0]:
            heappop(heap)
        if len(heap) > 2 * len(entries) + _TIDY_FROM:
            self._heap = list(entries.values())
            heapify(self._heap)


class Roll:
    """Jobs in the order of their acceptance.

    Cost: constant, and logarithmic to go on from a place.
    """

    __slots__ = ("_gone", "_jobs")

    def __init__(self) -> None:
        self._jobs: list[Job] = []
        self._gone = 0

    def append(self, job: Job) -> None:
        """Add the job that was accepted last."""
        self._jobs.append(job)

    def strike(self, job: Job) -> None:
        """Take a job out."""
        job.gone = True
        self._gone += 1
        if 2 * self._gone > len(self._jobs) + _TIDY_FROM:
            self._jobs = [job for job in self._jobs if not job.gone]
            self._gone = 0

    def oldest_first(self) -> Iterator[Job]:
        """The jobs, the first accepted first."""
        return (job for job in self._jobs if not job.gone)

    def newest_first(self, before: int | None = None) -> Iterator[Job]:
        """The jobs, the last accepted first, from the one accepted before `before` on."""
        end = len(self._jobs)
        if before is not None:
            end = bisect_left(self._jobs, before, key=lambda job: job.seq)
        for index in range(end - 1, -1, -1):
            job = self._jobs[index]
            if not job.gone:
                yield job
