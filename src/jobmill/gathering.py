"""Sends jobs that are enqueued at about the same time to the store together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from contextvars import Context
from typing import Final

from jobmill.errors import StoreUnavailable
from jobmill.store import Added, NewJob, Store

PER_CALL: Final = 1_000
"""Jobs that go to the store in one call, at most."""
_BYTES_PER_CALL: Final = 8 << 20
_CALLS_AT_ONCE: Final = 2


class Gatherer:
    """Gathers the `add` calls of one loop.

    The calls of one turn of the loop go together; while calls are under way, what comes
    meanwhile waits for the next. A caller that is cancelled leaves the others alone.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[NewJob, bool, asyncio.Future[Added]]] = deque()
        self._sending: set[asyncio.Task[None]] = set()
        self._next_call: asyncio.Task[None] | None = None
        """The call that has not begun: what waits when its turn comes goes with it."""

    def add(self, job: NewJob, *, wake: bool) -> asyncio.Future[Added]:
        """Store one job: what is to be awaited for it.

        Raises, where it is awaited: StoreUnavailable, with the job's id.
        """
        answer: asyncio.Future[Added] = self._loop.create_future()
        self._waiting.append((job, wake, answer))
        self._call()
        return answer

    def _call(self) -> None:
        if self._next_call is None and len(self._sending) < _CALLS_AT_ONCE:
            self._next_call = self._loop.create_task(self._send(), context=Context())
            self._sending.add(self._next_call)
            self._next_call.add_done_callback(self._sent)

    def _next(self) -> list[tuple[NewJob, bool, asyncio.Future[Added]]]:
        """What goes in one call, without the callers who were cancelled before it."""
        batch: list[tuple[NewJob, bool, asyncio.Future[Added]]] = []
        size = 0
        while self._waiting and len(batch) < PER_CALL:
            job, _, answer = self._waiting[0]
            size += len(job.payload)
            if batch and size > _BYTES_PER_CALL:
                break
            one = self._waiting.popleft()
            if answer.done():
                size -= len(job.payload)
            else:
                batch.append(one)
        return batch

    def _sent(self, sending: asyncio.Task[None]) -> None:
        self._sending.discard(sending)
        if self._next_call is sending:
            # Cancelled before it began, as at the end of the loop.
            self._next_call = None
            while batch := self._next():
                _fail(batch, asyncio.CancelledError())
        if self._waiting:
            self._call()

    async def _send(self) -> None:
        self._next_call = None
        batch = self._next()
        if not batch:
            return
        if self._waiting:
            self._call()
        try:
            added = await self._store.add(
                [job for job, _, _ in batch], wake=any(wake for _, wake, _ in batch)
            )
        except BaseException as error:
            _fail(batch, error)
            if not isinstance(error, Exception):
                raise
            return
        for one, (_, _, answer) in zip(added, batch, strict=True):
            if not answer.done():
                answer.set_result(one)


def _fail(batch: list[tuple[NewJob, bool, asyncio.Future[Added]]], error: BaseException) -> None:
    for job, _, answer in batch:
        if not answer.done():
            answer.set_exception(_own(error, job))


def portions(jobs: Sequence[NewJob]) -> Iterator[Sequence[NewJob]]:
    """The jobs by calls to the store, none of which is too long."""
    start = size = 0
    for end, job in enumerate(jobs):
        size += len(job.payload)
        if end - start == PER_CALL or (end > start and size > _BYTES_PER_CALL):
            yield jobs[start:end]
            start, size = end, len(job.payload)
    if start < len(jobs):
        yield jobs[start:]


def _own(error: BaseException, job: NewJob) -> BaseException:
    """The error as this caller gets it."""
    if isinstance(error, StoreUnavailable):
        return unavailable(error, [job])
    if isinstance(error, asyncio.CancelledError):
        return StoreUnavailable("the loop ended before the store answered", job_ids=(job.id,))
    return error


def unavailable(error: StoreUnavailable, jobs: Sequence[NewJob]) -> StoreUnavailable:
    """The error with the ids of these jobs; a new one, since others may have got the same."""
    own = type(error)(str(error), job_ids=tuple(job.id for job in jobs))
    own.__cause__ = error
    return own
