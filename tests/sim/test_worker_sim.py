"""Whole queues and workers in virtual time, with faults: the invariants hold."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from jobmill import runner, worker
from jobmill.feed import Feed
from jobmill.renewal import Held, Renewer
from jobmill.run import Run
from jobmill.states import Claim, Failure, Move, after_stop
from jobmill.store import Moved
from jobmill.stores.redis.scripts import SCRIPTS
from jobmill.testing.checker import Violation
from jobmill.testing.eventlog import Claims
from jobmill.testing.faults import Odds
from jobmill.testing.sim import Sim, seeds, simulate
from jobmill.worker import Worker
from tests.sim.engines import EngineWorld
from tests.sim.stores import MakeStore, open_memory
from tests.sim.world import Outcome, told
from tests.stores.redis.known_bad import FAULTS

ODDS = Odds(lose_request=0.02, lose_reply=0.02, crash=0.002, slow=0.02, slow_delay=2.5)
LATE = Odds(slow=0.3, slow_delay=20.0, slow_verbs=("claim",))
SLOW = Odds(slow=0.2, slow_delay=20.0)
LOSSES = Odds(lose_request=0.05, lose_reply=0.05, slow=0.05, slow_delay=1.0)


pytestmark = pytest.mark.blocks_loop  # in virtual time, nothing is too slow


class NoExit:
    """In the place of atexit: a process that is simulated does not end with this one."""

    def register(self, act: Callable[[], None]) -> None:
        pass

    def unregister(self, act: Callable[[], None]) -> None:
        pass


@pytest.fixture(autouse=True)
def _apart(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(worker, "atexit", NoExit())
    # What goes wrong on purpose is told by the log of the run.
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


class LossyWorld(EngineWorld):
    """Calls and replies are lost or slow, and nothing worse."""

    def troubles(self) -> list[Coroutine[Any, Any, None]]:
        return []


def run(make: MakeStore, seed: int, odds: Odds = ODDS) -> Outcome:
    async def main(sim: Sim) -> Outcome:
        return await EngineWorld(sim, make(sim.clock), odds).run()

    return simulate(main, seed)


def run_troubled(seed: int) -> Outcome:
    return run(open_memory, seed)


def run_late(seed: int) -> Outcome:
    """Claims are often answered when their leases are over."""
    return run(open_memory, seed, LATE)


def run_slow(seed: int) -> Outcome:
    """Any call may take longer than a lease."""
    return run(open_memory, seed, SLOW)


def run_lossy(seed: int, make: MakeStore = open_memory) -> Outcome:
    """As `run`, without death, frost, outage or a clock that jumps; a lapse is a violation."""

    async def main(sim: Sim) -> Outcome:
        outcome = await LossyWorld(sim, make(sim.clock), LOSSES).run()
        outcome.violations += [
            Violation("P4", claim.id, f"lapsed, and {event.by} took it over")
            for event in outcome.log
            if isinstance(event, Claims)
            for claim in event.answer.lapsed
        ]
        return outcome

    return simulate(main, seed)


def hold(make: MakeStore, seed: int) -> None:
    async def main(sim: Sim) -> None:
        outcome = await EngineWorld(sim, make(sim.clock), ODDS).run()
        assert not outcome.violations, told(outcome)

    simulate(main, seed)


FOUND = [4849]
"""Seeds that have found something: a run at its gate that outlasted its worker's stop."""


@pytest.mark.store("memory")
@pytest.mark.parametrize("seed", dict.fromkeys([*seeds(60), *FOUND]))
def test_the_invariants_hold_on_memory(seed: int) -> None:
    hold(open_memory, seed)


@pytest.mark.store("sqlite")
@pytest.mark.parametrize("seed", seeds(60))
def test_the_invariants_hold_on_sqlite(seed: int, open_sqlite: MakeStore) -> None:
    hold(open_sqlite, seed)


@pytest.mark.store("redis")
@pytest.mark.parametrize("seed", seeds(60))
def test_the_invariants_hold_on_redis(seed: int, open_on_redis: MakeStore) -> None:
    hold(open_on_redis, seed)


@pytest.mark.store("postgresql")
@pytest.mark.parametrize("seed", seeds(60))
def test_the_invariants_hold_on_postgresql(seed: int, open_on_postgres: MakeStore) -> None:
    hold(open_on_postgres, seed)


@pytest.mark.parametrize("seed", seeds(20))
@pytest.mark.parametrize("run_once", [run_late, run_slow])
def test_the_invariants_hold_on_a_store_slower_than_a_lease(
    run_once: Callable[[int], Outcome], seed: int
) -> None:
    outcome = run_once(seed)
    # No stop waits as long as such an answer takes.
    broken = [violation for violation in outcome.violations if violation.invariant != "I12"]
    assert not broken, told(outcome)


@pytest.mark.parametrize("seed", seeds(20))
def test_lost_calls_alone_never_cost_a_lease(seed: int) -> None:
    outcome = run_lossy(seed)
    assert not outcome.violations, told(outcome)


PRINT_LOG = """
import contextlib, hashlib, os
from tests.servers import own_postgres, redis_address
from tests.sim.stores import open_memory, open_postgres, open_redis
from tests.sim.test_worker_sim import run

@contextlib.contextmanager
def memory():
    yield open_memory

@contextlib.contextmanager
def redis():
    with contextlib.contextmanager(redis_address)() as address, open_redis(address) as make:
        yield make

@contextlib.contextmanager
def postgresql():
    with own_postgres("autovacuum=off") as server, open_postgres(server.address) as make:
        yield make

with {store}() as make:
    outcome = run(make, 5)
told = repr(outcome).replace(f":{{os.getpid()}}:", ":")  # a part of the workers' names
print(hashlib.sha256(told.encode()).hexdigest(), len(outcome.log))
"""


def replays_in_another_process(store: str) -> bool:
    told = {
        subprocess.run(
            [sys.executable, "-c", PRINT_LOG.format(store=store)],
            check=True,
            capture_output=True,
            text=True,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONHASHSEED": salt},
        ).stdout
        for salt in ("1", "2")
    }
    return len(told) == 1


@pytest.mark.store("memory")
def test_a_seed_replays_in_another_process() -> None:
    assert replays_in_another_process("memory")


@pytest.mark.store("redis")
@pytest.mark.usefixtures("redis_address")
def test_a_seed_replays_in_another_process_on_another_redis_server() -> None:
    assert replays_in_another_process("redis")


@pytest.mark.store("postgresql")
@pytest.mark.timeout(180)
@pytest.mark.usefixtures("still_postgres")
def test_a_seed_replays_in_another_process_on_another_postgresql_server() -> None:
    assert replays_in_another_process("postgresql")


# Bad engines: each must be found out by some seed.


def claims_after_stop(patch: pytest.MonkeyPatch) -> None:
    turn = Feed._turn

    async def deaf(self: Feed) -> float:
        quiet, self._slots.quiet = self._slots.quiet, False
        try:
            return await turn(self)
        finally:
            self._slots.quiet = quiet or self._slots.quiet

    patch.setattr(Feed, "_turn", deaf)


def lapses_for_ever(patch: pytest.MonkeyPatch) -> None:
    def again(claim: Claim, failure: Failure) -> Move:
        return Move(event="lapse", job_id=claim.id, token=claim.token)

    patch.setattr(runner, "after_lapse", again)


def retries_for_ever(patch: pytest.MonkeyPatch) -> None:
    def again(claim: Claim, failure: Failure, **options: Any) -> Move:
        # Not at once, or a second of virtual time would hold thousands of runs.
        return Move(
            event="retry", job_id=claim.id, token=claim.token, delay=0.5, error=failure.error
        )

    patch.setattr(runner, "after_failure", again)


def starts_what_it_lost(patch: pytest.MonkeyPatch) -> None:
    async def trust(self: Worker, run: Run) -> None:
        pass

    patch.setattr(Worker, "_check_lease", trust)


def hands_back_what_runs(patch: pytest.MonkeyPatch) -> None:
    async def at_once(self: Worker) -> None:
        for feed in self._feeds:
            for run in tuple(self._slots.running):
                feed.settle(run, after_stop(run.claim))
        for run in tuple(self._slots.running):
            self._slots.end(run)

    patch.setattr(Worker, "_abort_all", at_once)


def never_renews(patch: pytest.MonkeyPatch) -> None:
    async def idle(self: Renewer, held: Held) -> None:
        pass

    async def trust(self: Feed) -> None:
        pass

    patch.setattr(Renewer, "_renew", idle)
    patch.setattr(Feed, "_hold_late_leases", trust)


def forgets_lost_replies(patch: pytest.MonkeyPatch) -> None:
    turn = Feed._turn

    async def forgetful(self: Feed) -> float:
        self._unsure = None
        return await turn(self)

    patch.setattr(Feed, "_turn", forgetful)


def drops_outcomes(patch: pytest.MonkeyPatch) -> None:
    settled = Feed._settled

    def careless(
        self: Feed, batch: Sequence[tuple[Run | None, Move]], moved: Sequence[Moved]
    ) -> None:
        settled(self, batch, moved)
        self._outbox.clear()

    patch.setattr(Feed, "_settled", careless)


BUDGET = 40


@pytest.mark.parametrize(
    ("spoil", "invariant", "run_once"),
    [
        (claims_after_stop, "I12", run_troubled),
        (lapses_for_ever, "I3", run_troubled),
        (retries_for_ever, "I3", run_troubled),
        (starts_what_it_lost, "I5", run_late),
        (hands_back_what_runs, "I12", run_troubled),
        (never_renews, "P4", run_lossy),
        (forgets_lost_replies, "P4", run_lossy),
        (drops_outcomes, "I1", run_lossy),
    ],
)
def test_a_bad_engine_is_found_out(
    spoil: Callable[[pytest.MonkeyPatch], None],
    invariant: str,
    run_once: Callable[[int], Outcome],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spoil(monkeypatch)
    for seed in range(BUDGET):
        try:
            found = run_once(seed).violations
        except Exception:
            # So bad that it ended the run.
            continue
        if any(violation.invariant == invariant for violation in found):
            return
    pytest.fail(f"{spoil.__name__} got through {BUDGET} seeds")


@pytest.mark.store("redis")
def test_a_script_that_claims_anew_on_a_repeat_is_found_out(
    open_on_redis: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    (fault,) = (fault for fault in FAULTS if fault.name == "claims anew on a repeat")
    for name, script in fault.scripts().items():
        monkeypatch.setitem(SCRIPTS, name, script)
    for seed in range(BUDGET):
        found = run_lossy(seed, open_on_redis).violations
        if any(violation.invariant == "P4" for violation in found):
            return
    pytest.fail(f"a store that {fault} got through {BUDGET} seeds")
