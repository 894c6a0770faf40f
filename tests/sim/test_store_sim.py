"""Stores under scripted workers, in virtual time, with faults: the invariants hold."""

from __future__ import annotations

import pytest

from jobmill.stores.memory import MemoryStore
from jobmill.testing.eventlog import story
from jobmill.testing.faults import Odds
from jobmill.testing.sim import Sim, seeds, simulate
from tests.sim.scripted import Outcome, World

ODDS = Odds(lose_request=0.03, lose_reply=0.03, crash=0.004, slow=0.02, slow_delay=4.0)


def told(outcome: Outcome) -> str:
    lines = [str(violation) for violation in outcome.violations]
    first = outcome.violations[0].job_id if outcome.violations else None
    return "\n".join([*lines, story(outcome.log, first)])


@pytest.mark.store("memory")
@pytest.mark.parametrize("seed", seeds(100))
def test_the_invariants_hold_on_memory(seed: int) -> None:
    async def main(sim: Sim) -> None:
        outcome = await World(sim, MemoryStore(clock=sim.clock), ODDS).run()
        assert not outcome.violations, told(outcome)

    simulate(main, seed)
