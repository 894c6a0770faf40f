"""Two orders of jobs: by a key, and by acceptance."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from heapq import heappop, heappush
from itertools import count
from typing import Any, Final, TypeAlias

from jobmill.stores.memory.job import Job

_TIDY_FROM: Final = 64
_PLACES: Final = count(1)

Key = tuple[float, ...]
_Entry: TypeAlias = tuple[Any, ...]
"""The parts of a key, the place of the job, the job."""


class JobHeap:
    """Jobs by a key, the least first.

    An entry holds while its number is its job's `place`, so nothing is looked up to discard one.
    Cost: constant where jobs are put in by rising keys, as nearly all are: they stand in a
    line, and only the others in a heap. What is discarded stays until somebody asks for the first
    and it is that, or until half is such.
    """

    __slots__ = ("_dead", "_heap", "_line", "live")

    def __init__(self) -> None:
        self._line: deque[_Entry] = deque()
        self._heap: list[_Entry] = []
        self._dead = 0
        self.live: int = 0
        """How many jobs there are."""

    def __len__(self) -> int:
        return self.live

    def __iter__(self) -> Iterator[Job]:
        entries = (*self._line, *self._heap)
        return (entry[-1] for entry in entries if entry[-2] == entry[-1].place)

    def push(self, key: Key, job: Job) -> None:
        """Put a job in, or elsewhere where it is in already; it stands in no other heap."""
        moved = job.place
        job.place = next(_PLACES)
        self.join(key, job)
        if moved:
            self.live -= 1
            self.left(1)

    def join(self, key: Key, job: Job) -> None:
        """Put a job in, which stands in another heap, too, until it is discarded."""
        # Flat, and so one object for each job that the garbage collector has to look at.
        entry = (*key, job.place, job)
        line = self._line
        if not line or line[-1] < entry:
            line.append(entry)
        else:
            heappush(self._heap, entry)
        self.live += 1

    def discard(self, job: Job) -> None:
        """Take a job out, if it is in."""
        if job.place:
            job.place = 0
            self.live -= 1
            self.left(1)

    def take(self, most: int) -> list[Job]:
        """Take out the first jobs."""
        taken: list[Job] = []
        line, heap = self._line, self._heap
        while len(taken) < most:
            if line and not (heap and heap[0] < line[0]):
                entry = line.popleft()
            elif heap:
                entry = heappop(heap)
            else:
                break
            job = entry[-1]
            if entry[-2] == job.place:
                job.place = 0
                taken.append(job)
            else:
                self._dead -= 1
        self.live -= len(taken)
        return taken

    def first(self) -> Job | None:
        """The job of the least key."""
        line, heap = self._line, self._heap
        while line and line[0][-2] != line[0][-1].place:
            line.popleft()
            self._dead -= 1
        while heap and heap[0][-2] != heap[0][-1].place:
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
        heap, length = self._heap, len(key)
        for entry in self._line:
            if entry[:length] > key:
                break
            if entry[-2] == entry[-1].place:
                yield entry[-1]
        indices = [0]
        while indices:
            index = indices.pop()
            if index < len(heap) and heap[index][:length] <= key:
                if heap[index][-2] == heap[index][-1].place:
                    yield heap[index][-1]
                indices += (2 * index + 1, 2 * index + 2)

    def left(self, jobs: int) -> None:
        """Count entries that no longer hold; where most are such, drop them."""
        self._dead += jobs
        if self._dead > _TIDY_FROM and self._dead > self.live:
            self.first()
        if self._dead > _TIDY_FROM and self._dead > self.live:
            holding = [
                entry for entry in (*self._line, *self._heap) if entry[-2] == entry[-1].place
            ]
            self._line = deque(sorted(holding))
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
