"""A store on a file of its own, and other processes that use the file."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import IO, TypeAlias

import pytest

from jobmill.policy import Policy
from jobmill.store import NewJob
from jobmill.stores.sqlite import SQLiteStore

pytestmark = pytest.mark.store("sqlite")

_PRELUDE = """
import asyncio, os, sys
from pathlib import Path
from jobmill.policy import Policy
from jobmill.states import after_success
from jobmill.store import NewJob, Query, Want
from jobmill.stores.sqlite import SQLiteStore

PATH = Path(sys.argv[1])

def say(*words):
    print(*words, flush=True)

def a_job(id_, **fields):
    return NewJob(id=id_, name="a", payload=b"{}", policy=Policy(), **fields)

"""


class Child:
    """Another process: what it says, line by line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def line(self) -> str:
        """The next line that it says; "" when it has ended."""
        return _pipe(self.process.stdout).readline().strip()

    def lines(self) -> list[str]:
        """All that it still says until its end."""
        # Not by `communicate`, which passes over what was read ahead for the last line.
        out = _pipe(self.process.stdout).read()
        err = _pipe(self.process.stderr).read()
        assert not err, err
        return out.split()

    def tell(self, line: str) -> None:
        """Send it a line."""
        stdin = _pipe(self.process.stdin)
        stdin.write(line + "\n")
        stdin.flush()


Start: TypeAlias = Callable[[str], Child]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SQLiteStore]:
    store = SQLiteStore(path)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
def start(path: Path) -> Iterator[Start]:
    """Starts a process that runs a text of Python; it is killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def start_one(text: str) -> Child:
        process = subprocess.Popen(
            [sys.executable, "-c", _PRELUDE + textwrap.dedent(text), str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return Child(process)

    yield start_one
    for process in started:
        process.kill()
        process.communicate()


def a_job(id_: str, name: str = "a", **fields: object) -> NewJob:
    return NewJob(id=id_, name=name, payload=b"{}", policy=Policy(), **fields)  # type: ignore[arg-type]


_older: set[threading.Thread] = set()


@pytest.fixture(autouse=True)
def _only_new_threads_count() -> None:
    _older.clear()
    _older.update(threading.enumerate())


def our_threads() -> list[threading.Thread]:
    """The store's threads that this test has started."""
    new = (thread for thread in threading.enumerate() if thread not in _older)
    return [thread for thread in new if thread.name.startswith("jobmill ")]


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe
