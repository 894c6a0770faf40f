"""Starts, kills, freezes and thaws processes; none of them outlives its test."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import msgspec
import pytest

from tests.faults import producer_app, worker_app
from tests.faults.witness import VARIABLE, Witness

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
PATIENCE = 40.0
"""Seconds for what takes less than one on an idle machine."""


async def eventually(look: Callable[[], T], what: str, *, within: float = PATIENCE) -> T:
    """What `look` sees as soon as it sees something; fails when it does not in time."""

    async def look_once() -> T:
        return look()

    return await comes_true(look_once, what, within=within)


async def comes_true(look: Callable[[], Awaitable[T]], what: str, *, within: float = PATIENCE) -> T:
    """As `eventually`, for what has to be awaited, as a store."""
    deadline = time.monotonic() + within
    while True:
        late = time.monotonic() > deadline
        value = await look()
        if value:
            return value
        if late:
            pytest.fail(f"not within {within:g} s: {what}")
        await asyncio.sleep(0.02)


class Process:
    """A child process, and what it has written to its stderr."""

    def __init__(self, module: str, settings: object, witness: Path, log: Path) -> None:
        self._log = log
        with log.open("wb") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, msgspec.json.encode(settings).decode()],
                cwd=ROOT,
                env={**os.environ, VARIABLE: str(witness), "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
            )
        self.pid = self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """As subprocess has it: minus the signal where one ended it, None while it runs."""
        return self._process.poll()

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def send(self, number: signal.Signals) -> None:
        """Send the signal; a process that has ended was reaped, so that no other is meant."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it at once, and return when it is gone."""
        self.send(signal.SIGKILL)
        self._process.wait(PATIENCE)

    def freeze(self) -> None:
        """Stop it in its tracks, and return when it stands."""
        self.send(signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOWAIT)

    def thaw(self) -> None:
        self.send(signal.SIGCONT)

    async def ends(self, *, within: float = PATIENCE) -> int:
        """Its exit code, when it has ended by itself."""
        await eventually(
            lambda: not self.alive, f"the end of {self.pid}:\n{self.log}", within=within
        )
        assert self.exit_code is not None
        return self.exit_code


class Processes:
    """The processes of one test."""

    def __init__(self, url: str, folder: Path, witness: Witness) -> None:
        self._url = url
        self._folder = folder
        self.witness = witness
        self._started: list[Process] = []

    def worker(
        self,
        *,
        lease: float = 1.0,
        concurrency: int = 5,
        poll_interval: float = 0.2,
        stop_timeout: float = 20.0,
        handles_signals: bool = True,
        failpoint: worker_app.Failpoint | None = None,
        gate: Path | None = None,
        user: int | None = None,
    ) -> Process:
        """Start a worker."""
        settings = worker_app.Settings(
            url=self._url,
            lease=lease,
            concurrency=concurrency,
            poll_interval=poll_interval,
            stop_timeout=stop_timeout,
            handles_signals=handles_signals,
            failpoint=failpoint,
            gate="" if gate is None else str(gate),
            user=user,
        )
        return self._start(worker_app.__name__, settings)

    def producer(
        self,
        answers: Path,
        *,
        count: int = 1,
        together: int = 1,
        ballast: int = 0,
        unique_key: str | None = None,
        job_id: str | None = None,
        delay: float | None = None,
        start: Path | None = None,
        dies: bool = False,
    ) -> Process:
        """Start a program that enqueues."""
        settings = producer_app.Settings(
            url=self._url,
            answers=str(answers),
            count=count,
            together=together,
            ballast=ballast,
            unique_key=unique_key,
            job_id=job_id,
            delay=delay,
            start="" if start is None else str(start),
            dies=dies,
        )
        return self._start(producer_app.__name__, settings)

    def _start(self, module: str, settings: object) -> Process:
        log = self._folder / f"process-{len(self._started)}.log"
        process = Process(module, settings, self.witness.path, log)
        self._started.append(process)
        return process

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for process in self._started:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        for process in self._started:
            # Shown by pytest where the test failed.
            print(f"--- process {process.pid}, exit code {process.exit_code}")
            print(process.log)
