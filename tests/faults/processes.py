"""Starts, kills, freezes and thaws processes; none of them outlives its test."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec
import pytest

from tests.faults import monitor_app, producer_app, scheduler_app, worker_app
from tests.faults.clocks import WrongClock
from tests.faults.nursery import ROOT, Birth, Forked, Nursery
from tests.faults.witness import VARIABLE, Witness

T = TypeVar("T")

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


@functools.cache
def nursery() -> Nursery:
    """That of this process."""
    return Nursery()


class Process:
    """A child process, and what it has written to its stderr."""

    def __init__(
        self,
        module: str,
        settings: object,
        witness: Path,
        log: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`environment`: what the program's loader has to see, so that it is started by itself."""
        self._log = log
        told = msgspec.json.encode(settings).decode()
        log.touch()
        self._process: Forked | subprocess.Popen[bytes]
        if environment is None and sys.platform == "linux":
            self._process = nursery().birth(Birth(module, told, str(log), {VARIABLE: str(witness)}))
        else:
            more = {VARIABLE: str(witness), "PYTHONUNBUFFERED": "1", **(environment or {})}
            with log.open("wb") as stderr:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", module, told],
                    cwd=ROOT,
                    env={**os.environ, **more},
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

    @property
    def memory(self) -> int:
        """Bytes of the machine's memory that it has; 0 where it is gone."""
        pages = Path(f"/proc/{self.pid}/statm").read_text().split()[1] if self.alive else 0
        return int(pages) * resource.getpagesize()

    @property
    def waited(self) -> float:
        """Seconds for which those of its threads that live have waited for a processor."""
        threads = Path(f"/proc/{self.pid}/task").glob("*/schedstat")
        return sum(int(each.read_text().split()[1]) for each in threads) / 1e9

    @property
    def ports(self) -> set[int]:
        """Those on its own side of its TCP connections."""
        links = [str(each.readlink()) for each in Path(f"/proc/{self.pid}/fd").iterdir()]
        sockets = {link[8:-1] for link in links if link.startswith("socket:[")}
        lines = Path(f"/proc/{self.pid}/net/tcp").read_text().splitlines()[1:]
        fields = [line.split() for line in lines]
        return {int(each[1].partition(":")[2], 16) for each in fields if each[9] in sockets}

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
        memory: int | None = None,
        release: worker_app.Release = "now",
        stuck_after: float = 10.0,
        tells_slots: bool = False,
        queue: str = "default",
        url: str | None = None,
        clock: WrongClock | None = None,
    ) -> Process:
        """Start a worker; `url` leads it to the store by another way."""
        settings = worker_app.Settings(
            url=url or self._url,
            lease=lease,
            concurrency=concurrency,
            poll_interval=poll_interval,
            stop_timeout=stop_timeout,
            handles_signals=handles_signals,
            failpoint=failpoint,
            gate="" if gate is None else str(gate),
            user=user,
            memory=memory,
            release=release,
            stuck_after=stuck_after,
            tells_slots=tells_slots,
            queue=queue,
        )
        return self._start(worker_app.__name__, settings, clock)

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
        stop: Path | None = None,
        pause: float = 0.0,
        dies: bool = False,
        url: str | None = None,
        clock: WrongClock | None = None,
    ) -> Process:
        """Start a program that enqueues."""
        settings = producer_app.Settings(
            url=url or self._url,
            answers=str(answers),
            count=count,
            together=together,
            ballast=ballast,
            unique_key=unique_key,
            job_id=job_id,
            delay=delay,
            start="" if start is None else str(start),
            stop="" if stop is None else str(stop),
            pause=pause,
            dies=dies,
        )
        return self._start(producer_app.__name__, settings, clock)

    def scheduler(self, *, clock: WrongClock | None = None, **told: Any) -> Process:
        """Start a worker that has a schedule; `told` are the rest of its settings."""
        settings = scheduler_app.Settings(url=self._url, **told)
        return self._start(scheduler_app.__name__, settings, clock)

    def monitor(self, name: str) -> Process:
        """Start a program that listens to what ends."""
        settings = monitor_app.Settings(url=self._url, name=name)
        return self._start(monitor_app.__name__, settings)

    def _start(self, module: str, settings: object, clock: WrongClock | None = None) -> Process:
        log = self._folder / f"process-{len(self._started)}.log"
        environment = None if clock is None else clock.environment
        process = Process(module, settings, self.witness.path, log, environment)
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
