"""The connection that writes, and what one commit carries."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from jobmill.errors import StoreError
from jobmill.stores.sqlite.connection import (
    Connected,
    Synchronous,
    abandon,
    begin,
    connect,
    roll_back,
)
from jobmill.stores.sqlite.faults import is_of_one_statement, outward
from jobmill.stores.sqlite.statements import statements
from jobmill.stores.sqlite.turn import Time, Turn

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from jobmill.stores.sqlite.wakes import Topic, Wakes

Verb: TypeAlias = "Callable[[Turn], Any]"

_CLOCK_EVERY: Final = 0.25


class Call:
    """One verb that is asked for, and its outcome. `verb` None only connects."""

    __slots__ = ("error", "future", "now", "patience", "queue", "result", "time", "verb")

    def __init__(
        self, verb: Verb | None, queue: str, time: Time, now: float | None, patience: float
    ) -> None:
        self.verb: Verb | None = verb
        self.queue: str = queue
        self.time: Time = time
        self.now: float | None = now
        self.patience: float = patience
        self.future: asyncio.Future[Any] | None = None
        self.result: Any = None
        self.error: BaseException | None = None

    def answer(self) -> None:
        """Give the outcome to the caller; on its own loop."""
        future = self.future
        if future is None or future.done():
            return
        if self.error is None:
            future.set_result(self.result)
        else:
            future.set_exception(self.error)


class Writer:
    """The connection that writes: all calls that are waiting share one commit.

    To be used by one thread at a time.
    """

    def __init__(self, path: Path, synchronous: Synchronous, wakes: Wakes) -> None:
        self.commits: int = 0
        self._path = path
        self._synchronous: Synchronous = synchronous
        self._applied: Synchronous = synchronous
        self._wakes = wakes
        self._connected: Connected | None = None
        self._create = True
        self._foreign: int | None = None
        self._heard: int | None = None

    def demand(self, synchronous: Synchronous) -> None:
        """From the next transaction on, commit at least as durably as this."""
        if synchronous == "full":
            self._synchronous = synchronous

    def run(self, calls: Sequence[Call]) -> None:
        """Do the calls in one transaction; each then has its result or its error."""
        try:
            self._run(calls)
        except Exception as error:  # noqa: BLE001  every caller gets it
            fault = outward(error, self._path)
            for call in calls:
                call.error = call.error or fault

    def look(self) -> bool:
        """Whether others have written what somebody may wait for; wakes all then.

        Others: another process, or a caller's own connection.
        """
        if self._connected is None:
            return False
        try:
            execute = self._connected.connection.execute
            seen: int = execute(statements("meta")["foreign"]).fetchone()[0]
            if seen == self._foreign:
                return False
            told: int = execute(statements("meta")["clock"]).fetchone()[1]
        except sqlite3.Error:
            # A hint only: whatever is wrong with the file, the next verb says so.
            return False
        self._foreign = seen
        return self._hear(told)

    def read(self, call: Call) -> None:
        """Do a call that only reads, on this connection."""
        try:
            connection = self._connection(call.patience)
        except Exception as error:  # noqa: BLE001  the caller gets it
            call.error = outward(error, self._path)
        else:
            read(connection, call, self._path)

    def close(self) -> None:
        """Let go of the file."""
        if self._connected is not None:
            self._connected.connection.close()
            self._connected = None

    def abandon(self) -> None:
        """Forget the connection without closing it."""
        if self._connected is not None:
            abandon(self._connected.connection)
            self._connected = None

    def _run(self, calls: Sequence[Call]) -> None:
        patience = max(call.patience for call in calls)
        connection = self._connection(patience)
        verbs = [call for call in calls if call.verb is not None]
        if not verbs:
            return
        begin(connection, patience)
        try:
            told, tellings = self._act(connection, verbs)
            connection.execute("COMMIT")
            self.commits += 1
        except BaseException:
            roll_back(connection)
            raise
        self._hear(tellings)
        self._heard = tellings + bool(told)
        self._wakes.tell(told)

    def _hear(self, told: int) -> bool:
        """Whether others told of something since this was asked last; wakes all then."""
        heard, self._heard = self._heard, told
        if heard == told:
            return False
        self._wakes.tell_all()
        return True

    def _act(self, connection: sqlite3.Connection, calls: Sequence[Call]) -> tuple[set[Topic], int]:
        """Do the calls: whom they concern, and how many commits before them concerned somebody."""
        meta = statements("meta")
        mark: float
        tellings: int
        mark, tellings = connection.execute(meta["clock"]).fetchone()
        before = connection.total_changes
        latest = 0.0
        told: set[Topic] = set()
        alone = len(calls) == 1
        for call in calls:
            now = call.now
            if now is None:
                latest = now = call.time.now(mark)
            turn = Turn(connection, call.queue, now)
            if alone:
                _act_on(call, turn)
            else:
                _act_apart(connection, call, turn, self._path)
            told |= turn.told
        late = latest >= mark + _CLOCK_EVERY and connection.total_changes != before
        if told or late:
            connection.execute(meta["told"], (latest, bool(told)))
        return told, tellings

    def _connection(self, patience: float) -> sqlite3.Connection:
        if self._connected is not None:
            try:
                self._connected.check()
            except StoreError:
                self.abandon()
                raise
        else:
            self._connected = connect(
                self._path, self._synchronous, create=self._create, patience=patience
            )
            # A file that vanishes later is not made anew: it would look like an empty queue.
            self._create = False
            self._foreign = None
            self._applied = self._synchronous
            if self._heard is None:
                # What others write from here on is news, also before anybody waits for it.
                clock = self._connected.connection.execute(statements("meta")["clock"])
                self._heard = clock.fetchone()[1]
        connection = self._connected.connection
        if self._applied != self._synchronous:
            connection.execute(f"PRAGMA synchronous = {self._synchronous}")
            self._applied = self._synchronous
        return connection


def _act_on(call: Call, turn: Turn) -> None:
    assert call.verb is not None  # noqa: S101  the caller took the others out
    call.result = call.verb(turn)
    turn.finish()


def _act_apart(connection: sqlite3.Connection, call: Call, turn: Turn, path: Path) -> None:
    """Do one call of several: what only it did wrong does not touch the others."""
    connection.execute("SAVEPOINT one")
    try:
        _act_on(call, turn)
    except Exception as error:
        if not is_of_one_statement(error) or not connection.in_transaction:
            raise
        connection.execute("ROLLBACK TO one")
        turn.told.clear()
        call.error = outward(error, path)
    connection.execute("RELEASE one")


def read(connection: sqlite3.Connection, call: Call, path: Path) -> None:
    """Do a call that only reads, on one snapshot of the file."""
    try:
        connection.execute("BEGIN")
        try:
            mark = connection.execute(statements("meta")["clock"]).fetchone()[0]
            now = call.time.now(mark) if call.now is None else call.now
            assert call.verb is not None  # noqa: S101  reads always have one
            call.result = call.verb(Turn(connection, call.queue, now))
        finally:
            roll_back(connection)
    except Exception as error:  # noqa: BLE001  the caller gets it
        call.error = outward(error, path)
