"""Carries the schedules of one queue: knows them, and ticks those that are due.

Any number of processes may carry the same schedules. None leads: a tick is written by
compare-and-set, and whoever comes second reads anew. So that they do not all try each tick, the
one that wrote the last tick of a schedule goes first, and the others look again before they try.
That is a habit, and no promise rests on it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from jobmill.errors import StoreError, StoreUnavailable
from jobmill.plans import Plans, job_of
from jobmill.schedule import KEPT_TICKS, Plan, encode_plan, step
from jobmill.store import Doc, Store
from jobmill.troubles import Trouble

log: Final = logging.getLogger("jobmill.scheduler")

_LEAST_READ: Final = 0.7
_MOST_READ: Final = 0.95
"""Seconds between two reads of all schedules, at random: so that many processes do not read at
once, and all the same each knows of a change within a second."""
_LEAST_HOLD: Final = 0.02
_MOST_HOLD: Final = 0.1
"""Seconds for which a due tick is left to whoever wrote the one before it, at random: so that
where that one is gone they do not all come at once, and the tick is hardly late."""
_SET_CLOCK: Final = 10.0
"""Seconds after which a carrier that nobody tells the time asks the store for it."""
_LOOK: Final = 1.0
"""Seconds between looks of one that is told nothing."""
_LONGEST: Final = 60.0
"""Seconds between looks of one that is woken by what it is told."""
_LEAST: Final = 0.001
_AFTER_ERROR: Final = 5.0
"""Seconds until a schedule whose tick failed is tried again."""
_FIRST_PAUSE: Final = 0.1
_MAX_PAUSE: Final = 0.5
"""Seconds between tries while the store cannot be reached."""


class _Known(NamedTuple):
    version: int
    plan: Plan | None
    """None where the document cannot be read."""
    own: bool = False
    """Whether this carrier wrote that version, by a tick."""


class Carrier:
    """Ticks the schedules of one queue, while it runs.

    `hear` tells it, without a call of its own, the store's time and whether a document changed;
    where nobody does (`alone`), it asks by itself. `boot` is the clock that counts suspended
    time. `threads`: whether it may load zones in a thread. While `rests` holds it does nothing.
    """

    def __init__(
        self,
        store: Store,
        *,
        boot: Callable[[], float],
        dice: random.Random,
        threads: bool,
        alone: bool,
        rests: Callable[[], bool],
    ) -> None:
        self._store = store
        self._plans = Plans(store, threads=threads)
        self._boot = boot
        self._dice = dice
        self._alone = alone
        self._rests = rests
        self._wake = asyncio.Event()
        self._known: dict[str, _Known] = {}
        self._not_before: dict[str, float] = {}
        self._stale = True
        self._docs: int | None = None
        self._read_from = float("-inf")
        self._seen_at = float("-inf")
        self._outrun_at = float("-inf")
        self._hold = 0.0
        self._heard_at = float("-inf")
        self._ahead = 0.0
        self._due_at = float("inf")
        self._trouble = Trouble(
            f"scheduling in {store.queue}", first_pause=_FIRST_PAUSE, max_pause=_AFTER_ERROR
        )

    def hear(self, now: float, docs: int) -> None:
        """The store just said what time it is, and how its documents stand."""
        self._set_clock(now)
        if docs != self._docs:
            self._docs = docs
            self._stale = True
            self._wake.set()
        elif self._due_at <= now:
            # The machine was suspended, which timers do not know.
            self._wake.set()

    async def run(self) -> None:
        """Tick whatever is due, until cancelled; a store that cannot be reached is waited for."""
        pause = _FIRST_PAUSE
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            try:
                delay = await self._turn()
            except StoreUnavailable as error:
                # What was under way may have been done.
                self._stale = True
                log.debug("the store of %s cannot be reached: %s", self._store.queue, error)
                await asyncio.sleep(pause)
                pause = min(_MAX_PAUSE, pause * 2)
                continue
            except StoreError as error:
                self._stale = True
                await asyncio.sleep(self._trouble.say(error))
                continue
            except Exception:
                self._stale = True
                log.exception("scheduling in %s failed", self._store.queue)
                await asyncio.sleep(_AFTER_ERROR)
                continue
            pause = _FIRST_PAUSE
            self._trouble.over()
            if delay > 0 and not self._wake.is_set():
                timer = loop.call_later(delay, self._wake.set)
                await self._wake.wait()
                timer.cancel()

    async def _turn(self) -> float:
        """Read where that is called for, tick what is due; seconds until the next turn."""
        boot = self._boot()
        if self._rests():
            return _LOOK
        if self._alone:
            if boot - self._heard_at > _SET_CLOCK:
                self._set_clock(await self._plans.now())
            self._stale = True
        elif self._heard_at == float("-inf"):
            # The first claim will tell.
            return _LOOK
        if self._stale and boot >= self._read_from:
            await self._read()
        now = self._now()
        if any(self._acts_at(name) <= now and not self._is_first(name) for name in self._known):
            await self._read()
        for name in sorted(self._known, key=self._acts_at):
            if self._acts_at(name) <= now:
                await self._tick(name, self._known[name])
        return self._patience()

    def _is_first(self, name: str) -> bool:
        """Whether it may tick without looking again, as nobody is likely to have done so."""
        _, plan, own = self._known[name]
        return own or plan is None or plan.next_run is None or plan.next_run <= self._seen_at

    def _acts_at(self, name: str) -> float:
        """The instant from which there is something to be done for a schedule."""
        plan = self._known[name].plan
        if plan is None or plan.next_run is None:
            return float("inf")
        due = plan.next_run
        if not self._is_first(name):
            due = max(due, self._outrun_at) + self._hold
        return max(due, self._not_before.get(name, due))

    def _patience(self) -> float:
        """Seconds until a schedule is due, or all are to be read again."""
        self._due_at = min(map(self._acts_at, self._known), default=float("inf"))
        delay = min(_LOOK if self._alone else _LONGEST, self._due_at - self._now())
        if self._stale:
            delay = min(delay, self._read_from - self._boot())
        return max(_LEAST, delay)

    async def _read(self) -> None:
        self._stale = False
        self._read_from = self._boot() + self._dice.uniform(_LEAST_READ, _MOST_READ)
        self._hold = self._dice.uniform(_LEAST_HOLD, _MOST_HOLD)
        asked_at = self._now()
        try:
            docs = await self._plans.docs()
        except BaseException:
            self._stale = True
            raise
        known: dict[str, _Known] = {}
        for doc in docs:
            before = self._known.get(doc.key)
            if before is not None and before.version == doc.version:
                known[doc.key] = before
            else:
                known[doc.key] = _Known(doc.version, await self._decoded(doc))
        self._known = known
        self._seen_at = asked_at
        self._not_before = {name: at for name, at in self._not_before.items() if name in known}

    async def _decoded(self, doc: Doc) -> Plan | None:
        """The plan; one that does not decode is told once, since its version stays known."""
        try:
            return await self._plans.decoded(doc)
        except ValueError as error:
            log.warning(
                "the schedule %s of %s cannot be read, and is left out: %s",
                doc.key,
                self._store.queue,
                error,
            )
            return None

    async def _tick(self, name: str, known: _Known) -> None:
        try:
            await self._tick_once(name, known)
        except StoreUnavailable:
            raise
        except Exception as error:
            # This one alone: the others go on.
            self._not_before[name] = self._now() + _AFTER_ERROR
            self._stale = True
            if isinstance(error, StoreError):
                log.warning("the schedule %s could not tick: %s", name, error)
            else:
                log.exception("the schedule %s could not tick", name)

    async def _tick_once(self, name: str, known: _Known) -> None:
        plan = known.plan
        if plan is None:
            return
        now = self._now()
        todo = step(
            *(plan, now),
            queue=self._store.queue,
            name=name,
            blocker=await self._plans.blocker(plan),
        )
        if todo is None:
            return
        jobs = [job_of(plan, name, made, at) for at, made in todo.fires]
        ticked = await self._store.tick(
            name, known.version, encode_plan(todo.plan), todo.entries, jobs, keep=KEPT_TICKS
        )
        if ticked.version is None:
            # It was changed, or another was first, who is then likely to go on with the rest.
            self._stale = True
            self._known.pop(name, None)
            self._seen_at, self._outrun_at = float("-inf"), self._now()
            return
        for added in ticked.added:
            if added.status == "held":
                # Not known before, as no tick added it: what was written of this tick is undone.
                await self._skip(name, plan, now, ticked.version, added.job_id)
                return
        self._known[name] = _Known(ticked.version, todo.plan, own=True)
        self._not_before.pop(name, None)

    async def _skip(self, name: str, plan: Plan, now: float, version: int, blocker: str) -> None:
        """Write a tick anew as one that was skipped: its job's unique key was held."""
        todo = step(plan, now, queue=self._store.queue, name=name, blocker=blocker)
        if todo is None:
            return
        # The next ticks look at it, as at a job of theirs.
        after = msgspec.structs.replace(todo.plan, last_job_id=blocker)
        ticked = await self._store.tick(
            name, version, encode_plan(after), todo.entries, (), keep=KEPT_TICKS
        )
        if ticked.version is None:
            self._stale = True
            self._known.pop(name, None)
        else:
            self._known[name] = _Known(ticked.version, after, own=True)

    def _set_clock(self, now: float) -> None:
        self._heard_at = self._boot()
        self._ahead = now - self._heard_at

    def _now(self) -> float:
        """The store's now, or a little less."""
        return self._boot() + self._ahead
