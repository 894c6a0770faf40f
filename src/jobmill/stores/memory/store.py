"""The store in memory."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from jobmill.clock import Clock, SteadyClock, SystemClock
from jobmill.errors import Unsupported
from jobmill.store import (
    ENDS,
    HEEDED,
    JOBS,
    Added,
    Beat,
    Bucket,
    Claimed,
    Counts,
    Doc,
    Ending,
    ErrorGroup,
    Features,
    Lease,
    Move,
    Moved,
    NewJob,
    Note,
    Page,
    Query,
    Record,
    Ticked,
    Want,
    Window,
    topic_of_job,
)
from jobmill.stores.memory.contents import Contents

_Waiter = tuple[asyncio.AbstractEventLoop, "asyncio.Future[None]"]


class _Shared:
    """What the handles of one store share."""

    def __init__(self, clock: Clock) -> None:
        self.lock = threading.Lock()
        self.clock = SteadyClock(clock)
        self.queues: defaultdict[str, Contents] = defaultdict(Contents)
        self.waiters: defaultdict[str, dict[str, set[_Waiter]]] = defaultdict(dict)
        """Who waits, by queue and topic."""
        self.tellings: defaultdict[str, int] = defaultdict(int)


_JOB: Final = topic_of_job("")
_NAMED: Final[dict[str, _Shared]] = {}
_NAMED_LOCK: Final = threading.Lock()


def _shared(name: str | None, clock: Clock) -> _Shared:
    if name is None:
        return _Shared(clock)
    with _NAMED_LOCK:
        if name not in _NAMED:
            _NAMED[name] = _Shared(clock)
        return _NAMED[name]


class MemoryStore:
    """Keeps jobs for the life of the process, and tells waiters at once.

    Stores of one name share their jobs, and the clock of the first of them; one without a
    name shares them with its handles only. Safe from any thread.
    """

    def __init__(
        self,
        name: str | None = None,
        queue: str = "default",
        *,
        clock: Clock | None = None,
    ) -> None:
        self._name = name
        self._queue = queue
        self._shared = _shared(name, clock or SystemClock())
        self._seen = 0

    def __repr__(self) -> str:
        return f"MemoryStore({self._name!r}, {self._queue!r})"

    @property
    def features(self) -> Features:
        """What this store can do beyond the contract."""
        return Features.PUSH

    @property
    def queue(self) -> str:
        """The queue that this store acts on."""
        return self._queue

    @property
    def place(self) -> str:
        """Where it is, as a URL without its secrets."""
        return f"memory://{self._name or ''}"

    def handle(self, queue: str | None = None) -> MemoryStore:
        """Another store on the same data."""
        other = MemoryStore.__new__(type(self))
        other._name = self._name
        other._queue = self._queue if queue is None else queue
        other._shared = self._shared
        other._seen = 0
        return other

    async def open(self) -> None:
        """Nothing is needed."""

    async def close(self) -> None:
        """Nothing is held."""

    @contextmanager
    def _contents(self) -> Generator[Contents]:
        """What the queue holds, for one thread at a time; then tells whom it concerns."""
        with self._shared.lock:
            contents = self._shared.queues[self._queue]
            try:
                yield contents
            finally:
                self._tell(contents)

    def _tell(self, contents: Contents) -> None:
        if JOBS in contents.told:
            self._shared.tellings[self._queue] += 1
        waiters = self._shared.waiters[self._queue]
        # Each end is told by a topic of its own, and nearly none of them is waited for.
        if len(waiters) > (JOBS in waiters) + (ENDS in waiters):
            contents.told.update([topic_of_job(job_id) for job_id in contents.over])
        contents.over.clear()
        for topic in contents.told & waiters.keys():
            for loop, future in waiters.pop(topic):
                try:
                    loop.call_soon_threadsafe(_wake, future)
                except RuntimeError:  # its loop is closed: nobody waits any more
                    continue
        contents.told.clear()

    def _now(self, now: float | None) -> float:
        return self._shared.clock.now() if now is None else now

    async def queues(self) -> list[str]:
        """Names of the queues that have jobs or documents, in order."""
        with self._shared.lock:
            queues = self._shared.queues.items()
            return sorted(name for name, contents in queues if contents.jobs or contents.docs)

    async def add(
        self,
        jobs: Sequence[NewJob],
        *,
        wake: bool = True,
        whole: bool = False,
        now: float | None = None,
    ) -> list[Added]:
        """Store jobs; one answer for each, in order."""
        with self._contents() as contents:
            added = contents.add(jobs, whole=whole, now=self._now(now))
            if wake and any(answer.status == "added" for answer in added):
                contents.told.add(JOBS)
            return added

    async def add_with(
        self, tx: object, jobs: Sequence[NewJob], *, wake: bool = False
    ) -> list[Added]:
        """Unsupported: memory has no transactions."""
        raise Unsupported("the store in memory has no transactions; leave out tx")

    def add_with_sync(
        self, tx: object, jobs: Sequence[NewJob], *, wake: bool = False
    ) -> list[Added]:
        """Unsupported: memory has no transactions."""
        raise Unsupported("the store in memory has no transactions; leave out tx")

    async def claim(
        self, want: Want, settle: Sequence[Move] = (), *, now: float | None = None
    ) -> Claimed:
        """Hand out jobs to run, after applying the moves in `settle`."""
        with self._contents() as contents:
            return contents.claim(want, settle, self._now(now))

    async def renew(
        self,
        leases: Sequence[Lease],
        lease: float,
        notes: Mapping[str, Note] | None = None,
        *,
        now: float | None = None,
    ) -> list[Beat]:
        """Hold leases for `lease` seconds from now; one answer for each, in order."""
        with self._contents() as contents:
            until = self._now(now) + lease
            beats: list[Beat] = []
            for held in leases:
                job = contents.held(held)
                if job is None:
                    beats.append("lost")
                    continue
                contents.extend(job, until)
                if notes and job.id in notes:
                    job.take_note(notes[job.id])
                beats.append("abort" if job.asked else "ok")
            return beats

    async def move(self, moves: Sequence[Move], *, now: float | None = None) -> list[Moved]:
        """Apply events to jobs by the table; one answer for each, in order."""
        with self._contents() as contents:
            at = self._now(now)
            return [contents.apply(move, at) for move in moves]

    async def drop(
        self,
        query: Query,
        *,
        ids: Sequence[str] | None = None,
        limit: int,
        now: float | None = None,
    ) -> int:
        """Remove jobs for good, at most `limit`, never one that is processing; how many."""
        with self._contents() as contents:
            return contents.drop(query, ids, limit, self._now(now))

    async def get(self, ids: Sequence[str], *, now: float | None = None) -> list[Record | None]:
        """The records of these jobs, None where there is none, in order."""
        with self._contents() as contents:
            at = self._now(now)
            return [contents.record(id_, at) for id_ in ids]

    async def find(
        self,
        query: Query,
        *,
        limit: int,
        cursor: str | None = None,
        within: float | None = None,
        now: float | None = None,
    ) -> Page:
        """Records, newest (last accepted) first; goes on after `cursor`."""
        with self._contents() as contents:
            return contents.find(query, limit, cursor, self._now(now))

    async def counts(self, query: Query | None = None, *, now: float | None = None) -> Counts:
        """How many records there are now."""
        with self._contents() as contents:
            return contents.counts(query or Query(), self._now(now))

    async def events(self, after: int | None, limit: int) -> list[Ending]:
        """Ends and retries in commit order, after the entry `after`."""
        with self._contents() as contents:
            return contents.ledger.events(after, limit)

    async def errors(self, limit: int) -> list[ErrorGroup]:
        """Error groups, last seen first."""
        with self._contents() as contents:
            return contents.ledger.errors(limit)

    async def metrics(self, since: float) -> list[Bucket]:
        """The buckets of the minutes from that of the instant `since` on, by minute and name."""
        with self._contents() as contents:
            return contents.ledger.metrics(since)

    async def reserve(
        self,
        key: str,
        job_id: str,
        token: str,
        windows: Sequence[Window],
        *,
        now: float | None = None,
    ) -> float:
        """Ask for a start under the rate limit `key`."""
        with self._contents() as contents:
            return contents.rates[key].ask(job_id, token, windows, self._now(now))

    async def read(self, space: str, *, after: str = "", limit: int = 1_000) -> list[Doc]:
        """The documents of a space whose key is greater than `after`, by key."""
        with self._contents() as contents:
            return contents.docs.read(space, after, limit)

    async def write(
        self,
        space: str,
        key: str,
        value: bytes | None,
        *,
        version: int | None = None,
        now: float | None = None,
    ) -> int | None:
        """Write a document, or remove it where `value` is None; its new version."""
        with self._contents() as contents:
            docs = contents.docs
            if version is not None and version != docs.version(space, key):
                return None
            if space in HEEDED:
                contents.told.add(JOBS)
            if value is not None:
                return docs.put(space, key, value, self._now(now))
            docs.remove(space, key)
            return 0

    async def tick(
        self,
        schedule: str,
        version: int,
        value: bytes,
        entries: Sequence[tuple[str, bytes]],
        jobs: Sequence[NewJob],
        *,
        keep: int = 1_000,
        now: float | None = None,
    ) -> Ticked:
        """Fire a schedule: compare-and-set its document and, with it, add its jobs."""
        with self._contents() as contents:
            docs = contents.docs
            if not version or version != docs.version("schedules", schedule):
                return Ticked(version=None)
            at = self._now(now)
            history = f"history:{schedule}"
            for key, entry in entries:
                docs.put(history, key, entry, at)
            docs.keep_last(history, keep)
            contents.told.add(JOBS)
            return Ticked(
                version=docs.put("schedules", schedule, value, at),
                added=tuple(contents.add(jobs, whole=False, now=at)),
            )

    async def prune(self, limit: int, *, now: float | None = None) -> int:
        """Remove at most `limit` records whose time has come; how many."""
        with self._contents() as contents:
            return contents.prune(limit, self._now(now))

    async def wait(self, topics: Collection[str], timeout: float) -> None:
        """Return when one of the topics was told since the last wait, or after `timeout`."""
        loop = asyncio.get_running_loop()
        waiter = (loop, loop.create_future())
        with self._contents() as contents:
            waiters = self._shared.waiters[self._queue]
            told = self._told_already(contents, topics)
            for topic in () if told else topics:
                waiters.setdefault(topic, set()).add(waiter)
        if told:
            # Whoever waits in a loop lets others have their turn.
            await asyncio.sleep(0)
            return
        try:
            await asyncio.wait([waiter[1]], timeout=timeout)
        finally:
            with self._contents() as contents:
                self._told_already(contents, topics)
                for topic in waiters.keys() & set(topics):
                    waiters[topic].discard(waiter)
                    if not waiters[topic]:
                        del waiters[topic]

    def _told_already(self, contents: Contents, topics: Collection[str]) -> bool:
        """Whether jobs came since the last wait, or one of the jobs waited for is over."""
        if JOBS in topics:
            seen, self._seen = self._seen, self._shared.tellings[self._queue]
            if seen != self._seen:
                return True
        return any(
            contents.is_over(topic.removeprefix(_JOB)) for topic in topics if topic.startswith(_JOB)
        )


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
