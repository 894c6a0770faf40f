"""The plans of a queue's schedules in its store: found, written, changed, removed, triggered.

Every write is a compare-and-set: whoever comes second reads anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple, TypeVar

import msgspec

from jobmill.documents import read_one
from jobmill.schedule import (
    KEPT_TICKS,
    Entry,
    Plan,
    created,
    decode_plan,
    encode_plan,
    entry_value,
    replaced,
    tick_key,
)
from jobmill.states import UNFINISHED
from jobmill.store import Doc, NewJob, Query, Store

log: Final = logging.getLogger("jobmill.scheduler")

SCHEDULES: Final = "schedules"
"""The space of the documents that are schedules."""

_PAGE: Final = 1_000

T = TypeVar("T")


class Triggered(NamedTuple):
    """What a trigger led to: a job, made by it or (`there`) unfinished already."""

    job_name: str
    job_id: str
    there: bool


class Plans:
    """The plans of the store's queue.

    `threads`: whether plans may be decoded in a thread, as that may read the file of a zone.
    """

    def __init__(self, store: Store, *, threads: bool) -> None:
        self._store = store
        self._threads = threads

    # -- reading ----------------------------------------------------------------------------

    async def docs(self) -> list[Doc]:
        """All of them, undecoded, by name."""
        return await self._all(SCHEDULES)

    async def doc(self, name: str) -> Doc | None:
        """The one of this name, undecoded, without reading them all."""
        return await read_one(self._store, SCHEDULES, name)

    async def history(self, name: str) -> list[Doc]:
        """What became of the ticks of a schedule, oldest first."""
        return await self._all(history_space(name))

    async def decoded(self, doc: Doc) -> Plan:
        """The plan of a document.

        Raises: ConfigError where it is none.
        """
        return await off_loop(partial(decode_plan, doc.value), threads=self._threads)

    async def now(self) -> float:
        """The store's now."""
        return (await self._store.counts(Query(states=("processing",)))).now

    async def blocker(self, plan: Plan) -> str | None:
        """The job of its last tick, where that is unfinished and lets no other beside it."""
        if not plan.single or plan.last_job_id is None:
            return None
        (record,) = await self._store.get([plan.last_job_id])
        # One whose record is gone has ended.
        if record is None or record.state not in UNFINISHED:
            return None
        held = record.name == plan.job and record.unique_key == plan.unique_key
        return record.id if held or not plan.allow_concurrent else None

    # -- writing ----------------------------------------------------------------------------

    async def put(self, name: str, fresh: Plan, *, at_once: bool) -> Plan:
        """Write it, whatever is there; `at_once`: with a first tick where nothing is."""
        while True:
            doc = await self.doc(name)
            now = await self.now()
            if doc is None:
                version = 0
                plan = created(fresh, now, at_once=at_once)
            else:
                version = doc.version
                try:
                    old = await self.decoded(doc)
                except ValueError as error:
                    log.warning("the schedule %s could not be read: %s", name, error)
                    plan = created(fresh, now, at_once=False)
                else:
                    plan = replaced(old, fresh, now)
            value = encode_plan(plan)
            if await self._store.write(SCHEDULES, name, value, version=version) is not None:
                return plan

    async def change(self, name: str, change: Callable[[Plan, float], Plan]) -> bool:
        """Change one, by its plan and the store's now; False where there is none."""
        while (doc := await self.doc(name)) is not None:
            plan = await self.decoded(doc)
            value = encode_plan(change(plan, await self.now()))
            if await self._store.write(SCHEDULES, name, value, version=doc.version) is not None:
                return True
        return False

    async def remove(self, name: str) -> bool:
        """Remove one with its history; False where there is none."""
        while (doc := await self.doc(name)) is not None:
            # The history goes first, with the version that proves that nobody ticked since.
            cut = await self._store.tick(name, doc.version, doc.value, (), (), keep=0)
            if cut.version is not None and (
                await self._store.write(SCHEDULES, name, None, version=cut.version) is not None
            ):
                return True
        return False

    async def trigger(self, name: str, job_id: str) -> Triggered | None:
        """Add a job of this id off the clock, or find the one in its way; None: no schedule."""
        while (doc := await self.doc(name)) is not None:
            plan = await self.decoded(doc)
            if (last := await self.blocker(plan)) is not None:
                return Triggered(plan.job, last, there=True)
            now = await self.now()
            after = msgspec.structs.replace(plan, last_job_id=job_id)
            key = tick_key(now)
            entry = entry_value(Entry(outcome="fired", job_id=job_id))
            ticked = await self._store.tick(
                *(name, doc.version, encode_plan(after), [(key, entry)]),
                [job_of(plan, name, job_id, now)],
                keep=KEPT_TICKS,
            )
            if ticked.version is None:
                continue
            (added,) = ticked.added
            if added.status == "held":
                # Not known before: the key is held by a job of no tick.
                after = msgspec.structs.replace(plan, last_job_id=added.job_id)
                entry = entry_value(Entry(outcome="skipped", job_id=added.job_id))
                await self._store.tick(
                    name, ticked.version, encode_plan(after), [(key, entry)], (), keep=KEPT_TICKS
                )
            return Triggered(plan.job, added.job_id, there=added.status != "added")
        return None

    async def _all(self, space: str) -> list[Doc]:
        docs = await self._store.read(space, limit=_PAGE)
        page = docs
        while len(page) == _PAGE:
            page = await self._store.read(space, after=page[-1].key, limit=_PAGE)
            docs += page
        return docs


def history_space(name: str) -> str:
    """The space that holds the history of the schedule `name`."""
    return f"history:{name}"


def job_of(plan: Plan, name: str, job_id: str, tick: float) -> NewJob:
    """The job of a tick: not due before it, by the store's clock."""
    return NewJob(
        id=job_id,
        name=plan.job,
        payload=bytes(plan.payload),
        policy=plan.policy,
        priority=plan.priority,
        run_at=tick,
        unique_key=plan.unique_key,
        metadata={"schedule": name},
    )


async def off_loop(work: Callable[[], T], *, threads: bool) -> T:
    """Do it in a thread, where threads may be used."""
    return await asyncio.to_thread(work) if threads else work()
