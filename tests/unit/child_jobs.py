"""Jobs that child processes load and run, for test_processes.py."""

from __future__ import annotations

import ctypes
import logging
import operator
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobmill.context import JobContext, current_context
from jobmill.errors import Cancel, Fail, Retry, Snooze
from jobmill.job import define_job, job

LOCAL: ContextVar[str] = ContextVar("LOCAL", default="clean")


@dataclass
class Point:
    x: int
    y: int


class OddError(LookupError):
    pass


@job(executor="process")
def add(a: int, b: int = 1) -> int:
    return a + b


@define_job(executor="process")
def mirror(ctx: JobContext[Point]) -> Point:
    return Point(ctx.payload.y, ctx.payload.x)


@job(executor="process")
def pid() -> int:
    return os.getpid()


@job(executor="process")
def surroundings() -> dict[str, Any]:
    return {"cwd": str(Path.cwd()), "path": sys.path, "argv": sys.argv}


@job(executor="process")
def context() -> dict[str, Any]:
    ctx = current_context()
    return {
        "job_id": ctx.job_id,
        "job_name": ctx.job_name,
        "queue_name": ctx.queue_name,
        "attempt": ctx.attempt,
        "max_attempts": ctx.max_attempts,
        "enqueued_at": ctx.enqueued_at.isoformat(),
        "started_at": ctx.started_at.isoformat(),
        "metadata": dict(ctx.metadata),
    }


@job(executor="process")
def leaky_context() -> str:
    seen = LOCAL.get()
    LOCAL.set("dirty")
    return seen


@job(executor="process")
def absent(name: str) -> None:
    getattr(current_context(), name)


@job(executor="process")
def report() -> None:
    ctx = current_context()
    ctx.log("half way", n=3, ratio=0.5, who=Point(1, 2), big=2**80, odd="\ud800", none=None)
    ctx.update_progress(50, "half")
    ctx.update_progress(100)


@job(executor="process")
def noisy() -> str:
    print("a print of a handler")
    sys.stdout.write("{}" * 10_000 + "\n")
    os.write(1, b"\x00\x00\x00\x02{}\n")
    subprocess.run(["echo", "an echo of a handler"], check=True)
    logging.getLogger().warning("a warning of a handler")
    return "said"


@job(executor="process")
def fail(kind: str) -> None:
    raise {"value": ValueError("no"), "odd": OddError("odd"), "exit": SystemExit(3)}[kind]


@job(executor="process")
def interrupt() -> None:
    raise KeyboardInterrupt


@job(executor="process")
def steer(kind: str) -> None:
    match kind:
        case "retry":
            raise Retry(2.5, "later")
        case "retry at once":
            raise Retry
        case "snooze":
            raise Snooze(7, "tired")
        case "cancel":
            raise Cancel("never mind")
        case "fail":
            raise Fail("hopeless")
        case _:
            raise Snooze(float("inf"))


@job(executor="process")
def unsayable() -> dict[str, Any]:
    return {"ok": 1, "bad": [0.0, float("nan")]}


@job(executor="process")
def large(size: int) -> str:
    return "x" * size


@job(executor="process")
def obey(path: str) -> str:
    signal_ = current_context().signal
    mark(path)
    while not signal_.aborted:
        time.sleep(0.005)
    return f"aborted: {signal_.reason}"


@job(executor="process")
def obey_by_raising(path: str) -> None:
    mark(path)
    while True:
        current_context().signal.raise_if_aborted()
        time.sleep(0.005)


@define_job(executor="process")
def obey_async(ctx: JobContext[str]) -> Any:
    async def wait() -> str:
        mark(ctx.payload)
        await ctx.signal.wait()
        return f"awaited: {ctx.signal.reason}"

    return wait()


@job(executor="process")
def deaf(path: str) -> None:
    mark(path)
    while True:
        time.sleep(60)


@job(executor="process")
def deaf_to_signals(path: str) -> str:
    mark(path)
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGINT)
    return "still here"


@job(executor="process")
def family(path: str) -> None:
    grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    mark(path, os.getpid(), grandchild.pid)
    while True:
        time.sleep(60)


@job(executor="process")
def orphan(path: str) -> None:
    grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    mark(path, os.getpid(), grandchild.pid)
    os._exit(5)


@job(executor="process")
def fork_and_die(path: str) -> None:
    child = os.fork()
    if child == 0:
        while True:
            time.sleep(60)
    mark(path, os.getpid(), child)
    os._exit(6)


@job(executor="process")
def fork_and_terminate() -> int:
    child = os.fork()
    if child == 0:
        while True:
            time.sleep(60)
    os.kill(child, signal.SIGTERM)
    _, status = os.waitpid(child, 0)
    return os.WTERMSIG(status)


@job(executor="process")
def close_everything() -> None:
    os.closerange(3, 256)


@job(executor="process")
def leave(code: int) -> None:
    os._exit(code)


@job(executor="process")
def crash() -> None:
    ctypes.string_at(0)


@job(executor="process")
def meet(folder: str, number: int) -> int:
    """Return how many are here at once; stay until somebody has met somebody."""
    room, met = Path(folder) / "room", Path(folder) / "met"
    with present(room, number):
        while (company := len(list(room.iterdir()))) < 2 and not met.exists():
            time.sleep(0.002)
        met.touch()
        return company


def make_nested() -> Any:
    @job(name="nested", executor="process")
    def nested() -> None: ...

    return nested


@job(name="twin", executor="process")
def twin() -> str:
    return "the module's"


multiply = job(name="multiply", executor="process")(operator.mul)


def mark(path: str, *pids: int) -> None:
    """Write, all at once, the ids of the processes that are to be watched."""
    new = Path(f"{path}.new")
    new.write_text(" ".join(map(str, pids or [os.getpid()])))
    new.rename(path)


@contextmanager
def present(room: Path, number: int) -> Iterator[None]:
    path = room / str(number)
    path.touch()
    try:
        yield
    finally:
        path.unlink()
