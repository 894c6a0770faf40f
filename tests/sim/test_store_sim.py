"""Stores under scripted workers, in virtual time, with faults: the invariants hold."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest

from jobmill.clock import Clock
from jobmill.errors import StoreUnavailable
from jobmill.limits import Window
from jobmill.states import Move, Note
from jobmill.store import Added, Beat, Claimed, Lease, Moved, NewJob, Store, Want
from jobmill.stores.memory import MemoryStore
from jobmill.stores.redis.scripts import SCRIPTS
from jobmill.testing.checker import Checker
from jobmill.testing.faults import Odds
from jobmill.testing.sim import Sim, SimError, seeds, simulate
from tests.sim.scripted import ScriptedWorld
from tests.sim.stores import MakeStore, open_memory
from tests.sim.world import Outcome, told
from tests.stores import known_bad
from tests.stores.redis.known_bad import FAULTS, Fault

MOST_STEPS = 40_000
"""Ten times what a good run takes; a bad one may never end."""
ODDS = Odds(lose_request=0.03, lose_reply=0.03, crash=0.004, slow=0.02, slow_delay=4.0)


def run(make: MakeStore, seed: int) -> Outcome:
    async def main(sim: Sim) -> Outcome:
        return await ScriptedWorld(sim, make(sim.clock), ODDS).run()

    return simulate(main, seed)


def breaks(make: MakeStore, seed: int, invariant: str) -> bool:
    """Whether a run breaks the invariant; it ends as soon as it does, or goes on too long."""
    seen: list[bool] = []

    async def main(sim: Sim) -> None:
        world = ScriptedWorld(sim, make(sim.clock), ODDS)
        checker, log = Checker(), world.faults.log
        running = asyncio.create_task(world.run())
        read = 0
        while not (running.done() or seen):
            await asyncio.wait([running], timeout=1.0)
            for event in log[read:]:
                checker.read(event)
            read = len(log)
            found = running.result().violations if running.done() else checker.violations
            seen.extend(True for violation in found if violation.invariant == invariant)
        running.cancel()
        await asyncio.wait([running])

    try:
        simulate(main, seed, max_steps=MOST_STEPS)
    except Exception:
        # So bad that it ended the run, before or after that.
        return bool(seen)
    return bool(seen)


def hold(make: MakeStore, seed: int) -> None:
    async def main(sim: Sim) -> None:
        outcome = await ScriptedWorld(sim, make(sim.clock), ODDS).run()
        assert not outcome.violations, told(outcome)

    simulate(main, seed)


@pytest.mark.store("memory")
@pytest.mark.parametrize("seed", seeds(140))
def test_the_invariants_hold_on_memory(seed: int) -> None:
    hold(open_memory, seed)


@pytest.mark.store("sqlite")
@pytest.mark.blocks_loop
@pytest.mark.parametrize("seed", seeds(140))
def test_the_invariants_hold_on_sqlite(seed: int, open_sqlite: MakeStore) -> None:
    hold(open_sqlite, seed)


@pytest.mark.store("redis")
@pytest.mark.blocks_loop
@pytest.mark.parametrize("seed", seeds(140))
def test_the_invariants_hold_on_redis(seed: int, open_on_redis: MakeStore) -> None:
    hold(open_on_redis, seed)


@pytest.mark.store("postgresql")
@pytest.mark.blocks_loop
@pytest.mark.parametrize("seed", seeds(140))
def test_the_invariants_hold_on_postgresql(seed: int, open_on_postgres: MakeStore) -> None:
    hold(open_on_postgres, seed)


@pytest.mark.parametrize("seed", range(3))
def test_a_seed_replays_to_the_last_event(seed: int) -> None:
    first, second = run(open_memory, seed), run(open_memory, seed)
    assert first.log == second.log
    assert first.at_end == second.at_end
    assert first.log != run(open_memory, seed + 100).log


class Away(MemoryStore):
    """Does what it is asked, and says once that it cannot be reached."""

    times = 0

    async def move(self, moves: Sequence[Move], *, now: float | None = None) -> list[Moved]:
        moved = await super().move(moves, now=now)
        Away.times += 1
        if self.times == 1:
            raise StoreUnavailable("of itself")
        return moved


def test_a_store_that_fails_by_itself_fails_the_run_which_cannot_know_what_was_done() -> None:
    Away.times = 0
    with pytest.raises(SimError, match="the simulated store itself failed at move"):
        run(lambda clock: Away(clock=clock), 0)


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


class ByClientClocks(MemoryStore):
    """Whoever asks says what time it is, and no two clocks are alike."""

    skew = 0.0
    made = 0

    def handle(self, queue: str | None = None) -> ByClientClocks:
        other: Any = super().handle(queue)
        ByClientClocks.made += 1
        other.skew = (-15.0, 0.0, 15.0)[self.made % 3]
        return other  # type: ignore[no-any-return]

    def _now(self, now: float | None) -> float:
        return self._shared.clock._clock.wall() + self.skew if now is None else now


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


# The last ten are those that any simulation has to find; a tick without compare-and-set is found
# by that of schedulers, and lapses without an end, also by that of workers.
BAD: list[tuple[type[MemoryStore], str]] = [
    (Unfenced, "I4"),
    (ForgetsLapses, "I1"),
    (TooEarly, "I10"),
    (DeafToPriority, "I10"),
    (OwnIds, "I6"),
    (LeakyKey, "I7"),
    (DeafToCancel, "I16"),
    (NoLimit, "I9"),
    (known_bad.SettlesWithoutToken, "I4"),
    (known_bad.FencesByStateOnly, "I4"),
    (known_bad.PopsThenRegisters, "I1"),
    (known_bad.LosesLapses, "I13"),
    (ByClientClocks, "I10"),
    (known_bad.SpendsAnAttemptAtALapse, "I3"),
    (known_bad.ForgetsHowOftenAJobLapsed, "I3"),
    (known_bad.MakesItsOwnIdOnARepeat, "I6"),
    (known_bad.LeaksUniqueKeys, "I7"),
    (known_bad.IgnoresUniqueKeys, "I7"),
]
BUDGET = 40


@pytest.mark.parametrize(("bad", "invariant"), BAD)
def test_a_bad_store_is_found_out_and_its_seed_replays(
    bad: type[MemoryStore], invariant: str
) -> None:
    def open_bad(clock: Clock) -> Store:
        OwnIds.made = ByClientClocks.made = 0
        return bad(clock=clock)

    for seed in range(BUDGET):
        if breaks(open_bad, seed, invariant):
            assert breaks(open_bad, seed, invariant)
            return
    pytest.fail(f"{bad.__name__} got through {BUDGET} seeds")


@pytest.mark.store("redis")
@pytest.mark.blocks_loop
@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault.breaks], ids=str)
def test_a_fault_planted_in_the_scripts_is_found_out(
    fault: Fault, open_on_redis: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, script in fault.scripts().items():
        monkeypatch.setitem(SCRIPTS, name, script)
    assert fault.breaks is not None
    if not any(breaks(open_on_redis, seed, fault.breaks) for seed in range(BUDGET)):
        pytest.fail(f"a store that {fault} got through {BUDGET} seeds")
