"""Whole queues and workers in virtual time, with faults: the invariants hold."""

from __future__ import annotations

from typing import Any

import pytest

from jobmill import worker
from jobmill.testing.faults import Odds
from jobmill.testing.sim import Sim, seeds, simulate
from tests.sim.engines import EngineWorld
from tests.sim.stores import MakeStore, open_memory
from tests.sim.world import Outcome, told

ODDS = Odds(lose_request=0.02, lose_reply=0.02, crash=0.002, slow=0.02, slow_delay=2.5)


@pytest.fixture(autouse=True)
def _no_last_acts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is simulated does not exit with this one."""

    class Atexit:
        def register(self, act: Any) -> None:
            pass

    monkeypatch.setattr(worker, "atexit", Atexit())


def run(make: MakeStore, seed: int) -> Outcome:
    async def main(sim: Sim) -> Outcome:
        return await EngineWorld(sim, make(sim.clock), ODDS).run()

    return simulate(main, seed)


def hold(make: MakeStore, seed: int) -> None:
    async def main(sim: Sim) -> None:
        outcome = await EngineWorld(sim, make(sim.clock), ODDS).run()
        assert not outcome.violations, told(outcome)

    simulate(main, seed)


@pytest.mark.store("memory")
@pytest.mark.parametrize("seed", seeds(60))
def test_the_invariants_hold_on_memory(seed: int) -> None:
    hold(open_memory, seed)


@pytest.mark.store("sqlite")
@pytest.mark.blocks_loop
@pytest.mark.parametrize("seed", seeds(60))
def test_the_invariants_hold_on_sqlite(seed: int, open_sqlite: MakeStore) -> None:
    hold(open_sqlite, seed)
