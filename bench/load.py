"""Producers and a worker that remember what the store told them, to hold it against that."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from jobmill import Queue, StoreUnavailable, job
from jobmill.states import Move
from jobmill.store import Record, Want
from jobmill.stores.redis import RedisStore

AT_ONCE = (1, 50)
"""How many producers there are, each enqueueing one job after the other."""
PAYLOAD = 100
_PATIENCE = 60.0
_PAGE = 1_000
_Answer = TypeVar("_Answer")


@job(name="bench.parcel")
async def parcel(text: str) -> None:
    """Take a payload, and do nothing."""


def a_payload(size: int) -> str:
    """The text that makes a payload of `size` bytes of JSON."""
    return "x" * (size - len('{"text":""}'))


class Producers:
    """They enqueue until they are stopped; `accepted` says of each job when `enqueue` returned."""

    def __init__(self, queue: Queue, at_once: int, size: int = PAYLOAD) -> None:
        self._queue = queue
        self._at_once = at_once
        self._text = a_payload(size)
        self._stopped = False
        self.accepted: dict[str, float] = {}

    async def run(self) -> None:
        """Enqueue; what the store did not take is not counted, and the next is tried."""
        await asyncio.gather(*[self._produce() for _ in range(self._at_once)])

    def stop(self) -> None:
        """Let each end with the job that it is at."""
        self._stopped = True

    async def _produce(self) -> None:
        while not self._stopped:
            try:
                handle = await self._queue.enqueue(parcel, {"text": self._text})
            except StoreUnavailable:
                await asyncio.sleep(0.01)
            else:
                self.accepted[handle.id] = time.monotonic()


class Settler:
    """A bare worker; `settled` are the jobs that the store told it are completed."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self._stopped = False
        self.settled: set[str] = set()

    async def run(self) -> None:
        """Claim five jobs and settle them with the next claim, until the store is gone."""
        moves: list[Move] = []
        for number in itertools.count():
            want = Want(worker="bench", token=f"bench.{number}", limit=5, lease=30.0)
            try:
                answer = await self._store.claim(want, moves)
            except StoreUnavailable:
                return
            self.settled |= {each.job_id for each in answer.moved if each.status == "applied"}
            moves = [
                Move(event="succeed", job_id=each.id, token=each.token, result=b"null")
                for each in answer.claims
            ]
            if self._stopped:
                return

    def stop(self) -> None:
        """End with the claim that it is at."""
        self._stopped = True


async def once_there(ask: Callable[[], Awaitable[_Answer]]) -> _Answer:
    """What the store answers, once it is there again."""
    async with asyncio.timeout(_PATIENCE):
        while True:
            try:
                return await ask()
            except StoreUnavailable:
                await asyncio.sleep(0.05)


async def records(store: RedisStore, ids: Sequence[str]) -> dict[str, Record]:
    """What the store has of these jobs."""
    found: dict[str, Record] = {}
    for start in range(0, len(ids), _PAGE):
        page = await store.get(ids[start : start + _PAGE])
        found.update((each.id, each) for each in page if each is not None)
    return found
