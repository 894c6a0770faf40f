"""What a queue remembers of its outcomes: ends, error groups and figures by minute."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Final, Literal, TypeAlias

from jobmill.states import Move, State
from jobmill.store import Bucket, Ending, ErrorGroup
from jobmill.stores.memory.job import Job
from jobmill.tally import Tally, minute_of

_Kind: TypeAlias = Literal["completed", "failed", "cancelled", "retried"]

_EVENTS_KEPT: Final = 3_600.0
_BUCKETS_KEPT: Final = 8 * 86_400.0
_GROUPS_KEPT: Final = 30 * 86_400.0


class Ledger:
    """The event list, the error groups and the metric buckets."""

    def __init__(self) -> None:
        self._events: deque[tuple[int, float, str, str, _Kind]] = deque()
        """Number, instant, id, name and kind of each."""
        self._last_seq = 0
        self._tallies: dict[tuple[float, str], Tally] = {}
        self._last: Tally | None = None
        self._groups: dict[str, ErrorGroup] = {}

    def count(self, job: Job, move: Move, after: State, now: float) -> None:
        """Count a move that is about to change the job."""
        minute = minute_of(now)
        tally = self._last
        if tally is None or tally.job_name != job.name or tally.minute != minute:
            key = (minute, job.name)
            tally = self._tallies.get(key)
            if tally is None:
                tally = self._tallies[key] = Tally(*key)
            self._last = tally
        tally.count(move, after, due=job.run_at, started=job.started_at, now=now)

    def tell(self, job: Job, kind: _Kind, now: float) -> None:
        """Enter an end or a retry into the event list."""
        self._last_seq += 1
        self._events.append((self._last_seq, now, job.id, job.name, kind))

    def group(self, job: Job, error: bytes, fingerprint: str, now: float) -> None:
        """Count an error into its group."""
        before = self._groups.pop(fingerprint, None)
        self._groups[fingerprint] = ErrorGroup(
            fingerprint=fingerprint,
            job_name=job.name,
            count=1 if before is None else before.count + 1,
            first_seen=now if before is None else before.first_seen,
            last_seen=now,
            last_job_id=job.id,
            last_error=error,
        )

    def events(self, after: int | None, limit: int) -> list[Ending]:
        """The entries after an entry, or the last one alone."""
        if not self._events:
            return []
        if after is None:
            return [_ending(*self._events[-1])]
        start = max(0, after - self._events[0][0] + 1)
        return [_ending(*each) for each in islice(self._events, start, start + limit)]

    def errors(self, limit: int) -> list[ErrorGroup]:
        """The groups, last seen first."""
        return list(islice(reversed(self._groups.values()), limit))

    def metrics(self, since: float) -> list[Bucket]:
        """The buckets from the minute of `since` on."""
        first = minute_of(since)
        return [tally.bucket() for key, tally in sorted(self._tallies.items()) if key[0] >= first]

    def prune(self, now: float) -> None:
        """Forget what is too old."""
        while self._events and self._events[0][1] < now - _EVENTS_KEPT:
            self._events.popleft()
        for key in [key for key in self._tallies if key[0] < now - _BUCKETS_KEPT]:
            del self._tallies[key]
            self._last = None
        for group in list(self._groups.values()):
            if group.last_seen < now - _GROUPS_KEPT:
                del self._groups[group.fingerprint]


def _ending(seq: int, at: float, job_id: str, job_name: str, kind: _Kind) -> Ending:
    return Ending(seq=seq, at=at, job_id=job_id, job_name=job_name, kind=kind)
