"""The store in PostgreSQL, as the engines see it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from jobmill.clock import Clock, SteadyClock, SystemClock
from jobmill.errors import ConfigError, StoreError
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
from jobmill.stores.postgresql import wire
from jobmill.stores.postgresql.address import Address
from jobmill.stores.postgresql.channels import channels
from jobmill.stores.postgresql.connection import Connection
from jobmill.stores.postgresql.examining import EXAMINE, findings
from jobmill.stores.postgresql.joining import Joining
from jobmill.stores.postgresql.listening import Ears
from jobmill.stores.postgresql.migrating import Migrations
from jobmill.stores.postgresql.surveying import Surveyor
from jobmill.stores.postgresql.telling import Teller
from jobmill.stores.postgresql.wire import escaped, plain
from jobmill.tally import Bucket, Tally, minute_of

_JOB: Final = topic_of_job("")
_FIRST_WAIT: Final = 1.0
"""Seconds for which the first `wait` may outlast its timeout, to subscribe."""
_LAST: Final = 2**63 - 1
_ANY: Final = Query()


class PostgresStore:
    """One queue of a PostgreSQL database, in a schema of its own; the server keeps the time.

    `clock`: any but the machine's own takes the place of the server's, for tests.
    """

    def __init__(
        self, address: Address, queue: str = "default", *, clock: Clock | None = None
    ) -> None:
        self._address = address
        theirs = None if isinstance(clock, SystemClock) else clock
        self._time = None if theirs is None else SteadyClock(theirs)
        self._queue = queue
        self._channels = channels(address.schema, queue)
        self._joining = Joining(address, queue, self._channels)
        self._connection: Connection | None = None
        self._teller: Teller | None = None
        self._ears: Ears | None = None
        self._surveyor: Surveyor | None = None
        self._seen = 0

    def __repr__(self) -> str:
        return f"PostgresStore({str(self._address)!r}, {self._queue!r})"

    @property
    def features(self) -> Features:
        """It joins transactions, is durable, shared by processes, and wakes where it listens."""
        push = Features.PUSH if self._address.listen else Features.NONE
        return Features.TRANSACTIONS | Features.DURABLE | Features.SHARED | push

    @property
    def queue(self) -> str:
        """The queue that this store acts on."""
        return self._queue

    @property
    def address(self) -> Address:
        """The database."""
        return self._address

    @property
    def place(self) -> str:
        """Where it is, as a URL without its secrets."""
        return str(self._address)

    def handle(self, queue: str | None = None) -> PostgresStore:
        """Another, unopened store on the same database."""
        other = PostgresStore(self._address, self._queue if queue is None else queue)
        other._time = self._time
        return other

    async def open(self) -> None:
        """Connect, and make the schema in a database that has none.

        Raises: ConfigError where the server refuses the login; SchemaMismatch where the schema
        is older, unless the address says `auto_migrate`; StoreUnavailable.
        """
        if self._connection is not None:
            return
        connection = Connection(self._address)
        try:
            await connection.check()
        except BaseException:
            await connection.close()
            raise
        self._connection = connection
        self._teller = Teller(connection, self._channels)
        self._surveyor = Surveyor(connection, escaped(self._queue))

    async def close(self) -> None:
        """Be done with the connections, after all that was asked before; the last one ends them."""
        ears, self._ears = self._ears, None
        teller, self._teller = self._teller, None
        surveyor, self._surveyor = self._surveyor, None
        connection, self._connection = self._connection, None
        if ears is not None:
            await ears.close()
        if teller is not None:
            await teller.close()
        if surveyor is not None:
            await surveyor.close()
        if connection is not None:
            await connection.close()

    async def examine(self) -> list[Finding]:
        """What there is to say of the server, its settings, the schema and its tables."""
        (row,) = await self._opened().fetch(EXAMINE, self._address.schema, looks=True)
        return findings(row, await Migrations(self._address).status())

    async def queues(self) -> list[str]:
        """Names of the queues that have jobs or documents, in order."""
        rows = await self._opened().run("queues", looks=True)
        return sorted(plain(name) for (name,) in rows)

    async def add(
        self,
        jobs: Sequence[NewJob],
        *,
        wake: bool = True,
        whole: bool = False,
        now: float | None = None,
    ) -> list[Added]:
        """Store jobs; one answer for each, in order."""
        if not jobs:
            return []
        row = await self._row("add", self._instant(now), whole, *wire.told_jobs(jobs))
        added = wire.added_of(jobs, row["statuses"], row["job_ids"])
        if wake and any(each.status == "added" for each in added):
            self._tell(jobs=True)
        return added

    async def add_with(
        self, tx: object, jobs: Sequence[NewJob], *, wake: bool = False
    ) -> list[Added]:
        """As `add`, in the transaction of the caller's async connection; see `Joining`."""
        return await self._joining.add(tx, jobs, self._instant(None), wake=wake)

    def add_with_sync(
        self, tx: object, jobs: Sequence[NewJob], *, wake: bool = False
    ) -> list[Added]:
        """As `add_with`, on a sync connection, in the caller's thread."""
        return self._joining.add_sync(tx, jobs, self._instant(None), wake=wake)

    async def claim(
        self, want: Want, settle: Sequence[Move] = (), *, now: float | None = None
    ) -> Claimed:
        """Hand out jobs to run, after applying the moves in `settle`.

        A claim without moves does not wait for the disk: a crash of the server may undo it, and
        then the job is pending as before.
        """
        instant = self._instant(now)
        rows = await self._run(
            "claim",
            instant,
            escaped(want.worker),
            escaped(want.token),
            want.limit,
            want.lease,
            wire.told_words(want.names),
            want.room,
            want.repeat,
            *wire.told_moves(settle),
        )
        head = rows[-1]
        self._tell(jobs=head["wakes"], ends=head["ends"])
        # A survey is of the server's clock: by it a claim of another would pass over what is due.
        if self._surveyor is not None and instant is None:
            self._surveyor.met(head["dead"])
        return wire.claimed_of(rows)

    async def renew(
        self,
        leases: Sequence[Lease],
        lease: float,
        notes: Mapping[str, Note] | None = None,
        *,
        now: float | None = None,
    ) -> list[Beat]:
        """Hold leases for `lease` seconds from now; one answer for each, in order."""
        if not leases:
            return []
        told = [(notes or {}).get(each.job_id) for each in leases]
        ((beats,),) = await self._run(
            "renew",
            self._instant(now),
            lease,
            [escaped(each.job_id) for each in leases],
            [escaped(each.token) for each in leases],
            *wire.told_notes(told),
        )
        return list(beats)

    async def move(self, moves: Sequence[Move], *, now: float | None = None) -> list[Moved]:
        """Apply events to jobs by the table; one answer for each, in order."""
        if not moves:
            return []
        row = await self._row("move", self._instant(now), *wire.told_moves(moves))
        self._tell(jobs=row["wakes"], ends=row["ends"])
        return wire.moved_of(row)

    async def drop(
        self,
        query: Query,
        *,
        ids: Sequence[str] | None = None,
        limit: int,
        now: float | None = None,
    ) -> int:
        """Remove jobs for good, at most `limit`, never one that is processing; how many."""
        words = (self._instant(now), wire.told_words(ids), *wire.told_query(query), limit)
        gone: int = (await self._row("drop", *words))[0]
        if gone:
            self._tell(jobs=False, ends=True)
        return gone

    async def get(self, ids: Sequence[str], *, now: float | None = None) -> list[Record | None]:
        """The records of these jobs, None where there is none, in order."""
        wanted = wire.told_words(ids)
        rows = await self._run(
            "find", self._instant(now), wanted, *wire.told_query(_ANY), None, None, None
        )
        records = {record.id: record for record in map(wire.record_of, rows)}
        return [records.get(job_id) for job_id in ids]

    async def find(
        self,
        query: Query,
        *,
        limit: int,
        cursor: str | None = None,
        within: float | None = None,
        now: float | None = None,
    ) -> Page:
        """Records, newest first; goes on after `cursor`.

        Only a search for a name may end after `within` seconds: to all else an index leads.
        """
        words = (self._instant(now), None, *wire.told_query(query), _before(cursor))
        # One more than asked for tells whether there is a next page.
        rows = await self._look("find", *words, limit + 1, within)
        if rows and rows[-1]["id"] is None:
            # It ended early, and says where it goes on.
            *rows, rest = rows
            if len(rows) <= limit:
                records = tuple([wire.record_of(row) for row in rows])
                return Page(records=records, cursor=str(rest["seq"]))
        more = 0 < limit < len(rows)
        return Page(
            records=tuple([wire.record_of(row) for row in rows[:limit]]),
            cursor=str(rows[limit - 1]["seq"]) if more else None,
        )

    async def counts(self, query: Query | None = None, *, now: float | None = None) -> Counts:
        """How many records there are now."""
        words = (self._instant(now), *wire.told_query(query or _ANY))
        return wire.counts_of(await self._look("counts", *words))

    async def events(self, after: int | None, limit: int) -> list[Ending]:
        """Ends and retries in commit order, after the entry `after`."""
        return [wire.ending_of(row) for row in await self._run("events", after, limit)]

    async def errors(self, limit: int) -> list[ErrorGroup]:
        """Error groups, last seen first."""
        return [wire.group_of(row) for row in await self._look("errors", limit)]

    async def metrics(self, since: float) -> list[Bucket]:
        """The buckets of the minutes from that of the instant `since` on, by minute and name."""
        tallies: dict[tuple[float, str], Tally] = {}
        for bucket in map(wire.bucket_of, await self._look("metrics", minute_of(since))):
            key = bucket.minute, bucket.job_name
            tallies.setdefault(key, Tally(*key)).add(bucket)
        return [tallies[key].bucket() for key in sorted(tallies)]

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
        seconds: float = (
            await self._row(
                "reserve",
                self._instant(now),
                *(escaped(key), escaped(job_id), escaped(token)),
                [window.limit for window in windows],
                [window.seconds for window in windows],
            )
        )[0]
        return seconds

    async def read(self, space: str, *, after: str = "", limit: int = 1_000) -> list[Doc]:
        """The documents of a space whose key is greater than `after`, by key."""
        rows = await self._run("read", escaped(space), after.encode(), limit)
        return [wire.doc_of(row) for row in rows]

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
        words = (self._instant(now), escaped(space), key.encode(), value, version)
        row = await self._row("write", *words)
        self._tell(jobs=row["wakes"])
        written: int | None = row["written"]
        return written

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
        row = await self._row(
            "tick",
            self._instant(now),
            schedule.encode(),
            version,
            value,
            escaped(f"history:{schedule}"),
            [key.encode() for key, _ in entries],
            [entry for _, entry in entries],
            keep,
            *wire.told_jobs(jobs),
        )
        if row["written"] is None:
            return Ticked(version=None)
        self._tell(jobs=True)
        added = wire.added_of(jobs, row["statuses"], row["job_ids"])
        return Ticked(version=row["written"], added=tuple(added))

    async def prune(self, limit: int, *, now: float | None = None) -> int:
        """Remove at most `limit` records whose time has come; how many."""
        gone: int = (await self._row("prune", self._instant(now), limit))[0]
        return gone

    async def wait(self, topics: Collection[str], timeout: float) -> None:
        """Return when one of the topics was told since the last wait, or after `timeout`.

        Without a connection that listens it only waits. The end of any job of the queue wakes
        whoever waits for one.
        """
        self._opened()
        if not self._address.listen:
            await asyncio.sleep(timeout)
            return
        if self._ears is None:
            self._ears = self._opened().hear(self._channels)
        ears = self._ears
        ids = [topic.removeprefix(_JOB) for topic in topics if topic.startswith(_JOB)]
        jobs = JOBS in topics
        patience = max(timeout, _FIRST_WAIT)
        # What ends before ends are told was not heard.
        deaf = ENDS in topics and not ears.hears_ends
        await ears.ready(patience, ends=False)
        if jobs and self._seen != ears.tellings:
            self._seen = ears.tellings
            # Whoever waits in a loop lets others have their turn.
            await asyncio.sleep(0)
            return
        ends = bool(ids) or ENDS in topics
        waiter = ears.enter(jobs=jobs, ends=ends)
        try:
            if ends:
                await ears.ready(patience, ends=True)
            if deaf:
                return
            if ids and (await self._row("any_over", wire.told_words(ids)))[0]:
                return
            await asyncio.wait([waiter], timeout=timeout)
        finally:
            ears.leave(waiter)
            if jobs:
                self._seen = ears.tellings

    def _instant(self, now: float | None) -> float | None:
        """The instant of a call: None where the server is to say it."""
        return self._time.now() if now is None and self._time is not None else now

    def _tell(self, *, jobs: bool, ends: bool = False) -> None:
        if self._teller is not None:
            self._teller.tell(jobs=jobs, ends=ends)

    async def _run(self, name: str, *words: object) -> Sequence[Any]:
        return await self._opened().run(name, escaped(self._queue), *words)

    async def _look(self, name: str, *words: object) -> Sequence[Any]:
        """As `_run`, of what searches or counts: the work goes first."""
        return await self._opened().run(name, escaped(self._queue), *words, looks=True)

    async def _row(self, name: str, *words: object) -> Any:
        (row,) = await self._run(name, *words)
        return row

    def _opened(self) -> Connection:
        if self._connection is None:
            raise StoreError(f"the store on {self._address} is not open: await open() first")
        return self._connection


def _before(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < len(str(_LAST))):
        raise ConfigError(
            "this cursor is not one that a list of this queue gave: begin without one",
            field="cursor",
        )
    return int(cursor)
