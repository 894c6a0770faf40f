"""Stores under scripted workers, in virtual time, with faults: the invariants hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import pytest

from jobmill.clock import Clock
from jobmill.limits import Window
from jobmill.states import Move, Note
from jobmill.store import Added, Beat, Claimed, Lease, Moved, NewJob, Store, Want
from jobmill.stores.memory import MemoryStore
from jobmill.testing.faults import Odds
from jobmill.testing.sim import Sim, seeds, simulate
from tests.sim.scripted import ScriptedWorld
from tests.sim.stores import MakeStore, open_memory
from tests.sim.world import Outcome, told

ODDS = Odds(lose_request=0.03, lose_reply=0.03, crash=0.004, slow=0.02, slow_delay=4.0)


def run(make: MakeStore, seed: int) -> Outcome:
    async def main(sim: Sim) -> Outcome:
        return await ScriptedWorld(sim, make(sim.clock), ODDS).run()

    return simulate(main, seed)


def hold(make: MakeStore, seed: int) -> None:
    async def main(sim: Sim) -> None:
        outcome = await ScriptedWorld(sim, make(sim.clock), ODDS).run()
        assert not outcome.violations, told(outcome)

    simulate(main, seed)


@pytest.mark.store("memory")
@pytest.mark.parametrize("seed", seeds(100))
def test_the_invariants_hold_on_memory(seed: int) -> None:
    hold(open_memory, seed)


@pytest.mark.store("sqlite")
@pytest.mark.blocks_loop
@pytest.mark.parametrize("seed", seeds(40))
def test_the_invariants_hold_on_sqlite(seed: int, open_sqlite: MakeStore) -> None:
    hold(open_sqlite, seed)


@pytest.mark.parametrize("seed", range(3))
def test_a_seed_replays_to_the_last_event(seed: int) -> None:
    first, second = run(open_memory, seed), run(open_memory, seed)
    assert first.log == second.log
    assert first.at_end == second.at_end
    assert first.log != run(open_memory, seed + 100).log


class Unfenced(MemoryStore):
    """Takes whatever token a settle carries for the current one."""

    async def _current(self, moves: Sequence[Move]) -> list[Move]:
        records = await self.get([move.job_id for move in moves])
        return [
            msgspec.structs.replace(move, token=record.token)
            if move.token is not None and record is not None and record.state == "processing"
            else move
            for move, record in zip(moves, records, strict=True)
        ]

    async def move(self, moves: Sequence[Move], *, now: float | None = None) -> list[Moved]:
        return await super().move(await self._current(moves), now=now)


class ForgetsLapses(MemoryStore):
    """Takes lapsed jobs over and tells nobody."""

    async def claim(
        self, want: Want, settle: Sequence[Move] = (), *, now: float | None = None
    ) -> Claimed:
        claimed = await super().claim(want, settle, now=now)
        return msgspec.structs.replace(claimed, lapsed=())


class TooEarly(MemoryStore):
    """Hands out jobs a second before they are due."""

    async def claim(
        self, want: Want, settle: Sequence[Move] = (), *, now: float | None = None
    ) -> Claimed:
        at = (await self.counts()).now
        claimed = await super().claim(want, settle, now=at + 1.0)
        return msgspec.structs.replace(claimed, now=at)


class DeafToPriority(MemoryStore):
    """Takes every job for equally urgent."""

    async def add(
        self,
        jobs: Sequence[NewJob],
        *,
        wake: bool = True,
        whole: bool = False,
        now: float | None = None,
    ) -> list[Added]:
        equal = [msgspec.structs.replace(job, priority=0) for job in jobs]
        return await super().add(equal, wake=wake, whole=whole, now=now)


class OwnIds(MemoryStore):
    """Makes the ids itself, so that a repeated add is another job."""

    made = 0

    async def add(
        self,
        jobs: Sequence[NewJob],
        *,
        wake: bool = True,
        whole: bool = False,
        now: float | None = None,
    ) -> list[Added]:
        own: list[NewJob] = []
        for job in jobs:
            OwnIds.made += 1
            own.append(msgspec.structs.replace(job, id=f"own-{OwnIds.made}"))
        return await super().add(own, wake=wake, whole=whole, now=now)


class LeakyKey(MemoryStore):
    """Lets two unfinished jobs have one key."""

    async def add(
        self,
        jobs: Sequence[NewJob],
        *,
        wake: bool = True,
        whole: bool = False,
        now: float | None = None,
    ) -> list[Added]:
        free = [msgspec.structs.replace(job, unique_key=None) for job in jobs]
        return await super().add(free, wake=wake, whole=whole, now=now)


class DeafToCancel(MemoryStore):
    """Never tells a run that it was asked to cancel."""

    async def renew(
        self,
        leases: Sequence[Lease],
        lease: float,
        notes: Mapping[str, Note] | None = None,
        *,
        now: float | None = None,
    ) -> list[Beat]:
        beats = await super().renew(leases, lease, notes, now=now)
        return ["ok" if beat == "abort" else beat for beat in beats]


class NoLimit(MemoryStore):
    """Lets every run start at once."""

    async def reserve(
        self,
        key: str,
        job_id: str,
        token: str,
        windows: Sequence[Window],
        *,
        now: float | None = None,
    ) -> float:
        return 0.0


BAD: list[tuple[type[MemoryStore], str]] = [
    (Unfenced, "I4"),
    (ForgetsLapses, "I1"),
    (TooEarly, "I10"),
    (DeafToPriority, "I10"),
    (OwnIds, "I6"),
    (LeakyKey, "I7"),
    (DeafToCancel, "I16"),
    (NoLimit, "I9"),
]
BUDGET = 20


@pytest.mark.parametrize(("bad", "invariant"), BAD)
def test_a_bad_store_is_found_out_and_its_seed_replays(
    bad: type[MemoryStore], invariant: str
) -> None:
    def open_bad(clock: Clock) -> Store:
        OwnIds.made = 0
        return bad(clock=clock)

    for seed in range(BUDGET):
        found = run(open_bad, seed).violations
        if any(violation.invariant == invariant for violation in found):
            assert run(open_bad, seed).violations == found
            return
    pytest.fail(f"{bad.__name__} got through {BUDGET} seeds")
