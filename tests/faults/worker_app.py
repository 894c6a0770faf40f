"""A worker as users write it, in a process of its own: `python -m tests.faults.worker_app JSON`."""

from __future__ import annotations

import asyncio
import ctypes
import importlib
import logging
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

import jobmill.worker
import tests.faults.jobs  # noqa: F401  defines the jobs
from jobmill import JobContext, Queue, Worker, create_queue
from jobmill.states import Move
from jobmill.store import Beat, Claimed, Lease, Moved, Store, Want
from tests.faults.witness import say

Release = Literal["before", "now"]
"""Which of two releases of the program it is: the one before knows fewer jobs."""

Failpoint = Literal["opening", "claimed", "held", "done", "settled"]
"""Where the process is hit: in start-up; after the claim of a job and before its start, by a
kill, or held there; after a job is done and before it is settled; after it is settled, before
the worker knows."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What one worker process is told."""

    url: str
    queue: str = "default"
    lease: float = 1.0
    concurrency: int = 5
    poll_interval: float = 0.2
    stop_timeout: float = 20.0
    handles_signals: bool = True
    failpoint: Failpoint | None = None
    gate: str = ""
    """A file for whose coming "opening" and "held" wait."""
    user: int | None = None
    memory: int | None = None
    """Bytes of memory that the process may have, over what it has at its start."""
    release: Release = "now"
    stuck_after: float = 10.0
    tells_slots: bool = False
    """Whether it tells of each start that a rate limit granted, and when it had asked."""


async def serve(settings: Settings) -> None:
    """Run a worker until it is told to stop."""
    queue = create_queue(
        settings.url,
        name=settings.queue,
        lease=settings.lease,
        concurrency=settings.concurrency,
        poll_interval=settings.poll_interval,
    )
    tell_leases(queue)
    if settings.failpoint is not None:
        arm(queue, settings.failpoint, settings.gate)
    if settings.tells_slots:
        tell_slots(queue)
    worker = Worker(queue)
    if not settings.handles_signals:
        say("ready")
        await worker.run()
        return
    stops: list[asyncio.Task[None]] = []
    loop = asyncio.get_running_loop()

    def stop() -> None:
        timeout = 0.0 if stops else settings.stop_timeout
        stops.append(loop.create_task(worker.stop(timeout)))

    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, stop)
    running = loop.create_task(worker.run())
    say("ready")
    while not running.done() and not (stops and stops[0].done()):
        await asyncio.wait([running, *stops], timeout=0.1, return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        await running
    await asyncio.gather(*stops)


def tell_slots(queue: Queue) -> None:
    """Tell of each start that a rate limit grants: it was recorded between asking and telling."""
    reserve = queue.reserve

    async def told(ctx: JobContext[Any], *rest: Any) -> float:
        asked = time.monotonic()
        seconds = await reserve(ctx, *rest)
        if not seconds:
            say("slot", ctx.job_id, ctx.attempt, repr(asked))
        return seconds

    vars(queue)["reserve"] = told


def tell_leases(queue: Queue) -> None:
    """Tell of each lease: when it is given or held longer, and before it is given up."""
    plain: Any = type(queue.store)
    asked: dict[str, float] = {}

    class Telling(plain):  # type: ignore[misc]
        def handle(self, queue: str | None = None) -> Store:
            other: Any = super().handle(queue)
            other.__class__ = Telling
            return other  # type: ignore[no-any-return]

        async def claim(self, want: Want, settle: Sequence[Move] = (), **rest: Any) -> Claimed:
            # A repeated claim collects what the first was given, whose leases run since then.
            sent = asked.setdefault(want.token, time.monotonic())
            _tell_yields(settle)
            claimed: Claimed = await super().claim(want, settle, **rest)
            asked.pop(want.token, None)
            how = "collected" if want.repeat else "claimed"
            for each in (*claimed.claims, *claimed.lapsed):
                say("holds", each.id, note=how, token=each.token, until=sent + want.lease)
            return claimed

        async def renew(
            self, leases: Sequence[Lease], lease: float, *rest: Any, **more: Any
        ) -> list[Beat]:
            sent = time.monotonic()
            beats: list[Beat] = await super().renew(leases, lease, *rest, **more)
            for each, beat in zip(leases, beats, strict=True):
                if beat != "lost":
                    say("holds", each.job_id, note="renewed", token=each.token, until=sent + lease)
            return beats

        async def move(self, moves: Sequence[Move], **rest: Any) -> list[Moved]:
            _tell_yields(moves)
            moved: list[Moved] = await super().move(moves, **rest)
            return moved

    store: Any = queue.store
    store.__class__ = Telling


def _tell_yields(moves: Sequence[Move]) -> None:
    for each in moves:
        if each.token is not None:
            say("yields", each.job_id, token=each.token)


def arm(queue: Queue, failpoint: Failpoint, gate: str) -> None:
    """Let the process be hit when the queue's store comes to the failpoint."""
    plain: Any = type(queue.store)

    class Failing(plain):  # type: ignore[misc]
        def handle(self, queue: str | None = None) -> Store:
            other: Any = super().handle(queue)
            other.__class__ = Failing
            return other  # type: ignore[no-any-return]

        async def open(self) -> None:
            if failpoint == "opening":
                say("opening")
                while not Path(gate).exists():  # noqa: ASYNC240
                    await asyncio.sleep(0.01)
            await super().open()

        async def claim(self, want: Want, settle: Sequence[Move] = (), **rest: Any) -> Claimed:
            self._before(settle)
            claimed: Claimed = await super().claim(want, settle, **rest)
            self._after(settle)
            if claimed.claims and failpoint == "claimed":
                os.kill(os.getpid(), signal.SIGKILL)
            if claimed.claims and failpoint == "held":
                say("held")
                while not Path(gate).exists():  # noqa: ASYNC240
                    time.sleep(0.01)  # noqa: ASYNC251  the loop is held with it
            return claimed

        async def move(self, moves: Sequence[Move], **rest: Any) -> list[Moved]:
            self._before(moves)
            moved: list[Moved] = await super().move(moves, **rest)
            self._after(moves)
            return moved

        def _before(self, moves: Sequence[Move]) -> None:
            if failpoint == "done" and any(move.event == "succeed" for move in moves):
                os.kill(os.getpid(), signal.SIGKILL)

        def _after(self, moves: Sequence[Move]) -> None:
            if failpoint == "settled" and any(move.event == "succeed" for move in moves):
                os.kill(os.getpid(), signal.SIGKILL)

    store: Any = queue.store
    store.__class__ = Failing


def prepare() -> None:
    """What each of these programs does first.

    No process outlives the tests, not even a frozen one. Where the clock is a wrong one, a sleep
    is of the length that it is asked for: Python names the instant of its end by the monotonic
    clock, which libfaketime takes for one of the wall clock.
    """
    if "FAKETIME_TIMESTAMP_FILE" in os.environ:
        vars(time)["sleep"] = lambda seconds: select.select([], [], [], seconds)
    if sys.platform == "linux":
        set_death_signal = 1
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)


def give_up_root(user: int | None) -> None:
    """Go on as that user; root may write everything."""
    if user is not None:
        import jobmill.stores.sqlite  # noqa: F401  it may not be able to read the code later

        os.setuid(user)


def limit_memory(more: int | None) -> None:
    """Let the process have so much more memory than it has now."""
    if more is not None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + more
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def main() -> None:
    prepare()
    logging.basicConfig(level=logging.INFO, format="%(name)s %(levelname)s %(message)s")
    settings = msgspec.json.decode(sys.argv[1], type=Settings)
    give_up_root(settings.user)
    limit_memory(settings.memory)
    vars(jobmill.worker)["STUCK_AFTER"] = settings.stuck_after
    importlib.import_module(f"tests.faults.release_{settings.release}")
    asyncio.run(serve(settings))


if __name__ == "__main__":
    main()
