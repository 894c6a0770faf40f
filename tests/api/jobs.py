"""Jobs that the tests of the public API put into queues, and stores that they watch."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from jobmill import Call, Fail, JobContext, JobHandle, Queue, StoreUnavailable, define_job, job
from jobmill.store import Added, NewJob, Store

HOUR = 3600.0


@dataclass(frozen=True)
class Email:
    to: str
    subject: str = ""


@define_job(name="api.send", retries=0)
async def send(ctx: JobContext[Email]) -> str:
    return ctx.payload.to


@define_job(name="api.reply")
async def reply(ctx: JobContext[Email]) -> Email:
    return Email(ctx.payload.to, "Re: " + ctx.payload.subject)


@job(name="api.echo")
async def echo(value: Any = None) -> Any:
    return value


@job(name="api.data")
async def data(size: int) -> bytes:
    return bytes(range(size))


@job(name="api.broken")
async def broken(message: str) -> None:
    raise Fail(message)


@define_job(name="api.hold")
async def hold(ctx: JobContext[None]) -> None:
    """Run until it is asked to end."""
    await ctx.update_progress(1)
    await ctx.signal.wait()


class HandClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.at = 1_800_000_000.0

    def wall(self) -> float:
        return self.at

    def boot(self) -> float:
        return self.at


@dataclass
class Watch:
    """What the handles of one store were asked to add; `down` is how many adds are refused.

    `lost`: adds that are done, but whose answer is lost.
    """

    adds: list[list[str]] = field(default_factory=list[list[str]])
    down: int = 0
    lost: int = 0
    opens_down: int = 0
    stuck: asyncio.Event | None = None


class WatchedStore:
    """A store whose adds are watched."""

    def __init__(self, store: Store, watch: Watch) -> None:
        self._store = store
        self._watch = watch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def handle(self, queue: str | None = None) -> WatchedStore:
        return WatchedStore(self._store.handle(queue), self._watch)

    async def open(self) -> None:
        if self._watch.opens_down:
            self._watch.opens_down -= 1
            raise StoreUnavailable
        await self._store.open()

    async def add(self, jobs: Sequence[NewJob], **options: Any) -> list[Added]:
        self._watch.adds.append([each.id for each in jobs])
        if self._watch.stuck is not None:
            await self._watch.stuck.wait()
        if self._watch.down:
            self._watch.down -= 1
            raise StoreUnavailable
        added = await self._store.add(jobs, **options)
        if self._watch.lost:
            self._watch.lost -= 1
            raise StoreUnavailable
        return added


def watched(queue: Queue) -> tuple[Queue, Watch]:
    """A queue on the same store, and what it asks of it."""
    watch = Watch()
    return Queue(cast("Store", WatchedStore(queue.store, watch))), watch


def echoes(count: int) -> list[Call[Any]]:
    return [echo.call(n) for n in range(count)]


async def statuses(queue: Queue) -> dict[str, int]:
    """How many jobs there are in each state, without the zeros."""
    stats = await queue.stats()
    names = ("pending", "delayed", "processing", "completed", "failed", "cancelled")
    counts = {name: int(getattr(stats, name)) for name in names}
    assert stats.total == sum(counts.values())
    return {name: count for name, count in counts.items() if count}


async def runs(handle: JobHandle[Any]) -> None:
    """Return once the job runs."""
    async with asyncio.timeout(30):
        while (await handle.info()).status != "processing":
            await asyncio.sleep(0)
