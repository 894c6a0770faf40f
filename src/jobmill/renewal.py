"""Holds the leases of a worker, and tells the roster of it, from a thread of its own.

A handler that blocks the worker's loop does not stop this loop, so its job stays leased.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, assert_never

from jobmill.clock import Clock
from jobmill.context import AbortReason
from jobmill.deadlines import happens
from jobmill.errors import StoreError
from jobmill.losses import tell_losses
from jobmill.presence import Presence
from jobmill.run import Run
from jobmill.states import Move
from jobmill.store import Store
from jobmill.troubles import Trouble

log: Final = logging.getLogger("jobmill.worker")

_NO_TIME: Final = 0.001
"""Seconds that are too few for a clock to tell, and so for a loop to wait."""
_PER_CALL: Final = 1_000
"""Leases renewed in one call."""
_FAREWELL: Final = 2.0
"""Seconds that a stop waits for the last word to the roster."""


class Held:
    """The leases of one queue, as the renewer sees them, and the worker's place on its roster."""

    def __init__(
        self,
        store: Store,
        lease: float,
        runs: Mapping[str, Run],
        presence: Presence | None = None,
    ) -> None:
        self.store = store
        self.lease = lease
        self.runs = runs
        self.presence = presence


class Renewer:
    """Renews every lease/3, and tells the worker's loop what the store answers.

    `abort(run, reason)` is called on `loop`, the worker's. When that loop has been silent
    for half a lease, a warning says where it stands; after `stall_after` seconds of silence
    leases are no longer renewed, so that the jobs of a deadlocked worker go to others.
    """

    def __init__(
        self,
        held: Sequence[Held],
        *,
        abort: Callable[[Run, AbortReason], None],
        clock: Clock,
        stall_after: float,
    ) -> None:
        self._held = held
        self._abort = abort
        self._clock = clock
        self._stall_after = stall_after
        self._patience = min(each.lease for each in held) / 2
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._answered = clock.boot()
        self._warned = False
        self._stalled = False
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._own_loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None

    async def start(self, *, threads: bool) -> None:
        """Begin to renew: from a thread, or on this loop."""
        if not threads:
            self._own_loop = self._loop
            self._stopping = asyncio.Event()
            self._task = self._loop.create_task(self._run(self._stopping), name="jobmill leases")
            self._task.add_done_callback(lambda _: _resolve(self._ended))
            return
        started: asyncio.Future[None] = self._loop.create_future()
        thread = threading.Thread(
            target=self._thread, args=(started,), name="jobmill-leases", daemon=True
        )
        thread.start()
        await started

    async def stop(self) -> None:
        """Renew no more, and let go of the stores."""
        if self._own_loop is None or self._stopping is None:
            return
        with contextlib.suppress(RuntimeError):  # its loop is closed: it has ended
            self._own_loop.call_soon_threadsafe(self._stopping.set)
        await self._ended

    def hand_back(self, held: Held, moves: Sequence[Move], timeout: float) -> None:
        """Make these moves at the end of the process, when the worker's loop is closed.

        By the renewer's own store, since no thread can be started any more.

        Raises: StoreUnavailable; TimeoutError; RuntimeError where the renewer has ended.
        """
        if self._own_loop is None or not self._own_loop.is_running():
            message = "the renewer has ended"
            raise RuntimeError(message)
        asyncio.run_coroutine_threadsafe(_last_act(held, moves), self._own_loop).result(timeout)

    def _thread(self, started: asyncio.Future[None]) -> None:
        async def main() -> None:
            self._own_loop = asyncio.get_running_loop()
            self._stopping = asyncio.Event()
            self._tell(_resolve, started)
            async with asyncio.TaskGroup() as group:
                watch = group.create_task(self._watch(self._stopping))
                await self._run(self._stopping)
                watch.cancel()

        try:
            asyncio.run(main())
        except Exception:
            log.exception("the renewal of leases has ended; jobs may run again elsewhere")
        finally:
            self._tell(_resolve, self._ended)

    def _tell(self, callback: Callable[..., None], *args: object) -> None:
        # A closed loop belongs to a worker that is gone.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback, *args)

    async def _run(self, stopping: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as group:
            for held in self._held:
                group.create_task(self._hold(held, stopping))

    async def _hold(self, held: Held, stopping: asyncio.Event) -> None:
        is_open = False
        retry = min(held.lease / 10, 1.0)
        what = f"renewing leases of {held.store.queue}"
        # No longer pauses: a lease must be renewed as soon as it can be.
        trouble = Trouble(what, first_pause=retry, max_pause=retry)
        beating: asyncio.Task[None] | None = None
        try:
            while not stopping.is_set():
                began = self._clock.boot()
                pause = held.lease / 3
                try:
                    if not is_open:
                        await held.store.open()
                        is_open = True
                    if held.presence is not None and (beating is None or beating.done()):
                        # Beside the renewal, which is not to wait for it.
                        beating = asyncio.create_task(self._beat(held.presence))
                    await self._renew(held)
                except StoreError as error:
                    pause = trouble.say(error)
                except Exception:
                    pause = retry
                    log.exception("renewing leases of %s failed", held.store.queue)
                else:
                    trouble.over()
                # In steps, since the loop's clock may stand still while the machine sleeps.
                until = began + pause - _NO_TIME
                while (left := until - self._clock.boot()) > 0 and not stopping.is_set():
                    await happens(stopping, min(left + _NO_TIME, 1.0))
            if held.presence is not None and beating is not None:
                leaving = asyncio.create_task(_leave(held.presence, beating))
                await asyncio.wait([leaving], timeout=_FAREWELL)
        finally:
            await held.store.close()

    async def _beat(self, presence: Presence) -> None:
        silent = self._clock.boot() - self._answered
        late = silent >= self._patience
        await presence.beat(
            blocked=silent if late else None,
            blocked_by=self._who() if late else None,
            stuck=self._stalled,
        )

    async def _renew(self, held: Held) -> None:
        if self._stalled:
            return
        runs = list(held.runs.values())
        for start in range(0, len(runs), _PER_CALL):
            some = runs[start : start + _PER_CALL]
            asked = self._clock.boot()
            beats = await held.store.renew([run.lease for run in some], held.lease)
            lost: list[Run] = []
            for run, beat in zip(some, beats, strict=True):
                match beat:
                    case "ok":
                        run.renewed = asked
                    case "lost":
                        if not run.signal.aborted:
                            lost.append(run)
                        self._tell(self._abort, run, "lease_lost")
                    case "abort":
                        run.renewed = asked
                        self._tell(self._abort, run, "cancelled")
                    case _:
                        assert_never(beat)
            if lost:
                await tell_losses(held.store, lost, asked)

    async def _watch(self, stopping: asyncio.Event) -> None:
        """Warn of a loop that does not turn, and give it up after `stall_after`."""
        step = min(self._patience / 2, 1.0)
        while not stopping.is_set():
            asked = self._clock.boot()
            self._tell(self._answer)
            await happens(stopping, step)
            now = self._clock.boot()
            if self._loop.is_closed():
                # What it left behind is runs that cannot be stopped.
                self._answered = now
            elif now - asked > 2 * step:
                # This thread stood still too: the process was frozen, its loop not blocked.
                self._answered += now - asked
            silent = now - self._answered
            if silent < self._patience:
                self._warned = self._stalled = False
            elif not self._warned:
                self._warned = True
                log.warning(
                    "%s has blocked the event loop for %.1f s; await, or use a plain def:\n%s",
                    self._who(),
                    silent,
                    self._stack(),
                    extra=self._fields(),
                )
            elif silent > self._stall_after and not self._stalled:
                self._stalled = True
                log.error("the event loop is stuck for %.0f s; its leases are given up", silent)

    def _answer(self) -> None:
        self._answered = self._clock.boot()

    def _who(self) -> str:
        blocking = asyncio.current_task(self._loop)
        return f"the job {blocking.get_name()}" if blocking else "a callback"

    def _fields(self) -> dict[str, Any]:
        """What a log record says of the run that blocks, where it is one."""
        blocking = asyncio.current_task(self._loop)
        for held in self._held:
            for run in list(held.runs.values()):
                if run.asyncio_task is blocking:
                    return run.fields
        return {}

    def _stack(self) -> str:
        # The documented way, whatever its name says.
        frames = sys._current_frames()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        frame = frames.get(self._loop_thread)
        return "".join(traceback.format_stack(frame)) if frame else ""


async def _last_act(held: Held, moves: Sequence[Move]) -> None:
    await held.store.move(moves)
    if held.presence is not None:
        await held.presence.leave()


async def _leave(presence: Presence, beating: asyncio.Task[None]) -> None:
    await asyncio.wait([beating])
    await presence.leave()


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
