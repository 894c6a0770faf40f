"""Tells the roster how a worker is, from the thread that renews its leases."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

from jobmill.errors import StoreError, StoreUnavailable
from jobmill.registry import lookup
from jobmill.roster import (
    BEATS_TO_DEATH,
    SHOWN_RUNS,
    SHOWN_UNKNOWN,
    WORKERS,
    Entry,
    Running,
    encode_entry,
)
from jobmill.run import Run
from jobmill.slots import Slots
from jobmill.store import Store
from jobmill.troubles import Trouble
from jobmill.version import VERSION

log: Final = logging.getLogger("jobmill.worker")

FORGOTTEN_AFTER: Final = 600.0
"""Seconds of silence after which a dead worker is taken off the roster."""
_SWEEP_EVERY: Final = 30
"""Beats between two looks for the dead."""
_PAGE: Final = 1_000

State = Literal["running", "stopping", "stuck"]


def memory_used() -> int | None:
    """Bytes of the machine's memory that this process has, without its child processes.

    None where the system does not say.
    """
    try:
        file = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        # The kernel answers from its own tables, so this never waits.
        pages = os.pread(file, 200, 0).split()[1]
    finally:
        os.close(file)
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


class Profile:
    """What all entries of one worker say. `slots` are looked at from the renewer's thread."""

    def __init__(
        self,
        worker: str,
        *,
        queues: Sequence[str],
        slots: Slots[Any],
        names: tuple[str, ...] | None,
        boot: Callable[[], float],
    ) -> None:
        self.worker = worker
        self.boot = boot
        self._queues = tuple(queues)
        self._slots = slots
        self._names = names
        self._born = boot()

    def entry(
        self,
        lease: float,
        runs: Mapping[str, Run],
        unknown: Mapping[str, int],
        *,
        blocked: float | None,
        blocked_by: str | None,
        stuck: bool,
    ) -> Entry:
        """How the worker is now, for the queue whose `runs` these are."""
        state: State = "stuck" if stuck else "stopping" if self._slots.quiet else "running"
        # The loop goes on meanwhile, but not while these copies are made.
        running = sorted(runs.values(), key=lambda run: run.claim.started_at)
        missed = [(name, n) for name, n in tuple(unknown.items()) if lookup(name) is None]
        return Entry(
            host=platform.node(),
            pid=os.getpid(),
            version=VERSION,
            queues=self._queues,
            slots=self._slots.concurrency,
            every=lease / BEATS_TO_DEATH,
            up=self.boot() - self._born,
            busy=len(self._slots.running),
            memory=memory_used(),
            state=state,
            names=self._names,
            blocked=blocked,
            blocked_by=blocked_by,
            unknown=dict(missed[-SHOWN_UNKNOWN:]),
            running=tuple([_running(run) for run in running[:SHOWN_RUNS]]),
        )


class Presence:
    """One worker's place on the roster of one queue.

    `runs` are its runs there, `unknown` how often it met which job that it does not know.
    """

    def __init__(
        self,
        store: Store,
        profile: Profile,
        *,
        lease: float,
        runs: Mapping[str, Run],
        unknown: Mapping[str, int],
    ) -> None:
        self._store = store
        self._profile = profile
        self._lease = lease
        self._runs = runs
        self._unknown = unknown
        self._beats = 0
        self._stands = False
        self._version: int | None = None
        self._beaten = 0.0
        self._trouble = Trouble(
            f"telling the roster of {store.queue}", first_pause=0.0, max_pause=0.0
        )

    async def beat(self, *, blocked: float | None, blocked_by: str | None, stuck: bool) -> None:
        """Say how the worker is; what goes wrong there is no matter of its leases.

        Cost: one statement, and now and then more: to take the long dead off, and where the
        store has lost what it said before.
        """
        try:
            entry = self._profile.entry(
                self._lease,
                self._runs,
                self._unknown,
                blocked=blocked,
                blocked_by=blocked_by,
                stuck=stuck,
            )
            await self._write(encode_entry(entry))
            self._stands = True
            if self._beats % _SWEEP_EVERY == 0:
                await self._sweep()
            self._beats += 1
            self._trouble.over()
        except StoreUnavailable as error:
            self._stands = False
            log.debug("the roster of %s cannot be told: %s", self._store.queue, error)
        except StoreError as error:
            self._stands = False
            self._trouble.say(error)
        except Exception:
            log.exception("the roster of %s could not be told", self._store.queue)

    async def leave(self) -> None:
        """Take the worker off the roster, where the store was there for its last beat."""
        if not self._stands:
            return
        try:
            await self._store.write(WORKERS, self._profile.worker, None)
        except StoreError as error:
            log.debug("%s stays on the roster: %s", self._profile.worker, error)

    async def _write(self, value: bytes) -> None:
        """Write the entry over the last one, and warn where the store has lost that.

        Nobody else writes it, and nobody removes it from one that beats: where it is gone, or is
        an older one, the store was emptied or put back. An idle worker would not learn of it
        otherwise.

        Cost: one statement; up to two more where the last one is not there.
        """
        write, worker = self._store.write, self._profile.worker
        sure, forgotten = self._stands, self._profile.boot() - self._beaten > FORGOTTEN_AFTER / 2
        version = await write(WORKERS, worker, value, version=self._version)
        if version is None:
            version = await write(WORKERS, worker, value, version=0)
            # Of a write that was not answered nobody knows whether it was done.
            if (version is not None or sure) and not forgotten:
                log.warning(
                    "the store of %s has lost data: it does not know of this worker any more; it "
                    "was emptied, put back to an earlier state, or lost its last writes",
                    self._store.queue,
                )
        if version is None:
            version = await write(WORKERS, worker, value)
        self._version, self._beaten = version, self._profile.boot()

    async def _sweep(self) -> None:
        """Take the long dead off the roster; the own entry, just written, tells the time."""
        docs = await self._store.read(WORKERS, limit=_PAGE)
        now = next((doc.at for doc in docs if doc.key == self._profile.worker), None)
        for doc in docs:
            if now is not None and now - doc.at > FORGOTTEN_AFTER:
                # By its version: one that beats again after all stays.
                await self._store.write(WORKERS, doc.key, None, version=doc.version)


def _running(run: Run) -> Running:
    claim = run.claim
    return Running(
        id=claim.id,
        name=claim.name,
        attempt=claim.attempt,
        since=claim.started_at,
        aborted=run.signal.reason,
    )
