"""The store in an SQLite file, as the engines see it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

from jobmill.clock import Clock, SystemClock
from jobmill.errors import ConfigError, StoreError, Unsupported
from jobmill.limits import Window
from jobmill.states import Move, Note
from jobmill.store import (
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
)
from jobmill.stores.sqlite import documents, finding
from jobmill.stores.sqlite.adding import add
from jobmill.stores.sqlite.claiming import claim, renew
from jobmill.stores.sqlite.connection import PATIENCE, Synchronous
from jobmill.stores.sqlite.database import Inline, Threaded, acquire, release
from jobmill.stores.sqlite.examining import examine
from jobmill.stores.sqlite.joining import add_on
from jobmill.stores.sqlite.limiting import reserve
from jobmill.stores.sqlite.moving import move
from jobmill.stores.sqlite.pruning import prune
from jobmill.stores.sqlite.turn import Time, Turn
from jobmill.stores.sqlite.wakes import Seen
from jobmill.stores.sqlite.writer import Call
from jobmill.tally import Bucket

T = TypeVar("T")

_FEATURES: Final = Features.TRANSACTIONS | Features.DURABLE | Features.SHARED | Features.PUSH
_SYSTEM_CLOCK: Final = SystemClock()


class SQLiteStore:
    """One queue of an SQLite file.

    `synchronous`: "full" waits for the disk in every commit; "normal" may lose the last
    commits in a power cut, never in a crash of a process. `busy_timeout`: seconds for which a
    locked file is tried again. `inline`: every statement runs at once, in the caller's
    thread, for a simulation in virtual time.

    Raises: ConfigError where the path names no file.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        queue: str = "default",
        *,
        synchronous: Synchronous = "full",
        clock: Clock = _SYSTEM_CLOCK,
        inline: bool = False,
        busy_timeout: float = PATIENCE,
    ) -> None:
        self._path = _file(path)
        if synchronous not in {"full", "normal"}:
            raise ConfigError(
                f'synchronous is "full" or "normal", not {synchronous!r}', field="synchronous"
            )
        self._queue = queue
        self._synchronous: Synchronous = synchronous
        self._inline = inline
        self._busy_timeout = busy_timeout
        self._time = Time(clock)
        self._database: Threaded | Inline | None = None
        self._seen = Seen()

    @property
    def features(self) -> Features:
        """It joins transactions, is durable, is shared by processes, and wakes at once."""
        return _FEATURES

    @property
    def queue(self) -> str:
        """The queue that this store acts on."""
        return self._queue

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    @property
    def place(self) -> str:
        """Where it is, as a URL without its secrets."""
        return f"sqlite:///{self._path}"

    def handle(self, queue: str | None = None) -> SQLiteStore:
        """Another, unopened store on the same file."""
        other = SQLiteStore(
            self._path,
            self._queue if queue is None else queue,
            synchronous=self._synchronous,
            inline=self._inline,
            busy_timeout=self._busy_timeout,
        )
        other._time = self._time
        return other

    async def open(self) -> None:
        """Open the file, which is made where it is missing, with what the store needs in it.

        Raises: ConfigError where the path is unusable; SchemaMismatch; StoreUnavailable.
        """
        if self._database is not None and self._database.pid == os.getpid():
            return
        database = acquire(self._path, self._synchronous, inline=self._inline)
        self._database = database
        try:
            await self._answer(database.write, None, None)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Let go of the file, after all that was asked before."""
        database, self._database = self._database, None
        if database is None or database.pid != os.getpid():
            return
        await self._answer(lambda call: release(database, self._path, call), None, None)

    async def examine(self) -> list[Finding]:
        """What there is to say of the file, of how it is written, and of its disk."""
        return await self._write(lambda turn: examine(turn, self._path))

    async def queues(self) -> list[str]:
        """Names of the queues of this file that have jobs or documents, in order."""
        return await self._read(documents.queues)

    async def add(
        self,
        jobs: Sequence[NewJob],
        *,
        wake: bool = True,
        whole: bool = False,
        now: float | None = None,
    ) -> list[Added]:
        """Store jobs; one answer for each, in order."""
        return await self._write(lambda turn: add(turn, jobs, wake=wake, whole=whole), now)

    async def add_with(
        self,
        tx: object,
        jobs: Sequence[NewJob],
        *,
        wake: bool = False,
    ) -> list[Added]:
        """Refuse: a connection of sqlite3 is used from its own thread.

        Raises: Unsupported.
        """
        raise Unsupported(
            "an sqlite3 connection is used from the thread that made it: call "
            "enqueue_sync(..., tx=connection) there"
        )

    def add_with_sync(
        self,
        tx: object,
        jobs: Sequence[NewJob],
        *,
        wake: bool = False,
    ) -> list[Added]:
        """As `add`, on the caller's connection to the same file, within its transaction."""
        return add_on(tx, self._path, self._queue, self._time, jobs)

    async def claim(
        self, want: Want, settle: Sequence[Move] = (), *, now: float | None = None
    ) -> Claimed:
        """Hand out jobs to run, after applying the moves in `settle`."""
        boot = self._time.boot
        asked = boot()
        return await self._write(lambda turn: claim(turn, want, settle, boot() - asked), now)

    async def renew(
        self,
        leases: Sequence[Lease],
        lease: float,
        notes: Mapping[str, Note] | None = None,
        *,
        now: float | None = None,
    ) -> list[Beat]:
        """Hold leases for `lease` seconds from now; one answer for each, in order."""
        return await self._write(lambda turn: renew(turn, leases, lease, notes or {}), now)

    async def move(self, moves: Sequence[Move], *, now: float | None = None) -> list[Moved]:
        """Apply events to jobs by the table; one answer for each, in order."""
        return await self._write(lambda turn: move(turn, moves), now)

    async def drop(
        self,
        query: Query,
        *,
        ids: Sequence[str] | None = None,
        limit: int,
        now: float | None = None,
    ) -> int:
        """Remove jobs for good, at most `limit`, never one that is processing; how many."""
        return await self._write(lambda turn: finding.drop(turn, query, ids, limit), now)

    async def get(self, ids: Sequence[str], *, now: float | None = None) -> list[Record | None]:
        """The records of these jobs, None where there is none, in order."""
        return await self._read(lambda turn: finding.get(turn, ids), now)

    async def find(
        self,
        query: Query,
        *,
        limit: int,
        cursor: str | None = None,
        within: float | None = None,
        now: float | None = None,
    ) -> Page:
        """Records, newest first; goes on after `cursor`."""
        return await self._read(lambda turn: finding.find(turn, query, limit, cursor), now)

    async def counts(self, query: Query | None = None, *, now: float | None = None) -> Counts:
        """How many records there are now."""
        return await self._read(lambda turn: finding.counts(turn, query), now)

    async def events(self, after: int | None, limit: int) -> list[Ending]:
        """Ends and retries in commit order, after the entry `after`."""
        return await self._read(lambda turn: documents.events(turn, after, limit))

    async def errors(self, limit: int) -> list[ErrorGroup]:
        """Error groups, last seen first."""
        return await self._read(lambda turn: documents.errors(turn, limit))

    async def metrics(self, since: float) -> list[Bucket]:
        """The buckets of the minutes from that of the instant `since` on."""
        return await self._read(lambda turn: documents.metrics(turn, since))

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
        return await self._write(lambda turn: reserve(turn, key, job_id, token, windows), now)

    async def read(self, space: str, *, after: str = "", limit: int = 1_000) -> list[Doc]:
        """The documents of a space whose key is greater than `after`, by key."""
        return await self._read(lambda turn: documents.read(turn, space, after, limit))

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
        return await self._write(
            lambda turn: documents.write(turn, space, key, value, version), now
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
        """Fire a schedule: compare-and-set its document and, with it, add its jobs."""
        return await self._write(
            lambda turn: documents.tick(
                turn, schedule, version, value, entries=entries, jobs=jobs, keep=keep
            ),
            now,
        )

    async def prune(self, limit: int, *, now: float | None = None) -> int:
        """Remove at most `limit` records whose time has come; how many."""
        return await self._write(lambda turn: prune(turn, limit), now)

    async def wait(self, topics: Collection[str], timeout: float) -> None:
        """Return when one of the topics was told since the last wait, or after `timeout`.

        Another process's commit wakes every topic, within 5 to 50 ms.
        """
        database = await self._opened()
        ours = frozenset((self._queue, topic) for topic in topics)
        waiter = database.wakes.enter(ours, self._seen, asyncio.get_running_loop())
        if waiter is None:
            return
        database.watch()
        try:
            async with asyncio.timeout(timeout):
                await waiter.woken
        except TimeoutError:
            pass
        finally:
            database.wakes.leave(waiter, self._seen)

    async def _write(self, verb: Callable[[Turn], T], now: float | None = None) -> T:
        database = await self._opened()
        return await self._answer(database.write, verb, now)

    async def _read(self, verb: Callable[[Turn], T], now: float | None = None) -> T:
        database = await self._opened()
        return await self._answer(database.read, verb, now)

    async def _answer(
        self, put: Callable[[Call], None], verb: Callable[[Turn], T] | None, now: float | None
    ) -> T:
        call = Call(verb, self._queue, self._time, now, self._busy_timeout)
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        call.future = future
        put(call)
        return await future

    async def _opened(self) -> Threaded | Inline:
        """What was opened; in a forked child it is opened anew."""
        database = self._database
        if database is None:
            raise StoreError(f"the store on {self._path} is not open: await open() first")
        if database.pid != os.getpid():
            self._database = database = acquire(self._path, self._synchronous, inline=self._inline)
        return database


def _file(path: str | os.PathLike[str]) -> Path:
    text = os.fspath(path)
    if not text or text == ":memory:" or text.startswith("file:") or "\0" in text:
        raise ConfigError(
            f"the path {text!r} names no file: give the path of one, such as jobs.db, or use "
            "the store in memory",
            field="path",
        )
    return Path(text).absolute()
