"""What really happened, told by the handlers themselves: a file beside the store."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import msgspec

from jobmill.testing.eventlog import Begins, Ends, Event, Holds, Yields

VARIABLE = "JOBMILL_TEST_WITNESS"
"""The environment variable that leads a process to its witness file."""

What = Literal[
    "ready", "opening", "held", "slot", "start", "end", "told", "heard", "holds", "yields"
]


class Line(msgspec.Struct, frozen=True):
    """`at` is read from a clock that all processes of the machine share, `wall` from the one
    that says what time it is. `until`: of a lease, by the clock of `at`."""

    what: What
    pid: int
    at: float
    job: str = ""
    attempt: int = 0
    note: str = ""
    wall: float = 0.0
    token: str = ""
    until: float = 0.0


def say(
    what: What,
    job: str = "",
    attempt: int = 0,
    note: str = "",
    *,
    token: str = "",
    until: float = 0.0,
) -> None:
    """Append a line; whole, whatever other processes append, and there if killed after it."""
    at, wall = time.monotonic(), time.time()
    line = Line(what, os.getpid(), at, job, attempt, note, wall, token, until)
    file = os.open(os.environ[VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(file, msgspec.json.encode(line) + b"\n")
    finally:
        os.close(file)


class Witness:
    """The file as the test reads it, from where it has read so far."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines: list[Line] = []
        self._read = 0

    @property
    def lines(self) -> list[Line]:
        """All that was told until now, in the order of the file."""
        if self.path.exists():
            with self.path.open("rb") as file:
                file.seek(self._read)
                new, end, _ = file.read().rpartition(b"\n")
            self._read += len(new) + len(end)
            self._lines += [msgspec.json.decode(line, type=Line) for line in new.splitlines()]
        return self._lines

    def of(self, what: What, *, job: str | None = None, pid: int | None = None) -> list[Line]:
        """The lines of one kind, of one job, of one process."""
        return [
            line
            for line in self.lines
            if line.what == what and job in {None, line.job} and pid in {None, line.pid}
        ]

    @property
    def events(self) -> list[Event]:
        """What handlers and workers told of themselves, as the checker of runs reads it."""
        events: list[Event] = []
        for line in self.lines:
            told: dict[str, Any] = {"at": line.wall, "boot": line.at, "by": str(line.pid)}
            told |= {"job_id": line.job, "token": line.token}
            match line.what:
                case "start":
                    events.append(Begins(**told, attempt=line.attempt))
                case "end":
                    events.append(Ends(**told, attempt=line.attempt, how=line.note))
                case "holds":
                    how: Any = line.note
                    events.append(Holds(**told, until=line.until, how=how))
                case "yields":
                    events.append(Yields(**told))
                case _:
                    pass
        return events

    def starts(self) -> Counter[str]:
        """How often each job was started."""
        return Counter(line.job for line in self.of("start"))

    def running(self, pid: int) -> set[str]:
        """The jobs whose handlers have started in that process and not ended."""
        ended = {line.job for line in (*self.of("end", pid=pid), *self.of("told", pid=pid))}
        return {line.job for line in self.of("start", pid=pid)} - ended
