"""Scripted producers, workers and operators, on the store's protocol alone.

The workers here are the least that keeps the promises; the real ones have their own world.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field
from functools import partial

from jobmill.errors import StoreUnavailable
from jobmill.limits import Window
from jobmill.policy import Policy
from jobmill.states import (
    Claim,
    Failure,
    Move,
    after_cancel,
    after_failure,
    after_lapse,
    after_snooze,
    after_stop,
    after_success,
)
from jobmill.store import JOBS, Claimed, Lease, NewJob, Query, Store, Want
from jobmill.testing.eventlog import Begins, Ends, Gone, Stops
from jobmill.testing.sim import Process
from tests.sim.world import LEASE, TROUBLE, Inhabitant, World

FAILURE = Failure(error=b'{"type":"Simulated"}', fingerprint="simulated")
CANCELLED = Failure(error=b'{"type":"Cancel"}')
LIMIT = (Window(3, 5.0),)
GRACE = 500.0


@dataclass
class Worker:
    """One start of a worker: claims, runs, renews and settles until it is told to stop."""

    world: ScriptedWorld
    name: str
    store: Store
    runs: dict[Lease, Claim] = field(default_factory=dict)
    asked: set[Lease] = field(default_factory=set)
    lost: set[Lease] = field(default_factory=set)
    held_until: dict[Lease, float] = field(default_factory=dict)
    claims: int = 0
    stopping: bool = False
    suspect_waits: bool = False
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self) -> None:
        sim, faults = self.world.sim, self.world.faults
        await self.world.persist(self.store.open)
        renewer = asyncio.create_task(self.renew())
        while not self.stopping:
            await self.claim_once()
            if not self.stopping:
                await self.world.wait(self.store)
        if self.tasks:
            await asyncio.wait(self.tasks)
        renewer.cancel()
        faults.log.append(Gone(**faults.stamp()))
        await sim.checkpoint()

    def stop(self, grace: float) -> None:
        if not self.stopping:
            self.stopping = True
            faults = self.world.faults
            faults.log.append(Stops(**faults.stamp(by=self.name), grace=grace + GRACE))

    def room(self) -> tuple[int, str]:
        if any(claim.suspect for claim in self.runs.values()):
            return 0, "busy"
        if self.runs:
            # Leave off for a suspect that waits, until idle.
            return (0 if self.suspect_waits else 4 - len(self.runs)), "busy"
        return 4, "alone" if self.suspect_waits else "idle"

    async def claim_once(self) -> None:
        limit, room = self.room()
        self.claims += 1
        token = f"{self.name}:{self.claims}"
        repeat = False
        # Also of a repeated call: the first may have been done, and its leases run since then.
        sent = self.world.sim.clock.boot()
        while True:
            want = Want(
                worker=self.name,
                token=token,
                limit=limit,
                lease=LEASE,
                room=room,  # type: ignore[arg-type]
                repeat=repeat,
            )
            try:
                claimed = await self.store.claim(want)
            except StoreUnavailable:
                repeat = True
                await self.world.sim.checkpoint(1.0)
                continue
            break
        self.take(claimed, sent)

    def take(self, claimed: Claimed, sent: float) -> None:
        now = self.world.sim.clock.boot()
        self.suspect_waits = claimed.suspect_waits
        for claim in (*claimed.claims, *claimed.lapsed):
            self.held_until[_lease(claim)] = sent + LEASE
        for claim in claimed.lapsed:
            self.spawn(self.settle(after_lapse(claim, FAILURE)))
        for claim in claimed.claims:
            # Late: the lease may be over before it starts.
            if self.stopping or now >= self.held_until[_lease(claim)]:
                self.spawn(self.settle(after_stop(claim, untried=True)))
                continue
            self.runs[_lease(claim)] = claim
            self.spawn(self.work(claim))

    def spawn(self, coro: Awaitable[None]) -> None:
        task = asyncio.ensure_future(coro)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def work(self, claim: Claim) -> None:
        faults, dice = self.world.faults, self.world.dice
        try:
            if claim.name == "limited":
                wait = await self.world.persist(
                    lambda: self.store.reserve("limited", claim.id, claim.token, LIMIT)
                )
                if wait > 0:
                    await self.settle(after_snooze(claim, wait, untried=True))
                    return
            if self.world.sim.clock.boot() >= self.held_until[_lease(claim)]:
                await self.settle(after_stop(claim, untried=True))
                return
            stamp = faults.stamp()
            faults.log.append(
                Begins(**stamp, job_id=claim.id, attempt=claim.attempt, token=claim.token)
            )
            longest = dice.choice((0.0, 1.0, 5.0, 20.0))
            await asyncio.sleep(dice.uniform(0.0, min(longest, 1.0) if faults.quiet else longest))
            move = self.outcome(claim)
            faults.log.append(
                Ends(
                    **faults.stamp(),
                    job_id=claim.id,
                    attempt=claim.attempt,
                    how=move.event,
                    token=claim.token,
                )
            )
            if _lease(claim) not in self.lost:
                await self.settle(move)
        finally:
            del self.runs[_lease(claim)]

    def outcome(self, claim: Claim) -> Move:
        if _lease(claim) in self.asked:
            return after_cancel(claim, CANCELLED)
        roll = self.world.dice.random()
        if self.world.faults.quiet or roll < 0.5:
            return after_success(claim, b"null")
        if roll < 0.8:
            delay = self.world.dice.uniform(0.0, 5.0)
            return after_failure(claim, FAILURE, retryable=roll < 0.75, delay=delay)
        if roll < 0.9:
            return after_snooze(claim, self.world.dice.uniform(0.0, 5.0))
        if roll < 0.95:
            return after_stop(claim)
        return after_cancel(claim, CANCELLED)

    async def settle(self, move: Move) -> None:
        await self.world.persist(lambda: self.store.move([move]))

    async def renew(self) -> None:
        while True:
            await asyncio.sleep(LEASE / 3)
            leases = list(self.runs)
            if not leases:
                continue
            sent = self.world.sim.clock.boot()
            try:
                beats = await self.store.renew(leases, LEASE)
            except StoreUnavailable:
                continue
            for lease, beat in zip(leases, beats, strict=True):
                if beat == "lost":
                    self.lost.add(lease)
                    continue
                self.held_until[lease] = sent + LEASE
                if beat == "abort":
                    self.asked.add(lease)


def _lease(claim: Claim) -> Lease:
    return Lease(claim.id, claim.token)


class ScriptedWorld(World):
    """Scripted workers, producers that repeat themselves, operators that do what they may."""

    paused = ("*", "job:other")

    def worker(self, process: Process, store: Store) -> Inhabitant:
        return Worker(self, process.name, store)

    async def wait(self, store: Store) -> None:
        """Until there may be something to claim."""
        await store.wait([JOBS], self.dice.uniform(0.1, 2.0))

    async def produce(self, store: Store, number: int) -> None:
        ids, dice = self.sim.ids(f"producer {number}"), self.sim.dice(f"producer {number}")
        left = self.jobs // 3
        while left > 0:
            await asyncio.sleep(dice.uniform(0.0, TROUBLE / self.jobs * 4))
            batch = [
                self.new_job(ids(), dice.choice((0, 1)) == 1) for _ in range(dice.choice((1, 1, 3)))
            ]
            left -= len(batch)
            # The same ids again until it is known that they are there.
            answers = await self.persist(partial(store.add, batch))
            if dice.random() < 0.1:
                await self.persist(partial(store.add, batch))
            self.ids += [answer.job_id for answer in answers]

    def new_job(self, job_id: str, plain: bool) -> NewJob:
        dice = self.dice
        if plain:
            return NewJob(id=job_id, name="plain", payload=b"{}", policy=Policy())
        return NewJob(
            id=job_id,
            name=dice.choice(("plain", "limited", "other")),
            payload=b"{}",
            policy=Policy(
                max_attempts=dice.choice((1, 2, 4)),
                max_lapses=dice.choice((1, 3)),
                on_lapse=dice.choice(("retry", "retry", "fail")),
            ),
            priority=dice.choice((0, 0, 1, -5)),
            delay=dice.choice((None, 0.0, dice.uniform(0.0, 30.0))),
            unique_key=dice.choice((None, None, "a", "b")),
        )

    async def operate(self, store: Store) -> None:
        """Cancel, revive, hasten, drop, pause: whatever an operator may do at any time."""
        while True:
            await asyncio.sleep(self.dice.uniform(0.0, 4.0))
            if not self.ids:
                continue
            job_id = self.dice.choice(self.ids)
            roll = self.dice.random()
            try:
                if roll < 0.4:
                    error = FAILURE.error
                    await store.move([Move(event="cancel", job_id=job_id, error=error)])
                elif roll < 0.7:
                    await store.move([Move(event="revive", job_id=job_id)])
                elif roll < 0.8:
                    await store.move([Move(event="hasten", job_id=job_id)])
                elif roll < 0.85:
                    await store.drop(Query(), ids=[job_id], limit=1)
                elif roll < 0.95:
                    await store.write("pauses", self.dice.choice(("*", "job:other")), b"{}")
                    await asyncio.sleep(self.dice.uniform(0.0, 5.0))
                    await self.persist(partial(store.write, "pauses", "*", None))
                    await self.persist(partial(store.write, "pauses", "job:other", None))
                else:
                    await store.prune(100)
            except StoreUnavailable:
                continue
