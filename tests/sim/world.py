"""A world in trouble: a store behind faults, and workers that die, freeze, stop and come back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

from jobmill.errors import StoreUnavailable
from jobmill.states import UNFINISHED
from jobmill.store import Store
from jobmill.testing.checker import Dump, Violation, check, dump
from jobmill.testing.eventlog import Event, story
from jobmill.testing.faults import Faults, Odds
from jobmill.testing.faulty import FaultyStore
from jobmill.testing.sim import Process, Sim

T = TypeVar("T")

PATIENCE = 1_000.0
"""Seconds after which it is clear that something never ends."""

LONGEST_RUN = 25.0
"""Seconds that a handler takes at the most: one that lost its job may still enqueue another."""
LEASE = 10.0
TROUBLE = 90.0
WITHIN = 45.0
"""Seconds from the end of the faults: a lease, the longest backoff, and as much again."""


@dataclass
class Outcome:
    """What a run of the world left."""

    log: list[Event]
    at_end: Dump
    violations: list[Violation]


def told(outcome: Outcome) -> str:
    """The violations, and the story of the first one's job."""
    lines = [str(violation) for violation in outcome.violations]
    first = outcome.violations[0].job_id if outcome.violations else None
    return "\n".join([*lines, story(outcome.log, first)])


class Inhabitant(Protocol):
    """A worker, as its world knows it."""

    async def run(self) -> None: ...

    def stop(self, grace: float) -> None: ...


class World:
    """Producers, workers and operators; which ones, its children say.

    Trouble for TROUBLE seconds, then calm: all must end within WITHIN.
    """

    paused: tuple[str, ...] = ("*",)

    def __init__(
        self, sim: Sim, store: Store, odds: Odds, *, jobs: int = 30, workers: int = 3
    ) -> None:
        self.sim = sim
        self.faults = Faults(sim, odds)
        self.dice = sim.dice("world")
        self.root = store
        self.jobs = jobs
        self.ids: list[str] = []
        self.workers: dict[str, tuple[Process, Inhabitant]] = {}
        self.stopping: set[str] = set()
        self.size = workers
        self.over = False

    def worker(self, process: Process, store: Store) -> Inhabitant:
        raise NotImplementedError

    async def produce(self, store: Store, number: int) -> None:
        raise NotImplementedError

    async def operate(self, store: Store) -> None:
        raise NotImplementedError

    async def settle_down(self) -> None:
        """What else must end once all jobs have."""

    def troubles(self) -> list[Coroutine[Any, Any, None]]:
        """What goes on besides, until it is calm."""
        return [self.disturb(), self.freeze()]

    async def run(self) -> Outcome:
        await self.root.open()
        try:
            return await self._run()
        finally:
            await self.faults.close()
            await self.root.close()

    async def _run(self) -> Outcome:
        outside = FaultyStore(self.root.handle(), self.faults)
        await self.persist(outside.open)
        keepers = [asyncio.create_task(self.keep(number)) for number in range(self.size)]
        producing = [asyncio.create_task(self.produce(outside, number)) for number in range(3)]
        trouble = [asyncio.create_task(coro) for coro in (self.operate(outside), *self.troubles())]
        await asyncio.sleep(TROUBLE)
        for task in trouble:
            task.cancel()
        await asyncio.wait(trouble)
        for task in trouble:
            if not task.cancelled():
                task.result()
        for process in self.sim.processes:
            process.thaw()
        self.faults.calm(WITHIN)
        await asyncio.gather(*producing)
        for key in self.paused:
            await self.persist(partial(outside.write, "pauses", key, None))
        await self.drain()
        await self.settle_down()
        self.over = True
        for process, worker in list(self.workers.values()):
            if process.alive:
                worker.stop(60.0)
        await asyncio.gather(*keepers)
        at_end = await dump(self.root)
        return Outcome(self.faults.log, at_end, check(self.faults.log, at_end))

    async def drain(self) -> None:
        """Wait until all has ended, and what still runs of ended jobs can add no more."""
        deadline = self.sim.clock.boot() + PATIENCE
        ended_at: float | None = None
        while self.sim.clock.boot() < deadline:
            counts = await self.root.counts()
            now = self.sim.clock.boot()
            if any(counts.states.get(state) for state in UNFINISHED):
                ended_at = None
            elif ended_at is None:
                ended_at = now
            elif now - ended_at > LONGEST_RUN:
                return
            await asyncio.sleep(1.0)

    async def keep(self, number: int) -> None:
        """Start a worker, and another whenever it died or stopped."""
        start = 0
        while not self.over:
            start += 1
            process = self.sim.process(f"w{number}.{start}")
            worker = self.worker(process, FaultyStore(self.root.handle(), self.faults))
            self.workers[process.name] = process, worker
            await self.either(process, process.start(worker.run()))
            del self.workers[process.name]
            await self.sim.checkpoint(3.0)

    async def either(self, process: Process, task: asyncio.Task[None]) -> None:
        died = asyncio.create_task(process.died())
        await asyncio.wait({task, died}, return_when=asyncio.FIRST_COMPLETED)
        died.cancel()
        if task.done():
            task.result()

    async def disturb(self) -> None:
        """Kill, stop, cut off, and set the clock."""
        while True:
            await asyncio.sleep(self.dice.uniform(2.0, 15.0))
            roll = self.dice.random()
            name = self.dice.choice(sorted(self.workers) or [""])
            if roll < 0.4:
                self.faults.kill(name)
            elif roll < 0.6:
                process, worker = self.workers.get(name, (None, None))
                # A frozen worker hears nothing.
                if process is not None and worker is not None and process.runs:
                    self.stopping.add(name)
                    worker.stop(self.dice.choice((0.0, 2.0, 30.0)))
            elif roll < 0.8:
                self.faults.outage(self.dice.uniform(0.0, 15.0))
            else:
                self.sim.clock.jump(self.dice.choice((-20.0, -1.0, 1.0, 30.0)))

    async def freeze(self) -> None:
        """Stop a worker for about a lease, or longer, and let it go on."""
        while True:
            await asyncio.sleep(self.dice.uniform(2.0, 15.0))
            running = [
                process
                for name, (process, _) in self.workers.items()
                # One that stops has its time, and time does not stand still.
                if process.runs and name not in self.stopping
            ]
            if running:
                process = self.dice.choice(running)
                process.freeze()
                await asyncio.sleep(self.dice.uniform(1.0, 3 * LEASE))
                process.thaw()

    async def persist(self, call: Callable[[], Awaitable[T]]) -> T:
        """Again and again, until the store answers."""
        while True:
            try:
                return await call()
            except StoreUnavailable:
                await self.sim.checkpoint(1.0)
