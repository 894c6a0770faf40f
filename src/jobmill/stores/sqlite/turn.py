"""One verb at work inside a transaction: what it acts on, and what is written at its end."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from jobmill.clock import SteadyClock
from jobmill.store import ENDS, JOBS, topic_of_job
from jobmill.stores.sqlite.statements import many, statements

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from jobmill.clock import Clock
    from jobmill.states import State
    from jobmill.stores.sqlite.wakes import Topic

_MOST_MARKS = 512


class Time:
    """The store's time, as every handle of one store tells it. Safe from any thread."""

    def __init__(self, clock: Clock) -> None:
        self._lock = threading.Lock()
        self._steady = SteadyClock(clock)
        self.boot: Callable[[], float] = clock.boot
        """Seconds that go on while the process or the machine stands still."""

    def now(self, at_least: float) -> float:
        """Unix seconds: not less than any answer before, nor than `at_least`."""
        with self._lock:
            return self._steady.now(at_least)


class Turn:
    """One verb at work inside a transaction on one queue, at one instant.

    State counts are gathered here and written by `finish`; topics are told by whoever
    commits.
    """

    __slots__ = ("_counts", "_schema", "_source", "execute", "executemany", "now", "queue", "told")

    def __init__(
        self,
        source: sqlite3.Connection | sqlite3.Cursor,
        queue: str,
        now: float,
        schema: str = "main",
    ) -> None:
        self._source = source
        self._schema = schema
        self._counts: dict[tuple[str, State], int] = {}
        self.execute: Callable[..., sqlite3.Cursor] = source.execute
        self.executemany: Callable[..., sqlite3.Cursor] = source.executemany
        self.queue: str = queue
        self.now: float = now
        self.told: set[Topic] = set()

    def sql(self, verb: str) -> Mapping[str, str]:
        """The statements of a verb."""
        return statements(verb, self._schema)

    def among(self, sql: str, before: tuple[Any, ...], values: Sequence[str]) -> Iterator[Any]:
        """The rows of a statement that asks for many values, which come after `before`."""
        for start in range(0, len(values), _MOST_MARKS):
            part = values[start : start + _MOST_MARKS]
            text, marks = many(sql, len(part))
            yield from self.execute(text, (*before, *part, *(None,) * (marks - len(part))))

    def count(self, name: str, state: State, by: int) -> None:
        """There are `by` more jobs of this name in this stored state."""
        key = name, state
        self._counts[key] = self._counts.get(key, 0) + by

    def tell_jobs(self) -> None:
        """Wake the workers of the queue, after the commit."""
        self.told.add((self.queue, JOBS))

    def tell_ends(self, job_ids: Iterable[str]) -> None:
        """Wake who waits for these jobs, after the commit."""
        self.told.update((self.queue, topic_of_job(job_id)) for job_id in job_ids)

    def tell_events(self) -> None:
        """Wake who follows the list of ends and retries, after the commit."""
        self.told.add((self.queue, ENDS))

    def number(self, what: str, by: int = 1) -> int:
        """The first of `by` new numbers of the queue.

        They are for documents ("doc"), for changes of those that workers act on ("heed"), or for
        events ("event"). A number is never given twice.
        """
        last: int = self.execute(self.sql("numbers")[what], (self.queue, by)).fetchone()[0]
        return last - by + 1

    def finish(self) -> None:
        """Write what was gathered."""
        rows = [(self.queue, name, state, by) for (name, state), by in self._counts.items() if by]
        if rows:
            self.executemany(self.sql("counts")["add"], rows)
