"""What the tests of running jobs share."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import pytest

from jobmill import JobHooks, JobInfo, JobOptions, define_job
from jobmill.clock import SystemClock
from jobmill.errors import SchemaMismatch, StoreUnavailable
from jobmill.handle import JobHandle
from jobmill.job import JobDefinition
from jobmill.queue import Queue
from jobmill.store import Lease, Record, Store
from tests.waiting import PATIENCE

_numbers = count(1)


def fresh(stem: str = "job") -> str:
    """A name that no other job has."""
    return f"running.{stem}{next(_numbers)}"


def define(
    handler: Callable[..., Any],
    *,
    name: str | None = None,
    hooks: JobHooks | None = None,
    middleware: Any = (),
    **options: Any,
) -> JobDefinition[Any, Any]:
    """A job of its own name; without jitter, so that delays are exact."""
    options = {"jitter": 0.0, "retry_delay": 0.0, **options}
    return define_job(
        name=name or fresh(),
        handler=handler,
        options=JobOptions(**options),
        hooks=hooks or JobHooks(),
        middleware=middleware,
    )


async def until(check: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """Wait until the check holds, and give what it gave."""
    end = time.monotonic() + seconds
    while True:
        # It is looked at once more after the end: this process may have stood still.
        late = time.monotonic() > end
        answer = check()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return answer
        if late:
            what = inspect.getsource(check).strip() if inspect.isfunction(check) else repr(check)
            message = f"waited {seconds:g} s in vain for {what}"
            raise AssertionError(message)
        await asyncio.sleep(0.005)


async def ended(queue: Queue, handle: JobHandle[Any] | str) -> JobInfo:
    """The job, once it has ended."""
    job_id = handle if isinstance(handle, str) else handle.id
    answer = await queue.wait_for_end(job_id, PATIENCE)
    assert answer is not None
    return answer[0]


async def reached(
    queue: Queue, handle: JobHandle[Any], status: str, attempts: int | None = None
) -> JobInfo:
    """The job, once it has this status; where it is "processing", once it runs here, too."""

    async def look() -> JobInfo | None:
        info = await handle.info()
        fits = info.status == status and attempts in (None, info.attempts)
        return info if fits else None

    found = await until(look)
    assert isinstance(found, JobInfo)
    worker = queue._worker
    if status == "processing" and worker is not None and worker.id == found.worker:
        # The store knows of a claim before the worker does.
        runs = worker._slots.running
        await until(lambda: any(run.claim.id == handle.id and run.cuttable for run in runs))
    return found


async def record_of(queue: Queue, job_id: str) -> Record:
    """All that the store keeps of the job."""
    store = queue.store.handle()
    await store.open()
    try:
        (record,) = await store.get([job_id])
    finally:
        await store.close()
    assert record is not None
    return record


class Shifted:
    """The machine's clocks, put forward by a test."""

    def __init__(self) -> None:
        self._clock = SystemClock()
        self.by = 0.0

    def wall(self) -> float:
        return self._clock.wall() + self.by

    def boot(self) -> float:
        return self._clock.boot() + self.by


class Leashed:
    """The machine's clocks, which stand still before a lease runs out, until it is renewed.

    So no lease lapses only because the machine has no time for who renews it. Where nobody does,
    the clocks stand until the test's patience is over.
    """

    def __init__(self) -> None:
        self._clock = SystemClock()
        self._lock = threading.Lock()
        self._seen = self._clock.boot()
        self._gone = 0.0
        self._until = float("inf")
        self._wall = self._clock.wall()

    @property
    def leashed(self) -> bool:
        """Whether a lease was renewed, so that from now on none lapses."""
        return self._until < float("inf")

    def watch(self, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
        """Stand still before a lease of the queue runs out, once one was renewed."""
        kind = type(queue.store)
        renew = kind.renew

        async def renewed(store: Any, leases: Sequence[Lease], *args: Any, **options: Any) -> Any:
            beats = await renew(store, leases, *args, **options)
            if leases:
                with self._lock:
                    # A renewal comes every third of a lease.
                    self._until = self._gone + 0.8 * queue.lease
            return beats

        monkeypatch.setattr(kind, "renew", renewed)

    def boot(self) -> float:
        with self._lock:
            now = self._clock.boot()
            ahead = self._gone + now - self._seen
            self._seen = now
            self._gone = max(self._gone, min(ahead, self._until))
            return self._gone

    def wall(self) -> float:
        return self._wall + self.boot()


class Faults:
    """What a Flaky store does wrong: verbs away, verbs refused, verbs whose reply is lost."""

    def __init__(self) -> None:
        self.away: set[str] = set()
        self.refused: set[str] = set()
        self.lost: dict[str, int] = {}
        self.nothing: dict[str, Any] = {}
        """What a verb answers of each that it is asked of, as if the store knew none."""
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    def count(self, verb: str) -> int:
        return sum(name == verb for name, _ in self.calls)


_VERBS = frozenset(
    {
        "open",
        "claim",
        "move",
        "renew",
        "add",
        "get",
        "reserve",
        "prune",
        "read",
        "write",
        "tick",
        "events",
        "counts",
        "metrics",
    }
)


class Flaky:
    """A store that fails on command; its handles fail with it."""

    def __init__(self, store: Store, faults: Faults) -> None:
        self.inner = store
        self.faults = faults

    def handle(self, queue: str | None = None) -> Flaky:
        return Flaky(self.inner.handle(queue), self.faults)

    def __getattr__(self, verb: str) -> Any:
        found = getattr(self.inner, verb)
        if verb not in _VERBS:
            return found

        async def call(*args: Any, **options: Any) -> Any:
            self.faults.calls.append((verb, args))
            if verb in self.faults.away:
                raise StoreUnavailable(f"{verb}: away")
            if verb in self.faults.refused:
                raise SchemaMismatch(f"{verb}: refused")
            if verb in self.faults.nothing:
                return [self.faults.nothing[verb]] * len(args[0])
            answer = await found(*args, **options)
            if self.faults.lost.get(verb, 0):
                self.faults.lost[verb] -= 1
                raise StoreUnavailable(f"{verb}: the reply was lost")
            return answer

        return call


def flaky(queue: Queue) -> tuple[Queue, Faults]:
    """The same queue behind a store that fails on command."""
    faults = Faults()
    store: Any = Flaky(queue.store, faults)
    other = Queue(
        store,
        concurrency=queue.concurrency,
        poll_interval=queue.poll_interval,
        lease=queue.lease,
        seams=queue.seams,
    )
    return other, faults


def ids(handles: Sequence[JobHandle[Any]]) -> list[str]:
    return [handle.id for handle in handles]
