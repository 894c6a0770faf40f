"""Runs the command: here, or as people do, in a process, on a pseudo-terminal or piped.

Starting a process takes longer than what most commands do, so each is started as one once for
each way (`test_processes.py`), and all else is asked of the same `main`, called here.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import importlib
import io
import json
import logging
import os
import pty
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
import uuid
from collections.abc import Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import pytest

import jobmill
from jobmill import Queue, create_queue
from jobmill.cli import main
from jobmill.policy import Policy
from jobmill.registry import isolated
from jobmill.store import NewJob

T = TypeVar("T")

PATIENCE = 50.0
"""Seconds for what takes less than one on an idle machine."""
LONG = {"APP_LEASE": "600"}
"""Environment in which no lease of app.py lapses because a process was not given its turn."""
PACKAGE = str(Path(jobmill.__file__).parent)
COMMAND = (sys.executable, "-m", "jobmill")

APP = """\
import os, signal, time
from jobmill import Scheduler, create_queue, job

store = os.environ.get("APP_STORE", "sqlite:///jobs.db")
queue = create_queue(store, lease=float(os.environ.get("APP_LEASE", "2")))
scheduler = Scheduler(queue=queue, timezone="America/New_York")


@job
def greet(name: str) -> str:
    with open("greeted", "a") as log:
        log.write(f"{name} {os.getpid()}\\n")
    return f"Hello, {name}!"


@job(retries=0)
def divide(by: int) -> float:
    return 1 / by


@job
def hold() -> int:
    with open("held", "a") as log:
        log.write(f"{os.getpid()}\\n")
    while not os.path.exists("release"):
        time.sleep(0.01)
    return os.getpid()


@job(max_lapses=3)
def leave() -> None:
    os._exit(9)


@job(max_lapses=2)
def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


@job(max_lapses=2)
def hoard() -> None:
    os.kill(os.getpid(), signal.SIGKILL)  # as the system ends who takes too much memory


@scheduler.cron("0 8 * * *", name="morning")
@job(name="report")
def report() -> str:
    return "all is well"
"""


@dataclass(frozen=True)
class Ran:
    """What became of a command."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]

    def ok(self) -> Ran:
        assert self.code == 0, self.out + self.err
        return self


class Cli:
    """The command in one folder."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        told = ("JOBMILL_URL", "COLUMNS", "LINES", "NO_COLOR")
        kept = {key: value for key, value in os.environ.items() if key not in told}
        self._environment = {**kept, **environment}
        at = f"sqlite:///{folder / 'jobs.db'}?synchronous=normal"
        self.url = environment.get("APP_STORE", at)
        """Where app.py keeps its jobs."""
        self._started: list[Started] = []

    def __call__(self, *words: str, stdin: str = "", env: Mapping[str, str] | None = None) -> Ran:
        """Run it here, as if it were piped."""
        out, err = io.StringIO(), io.StringIO()
        with (
            mock.patch.dict(os.environ, {**self._environment, **(env or {})}, clear=True),
            mock.patch.object(sys, "argv", ["jobmill", *words]),
            mock.patch.object(sys, "stdin", io.StringIO(stdin)),
            contextlib.chdir(self.folder),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            left_as_it_was(),
            isolated(),
        ):
            try:
                main()
            except SystemExit as end:
                code = int(end.code or 0)
            else:
                code = 0
        assert f'File "{PACKAGE}' not in err.getvalue(), err.getvalue()
        return Ran(code, out.getvalue(), err.getvalue())

    def process(self, *words: str, stdin: str = "", env: Mapping[str, str] | None = None) -> Ran:
        """Run it in a process, piped."""
        ran = subprocess.run(
            [*COMMAND, *words],
            input=stdin,
            capture_output=True,
            check=False,
            cwd=self.folder,
            env={**self._environment, **(env or {})},
            text=True,
            timeout=PATIENCE,
        )
        # A worker's log may have the frames of a job that failed; they are the user's.
        assert f'File "{PACKAGE}' not in ran.stderr, ran.stderr
        return Ran(ran.returncode, ran.stdout, ran.stderr)

    def on_terminal(
        self,
        *words: str,
        types: str = "",
        interrupts: bytes = b"",
        hangs_up: bytes = b"",
        width: int = 160,
        env: Mapping[str, str] | None = None,
    ) -> Ran:
        """Run it on a pseudo-terminal, where somebody types; what is shown is in `out`.

        `interrupts`: Ctrl-C is hit once that is shown; `hangs_up`: the terminal is closed then.
        """
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
        process = subprocess.Popen(
            [*COMMAND, *words],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=self.folder,
            env={**self._environment, "TERM": "xterm-256color", **(env or {})},
            start_new_session=True,
            preexec_fn=partial(fcntl.ioctl, 0, termios.TIOCSCTTY, 0),  # noqa: PLW1509  it is one call
        )
        os.close(theirs)
        os.write(ours, types.encode())
        shown = b""
        deadline = time.monotonic() + PATIENCE
        try:
            while True:
                assert time.monotonic() < deadline, shown
                if not select.select([ours], [], [], 0.2)[0]:
                    continue
                try:
                    data = os.read(ours, 65_536)
                except OSError:  # Linux's way to say that the other side has closed
                    break
                if not data:
                    break
                shown += data
                if interrupts and interrupts in shown:
                    interrupts = b""
                    os.write(ours, b"\x03")
                if hangs_up and hangs_up in shown:
                    break
            if hangs_up:
                os.close(ours)
                ours = -1
            code = process.wait(PATIENCE)
        finally:
            process.kill()
            process.wait()
            if ours >= 0:
                os.close(ours)
        return Ran(code, shown.decode().replace("\r\n", "\n"), "")

    def start(self, *words: str, env: Mapping[str, str] | None = None) -> Started:
        """Start it, and go on."""
        log = self.folder / f"log-{len(self._started)}"
        started = Started(words, self.folder, {**self._environment, **(env or {})}, log)
        self._started.append(started)
        return started

    def end(self) -> None:
        for each in self._started:
            each.end()
            print(f"--- {each.words}, exit code {each.code}\n{each.log}")


@contextlib.contextmanager
def left_as_it_was() -> Generator[None]:
    """Undo what a command does to its process: modules, signals, the log."""
    modules, path = set(sys.modules), list(sys.path)
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    signals = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    importlib.invalidate_caches()
    try:
        # A program that is written anew within a second looks to Python like the old one.
        with mock.patch.object(sys, "dont_write_bytecode", new=True):
            yield
    finally:
        for each, action in signals.items():
            signal.signal(each, action)
        root.handlers[:] = handlers
        root.setLevel(level)
        sys.path[:] = path
        for name in set(sys.modules) - modules:
            if _is_users(name):
                del sys.modules[name]


def _is_users(name: str) -> bool:
    """Whether the module is a program that a test has written."""
    file = getattr(sys.modules[name], "__file__", None) or ""
    return Path.cwd() in Path(file).parents


class Started:
    """A command that runs."""

    def __init__(
        self, words: tuple[str, ...], folder: Path, environment: Mapping[str, str], log: Path
    ) -> None:
        self.words = words
        self._log = log
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                [*COMMAND, *words],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=folder,
                env=dict(environment),
                start_new_session=True,
            )
        self.pid = self._process.pid

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def code(self) -> int | None:
        return self._process.poll()

    def children(self) -> list[int]:
        """Its worker processes, oldest first."""
        path = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        return [int(word) for word in path.read_text().split()] if self.code is None else []

    def holds(self) -> tuple[int, int]:
        """How many files it has open, and how many threads it has."""
        process = Path(f"/proc/{self.pid}")
        return len(list((process / "fd").iterdir())), len(list((process / "task").iterdir()))

    def memory(self) -> int:
        """Bytes of memory that it has."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * resource.getpagesize()

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def says(self, text: str) -> None:
        """Return when it has said that."""
        eventually(lambda: text in self.log or self.code is not None, f"{text!r}", self)
        assert text in self.log, f"it ended without saying {text!r}: {self.log}"

    def ends(self, *, within: float = PATIENCE) -> int:
        """Its exit code, when it has ended by itself."""
        try:
            return self._process.wait(within)
        except subprocess.TimeoutExpired:
            pytest.fail(f"it does not end within {within:g} s: {self.log}")

    def end(self) -> None:
        children = self.children()
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        self._process.wait()


def eventually(
    look: Callable[[], T], what: str, started: Started | None = None, *, within: float = PATIENCE
) -> T:
    """What `look` sees as soon as it sees something."""
    deadline = time.monotonic() + within
    while True:
        late = time.monotonic() > deadline
        if value := look():
            return value
        if late:
            log = "" if started is None else started.log
            pytest.fail(f"not within {within:g} s: {what}\n{log}")
        time.sleep(0.02)


_HELD: list[socket.socket] = []


def free_port() -> int:
    """A port of this machine on which nobody listens, and which is given to nobody else.

    It is held to the end by a socket that does not listen: connections are refused, and a command
    that is told to listen there shares it.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    _HELD.append(held)
    port: int = held.getsockname()[1]
    return port


def alive(pid: int) -> bool:
    """Whether the process is there, and no corpse."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def ask(cli: Cli, verb: Callable[[Queue], Awaitable[T]]) -> T:
    """What the queue of app.py answers, asked from here: that is quicker than a command."""

    async def asked() -> T:
        async with create_queue(cli.url) as queue:
            return await verb(queue)

    return asyncio.run(asked())


def enqueue(cli: Cli, name: str, payload: str = "{}", *, delay: float | None = None) -> str:
    """Put a job of app.py into its queue; its id."""
    job_id = uuid.uuid4().hex
    lapses = 2 if name in {"crash", "hoard"} else 3
    policy = Policy(max_attempts=1 if name == "divide" else 4, max_lapses=lapses)
    new = NewJob(
        id=job_id, name=f"app.{name}", payload=payload.encode(), policy=policy, delay=delay
    )
    ask(cli, lambda queue: queue.ask(lambda store: store.add([new])))
    return job_id


def status(cli: Cli, job_id: str) -> tuple[str, int, int]:
    """Its status, attempts and lapses."""
    info = ask(cli, lambda queue: queue.get_job(job_id))
    assert info is not None
    return info.status, info.attempts, info.lapses


def held(cli: Cli, worker: Started, count: int = 1) -> None:
    """Return when so many runs of `hold` have started."""
    path = cli.folder / "held"
    eventually(lambda: path.exists() and path.read_text().count("\n") == count, "a start", worker)
