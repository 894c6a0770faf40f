"""Feeds a worker from one queue: claims jobs, and settles what became of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from jobmill.context import AbortReason
from jobmill.errors import StoreError, StoreUnavailable
from jobmill.logs import job_fields
from jobmill.losses import tell_losses
from jobmill.presence import Presence, Profile
from jobmill.renewal import Held
from jobmill.run import Run
from jobmill.slots import Slots
from jobmill.store import JOBS, Claim, Move, Moved, Note, Store, Want
from jobmill.troubles import Trouble

if TYPE_CHECKING:
    from jobmill.carrier import Carrier
    from jobmill.queue import Queue
    from jobmill.runner import Runner

log: Final = logging.getLogger("jobmill.worker")

_FIRST_PAUSE: Final = 0.1
_MAX_PAUSE: Final = 0.5
"""Seconds between tries while the store cannot be reached."""
_AFTER_BUG: Final = 2.0
"""Seconds until the next try after an error that should not be."""
_OTHERS_HOLD: Final = 1.0
"""Seconds after an outage in which nothing is claimed: more than one of the above."""
_NAMED: Final = 3
"""How many jobs a log line names, where there are many."""
_SETTLED_AT_ONCE: Final = 1_000
_BYTES_AT_ONCE: Final = 8 << 20
"""Bytes of outcomes, or of notes, in one call, or a little more: no store refuses so many, and each
takes them in time. What it does not take it would be told again and again, for ever."""
_SCHEDULES_AFTER: Final = 1.0
"""Seconds after which a worker without a free slot learns of schedules that were written."""
_AT_ONCE: Final = 0.0


class Feed:
    """One queue of a worker.

    `start` runs a claim that was made at the given instant of `boot`, the clock that counts
    suspended time; `abort` asks a run to stop; `stir` wakes the feeds that wait for a slot.
    """

    def __init__(
        self,
        queue: Queue,
        *,
        store: Store,
        runner: Runner,
        slots: Slots[Feed],
        names: tuple[str, ...] | None,
        feeds: int,
        worker: str,
        tokens: Iterator[str],
        boot: Callable[[], float],
        start: Callable[[Feed, Claim, float], None],
        abort: Callable[[Run, AbortReason], None],
        stir: Callable[[], None],
    ) -> None:
        self.queue = queue
        self.store = store
        self.runner = runner
        self.wake: asyncio.Event = asyncio.Event()
        self.held: dict[str, Run] = {}
        """The runs whose leases this worker holds, from the claim until they are settled."""
        self.late_after: float = queue.lease / 2
        """Seconds since its renewal after which a lease may not be held: there was a freeze."""
        self.carrier: Carrier | None = None
        """What ticks the queue's schedules, where this worker does."""
        self._slots = slots
        self._names = names
        self._worker = worker
        self._tokens = tokens
        self._boot = boot
        self._start = start
        self._abort = abort
        self._stir = stir
        self._feeds = feeds
        self._outbox: list[tuple[Run | None, Move]] = []
        self._unsure: Want | None = None
        self._asked_at = float("-inf")
        self._reached_at = float("inf")
        self._claims_from = float("-inf")
        self._pause = _FIRST_PAUSE
        self._down = False
        self._trouble = Trouble(
            f"claiming from {queue.name}", first_pause=_FIRST_PAUSE, max_pause=_AFTER_BUG
        )

    @property
    def settled(self) -> bool:
        """Whether nothing is left to be told to the store."""
        return not self._outbox and self._unsure is None

    @property
    def reached(self) -> bool:
        """Whether the store answered when it was last asked to claim or to settle."""
        return not self._down

    def leases(self, profile: Profile) -> Held:
        """What the renewer needs: the leases, and the worker's place on the queue's roster."""
        store, lease = self.queue.store.handle(), self.queue.lease
        presence = Presence(
            store, profile, lease=lease, runs=self.held, unknown=self.runner.unknown
        )
        return Held(store, lease, self.held, presence)

    def settle(self, run: Run, move: Move | None) -> None:
        """Tell the store how the run ended; None where its lease is lost."""
        if move is None:
            self._forget(run)
            text = "the lease of %s was lost; its outcome is dropped"
            log.warning(text, run.claim.id, extra=run.fields)
        else:
            self._outbox.append((run, move))
        self.wake.set()

    async def loop(self, finished: Callable[[], bool]) -> None:
        """Claim and settle until `finished`; a store that cannot be reached is waited for."""
        loop = asyncio.get_running_loop()
        while not finished():
            self.wake.clear()
            try:
                delay = await self._turn()
            except StoreUnavailable as error:
                # Only the store's return helps now, so no wake-up cuts this short.
                await asyncio.sleep(self._unreachable(error))
                continue
            except StoreError as error:
                self.runner.faults["claim"] += 1
                self._slots.step_aside(self)
                await asyncio.sleep(self._trouble.say(error))
                continue
            except Exception:
                self.runner.faults["claim"] += 1
                self._slots.step_aside(self)
                log.exception("claiming from %s failed", self.queue.name)
                await asyncio.sleep(_AFTER_BUG)
                continue
            if self._down:
                log.info("the store of %s is back", self.queue.name)
            self._down, self._pause = False, _FIRST_PAUSE
            self._trouble.over()
            if delay > 0 and not self.wake.is_set():
                timer = loop.call_later(delay, self.wake.set)
                await self.wake.wait()
                timer.cancel()

    async def listen(self) -> None:
        """Wake up whenever the store says that there may be something to do."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                await self.store.wait((JOBS,), self.queue.poll_interval)
            except StoreUnavailable:
                await asyncio.sleep(_MAX_PAUSE)
            if loop.time() - began < self.queue.poll_interval:
                # Told, and not only at the end of its patience: the loop looks then by itself.
                self.wake.set()

    async def flush(self) -> None:
        """Settle what is left, and claim nothing."""
        if self._unsure is not None:
            await self._claim(self._unsure, self._boot())
        await self._settle()

    async def write_notes(self) -> None:
        """Store what the runs have reported."""
        runs = [run for run in self.held.values() if run.dirty]
        while runs:
            some: list[Run] = []
            notes: dict[str, Note] = {}
            size = 0
            while runs and size < _BYTES_AT_ONCE:
                run = runs.pop()
                if (note := run.note()) is not None:
                    some.append(run)
                    notes[run.claim.id] = note
                    size += _bytes_of(note)
            if not some:
                return
            beats = await self.store.renew([run.lease for run in some], self.queue.lease, notes)
            for run, beat in zip(some, beats, strict=True):
                if beat != "lost":
                    run.noted(notes[run.claim.id])

    async def _turn(self) -> float:
        """One call to the store, where there is need of one; seconds until the next."""
        if self._slots.quiet:
            if self.settled:
                return self.queue.poll_interval
            await self.flush()
            return _AT_ONCE
        away = self._boot() - self._reached_at
        await self._hold_late_leases()
        # This collects, and takes nothing over; so it also tells that the store is back.
        delay = None
        if self._unsure is not None:
            delay = await self._claim(self._unsure, self._boot())
        boot = self._reached_at = self._boot()
        if away > self.late_after + self.queue.poll_interval:
            # Leases may have run out everywhere: whoever came back first must not take
            # over what the others still run, so they are given time to hold theirs.
            self._claims_from = boot + _OTHERS_HOLD
        if delay is not None:
            return delay
        if boot < self._claims_from:
            await self._settle()
            # No longer than usual, or the wait would look like an outage itself.
            return min(self.queue.poll_interval, self._claims_from - boot)
        rest = self._asked_at + self._full_for() - boot
        grant = self._slots.grant(self, self._feeds, lease=self.queue.lease, now=boot)
        if not grant.limit and not self._outbox and rest > 0:
            # Full: lapsed leases are left to be looked for, and new schedules, which is not urgent.
            self._give_back()
            return rest
        self._asked_at = boot
        want = Want(
            worker=self._worker,
            token=next(self._tokens),
            limit=grant.limit,
            lease=self.queue.lease,
            names=self._names,
            room=grant.room,
        )
        return await self._claim(want, boot)

    def _full_for(self) -> float:
        """Seconds between two calls where there is neither a free slot nor an outcome to tell."""
        most = self.queue.poll_interval
        return most if self.carrier is None else min(most, _SCHEDULES_AFTER)

    async def _hold_late_leases(self) -> None:
        """After an outage or a freeze, hold the own leases before looking for lapsed ones."""
        boot = self._boot()
        late = [run for run in self.held.values() if boot - run.renewed > self.late_after]
        if not late:
            return
        beats = await self.store.renew([run.lease for run in late], self.queue.lease)
        lost = [
            run
            for run, beat in zip(late, beats, strict=True)
            if beat == "lost" and not run.signal.aborted
        ]
        if lost:
            await tell_losses(self.store, lost, boot)
        for run, beat in zip(late, beats, strict=True):
            run.renewed = boot
            if beat != "ok":
                self._abort(run, "lease_lost" if beat == "lost" else "cancelled")

    async def _claim(self, want: Want, boot: float) -> float:
        """Claim; the slots stay reserved until it is known what was claimed."""
        batch = self._batch()
        self._unsure = msgspec.structs.replace(want, repeat=True)
        claimed = await self.store.claim(want, [move for _, move in batch])
        self._unsure = None
        self._settled(batch, claimed.moved)
        if self.carrier is not None:
            self.carrier.hear(claimed.now, claimed.docs)
        # What was claimed by an earlier, lost reply has been leased for longer than this call.
        since = self._asked_at if want.repeat else boot
        _say_lapsed(claimed.lapsed, self.queue.name)
        for claim in claimed.lapsed:
            self._outbox.append((None, self.runner.settle_lapse(claim)))
        for lease in claimed.asked:
            run = self.held.get(lease.job_id)
            if run is not None and run.claim.token == lease.token:
                self._abort(run, "cancelled")
        self._slots.suspect_waits(self, boot, waits=claimed.suspect_waits)
        for claim in claimed.claims:
            if (before := self.held.get(claim.id)) is not None:
                # Its lease lapsed and came back: what still runs of it is not the owner's.
                self._abort(before, "lease_lost")
            self._start(self, claim, since)
        self._give_back()
        if self._outbox or (want.limit and len(claimed.claims) >= want.limit):
            return _AT_ONCE
        due = claimed.next_due
        pause = self.queue.poll_interval
        return pause if due is None else min(pause, max(0.0, due - claimed.now))

    def _give_back(self) -> None:
        if self._slots.give_back(self):
            self._stir()

    async def _settle(self) -> None:
        while batch := self._batch():
            self._settled(batch, await self.store.move([move for _, move in batch]))

    def _batch(self) -> list[tuple[Run | None, Move]]:
        """What is settled in one call."""
        some = self._outbox[:_SETTLED_AT_ONCE]
        size = 0
        for number, (_, move) in enumerate(some):
            if move.result is not None:
                size += len(move.result)
            if move.error is not None:
                size += len(move.error)
            if move.note is not None:
                size += _bytes_of(move.note)
            if size > _BYTES_AT_ONCE:
                return some[: max(1, number)]
        return some

    def _settled(self, batch: Sequence[tuple[Run | None, Move]], moved: Sequence[Moved]) -> None:
        del self._outbox[: len(batch)]
        for (run, move), answer in zip(batch, moved, strict=True):
            if run is not None and self.held.get(move.job_id) is run:
                del self.held[move.job_id]
            if answer.status in ("applied", "already"):
                continue
            self.runner.faults["stale settle"] += 1
            log.warning(
                "%s of %s came too late (%s): the job is no longer this worker's",
                move.event,
                move.job_id,
                answer.status,
                extra={"job_id": move.job_id, "queue": self.queue.name}
                if run is None
                else run.fields,
            )

    def _forget(self, run: Run) -> None:
        if self.held.get(run.claim.id) is run:
            del self.held[run.claim.id]

    def _unreachable(self, error: StoreUnavailable) -> float:
        if not self._down:
            log.warning("the store of %s cannot be reached: %s", self.queue.name, error)
        self._down = True
        self._slots.step_aside(self)
        pause, self._pause = self._pause, min(_MAX_PAUSE, self._pause * 2)
        return pause


def _bytes_of(note: Note) -> int:
    return sum([len(line) for _, line in note.lines])


def _say_lapsed(lapsed: Sequence[Claim], queue: str) -> None:
    """One line, since with one worker hundreds of leases lapse."""
    match len(lapsed):
        case 0:
            pass
        case 1:
            text = "the worker of %s died; its lease lapsed"
            log.warning(text, lapsed[0].id, extra=job_fields(lapsed[0], queue))
        case many:
            named = ", ".join([claim.id for claim in lapsed[:_NAMED]])
            text = "the workers of %d jobs died; their leases lapsed: %s"
            more = ", ..." if many > _NAMED else ""
            log.warning(text, many, named + more, extra={"queue": queue})
