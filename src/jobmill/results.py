"""Waits for jobs to end."""

from __future__ import annotations

import asyncio
import logging
from contextvars import Context
from typing import Final

from jobmill.errors import StoreUnavailable
from jobmill.states import ENDED
from jobmill.store import ENDS, Record, Store, topic_of_job

log: Final = logging.getLogger("jobmill.queue")

_PER_CALL: Final = 1_000
_MANY: Final = 100
"""Jobs waited for, above which any end of the queue is a sign: to name them all to the store at
each turn would cost far more than the jobs."""
_GATHER: Final = 0.01
"""Seconds between two turns then, at least: what ends at about the same time goes together."""
_ANY_END: Final = 1.0
"""Seconds for which a sign is waited for then, at most."""
_LOOK_AGAIN: Final = 5.0
"""Seconds after which every job that is waited for is looked up, whatever was told."""


class Results:
    """The jobs of one queue that somebody on this loop waits for."""

    def __init__(self, store: Store, poll_interval: float) -> None:
        self._store = store
        self._poll_interval = poll_interval
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[str, list[asyncio.Future[Record | None]]] = {}
        self._unlooked: set[str] = set()
        self._following: asyncio.Task[None] | None = None
        self._sign: asyncio.Task[None] | None = None
        self._looked = self._loop.time()
        self._per_call = _PER_CALL

    async def wait(self, job_id: str) -> Record | None:
        """The record of the job once it has ended; None where there is none."""
        answer: asyncio.Future[Record | None] = self._loop.create_future()
        self._waiting.setdefault(job_id, []).append(answer)
        self.look_at(job_id)
        if self._following is None or self._following.done():
            self._following = self._loop.create_task(self._follow(), context=Context())
        try:
            return await answer
        finally:
            waiting = self._waiting.get(job_id, [])
            if answer in waiting:
                waiting.remove(answer)
            if not waiting:
                self._waiting.pop(job_id, None)

    def look_at(self, *job_ids: str) -> None:
        """Look soon what became of these jobs, or of all: something changed."""
        self._unlooked.update(job_ids or self._waiting)
        if self._sign is not None:
            self._sign.cancel()

    async def close(self) -> None:
        """Stop waiting; who still waits gets StoreUnavailable."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        self._fail(StoreUnavailable("the queue was closed while a result was waited for"))

    async def _follow(self) -> None:
        """Follow the store's list of ends for as long as somebody waits."""
        try:
            after: int | None = None
            while self._waiting:
                try:
                    after = await self._turn(after)
                except StoreUnavailable as error:
                    log.debug("waiting for results: %s", error)
                    self._unlooked.update(self._waiting)
                    await asyncio.sleep(self._poll_interval)
        except Exception as error:  # noqa: BLE001  whatever it is, who waits must get it
            self._fail(error)

    async def _turn(self, after: int | None) -> int:
        """Look at what may have ended, then wait for a sign; the last entry that was seen."""
        many = len(self._waiting) > _MANY
        topics = [ENDS] if many else [topic_of_job(job_id) for job_id in self._waiting]
        # What ends before a store listens for any end gives no sign.
        patience = min(self._poll_interval, _ANY_END) if many else self._poll_interval
        self._sign = sign = self._loop.create_task(self._store.wait(topics, patience))
        sign.add_done_callback(_retrieve)
        try:
            # It waits before the look, so that what ends in between gives its sign.
            await asyncio.sleep(0)
            after, ended = await self._ends(after)
            if self._loop.time() - self._looked >= _LOOK_AGAIN:
                self._looked = self._loop.time()
                ended |= self._waiting.keys()
            ended |= self._unlooked
            self._unlooked.clear()
            await self._look(ended & self._waiting.keys())
            if self._waiting:
                await asyncio.wait([sign])
            if many:
                await asyncio.sleep(_GATHER)
        finally:
            self._sign = None
            sign.cancel()
        if sign.done() and not sign.cancelled():
            sign.result()
        return after

    async def _ends(self, after: int | None) -> tuple[int, set[str]]:
        """The last entry now, and the jobs that ended since the entry `after`."""
        ended: set[str] = set()
        if after is None:
            last = await self._store.events(None, 1)
            return (last[-1].seq if last else 0), ended
        while True:
            ends = await self._store.events(after, _PER_CALL)
            ended.update(end.job_id for end in ends if end.kind != "retried")
            after = ends[-1].seq if ends else after
            if len(ends) < _PER_CALL:
                return after, ended

    async def _look(self, job_ids: set[str]) -> None:
        left = list(job_ids)
        while left:
            chunk = left[: self._per_call]
            try:
                records = await self._store.get(chunk)
            except StoreUnavailable:
                # Records may be so large that this many do not come in time.
                self._per_call = max(1, self._per_call // 4)
                raise
            self._per_call = min(_PER_CALL, self._per_call * 2)
            del left[: len(chunk)]
            for job_id, record in zip(chunk, records, strict=True):
                if record is not None and record.state not in ENDED:
                    continue
                for answer in self._waiting.pop(job_id, ()):
                    if not answer.done():
                        answer.set_result(record)

    def _fail(self, error: Exception) -> None:
        waiting, self._waiting = self._waiting, {}
        for answers in waiting.values():
            for answer in answers:
                if not answer.done():
                    answer.set_exception(error)


def _retrieve(sign: asyncio.Task[None]) -> None:
    """Have its exception looked at, also where nobody waits any more."""
    if not sign.cancelled():
        sign.exception()
