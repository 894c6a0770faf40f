"""One file, as this process uses it: one thread that writes and one that reads, for all handles."""

from __future__ import annotations

import os
import queue as queues
import threading
import time
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Final, Literal

from jobmill.stores.sqlite.connection import Connected, abandon, connect_reader
from jobmill.stores.sqlite.faults import outward
from jobmill.stores.sqlite.wakes import Wakes
from jobmill.stores.sqlite.writer import Call, Writer, read

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence
    from pathlib import Path

    from jobmill.stores.sqlite.connection import Synchronous

_BATCH: Final = 1_000
_LOOK_SOON: Final = 0.005
_LOOK_LATE: Final = 0.05
_NEWS: Final = 1.0


class Inline:
    """Everything at once, in the caller's thread, on one connection."""

    def __init__(self, path: Path, synchronous: Synchronous) -> None:
        self.pid: int = os.getpid()
        self.wakes: Wakes = Wakes()
        self.writer: Writer = Writer(path, synchronous, self.wakes)

    def write(self, call: Call) -> None:
        """Do it now."""
        self.writer.run((call,))
        call.answer()

    def read(self, call: Call) -> None:
        """Do it now."""
        self.writer.read(call)
        call.answer()

    def watch(self) -> None:
        """Nothing to look out for: a simulation is one process."""

    def demand(self, synchronous: Synchronous) -> None:
        """Commit at least as durably as this."""
        self.writer.demand(synchronous)

    def close(self, call: Call) -> None:
        """Let go of the file."""
        self.writer.close()
        call.answer()

    def abandon(self) -> None:
        """Forget the connection without closing it."""
        self.writer.abandon()


class Threaded:
    """A thread that writes and a thread that reads."""

    def __init__(self, path: Path, synchronous: Synchronous) -> None:
        self.pid: int = os.getpid()
        self.wakes: Wakes = Wakes()
        self.writer: Writer = Writer(path, synchronous, self.wakes)
        self._path = path
        self._reader: Connected | None = None
        self._writes: queues.SimpleQueue[Call | Literal["watch"] | None] = queues.SimpleQueue()
        self._reads: queues.SimpleQueue[Call | None] = queues.SimpleQueue()
        self._closing: Call | None = None
        self._last_news = 0.0
        self._watching = False
        for work in (self._write, self._read):
            threading.Thread(target=work, name=f"jobmill {path.name}", daemon=True).start()

    def write(self, call: Call) -> None:
        """Put it into the next transaction."""
        self._writes.put(call)

    def read(self, call: Call) -> None:
        """Do it after the reads that were asked before."""
        self._reads.put(call)

    def watch(self) -> None:
        """Have the writer look for the commits of others, if it does not yet."""
        if not self._watching:
            self._writes.put("watch")

    def demand(self, synchronous: Synchronous) -> None:
        """Commit at least as durably as this."""
        self.writer.demand(synchronous)

    def close(self, call: Call) -> None:
        """Let go of the file, after all that was asked before."""
        self._closing = call
        self._reads.put(None)

    def abandon(self) -> None:
        """Forget the connections without closing them."""
        self.writer.abandon()
        if self._reader is not None:
            abandon(self._reader.connection)

    def _write(self) -> None:
        open_ended = True
        while open_ended:
            calls, open_ended = self._gather()
            if calls:
                self.writer.run(calls)
                _answer(calls)
            if self.wakes and (self.writer.look() or calls):
                self._last_news = time.monotonic()
        self.writer.close()
        if self._closing is not None:
            _answer((self._closing,))

    def _gather(self) -> tuple[list[Call], bool]:
        """The calls that wait, at least after a while; False once all is over."""
        calls: list[Call] = []
        self._watching = bool(self.wakes)
        try:
            item = self._writes.get(timeout=self._pause() if self._watching else None)
            while True:
                if item is None:
                    return calls, False
                if item != "watch":
                    calls.append(item)
                if len(calls) == _BATCH:
                    break
                item = self._writes.get_nowait()
        except queues.Empty:
            pass
        return calls, True

    def _pause(self) -> float:
        """Until the next look: longer, the longer nothing happened."""
        quiet = time.monotonic() - self._last_news
        return _LOOK_SOON if quiet < _NEWS else min(_LOOK_LATE, _LOOK_SOON * quiet / _NEWS)

    def _read(self) -> None:
        while (call := self._reads.get()) is not None:
            try:
                if self._reader is None:
                    self._reader = connect_reader(self._path, call.patience)
                self._reader.check()
            except Exception as error:  # noqa: BLE001  the caller gets it
                call.error = outward(error, self._path)
                if self._reader is not None:
                    abandon(self._reader.connection)
                    self._reader = None
            else:
                read(self._reader.connection, call, self._path)
            _answer((call,))
        if self._reader is not None:
            self._reader.connection.close()
        self._writes.put(None)


_lock = threading.Lock()
_databases: dict[tuple[str, bool], Threaded | Inline] = {}
_handles: Counter[tuple[str, bool]] = Counter()


def acquire(path: Path, synchronous: Synchronous, *, inline: bool) -> Threaded | Inline:
    """The one of this file, which the handles of this process share."""
    key = str(path), inline
    with _lock:
        database = _databases.get(key)
        if database is None:
            made = Inline if inline else Threaded
            database = _databases[key] = made(path, synchronous)
        database.demand(synchronous)
        _handles[key] += 1
        return database


def release(database: Threaded | Inline, path: Path, call: Call) -> None:
    """A handle is done with it; the last one closes it, and the call is answered after that."""
    key = str(path), isinstance(database, Inline)
    with _lock:
        _handles[key] -= 1
        last = not _handles[key]
        if last:
            del _databases[key], _handles[key]
    if last:
        database.close(call)
    else:
        call.answer()


def _forget_after_fork() -> None:
    """In a forked child: its handles begin anew, with threads and connections of its own."""
    global _lock  # noqa: PLW0603  another thread may have held it at the fork
    _lock = threading.Lock()
    for database in _databases.values():
        database.abandon()
    _databases.clear()
    _handles.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)


def _answer(calls: Sequence[Call]) -> None:
    by_loop: defaultdict[asyncio.AbstractEventLoop, list[Call]] = defaultdict(list)
    for call in calls:
        if call.future is not None:
            by_loop[call.future.get_loop()].append(call)
    for loop, group in by_loop.items():
        try:
            loop.call_soon_threadsafe(_answer_all, group)
        except RuntimeError:
            # The loop was closed: nobody waits there any more.
            continue


def _answer_all(calls: Sequence[Call]) -> None:
    for call in calls:
        call.answer()
