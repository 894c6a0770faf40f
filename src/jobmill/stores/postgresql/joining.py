"""`add_with` and `add_with_sync`: store jobs in a transaction of the caller's own connection."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from jobmill.errors import ConfigError, JobsError, StoreError, StoreUnavailable
from jobmill.store import Added, NewJob
from jobmill.stores.postgresql import wire
from jobmill.stores.postgresql.callers import Marks, async_caller, refused, sync_caller
from jobmill.stores.postgresql.connection import Connection
from jobmill.stores.postgresql.faults import said
from jobmill.stores.postgresql.programs import DIGEST, quoted

if TYPE_CHECKING:
    from jobmill.stores.postgresql.address import Address
    from jobmill.stores.postgresql.channels import Channels

_TYPES: Final = (
    *("text", "text", "float8", "text[]", "text[]", "bytea[]", "bytea[]", "int8[]", "float8[]"),
    *("float8[]", "text[]", "bytea[]", "float8[]", "float8[]"),
)
# A server by the instant of its start, which no copy of it shares, and a database in it.
_PLACE: Final = """\
SELECT
    (extract(epoch FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::pg_catalog.int8,
    (SELECT d.oid::pg_catalog.int8 FROM pg_catalog.pg_database AS d
     WHERE d.datname = pg_catalog.current_database())"""
_FAILED: Final = "the transaction of tx has failed already: roll it back, and begin another"
_READ_ONLY: Final = "the transaction of tx is read-only: begin one that may write"
_GAVE_WAY: Final = (
    "your transaction gave way to another: roll it back, and run it again from its beginning"
)
_TIED: Final = {
    "25P02": _FAILED,
    "25006": _READ_ONLY,
}
_AGAIN: Final = frozenset({"40001", "40P01"})

_Place = tuple[int, int]


class Joining:
    """Stores jobs of one queue by connections that its callers bring.

    They are there when the caller's transaction commits, and it is the caller who ends it. What
    fails here leaves it as it was, as far as it can go on at all.
    """

    def __init__(self, address: Address, queue: str, channels: Channels) -> None:
        self._address = address
        self._queue = queue
        self._channels = channels
        self._place: _Place | None = None
        self._known: WeakSet[Any] = WeakSet()

    async def add(
        self, tx: object, jobs: Sequence[NewJob], now: float | None, *, wake: bool
    ) -> list[Added]:
        """Store jobs on an async connection, in its transaction."""
        if not jobs:
            return []
        with self._translated():
            caller = await async_caller(tx)
            if caller.driver not in self._known:
                place = _place_of(await caller.row(_PLACE, ()))
                # Looked at again where it is another: the server may have been restarted.
                if place != self._place and place != await self._look():
                    raise self._elsewhere()
                self._known.add(caller.driver)
            words = self._words(jobs, now, wake=wake)
            return self._answers(jobs, await caller.row(self._statement(caller.marks), words))

    def add_sync(
        self, tx: object, jobs: Sequence[NewJob], now: float | None, *, wake: bool
    ) -> list[Added]:
        """Store jobs on a sync connection, in its transaction and the caller's thread."""
        if not jobs:
            return []
        with self._translated():
            caller = sync_caller(tx)
            if caller.driver not in self._known:
                place = _place_of(caller.row(_PLACE, ()))
                if place != self._place and place != self._look_from_thread():
                    raise self._elsewhere()
                self._known.add(caller.driver)
            words = self._words(jobs, now, wake=wake)
            return self._answers(jobs, caller.row(self._statement(caller.marks), words))

    def _statement(self, marks: Marks) -> str:
        words = ", ".join(marks(number, kind) for number, kind in enumerate(_TYPES, 1))
        schema = quoted(self._address.schema)
        if "%" in words:
            schema = schema.replace("%", "%%")
        return f"SELECT * FROM {schema}.join_{DIGEST}({words})"  # noqa: S608  our own names

    def _words(self, jobs: Sequence[NewJob], now: float | None, *, wake: bool) -> list[object]:
        channel = self._channels.jobs if wake else None
        return [channel, wire.escaped(self._queue), now, *wire.told_jobs(jobs)]

    def _answers(self, jobs: Sequence[NewJob], row: Sequence[Any]) -> list[Added]:
        statuses, ids, code, fault = row
        if code is not None:
            raise self._fault(code, fault)
        return wire.added_of(jobs, statuses, ids)

    async def _look(self) -> _Place:
        """Where the queue is; its schema is made, or found to be of another release."""
        connection = Connection(self._address)
        try:
            await connection.check()
            (row,) = await connection.fetch(_PLACE)
        finally:
            await connection.close()
        self._place = _place_of(row)
        return self._place

    def _look_from_thread(self) -> _Place:
        """The same, by a loop of its own: the caller's thread may have one that runs."""
        found: Future[_Place] = Future()

        def look() -> None:
            try:
                found.set_result(asyncio.run(self._look()))
            except BaseException as error:  # noqa: BLE001  it is the caller's to raise
                found.set_exception(error)

        threading.Thread(target=look, name="jobmill-look", daemon=True).start()
        return found.result()

    def _elsewhere(self) -> ConfigError:
        return refused(
            f"tx does not lead to the database of the queue, {self._address}: give a connection to "
            "that one, or the queue the address of this"
        )

    @contextmanager
    def _translated(self) -> Generator[None]:
        """Let what drivers raise out as errors of jobmill only."""
        try:
            yield
        except JobsError:
            raise
        except Exception as error:
            raise self._outward(error) from error

    def _outward(self, error: Exception) -> JobsError:
        chain = list(_chain(error))
        for each in chain:
            code = getattr(each, "sqlstate", None)
            if isinstance(code, str) and code:
                return self._fault(code, str(each))
        told = chain[-1]
        if any(
            isinstance(each, OSError)
            or getattr(each, "connection_invalidated", False)
            # psycopg says no more of a connection that broke.
            or type(each).__name__ == "OperationalError"
            for each in chain
        ):
            return StoreUnavailable(
                f"the connection of tx is lost: begin your transaction anew, on another ({told})"
            )
        return StoreError(f"tx cannot be used: {type(told).__name__}: {told}")

    def _fault(self, code: str, text: str) -> JobsError:
        if code in _TIED:
            return refused(_TIED[code])
        if code in _AGAIN:
            return StoreUnavailable(f"{_GAVE_WAY} ({text})")
        fault = said(code, text, self._address)
        if isinstance(fault, ConfigError):
            fault.field = "tx"
        return fault


def _place_of(row: Sequence[Any]) -> _Place:
    return int(row[0]), int(row[1])


def _chain(error: BaseException | None) -> Generator[BaseException]:
    """The error, what SQLAlchemy wraps by it, and what led to it."""
    while error is not None:
        yield error
        error = getattr(error, "orig", None) or error.__cause__
