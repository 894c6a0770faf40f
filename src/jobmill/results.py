"""Waits for jobs to end."""

from __future__ import annotations

import asyncio
import logging
from contextvars import Context
from typing import Final

from jobmill.errors import StoreUnavailable
from jobmill.states import ENDED
from jobmill.store import Record, Store, topic_of_job

log: Final = logging.getLogger("jobmill.queue")

_PER_CALL: Final = 1_000
_LOOK_AGAIN: Final = 5.0
"""Seconds after which every job that is waited for is looked up, whatever was told."""


class Results:
    """The jobs of one queue that somebody on this loop waits for."""

    def __init__(self, store: Store, poll_interval: float) -> None:
        self._store = store
        self._poll_interval = poll_interval
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[str, list[asyncio.Future[Record | None]]] = {}
        self._following: asyncio.Task[None] | None = None

    async def wait(self, job_id: str) -> Record | None:
        """The record of the job once it has ended; None where there is none."""
        answer: asyncio.Future[Record | None] = self._loop.create_future()
        self._waiting.setdefault(job_id, []).append(answer)
        try:
            if self._following is None or self._following.done():
                self._following = self._loop.create_task(self._follow(), context=Context())
            else:
                await self._look({job_id})
            return await answer
        finally:
            waiting = self._waiting.get(job_id, [])
            if answer in waiting:
                waiting.remove(answer)
            if not waiting:
                self._waiting.pop(job_id, None)

    async def close(self) -> None:
        """Stop waiting."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)

    async def _follow(self) -> None:
        """Follow the store's list of ends for as long as somebody waits."""
        after: int | None = None
        looked = float("-inf")
        while self._waiting:
            try:
                if after is None:
                    last = await self._store.events(None, 1)
                    after = last[-1].seq if last else 0
                if self._loop.time() - looked >= _LOOK_AGAIN:
                    looked = self._loop.time()
                    await self._look(set(self._waiting))
                topics = [topic_of_job(job_id) for job_id in self._waiting]
                if not topics:
                    return
                await self._store.wait(topics, self._poll_interval)
                while ends := await self._store.events(after, _PER_CALL):
                    after = ends[-1].seq
                    ended = {end.job_id for end in ends if end.kind != "retried"}
                    await self._look(ended & self._waiting.keys())
            except StoreUnavailable as error:
                log.debug("waiting for results: %s", error)
                await asyncio.sleep(self._poll_interval)

    async def _look(self, job_ids: set[str]) -> None:
        some = list(job_ids)
        for start in range(0, len(some), _PER_CALL):
            chunk = some[start : start + _PER_CALL]
            records = await self._store.get(chunk)
            for job_id, record in zip(chunk, records, strict=True):
                if record is not None and record.state not in ENDED:
                    continue
                for answer in self._waiting.pop(job_id, ()):
                    if not answer.done():
                        answer.set_result(record)
