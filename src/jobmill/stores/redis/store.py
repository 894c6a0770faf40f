"""The store in Redis or Valkey, as the engines see it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from jobmill.clock import Clock, SteadyClock, SystemClock
from jobmill.errors import ConfigError, StoreError, Unsupported
from jobmill.limits import Window
from jobmill.states import Move, Note
from jobmill.store import (
    ENDS,
    JOBS,
    Added,
    Beat,
    Claimed,
    Counts,
    Doc,
    Ending,
    ErrorGroup,
    Features,
    Finding,
    Lease,
    Moved,
    NewJob,
    Page,
    Query,
    Record,
    Ticked,
    Want,
    topic_of_job,
)
from jobmill.stores.redis import wire
from jobmill.stores.redis.address import Address
from jobmill.stores.redis.connection import CONNECTIONS, Connection
from jobmill.stores.redis.keys import QUEUES, tag
from jobmill.stores.redis.listening import Listener
from jobmill.stores.redis.scripts import LAYOUT
from jobmill.stores.redis.wire import Argument, packed
from jobmill.tally import Bucket, minute_of

_FEATURES: Final = Features.DURABLE | Features.SHARED | Features.PUSH
_JOB: Final = topic_of_job("")
_ANY_END: Final = "*"
"""What stands for all ends, where jobs' ids stand."""
_FIRST_WAIT: Final = 1.0
"""Seconds for which the first `wait` may outlast its timeout, to subscribe."""
_WATCH_LONGER: Final = 60.0


class RedisStore:
    """One queue of a Redis server, as durable as the server is; the server keeps the time.

    `clock`: any but the machine's own takes the place of the server's, for tests.
    """

    def __init__(
        self, address: Address, queue: str = "default", *, clock: Clock | None = None
    ) -> None:
        self._address = address
        theirs = None if isinstance(clock, SystemClock) else clock
        self._time = None if theirs is None else SteadyClock(theirs)
        self._queue = queue
        self._tag = tag(queue)
        self._connection: Connection | None = None
        self._listener: Listener | None = None
        self._seen = 0

    def __repr__(self) -> str:
        return f"RedisStore({str(self._address)!r}, {self._queue!r})"

    @property
    def features(self) -> Features:
        """It is durable as the server is, is shared by processes, and wakes at once."""
        return _FEATURES

    @property
    def queue(self) -> str:
        """The queue that this store acts on."""
        return self._queue

    @property
    def address(self) -> Address:
        """The server."""
        return self._address

    @property
    def place(self) -> str:
        """Where it is, as a URL without its secrets."""
        return str(self._address)

    def handle(self, queue: str | None = None) -> RedisStore:
        """Another, unopened store on the same server."""
        other = RedisStore(self._address, self._queue if queue is None else queue)
        other._time = self._time
        return other

    async def open(self) -> None:
        """Connect to the server, and see that it is one to keep jobs in.

        Raises: ConfigError where it refuses the login or may throw keys away;
        SchemaMismatch where it is too old; StoreUnavailable.
        """
        if self._connection is not None:
            return
        connection = CONNECTIONS.acquire(self._address)
        try:
            await connection.check(self._tag)
        except BaseException:
            await CONNECTIONS.release(connection)
            raise
        self._connection = connection

    async def close(self) -> None:
        """Be done with the connections, after all that was asked before; the last one ends them."""
        listener, self._listener = self._listener, None
        connection, self._connection = self._connection, None
        if listener is not None:
            await listener.close()
        if connection is not None and not await CONNECTIONS.release(connection):
            await connection.settled()

    async def examine(self) -> list[Finding]:
        """What there is to say of the server: how it keeps jobs, and whether it has room."""
        return await self._opened().examine(self._tag)

    async def queues(self) -> list[str]:
        """Names of the queues that have jobs or documents, in order."""
        connection = self._opened()
        names = sorted(each.decode() for each in await connection.command("SMEMBERS", QUEUES))
        return [name for name in names if await connection.run("holds", tag(name), packed(()))]

    async def add(
        self,
        jobs: Sequence[NewJob],
        *,
        wake: bool = True,
        whole: bool = False,
        now: float | None = None,
    ) -> list[Added]:
        """Store jobs; one answer for each, in order."""
        words = (self._instant(now), wake, whole, *wire.told_jobs(jobs))
        listed, answers = await self._run("add", words, copied=True)
        await self._list(listed)
        return wire.added_of(jobs, answers)

    async def add_with(
        self, tx: object, jobs: Sequence[NewJob], *, wake: bool = False
    ) -> list[Added]:
        """Unsupported: a job in Redis joins no transaction."""
        raise Unsupported("the store in Redis joins no transaction; leave out tx")

    def add_with_sync(
        self, tx: object, jobs: Sequence[NewJob], *, wake: bool = False
    ) -> list[Added]:
        """Unsupported: a job in Redis joins no transaction."""
        raise Unsupported("the store in Redis joins no transaction; leave out tx")

    async def claim(
        self, want: Want, settle: Sequence[Move] = (), *, now: float | None = None
    ) -> Claimed:
        """Hand out jobs to run, after applying the moves in `settle`."""
        words = (self._instant(now), *wire.told_want(want), *wire.told_moves(settle))
        return wire.claimed_of(await self._run("claim", words), settle)

    async def renew(
        self,
        leases: Sequence[Lease],
        lease: float,
        notes: Mapping[str, Note] | None = None,
        *,
        now: float | None = None,
    ) -> list[Beat]:
        """Hold leases for `lease` seconds from now; one answer for each, in order."""
        words = (self._instant(now), lease, *wire.told_leases(leases, notes or {}))
        return [beat.decode() for beat in await self._run("renew", words)]

    async def move(self, moves: Sequence[Move], *, now: float | None = None) -> list[Moved]:
        """Apply events to jobs by the table; one answer for each, in order."""
        answers = await self._run("move", (self._instant(now), *wire.told_moves(moves)))
        return wire.moved_of(moves, answers)

    async def drop(
        self,
        query: Query,
        *,
        ids: Sequence[str] | None = None,
        limit: int,
        now: float | None = None,
    ) -> int:
        """Remove jobs for good, at most `limit`, never one that is processing; how many.

        Without ids it goes through the jobs in steps, so that no step holds up the server.
        """
        removed, cursor = 0, "-inf"
        while True:
            words = (self._instant(now), *wire.told_query(query), cursor, limit - removed)
            gone: int
            gone, stopped = await self._run("drop", (*words, *wire.told_words(ids)))
            removed += gone
            if stopped is None:
                return removed
            cursor = stopped

    async def get(self, ids: Sequence[str], *, now: float | None = None) -> list[Record | None]:
        """The records of these jobs, None where there is none, in order."""
        answers = await self._run("get", (self._instant(now), *wire.told_words(ids)))
        return [wire.record_of(answer) for answer in answers]

    async def find(
        self,
        query: Query,
        *,
        limit: int,
        cursor: str | None = None,
        within: float | None = None,
        now: float | None = None,
    ) -> Page:
        """Records, newest first; goes on after `cursor`. It looks in steps, as `drop` does."""
        records: list[Record] = []
        after = _after(cursor)
        until = float("inf") if within is None else time.monotonic() + within
        while True:
            words = (self._instant(now), *wire.told_query(query), after, limit - len(records))
            found, stopped, more = await self._run("find", words)
            records += [record for record in map(wire.record_of, found) if record is not None]
            if stopped is None:
                return Page(records=tuple(records))
            if more or time.monotonic() >= until:
                return Page(records=tuple(records), cursor=stopped.decode().removeprefix("("))
            after = stopped

    async def counts(self, query: Query | None = None, *, now: float | None = None) -> Counts:
        """How many records there are now.

        It looks in steps, as `drop` does: at what is delayed and due, and at all jobs where the
        query has a unique key or a fingerprint.
        """
        numbers: dict[tuple[str, str], int] = {}
        oldest: float | None = None
        cursor = "-inf"
        while True:
            words = (self._instant(now), *wire.told_query(query or Query()), cursor)
            at, flat, due, stopped = await self._run("counts", words)
            for field, number in zip(flat[::2], flat[1::2], strict=True):
                state, _, name = field.decode().partition(":")
                numbers[state, name] = numbers.get((state, name), 0) + number
            if due is not None:
                oldest = float(due) if oldest is None else min(oldest, float(due))
            if stopped is None:
                return wire.counts_of(numbers, oldest, float(at))
            cursor = stopped

    async def events(self, after: int | None, limit: int) -> list[Ending]:
        """Ends and retries in commit order, after the entry `after`."""
        return [wire.ending_of(text) for text in await self._run("events", (after, limit))]

    async def errors(self, limit: int) -> list[ErrorGroup]:
        """Error groups, last seen first."""
        return [wire.group_of(fields) for fields in await self._run("errors", (limit,))]

    async def metrics(self, since: float) -> list[Bucket]:
        """The buckets of the minutes from that of the instant `since` on."""
        minutes = await self._run("metrics", (minute_of(since),))
        return [bucket for minute, flat in minutes for bucket in wire.buckets_of(minute, flat)]

    async def reserve(
        self,
        key: str,
        job_id: str,
        token: str,
        windows: Sequence[Window],
        *,
        now: float | None = None,
    ) -> float:
        """Ask for a start under the rate limit `key`; 0, or the seconds until the slot."""
        words: list[Argument] = [self._instant(now), key, job_id, token, len(windows)]
        for window in windows:
            words += (window.limit, window.seconds)
        return float(await self._run("reserve", words))

    async def read(self, space: str, *, after: str = "", limit: int = 1_000) -> list[Doc]:
        """The documents of a space whose key is greater than `after`, by key."""
        return [wire.doc_of(*doc) for doc in await self._run("read", (space, after, limit))]

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
        words = (self._instant(now), space, key, value, version)
        listed, written = await self._run("write", words)
        await self._list(listed)
        return None if written is None else int(written)

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
        words: list[Argument] = [self._instant(now), schedule, version, value, keep, len(entries)]
        for entry in entries:
            words += entry
        listed, written, added = await self._run(
            "tick", (*words, *wire.told_jobs(jobs)), copied=True
        )
        await self._list(listed)
        if written is None:
            return Ticked(version=None)
        return Ticked(version=int(written), added=tuple(wire.added_of(jobs, added)))

    async def prune(self, limit: int, *, now: float | None = None) -> int:
        """Remove at most `limit` records whose time has come; how many."""
        removed: int = await self._run("prune", (self._instant(now), limit))
        return removed

    async def wait(self, topics: Collection[str], timeout: float) -> None:
        """Return when one of the topics was told since the last wait, or after `timeout`."""
        connection = self._opened()
        if self._listener is None:
            self._listener = Listener(self._queue, lambda: connection.another(self._tag))
        listener = self._listener
        # What ended before the first subscription stands was not heard.
        deaf = ENDS in topics and not listener.stands
        await listener.ready(max(timeout, _FIRST_WAIT))
        ids = [topic.removeprefix(_JOB) for topic in topics if topic.startswith(_JOB)]
        ids += [_ANY_END] * (ENDS in topics)
        keys: list[str | None] = [None, *ids] if JOBS in topics else [*ids]
        if JOBS in topics and self._seen != listener.tellings:
            self._seen = listener.tellings
            # Whoever waits in a loop lets others have their turn.
            await asyncio.sleep(0)
            return
        waiter = listener.enter(keys)
        try:
            if ids:
                words = (self._instant(None), timeout + _WATCH_LONGER, *wire.told_words(ids))
                if await connection.run("watch", self._tag, packed(words)) or deaf:
                    return
            await asyncio.wait([waiter], timeout=timeout)
        finally:
            listener.leave(keys, waiter)
            if JOBS in topics:
                self._seen = listener.tellings

    def _instant(self, now: float | None) -> Argument:
        """The instant of a call as an argument: missing where the server is to say it."""
        return self._time.now() if now is None and self._time is not None else now

    async def _run(self, name: str, words: Iterable[Argument], *, copied: bool = False) -> Any:
        return await self._opened().run(name, self._tag, packed(words), copied=copied)

    async def _list(self, listed: int) -> None:
        """Enter the queue into the set of queues, which lies in another slot of a Cluster."""
        if not listed:
            await self._opened().command("SADD", QUEUES, self._queue)
            await self._opened().command("HSET", f"{self._tag}:meta", "listed", LAYOUT)

    def _opened(self) -> Connection:
        if self._connection is None:
            raise StoreError(f"the store on {self._address} is not open: await open() first")
        return self._connection


def _after(cursor: str | None) -> str:
    if cursor is None:
        return "+inf"
    if not (cursor.isascii() and cursor.isdigit()):
        raise ConfigError(f"{cursor!r} is no cursor of this store", field="cursor")
    return f"({cursor}"
