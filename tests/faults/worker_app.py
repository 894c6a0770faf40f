"""A worker as users write it, in a process of its own: `python -m tests.faults.worker_app JSON`."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

import tests.faults.jobs  # noqa: F401  defines the jobs
from jobmill import Queue, Worker, create_queue
from jobmill.states import Move
from jobmill.store import Claimed, Moved, Store, Want
from tests.faults.witness import say

Failpoint = Literal["opening", "claimed", "frozen", "done", "settled"]
"""Where the process is hit: in start-up; after the claim of a job and before its start, by a
kill or by a freeze; after a job is done and before it is settled; after it is settled, before
the worker knows."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What one worker process is told."""

    url: str
    lease: float = 1.0
    concurrency: int = 5
    poll_interval: float = 0.2
    stop_timeout: float = 20.0
    handles_signals: bool = True
    failpoint: Failpoint | None = None
    gate: str = ""
    """A file for whose coming "opening" waits."""
    user: int | None = None


async def serve(settings: Settings) -> None:
    """Run a worker until it is told to stop."""
    queue = create_queue(
        settings.url,
        lease=settings.lease,
        concurrency=settings.concurrency,
        poll_interval=settings.poll_interval,
    )
    if settings.failpoint is not None:
        arm(queue, settings.failpoint, settings.gate)
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
            if claimed.claims and failpoint == "frozen":
                os.kill(os.getpid(), signal.SIGSTOP)
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


def die_with_parent() -> None:
    """Let no process outlive the tests, not even a frozen one."""
    if sys.platform == "linux":
        set_death_signal = 1
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)


def give_up_root(user: int | None) -> None:
    """Go on as that user; root may write everything."""
    if user is not None:
        import jobmill.stores.sqlite  # noqa: F401  it may not be able to read the code later

        os.setuid(user)


def main() -> None:
    die_with_parent()
    logging.basicConfig(level=logging.INFO, format="%(name)s %(levelname)s %(message)s")
    settings = msgspec.json.decode(sys.argv[1], type=Settings)
    give_up_root(settings.user)
    asyncio.run(serve(settings))


if __name__ == "__main__":
    main()
