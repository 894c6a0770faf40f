"""The pending jobs of a queue, in the order in which they are handed out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from heapq import heapify, heappop, heappush, heapreplace
from typing import Any, Final, Literal, TypeAlias

from jobmill.stores.memory.job import Job
from jobmill.stores.memory.order import JobHeap

_Rank: TypeAlias = tuple[float, ...]
_LAST: Final[_Rank] = (float("inf"),)
_TIDY_FROM: Final = 64


class Lane(JobHeap):
    """The jobs of one name. `least`: none of them ranks before it."""

    __slots__ = ("least",)

    def __init__(self) -> None:
        super().__init__()
        self.least: _Rank = _LAST

    def head(self) -> tuple[_Rank, int, Job]:
        """The rank, the place and the first of the jobs that are here; `least` is exact then."""
        # A lane without a job is none.
        job: Any = self.first()
        self.least = _rank(job)
        return self.least, job.place, job


class Lanes:
    """One lane for each job name; suspects stand in lanes of their own.

    Each lane of the others stands in a heap by its `least`, with the job whose rank that is. Where
    that job has left its lane, the entry is put right once it is the first; one by another
    rank than the `least` holds no more.
    Cost: a claim of all names looks at the lanes that it takes from; one of some names at the
    head of each of these; whatever stands behind it.
    """

    def __init__(self) -> None:
        self._lanes: defaultdict[str, Lane] = defaultdict(Lane)
        self._heads: list[tuple[_Rank, int, Job]] = []
        """Ranks, places and jobs."""
        self._suspects: defaultdict[str, JobHeap] = defaultdict(JobHeap)
        self._by_age = JobHeap()

    def put(self, job: Job) -> None:
        """Put a job into its lane."""
        rank = _rank(job)
        if job.suspect:
            self._suspects[job.name].push(rank, job)
        else:
            lane = self._lanes[job.name]
            lane.push(rank, job)
            if rank < lane.least:
                lane.least = rank
                heappush(self._heads, (rank, job.place, job))
                if len(self._heads) > 2 * len(self._lanes) + _TIDY_FROM:
                    self._tidy()
        self._by_age.join((job.run_at, job.seq), job)

    def remove(self, job: Job) -> None:
        """Take a job out of its lane."""
        lanes: dict[str, Any] = self._suspects if job.suspect else self._lanes
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

    def suspect_waits(self, names: Collection[str] | None) -> bool:
        """Whether a suspect of one of these names, or of any, is here."""
        if names is None:
            return bool(self._suspects)
        return any(name in self._suspects for name in names)

    def take(
        self, names: Collection[str] | None, limit: int, room: Literal["busy", "idle", "alone"]
    ) -> list[Job]:
        """Take out the next jobs of these names, or of all: one suspect, or up to `limit` others.

        No name may be given twice.
        """
        if limit < 1:
            return []
        if self._suspects and room != "busy":
            suspect = self._suspect_whose_turn_it_is(names, alone=room == "alone")
            if suspect is not None:
                self.remove(suspect)
                return [suspect]
        return self._take_any(limit) if names is None else self._take_of(names, limit)

    def _suspect_whose_turn_it_is(
        self, names: Collection[str] | None, *, alone: bool
    ) -> Job | None:
        suspects = _heads(self._suspects, self._suspects if names is None else names)
        if not suspects:
            return None
        if names is not None:
            others = [rank for rank, _ in _heads(self._lanes, names)[:1]]
        else:
            lane = self._first_lane()
            others = [] if lane is None else [lane.least]
        rank, job = suspects[0]
        return job if alone or not others or rank < others[0] else None

    def _first_lane(self) -> Lane | None:
        """The lane of the next job, whose rank then is its `least`."""
        lanes, heads = self._lanes, self._heads
        while heads:
            least, place, job = heads[0]
            if place == job.place:
                return lanes[job.name]
            if job.name in lanes and (lane := lanes[job.name]).least == least:
                heapreplace(heads, lane.head())
            else:
                heappop(heads)
        return None

    def _tidy(self) -> None:
        self._heads = [lane.head() for lane in self._lanes.values()]
        heapify(self._heads)

    def _take_any(self, limit: int) -> list[Job]:
        taken: list[Job] = []
        left = limit
        while left and (lane := self._first_lane()) is not None:
            job = self._heads[0][2]
            if len(self._lanes) == 1:
                taken += self._take_from(job.name, left)
                break
            lane.discard(job)
            self._by_age.live -= 1
            if not lane.live:
                del self._lanes[job.name]
            taken.append(job)
            left -= 1
        self._by_age.left(limit - left)
        return taken

    def _take_of(self, names: Collection[str], limit: int) -> list[Job]:
        others = _heads(self._lanes, names)
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


def _rank(job: Job) -> _Rank:
    return (job.priority, job.run_at, job.seq)


def _heads(lanes: Mapping[str, JobHeap], names: Collection[str]) -> list[tuple[_Rank, Job]]:
    firsts = (lanes[name].first() for name in names if name in lanes)
    heads = [(_rank(job), job) for job in firsts if job is not None]
    heapify(heads)
    return heads
