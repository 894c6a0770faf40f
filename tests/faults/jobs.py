"""The jobs that the faults befall; each tells the witness what it does."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobmill import (
    Cancel,
    JobContext,
    JobHooks,
    JobOptions,
    create_rate_limit_middleware,
    current_context,
    define_job,
    job,
)
from tests.faults.witness import What, say

_LOOK = 0.01
_BLOCK = 10_000_000
MOST = 500_000_000
"""Bytes of memory that a job here takes at the most; the machine has others to serve."""


@dataclass(frozen=True, slots=True)
class Work:
    seconds: float = 0.0
    ballast: str = ""


@dataclass(frozen=True, slots=True)
class Gate:
    """A directory: a file named `all`, or after a process's id, lets handlers go on there."""

    path: str

    def open(self, who: int | None = None) -> None:
        (Path(self.path) / ("all" if who is None else str(who))).touch()

    def is_open(self) -> bool:
        folder = Path(self.path)
        return (folder / "all").exists() or (folder / str(os.getpid())).exists()


def _say(what: What, ctx: JobContext[Any], note: str = "") -> None:
    say(what, ctx.job_id, ctx.attempt, note, token=ctx.token)


@define_job(name="faults.work", retry_delay=0.0)
async def work(ctx: JobContext[Work]) -> int:
    """Run for a while."""
    _say("start", ctx)
    await asyncio.sleep(ctx.payload.seconds)
    _say("end", ctx)
    return os.getpid()


@define_job(name="faults.hold")
async def hold(ctx: JobContext[Gate]) -> int:
    """Run until the gate opens, or until told to stop."""
    _say("start", ctx)
    while not ctx.payload.is_open():
        if ctx.signal.aborted:
            _say("told", ctx, str(ctx.signal.reason))
            return os.getpid()
        await asyncio.sleep(_LOOK)
    _say("end", ctx)
    return os.getpid()


@define_job(name="faults.grip")
async def grip(ctx: JobContext[Gate]) -> int:
    """Block the event loop until the gate opens."""
    _say("start", ctx)
    while not ctx.payload.is_open():
        time.sleep(_LOOK)  # noqa: ASYNC251  blocking is the fault
    _say("end", ctx)
    return os.getpid()


@define_job(name="faults.leave", options=JobOptions(max_lapses=3))
async def leave(ctx: JobContext[Work]) -> None:
    """End the worker's process."""
    _say("start", ctx)
    await asyncio.sleep(ctx.payload.seconds)
    os._exit(7)


@define_job(name="faults.crash", options=JobOptions(max_lapses=3))
async def crash(ctx: JobContext[Work]) -> None:
    """End the worker's process as a fault in an extension module does."""
    _say("start", ctx)
    await asyncio.sleep(ctx.payload.seconds)
    os.kill(os.getpid(), signal.SIGSEGV)


@job(name="faults.leave_child", executor="process", retries=1, retry_delay=0.0)
def leave_child() -> None:
    """End the child process that it runs in."""
    _say("start", current_context())
    os._exit(7)


@job(name="faults.crash_child", executor="process", retries=1, retry_delay=0.0)
def crash_child() -> None:
    """End the child process that it runs in as a fault in an extension module does."""
    _say("start", current_context())
    os.kill(os.getpid(), signal.SIGSEGV)


@define_job(name="faults.cling", abort_grace=0.1)
def cling(ctx: JobContext[Gate]) -> int:
    """Run in a thread until the gate opens, deaf to every signal."""
    _say("start", ctx)
    while not ctx.payload.is_open():
        time.sleep(_LOOK)
    _say("end", ctx)
    return os.getpid()


@define_job(name="faults.overstay", timeout=0.3, abort_grace=0.1, retries=0)
def overstay(ctx: JobContext[Gate]) -> int:
    """Run in a thread until the gate opens, deaf to its timeout."""
    _say("start", ctx)
    while not ctx.payload.is_open():
        time.sleep(_LOOK)
    _say("end", ctx)
    return os.getpid()


@define_job(name="faults.swallow", abort_grace=0.1, retries=0)
async def swallow(ctx: JobContext[Gate]) -> int:
    """Swallow every cancellation until the gate opens, and return as if all were well."""
    _say("start", ctx)
    while not ctx.payload.is_open():
        try:
            await asyncio.sleep(_LOOK)
        except asyncio.CancelledError:
            _say("told", ctx)
    _say("end", ctx)
    return os.getpid()


@define_job(name="faults.hoard", retries=1, retry_delay=0.0)
async def hoard(ctx: JobContext[Work]) -> None:
    """Take memory until there is no more, or so much that whoever watches must have seen it."""
    _say("start", ctx)
    taken: list[bytes] = []
    while True:
        if len(taken) < MOST // _BLOCK:
            taken.append(b"x" * _BLOCK)
        await asyncio.sleep(ctx.payload.seconds)


def _raise(*args: Any) -> None:
    raise RuntimeError("a hook that raises")


@define_job(
    name="faults.hooked",
    retries=1,
    retry_delay=0.0,
    hooks=JobHooks(
        after_run=_raise, on_error=_raise, on_retry=_raise, on_progress=_raise, on_finally=_raise
    ),
)
async def hooked(ctx: JobContext[str]) -> object:
    """Fail once; then give a result that cannot be encoded, or one that can."""
    _say("start", ctx)
    await ctx.update_progress(50.0)
    if ctx.attempt == 1:
        raise ValueError("a failed attempt")
    return object() if ctx.payload == "unsayable" else "fine"


@define_job(name="faults.echo")
async def echo(ctx: JobContext[Any]) -> Any:
    """Give back what it was given."""
    return ctx.payload


@define_job(name="faults.mixed", retries=1, retry_delay=0.0)
async def mixed(ctx: JobContext[str]) -> None:
    """End as the payload says."""
    match ctx.payload:
        case "cancel":
            raise Cancel("as it was told")
        case "fail":
            raise ValueError("as it was told")
        case "retry" if ctx.attempt == 1:
            raise ValueError("once, as it was told")
        case _:
            pass


LIMIT = 15
"""Starts of `limited` and `limited_hold` in a second."""
_limit = create_rate_limit_middleware(max_per_second=LIMIT, key=lambda ctx: "limited")


@define_job(name="faults.limited", retry_delay=0.0, middleware=_limit)
async def limited(ctx: JobContext[Work]) -> None:
    """Start seldom."""
    _say("start", ctx)
    await asyncio.sleep(ctx.payload.seconds)
    _say("end", ctx)


@define_job(name="faults.limited_hold", middleware=_limit)
async def limited_hold(ctx: JobContext[Gate]) -> None:
    """Start seldom, and run until the gate opens."""
    _say("start", ctx)
    while not ctx.payload.is_open():
        await asyncio.sleep(_LOOK)
    _say("end", ctx)
