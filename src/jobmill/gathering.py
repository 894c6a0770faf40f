"""Sends jobs that are enqueued at about the same time to the store together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
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
        self._scheduled = False

    def add(self, job: NewJob, *, wake: bool) -> asyncio.Future[Added]:
        """Store one job: what is to be awaited for it.

        Raises, where it is awaited: StoreUnavailable, with the job's id.
        """
        answer: asyncio.Future[Added] = self._loop.create_future()
        self._waiting.append((job, wake, answer))
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush, context=Context())
        return answer

    def _flush(self) -> None:
        self._scheduled = False
        while self._waiting and len(self._sending) < _CALLS_AT_ONCE:
            batch = self._next()
            if not batch:
                return
            sending = self._loop.create_task(self._send(batch), context=Context())
            self._sending.add(sending)
            sending.add_done_callback(self._sent)

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
        if self._waiting and not self._scheduled:
            self._flush()

    async def _send(self, batch: list[tuple[NewJob, bool, asyncio.Future[Added]]]) -> None:
        try:
            added = await self._store.add(
                [job for job, _, _ in batch], wake=any(wake for _, wake, _ in batch)
            )
        except BaseException as error:
            for job, _, answer in batch:
                if not answer.done():
                    answer.set_exception(_own(error, job))
            if not isinstance(error, Exception):
                raise
            return
        for one, (_, _, answer) in zip(added, batch, strict=True):
            if not answer.done():
                answer.set_result(one)


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
