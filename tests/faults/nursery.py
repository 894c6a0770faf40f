"""Where the programs of the tests come from: forks of one process that has loaded them all.

`python -m tests.faults.nursery PID` forks whatever it is told to, as children of the process PID;
to load the programs anew for each of them would take longer than most of them run.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final, Never

import msgspec

ROOT = Path(__file__).parents[2]
_BECOME_REAPER: Final = 36
"""Of prctl: children of ended children become this process's own."""
_LOADED: Final = (
    *("tests.faults.worker_app", "tests.faults.producer_app"),
    *("tests.faults.monitor_app", "tests.faults.scheduler_app"),
    *("jobmill.stores.sqlite", "jobmill.stores.redis", "jobmill.stores.postgresql"),
    *("jobmill.stores.redis.connection", "jobmill.stores.redis.listening"),
    *("asyncpg", "hiredis", "concurrent.futures.thread", "multiprocessing.spawn", "zoneinfo"),
)


class Birth(msgspec.Struct, frozen=True):
    """What a new process is: `log` is the file for what it prints."""

    module: str
    settings: str
    log: str
    environment: dict[str, str]


class Forked:
    """A child process, with what Popen says of one."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None

    def poll(self) -> int | None:
        """Its exit code, once it has ended."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code

    def wait(self, timeout: float) -> int:
        """Its exit code, when it has ended."""
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            assert time.monotonic() < deadline, f"{self.pid} has not ended in {timeout} s"
            time.sleep(0.001)
        return code

    def send_signal(self, number: int) -> None:
        """Send it, where it has not ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


class Nursery:
    """Gives birth to child processes of this one."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(os.getpid())],
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        atexit.register(self._process.communicate)

    def birth(self, birth: Birth) -> Forked:
        """A new process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        prctl = ctypes.CDLL(None).prctl
        prctl(_BECOME_REAPER, 1)
        try:
            self._process.stdin.write(msgspec.json.encode(birth) + b"\n")
            self._process.stdin.flush()
            return Forked(int(self._process.stdout.readline()))
        finally:
            # What others leave behind is no business of this one's.
            prctl(_BECOME_REAPER, 0)


def serve(parent: int) -> None:
    """Fork what is asked for, a line for each, until nobody can ask any more."""
    for line in sys.stdin.buffer:
        birth = msgspec.json.decode(line, type=Birth)
        theirs, ours = os.pipe()
        # The child of a child that has ended goes to the one that adopts such.
        middle = os.fork()
        if not middle:
            os.close(theirs)
            child = os.fork()
            if not child:
                os.close(ours)
                _live(birth, parent)
            os.write(ours, str(child).encode())
            os._exit(0)
        os.close(ours)
        os.waitpid(middle, 0)
        print(os.read(theirs, 20).decode())
        os.close(theirs)


def _live(birth: Birth, parent: int) -> Never:
    """Be that process, to its end, as if Python had begun with it."""
    while os.getppid() != parent:
        time.sleep(0.0005)
    null = os.open(os.devnull, os.O_RDONLY)
    log = os.open(birth.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    for old, new in ((null, 0), (log, 1), (log, 2)):
        os.dup2(old, new)
    os.closerange(3, 64)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update(birth.environment)
    sys.argv = [birth.module, birth.settings]
    importlib.import_module(birth.module).main()
    sys.exit()


def main() -> None:
    from tests.faults.worker_app import prepare

    prepare()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    for name in _LOADED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    serve(int(sys.argv[1]))


if __name__ == "__main__":
    main()
