"""Workers of two queues at once, each queue in troubles of its own."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any

from jobmill import Worker
from jobmill.states import UNFINISHED
from jobmill.store import Store
from jobmill.testing.checker import Violation, check, dump
from jobmill.testing.eventlog import Begins, Claims, Ends, Gone, Killed, Stops
from jobmill.testing.faults import Odds
from jobmill.testing.faulty import FaultyStore
from jobmill.testing.sim import Process, Sim
from tests.sim.engines import JOBS, SLACK, EngineWorld, work
from tests.sim.world import LONGEST_RUN, PATIENCE, Inhabitant, Outcome


class Shared:
    """A process with one worker of both queues."""

    def __init__(self, worlds: tuple[EngineWorld, EngineWorld], process: Process) -> None:
        self._worlds = worlds
        self._process = process
        dice = worlds[0].dice
        queues = [
            world.queue(FaultyStore(world.root.handle(), world.faults), process.name)
            for world in worlds
        ]
        some = [job for job in JOBS if dice.random() < 0.7] or [work]
        jobs = None if process.name.startswith("w0") or dice.random() < 0.7 else some
        budget = None if dice.random() < 0.7 else dice.choice((1, 5, 20))
        self.worker = Worker(
            queues, concurrency=dice.choice((1, 2, 6, 40)), jobs=jobs, max_jobs=budget
        )
        self._stopping: asyncio.Task[None] | None = None
        self._budget = budget

    async def run(self) -> None:
        recycling = asyncio.create_task(self._recycle())
        try:
            await self.worker.run()
        except Exception as error:
            for world in self._worlds:
                world.tell(Gone, error=repr(error))
            raise
        finally:
            recycling.cancel()
        for world in self._worlds:
            world.tell(Gone)

    async def _recycle(self) -> None:
        """As the supervisor of the command line does, where the budget is spent."""
        if self._budget is None:
            return
        while self.worker.started < self._budget:
            await asyncio.sleep(1.0)
        self.stop(30.0)

    def stop(self, grace: float) -> None:
        if self._stopping is None:
            for world in self._worlds:
                stamp = world.faults.stamp(by=self._process.name)
                world.faults.log.append(Stops(**stamp, grace=grace + SLACK))
            self._stopping = self._process.start(self.worker.stop(grace))


class TwoQueues(EngineWorld):
    """A world, and beside it another, whose queue its workers serve, too."""

    def __init__(self, sim: Sim, store: Store, odds: Odds, **options: Any) -> None:
        super().__init__(sim, store, odds, **options)
        self.other = EngineWorld(sim, store.handle("other"), odds, jobs=self.jobs // 2)
        self.other.dice = sim.dice("other world")
        self.worlds = self, self.other
        self.runs: list[Begins | Ends] = []
        for world in self.worlds:
            world.faults.kill = self.kill  # type: ignore[method-assign]
            world.tell = partial(self.note, world)  # type: ignore[method-assign]

    def note(self, world: EngineWorld, kind: Callable[..., Any], **fields: Any) -> None:
        """Tell the log of one world, and keep the runs of both in their order."""
        event = kind(**world.faults.stamp(), **fields)
        world.faults.log.append(event)
        if isinstance(event, Begins | Ends):
            self.runs.append(event)

    def kill(self, name: str) -> None:
        for process in self.sim.processes:
            if process.name == name and process.alive:
                process.kill()
                for world in self.worlds:
                    world.faults.log.append(Killed(**world.faults.stamp(by=name)))

    def worker(self, process: Process, store: Store) -> Inhabitant:
        return Shared(self.worlds, process)

    def troubles(self) -> list[Any]:
        return [*super().troubles(), self.cut_off_the_other()]

    async def cut_off_the_other(self) -> None:
        while True:
            await asyncio.sleep(self.dice.uniform(5.0, 30.0))
            self.other.faults.outage(self.dice.uniform(0.0, 15.0))

    async def operate(self, store: Store) -> None:
        other = FaultyStore(self.other.root.handle(), self.other.faults)
        await self.persist(other.open)
        async with asyncio.TaskGroup() as group:
            group.create_task(super().operate(store))
            group.create_task(self.other.operate(other))

    async def produce(self, store: Store, number: int) -> None:
        other = FaultyStore(self.other.root.handle(), self.other.faults)
        await self.persist(other.open)
        await asyncio.gather(super().produce(store, number), self.other.produce(other, number))

    async def drain(self) -> None:
        # Once it is quiet: no faults, no pauses.
        self.other.faults.calm(self.within)
        outside = FaultyStore(self.other.root.handle(), self.other.faults)
        for key in self.paused:
            await outside.write("pauses", key, None)
        deadline = self.sim.clock.boot() + PATIENCE
        ended_at: float | None = None
        while self.sim.clock.boot() < deadline:
            counts = [await world.root.counts() for world in self.worlds]
            now = self.sim.clock.boot()
            if any(each.states.get(state) for each in counts for state in UNFINISHED):
                ended_at = None
            elif ended_at is None:
                ended_at = now
            elif now - ended_at > LONGEST_RUN:
                return
            await asyncio.sleep(1.0)

    within = 60.0

    async def settle_down(self) -> None:
        await super().settle_down()
        await self.other.settle_down()
        self.other.over = True

    async def run(self) -> Outcome:
        await self.other.root.open()
        try:
            outcome = await super().run()
            there = await dump(self.other.root)
            outcome.violations += check(self.other.faults.log, there)
            outcome.violations += self.beside_suspects()
            return outcome
        finally:
            await self.other.faults.close()
            await self.other.root.close()

    def beside_suspects(self) -> list[Violation]:
        """A suspect that did not run alone in its process."""
        suspects = {
            (claim.id, claim.token)
            for world in self.worlds
            for event in world.faults.log
            if isinstance(event, Claims)
            for claim in event.answer.claims
            if claim.suspect
        }
        running: defaultdict[str, set[tuple[str, str | None]]] = defaultdict(set)
        broken: list[Violation] = []
        for event in self.runs:
            here, run = running[event.by], (event.job_id, event.token)
            if isinstance(event, Ends):
                here.discard(run)
                continue
            here.add(run)
            # A middleware may begin one run twice.
            if len(here) > 1 and here & suspects:
                broken.append(Violation("P4", event.job_id, f"began beside {here - {run}}"))
        return broken
