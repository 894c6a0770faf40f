"""The pending jobs of a queue, in the order in which they are handed out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from heapq import heapify, heappop, heapreplace
from typing import Literal

from jobmill.stores.memory.job import Job
from jobmill.stores.memory.order import JobHeap


class Lanes:
    """One lane for each job name; suspects stand in lanes of their own.

    Cost: a claim looks at the head of each lane, whatever stands behind it.
    """

    def __init__(self) -> None:
        self._lanes: defaultdict[str, JobHeap] = defaultdict(JobHeap)
        self._suspects: defaultdict[str, JobHeap] = defaultdict(JobHeap)
        self._by_age = JobHeap()

    def put(self, job: Job) -> None:
        """Put a job into its lane."""
        lanes = self._suspects if job.suspect else self._lanes
        lanes[job.name].push(_rank(job), job)
        self._by_age.join((job.run_at, job.seq), job)

    def remove(self, job: Job) -> None:
        """Take a job out of its lane."""
        lanes = self._suspects if job.suspect else self._lanes
        lane = lanes[job.name]
        lane.discard(job)
        if not lane.live:
            del lanes[job.name]
        self._leave_age(1)

    @property
    def oldest_due(self) -> float | None:
        """The instant since when the oldest of them is due."""
        job = self._by_age.first()
        return None if job is None else job.run_at

    def names(self) -> set[str]:
        """The names of the jobs that are here."""
        return self._lanes.keys() | self._suspects.keys()

    def suspect_waits(self, names: Collection[str]) -> bool:
        """Whether a suspect of one of these names is here."""
        return any(name in self._suspects for name in names)

    def take(
        self, names: Collection[str], limit: int, room: Literal["busy", "idle", "alone"]
    ) -> list[Job]:
        """Take out the next jobs of these names: one suspect, or up to `limit` others."""
        if limit < 1:
            return []
        suspects = _heads(self._suspects, names) if self._suspects else []
        others = _heads(self._lanes, names)
        its_turn = room == "alone" or not others or suspects[:1] < others[:1]
        if suspects and its_turn and room != "busy":
            self.remove(suspects[0][1])
            return [suspects[0][1]]
        taken: list[Job] = []
        while others and len(taken) < limit:
            if len(others) == 1:
                taken += self._take_from(others[0][1].name, limit - len(taken))
                break
            job = others[0][1]
            taken.append(job)
            lane = self._lanes[job.name]
            self.remove(job)
            behind = lane.first()
            if behind is None:
                heappop(others)
            else:
                heapreplace(others, (_rank(behind), behind))
        return taken

    def _take_from(self, name: str, most: int) -> list[Job]:
        lane = self._lanes[name]
        taken = lane.take(most)
        if not lane.live:
            del self._lanes[name]
        self._leave_age(len(taken))
        return taken

    def _leave_age(self, jobs: int) -> None:
        self._by_age.live -= jobs
        self._by_age.left(jobs)


def _rank(job: Job) -> tuple[int, float, int]:
    return (job.priority, job.run_at, job.seq)


def _heads(
    lanes: dict[str, JobHeap], names: Collection[str]
) -> list[tuple[tuple[int, float, int], Job]]:
    firsts = (lanes[name].first() for name in names if name in lanes)
    heads = [(_rank(job), job) for job in firsts if job is not None]
    heapify(heads)
    return heads
