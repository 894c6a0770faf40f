"""Two orders of jobs: by a key, and by acceptance."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Any, Final, TypeAlias

from jobmill.stores.memory.job import Job

_TIDY_FROM: Final = 64

Key = tuple[float, ...]
_Entry: TypeAlias = tuple[Any, ...]
"""The parts of a key, the number of the push, the job."""


class JobHeap:
    """Jobs by a key, the least first.

    Cost: constant where jobs are put in by rising keys, as nearly all are: they stand in a
    line, and only the others in a heap. What is discarded stays until somebody asks for the first
    and it is that, or until half is such.
    """

    __slots__ = ("_dead", "_entries", "_heap", "_line", "_pushed")

    def __init__(self) -> None:
        self._line: deque[_Entry] = deque()
        self._heap: list[_Entry] = []
        self._entries: dict[str, _Entry] = {}
        self._pushed = 0
        self._dead = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Job]:
        return (entry[-1] for entry in self._entries.values())

    def push(self, key: Key, job: Job) -> None:
        """Put a job in, or elsewhere where it is in already."""
        self._pushed += 1
        # Flat, and so one object for each job that the garbage collector has to look at.
        entry = (*key, self._pushed, job)
        moved = job.id in self._entries
        self._entries[job.id] = entry
        if not self._line or self._line[-1] < entry:
            self._line.append(entry)
        else:
            heappush(self._heap, entry)
        if moved:
            self._count_dead()

    def discard(self, job: Job) -> None:
        """Take a job out, if it is in."""
        if self._entries.pop(job.id, None) is not None:
            self._count_dead()

    def first(self) -> Job | None:
        """The job of the least key."""
        line, heap, entries = self._line, self._heap, self._entries
        while line and entries.get(line[0][-1].id) is not line[0]:
            line.popleft()
            self._dead -= 1
        while heap and entries.get(heap[0][-1].id) is not heap[0]:
            heappop(heap)
            self._dead -= 1
        if line and not (heap and heap[0] < line[0]):
            job: Job = line[0][-1]
            return job
        return heap[0][-1] if heap else None

    def until(self, key: Key) -> Iterator[Job]:
        """The jobs whose key is not greater, in no order.

        Cost: that of what it gives.
        """
        heap, entries, length = self._heap, self._entries, len(key)
        for entry in self._line:
            if entry[:length] > key:
                break
            if entries.get(entry[-1].id) is entry:
                yield entry[-1]
        indices = [0]
        while indices:
            index = indices.pop()
            if index < len(heap) and heap[index][:length] <= key:
                if entries.get(heap[index][-1].id) is heap[index]:
                    yield heap[index][-1]
                indices += (2 * index + 1, 2 * index + 2)

    def _count_dead(self) -> None:
        self._dead += 1
        if self._dead > _TIDY_FROM and self._dead > len(self._entries):
            self._line = deque(sorted(self._entries.values()))
            self._heap = []
            self._dead = 0


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
