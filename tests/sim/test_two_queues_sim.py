"""One worker of two queues, each in troubles of its own, in virtual time: the invariants hold."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from jobmill import worker
from jobmill.slots import Grant, Slots
from jobmill.testing.sim import Sim, seeds, simulate
from tests.sim.stores import open_memory
from tests.sim.test_worker_sim import BUDGET, ODDS, NoExit
from tests.sim.two_queues import TwoQueues
from tests.sim.world import Outcome, told

pytestmark = [pytest.mark.blocks_loop, pytest.mark.store("memory")]  # in virtual time


@pytest.fixture(autouse=True)
def _apart(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(worker, "atexit", NoExit())
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def run(seed: int) -> Outcome:
    async def main(sim: Sim) -> Outcome:
        return await TwoQueues(sim, open_memory(sim.clock), ODDS).run()

    return simulate(main, seed)


@pytest.mark.parametrize("seed", seeds(4))
def test_the_invariants_hold_for_a_worker_of_two_queues(seed: int) -> None:
    outcome = run(seed)
    assert not outcome.violations, told(outcome)


def test_a_claim_that_leaves_room_beside_a_suspect_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    grant = Slots.grant

    def reserves_too_few(
        self: Slots[object], feed: object, feeds: int, *, lease: float, now: float
    ) -> Grant:
        granted = grant(self, feed, feeds, lease=lease, now=now)
        self._reserved[feed] = granted.limit
        return granted

    monkeypatch.setattr(Slots, "grant", reserves_too_few)
    for seed in range(25, 25 + BUDGET):
        if any(violation.invariant == "P4" for violation in run(seed).violations):
            return
    pytest.fail(f"it got through {BUDGET} seeds")
