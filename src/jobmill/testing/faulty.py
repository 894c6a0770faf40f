"""A store behind faults: what its users see of it in a simulation."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from jobmill.limits import Window
from jobmill.states import Move, Note
from jobmill.store import (
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
    Moved,
    NewJob,
    Page,
    Query,
    Record,
    Store,
    Ticked,
    Want,
)
from jobmill.testing.eventlog import (
    Adds,
    Claims,
    Drops,
    Event,
    Moves,
    Pauses,
    Renews,
    Reserves,
)
from jobmill.testing.faults import Crashed, Faults

_PAGE: Final = 500


class FaultyStore:
    """A store behind Faults. Satisfies jobmill.store.Store."""

    def __init__(self, store: Store, faults: Faults) -> None:
        self._store = store
        self._faults = faults

    @property
    def features(self) -> Features:
        """The store's."""
        return self._store.features

    @property
    def queue(self) -> str:
        """The store's."""
        return self._store.queue

    @property
    def place(self) -> str:
        """Where the store beneath is."""
        return self._store.place

    def handle(self, queue: str | None = None) -> FaultyStore:
        """Another handle of the store, behind the same faults."""
        return FaultyStore(self._store.handle(queue), self._faults)

    async def open(self) -> None:
        """Open the store."""

        async def opened() -> None:
            await self._store.open()
            self._faults.keep(self._store)

        await self._faults.pass_on("open", opened)

    async def close(self) -> None:
        """Leave the store; it is closed when the simulation is over."""
        if self._faults.sim.over:
            raise Crashed("close")

    async def queues(self) -> list[str]:
        """As the store's."""
        return await self._faults.pass_on("queues", self._store.queues)

    async def add(
        self,
        jobs: Sequence[NewJob],
        *,
        wake: bool = True,
        whole: bool = False,
        now: float | None = None,
    ) -> list[Added]:
        """As the store's; logged."""

        def tell(answers: list[Added]) -> None:
            self._log(Adds(**self._stamp(), jobs=tuple(jobs), answers=tuple(answers)))

        return await self._faults.pass_on(
            "add", lambda: self._store.add(jobs, wake=wake, whole=whole, now=now), tell
        )

    async def add_with(
        self, tx: object, jobs: Sequence[NewJob], *, wake: bool = False
    ) -> list[Added]:
        """As the store's; not logged: it is the caller's transaction."""
        return await self._store.add_with(tx, jobs, wake=wake)

    def add_with_sync(
        self, tx: object, jobs: Sequence[NewJob], *, wake: bool = False
    ) -> list[Added]:
        """As the store's; not logged: it is the caller's transaction."""
        return self._store.add_with_sync(tx, jobs, wake=wake)

    async def claim(
        self, want: Want, settle: Sequence[Move] = (), *, now: float | None = None
    ) -> Claimed:
        """As the store's; logged, at the store's own instant."""
        sent = self._faults.sim.clock.boot()

        def tell(answer: Claimed) -> None:
            stamp = self._faults.stamp(at=answer.now)
            self._log(Claims(**stamp, sent=sent, want=want, settle=tuple(settle), answer=answer))

        return await self._faults.pass_on(
            "claim", lambda: self._store.claim(want, settle, now=now), tell
        )

    async def renew(
        self,
        leases: Sequence[Lease],
        lease: float,
        notes: Mapping[str, Note] | None = None,
        *,
        now: float | None = None,
    ) -> list[Beat]:
        """As the store's; logged."""

        def tell(beats: list[Beat]) -> None:
            stamp = self._stamp()
            self._log(Renews(**stamp, leases=tuple(leases), lease=lease, beats=tuple(beats)))

        return await self._faults.pass_on(
            "renew", lambda: self._store.renew(leases, lease, notes, now=now), tell
        )

    async def move(self, moves: Sequence[Move], *, now: float | None = None) -> list[Moved]:
        """As the store's; logged."""

        def tell(answers: list[Moved]) -> None:
            self._log(Moves(**self._stamp(), moves=tuple(moves), answers=tuple(answers)))

        return await self._faults.pass_on("move", lambda: self._store.move(moves, now=now), tell)

    async def drop(
        self,
        query: Query,
        *,
        ids: Sequence[str] | None = None,
        limit: int,
        now: float | None = None,
    ) -> int:
        """As the store's; logged with the ids that are gone."""

        async def drop() -> tuple[int, set[str]]:
            before = await self._ids()
            count = await self._store.drop(query, ids=ids, limit=limit, now=now)
            return count, before - await self._ids()

        def tell(answer: tuple[int, set[str]]) -> None:
            self._log(Drops(**self._stamp(), job_ids=tuple(sorted(answer[1]))))

        return (await self._faults.pass_on("drop", drop, tell))[0]

    async def get(self, ids: Sequence[str], *, now: float | None = None) -> list[Record | None]:
        """As the store's."""
        return await self._faults.pass_on("get", lambda: self._store.get(ids, now=now))

    async def find(
        self,
        query: Query,
        *,
        limit: int,
        cursor: str | None = None,
        within: float | None = None,
        now: float | None = None,
    ) -> Page:
        """As the store's."""
        return await self._faults.pass_on(
            "find",
            lambda: self._store.find(query, limit=limit, cursor=cursor, within=within, now=now),
        )

    async def counts(self, query: Query | None = None, *, now: float | None = None) -> Counts:
        """As the store's."""
        return await self._faults.pass_on("counts", lambda: self._store.counts(query, now=now))

    async def events(self, after: int | None, limit: int) -> list[Ending]:
        """As the store's."""
        return await self._faults.pass_on("events", lambda: self._store.events(after, limit))

    async def errors(self, limit: int) -> list[ErrorGroup]:
        """As the store's."""
        return await self._faults.pass_on("errors", lambda: self._store.errors(limit))

    async def metrics(self, since: float) -> list[Bucket]:
        """As the store's."""
        return await self._faults.pass_on("metrics", lambda: self._store.metrics(since))

    async def reserve(
        self,
        key: str,
        job_id: str,
        token: str,
        windows: Sequence[Window],
        *,
        now: float | None = None,
    ) -> float:
        """As the store's; logged."""

        def tell(answer: float) -> None:
            self._log(
                Reserves(
                    **self._stamp(),
                    key=key,
                    job_id=job_id,
                    token=token,
                    windows=tuple(windows),
                    answer=answer,
                )
            )

        return await self._faults.pass_on(
            "reserve",
            lambda: self._store.reserve(key, job_id, token, windows, now=now),
            tell,
        )

    async def read(self, space: str, *, after: str = "", limit: int = 1_000) -> list[Doc]:
        """As the store's."""
        return await self._faults.pass_on(
            "read", lambda: self._store.read(space, after=after, limit=limit)
        )

    async def write(
        self,
        space: str,
        key: str,
        value: bytes | None,
        *,
        version: int | None = None,
        now: float | None = None,
    ) -> int | None:
        """As the store's; a pause is logged."""

        def tell(answer: int | None) -> None:
            if space == "pauses" and answer is not None:
                self._log(Pauses(**self._stamp(), key=key, there=answer != 0))

        return await self._faults.pass_on(
            "write",
            lambda: self._store.write(space, key, value, version=version, now=now),
            tell,
        )

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
        """As the store's; the jobs that it added are logged."""

        def tell(answer: Ticked) -> None:
            if answer.version is not None:
                stamp = self._stamp()
                self._log(Adds(**stamp, jobs=tuple(jobs), answers=answer.added))

        return await self._faults.pass_on(
            "tick",
            lambda: self._store.tick(schedule, version, value, entries, jobs, keep=keep, now=now),
            tell,
        )

    async def prune(self, limit: int, *, now: float | None = None) -> int:
        """As the store's."""
        return await self._faults.pass_on("prune", lambda: self._store.prune(limit, now=now))

    async def wait(self, topics: Collection[str], timeout: float) -> None:
        """As the store's; but it may hear nothing, and return for nothing."""
        if self._faults.sim.over:
            raise Crashed("wait")
        if self._faults.deaf():
            await asyncio.sleep(timeout if self._faults.deaf() else self._faults.moment(timeout))
        else:
            await self._store.wait(topics, timeout)

    def _stamp(self) -> Any:
        """What each event has, at the store's own instant."""
        return self._faults.stamp(at=self._faults.instant(self._store))

    def _log(self, event: Event) -> None:
        self._faults.log.append(event)

    async def _ids(self) -> set[str]:
        """The ids of all records."""
        page = await self._store.find(Query(), limit=_PAGE)
        ids = {record.id for record in page.records}
        while page.cursor is not None:
            page = await self._store.find(Query(), limit=_PAGE, cursor=page.cursor)
            ids.update(record.id for record in page.records)
        return ids
