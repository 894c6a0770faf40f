"""Schedulers in virtual time: they die, calls are lost, and each tick fires once (P7, I8)."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, ClassVar, TypeVar

import pytest

from jobmill import CronExpression, Queue, Scheduler, Worker, current_context, job, worker
from jobmill.carrier import Carrier
from jobmill.errors import StoreUnavailable
from jobmill.seams import Seams
from jobmill.store import NewJob, Query, Store, Ticked
from jobmill.stores.memory import MemoryStore
from jobmill.testing.eventlog import Adds
from jobmill.testing.faults import Faults, Odds
from jobmill.testing.faulty import FaultyStore
from jobmill.testing.loop import SimClock
from jobmill.testing.sim import Process, Sim, seeds, simulate
from tests.conftest import SOAK
from tests.sim.stores import MakeStore, open_memory
from tests.sim.test_worker_sim import NoExit

pytestmark = pytest.mark.blocks_loop  # in virtual time, nothing is too slow

T = TypeVar("T")

SCHEDULERS = 5
KILL_EVERY = 0.5
SWEEP_EVERY = 0.2
SCHEDULES = 10
TICKS = 1_000
"""Of each schedule: 10,000 in all."""
SOME_TICKS = TICKS if SOAK else 100
FEW_TICKS = TICKS if SOAK else 30
"""The same where each call takes its time: 10,000 in soak."""
CALM = 20.0
"""Seconds at the end without a death, in which what was missed is caught up."""
ODDS = Odds(lose_request=0.02, lose_reply=0.02, delay=0.02, slow=0.01, slow_delay=1.0)
QUIET = Odds(lose_request=0.0, lose_reply=0.0, delay=0.0, slow=0.0, deaf=0.0)


@job(name="sim.ticked")
async def ticked() -> None: ...


@job(name="sim.lasting")
async def lasting() -> None:
    await asyncio.sleep(60.0)


@pytest.fixture(autouse=True)
def _silent() -> Iterator[None]:
    # What goes wrong on purpose is told by the log of the run.
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


class Stage:
    """A store behind faults, and schedulers on it that are killed and come back."""

    def __init__(self, sim: Sim, store: Store, odds: Odds) -> None:
        self.sim = sim
        self.root = store
        self.faults = Faults(sim, odds)
        self.alive: dict[int, Process] = {}
        self.over = False

    def scheduler(self, name: str, store: Store | None = None) -> Scheduler:
        seams = Seams(clock=self.sim.clock, random=self.sim.dice(name), threads=False)
        if store is None:
            store = FaultyStore(self.root.handle(), self.faults)
        return Scheduler(queue=Queue(store, seams=seams))

    async def persist(self, call: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await call()
            except StoreUnavailable:
                await self.sim.checkpoint(0.5)

    async def live(self, name: str) -> None:
        """One process: a program that starts a scheduler and waits."""
        scheduler = self.scheduler(name)
        await self.persist(scheduler.start)
        await self.sim.loop.create_future()
        await scheduler.stop()

    async def keep(self, number: int) -> None:
        start = 0
        while not self.over:
            start += 1
            process = self.sim.process(f"s{number}.{start}")
            self.alive[number] = process
            # asyncio itself would let go of what nobody else holds.
            living = process.start(self.live(process.name))
            await process.died()
            del living
            await self.sim.checkpoint(0.3)

    async def kill(self) -> None:
        """One of them dies every KILL_EVERY seconds."""
        dice = self.sim.dice("killer")
        while True:
            await asyncio.sleep(KILL_EVERY)
            process = self.alive[dice.choice(sorted(self.alive))]
            if process.alive:
                self.faults.kill(process.name)

    async def sweep(self) -> None:
        """Let no record stay, as if all had ended long ago: no job's id protects its tick."""
        while True:
            await asyncio.sleep(SWEEP_EVERY)
            await self.root.drop(Query(), limit=1_000)

    def fired(self) -> Fired:
        """How often each tick got a job, as the store answered."""
        return Counter(
            (added.metadata["schedule"], added.run_at or 0.0)
            for event in self.faults.log
            if isinstance(event, Adds)
            for added, answer in zip(event.jobs, event.answers, strict=True)
            if answer.status == "added"
        )


Fired = Counter[tuple[str, float]]


async def persistent(sim: Sim, store: Store, schedules: int, ticks: int) -> tuple[Fired, Fired]:
    """Five schedulers, one killed every 500 ms: what fired, and what was to fire."""
    stage = Stage(sim, store, ODDS)
    await store.open()
    try:
        outside = stage.scheduler("outside", store.handle())
        every = timedelta(seconds=1)
        start = datetime.fromtimestamp(sim.clock.wall(), UTC) + 5 * every
        for number in range(schedules):
            await outside.schedule(
                f"each-{number}",
                "* * * * * *",
                ticked,
                start_date=start,
                end_date=start + (ticks - 1) * every,
                misfire="catch_up",
            )
        keepers = [asyncio.create_task(stage.keep(number)) for number in range(SCHEDULERS)]
        await sim.checkpoint()
        killer = asyncio.create_task(stage.kill())
        sweeper = asyncio.create_task(stage.sweep())
        await asyncio.sleep(ticks + 5.0)
        killer.cancel()
        await asyncio.sleep(CALM)
        stage.over = True
        for each in (*keepers, sweeper):
            each.cancel()
        for told in await outside.get_scheduled_jobs():
            assert (told.runs, told.next_run) == (ticks, None)
        to_fire = {
            (f"each-{number}", start.timestamp() + second): 1
            for number in range(schedules)
            for second in range(ticks)
        }
        return stage.fired(), Counter(to_fire)
    finally:
        await stage.faults.close()
        await store.close()


def hold(make: MakeStore, seed: int, schedules: int, ticks: int) -> None:
    async def main(sim: Sim) -> None:
        fired, to_fire = await persistent(sim, make(sim.clock), schedules, ticks)
        # Each once, none left out, and no other.
        assert fired == to_fire

    simulate(main, seed, max_steps=20_000_000)


@pytest.mark.store("memory")
@pytest.mark.timeout(300)
def test_ten_thousand_ticks_fire_once_while_schedulers_die_on_memory() -> None:
    hold(open_memory, 1, SCHEDULES, TICKS)


@pytest.mark.store("memory")
@pytest.mark.parametrize("seed", seeds(10))
def test_each_tick_fires_once_whatever_the_order_on_memory(seed: int) -> None:
    hold(open_memory, seed, 2, 100)


@pytest.mark.store("sqlite")
@pytest.mark.timeout(300)
def test_ticks_fire_once_while_schedulers_die_on_sqlite(
    open_sqlite: MakeStore,
) -> None:
    hold(open_sqlite, 1, SCHEDULES, SOME_TICKS)


@pytest.mark.store("redis")
@pytest.mark.timeout(300)
def test_ticks_fire_once_while_schedulers_die_on_redis(
    open_on_redis: MakeStore,
) -> None:
    hold(open_on_redis, 1, SCHEDULES, SOME_TICKS)


@pytest.mark.store("postgresql")
def test_ticks_fire_once_while_schedulers_die_on_postgresql(
    open_on_postgres: MakeStore,
) -> None:
    hold(open_on_postgres, 1, SCHEDULES, FEW_TICKS)


class NoCompareAndSet(MemoryStore):
    """Ticks whatever the version."""

    async def tick(
        self,
        schedule: str,
        version: int,
        value: bytes,
        entries: Sequence[tuple[str, bytes]],
        jobs: Sequence[NewJob],
        **rest: Any,
    ) -> Ticked:
        with self._contents() as contents:
            version = contents.docs.version("schedules", schedule)
        return await super().tick(schedule, version, value, entries, jobs, **rest)


def test_a_tick_without_compare_and_set_is_found_out() -> None:
    for seed in range(20):
        try:
            hold(lambda clock: NoCompareAndSet(clock=clock), seed, 2, 100)
        except AssertionError:
            return
    pytest.fail("a tick without compare-and-set got through")


class Noting(MemoryStore):
    """Notes each try of a tick: by whom the store was asked, at what time, and whether it did."""

    tried: ClassVar[list[tuple[str, float, bool]]] = []
    asker: ClassVar[ContextVar[str]] = ContextVar("asker", default="")

    async def tick(self, *args: Any, **rest: Any) -> Ticked:
        answer = await super().tick(*args, **rest)
        now = (await self.counts()).now
        self.tried.append((self.asker.get(), now, answer.version is not None))
        return answer


def test_of_five_schedulers_one_ticks_and_where_it_dies_another_is_hardly_late() -> None:
    Noting.tried.clear()

    async def main(sim: Sim) -> None:
        store = Noting(clock=sim.clock)
        stage = Stage(sim, store, QUIET)
        await store.open()
        outside = stage.scheduler("outside", store.handle())
        start = datetime.fromtimestamp(sim.clock.wall() + 5.0, UTC)
        await outside.schedule("each", "* * * * * *", ticked, start_date=start, max_runs=60)

        async def live(name: str) -> None:
            Noting.asker.set(name)
            # Not at a whole second, when something is due.
            await asyncio.sleep(sim.dice(f"start of {name}").uniform(0.1, 0.9))
            await stage.live(name)

        processes = [sim.process(f"s{number}") for number in range(SCHEDULERS)]
        living = [process.start(live(process.name)) for process in processes]
        await asyncio.sleep(35.0)
        first, _, _ = Noting.tried[-1]
        (owner,) = [each for each in processes if each.name == first]
        owner.kill()
        await asyncio.sleep(35.0)
        (told,) = await outside.get_scheduled_jobs()
        assert (told.runs, told.next_run) == (60, None)
        for process in processes:
            if process.alive:
                process.kill()
        del living
        await stage.faults.close()
        await store.close()

    simulate(main, 0)
    done = [(name, at) for name, at, written in Noting.tried if written]
    assert len(done) == 60
    # Only where nobody, or one that died, wrote the tick before may two of them try at once.
    assert len(Noting.tried) <= 62
    assert len({name for name, _ in done}) == 2
    late = [at - int(at) for _, at in done]
    assert max(late) <= 0.11
    assert sorted(late)[-3] <= 0.001


# ------------------------------------------------------------------------------- a year

YEAR = 366 * 86_400.0
YEARLY: dict[str, tuple[str, str]] = {
    "hourly": ("0 * * * *", "UTC"),
    "six-hours": ("0 */6 * * *", "America/New_York"),
    "digest": ("0 8 * * *", "America/New_York"),
    "gap": ("30 2 * * *", "America/New_York"),
    "fold": ("30 1 * * *", "Europe/London"),
    "weekdays": ("15 9 * * 1-5", "Europe/Berlin"),
    "sundays": ("0 0 * * 0", "Australia/Lord_Howe"),
    "last": ("59 23 L * *", "Asia/Kolkata"),
    "yearly": ("0 0 1 1 *", "Pacific/Auckland"),
    "leap": ("0 12 29 2 *", "UTC"),
}


async def test_a_year_of_ten_schedules_fires_exactly_what_the_calendar_says() -> None:
    clock = SimClock()
    store = Told(clock=clock)
    await store.open()
    seams = Seams(clock=clock, threads=False)
    scheduler = Scheduler(queue=Queue(store.handle(), seams=seams))
    began = datetime.fromtimestamp(clock.wall(), UTC)
    for name, (cron, timezone) in YEARLY.items():
        await scheduler.schedule(name, cron, ticked, timezone=timezone)
    dice = random.Random(1)
    carrier = Carrier(
        store, boot=clock.boot, dice=dice, threads=False, alone=False, rests=lambda: False
    )
    began_cpu = time.process_time()
    end = clock.wall() + YEAR
    while clock.wall() < end:
        # As a worker's claims do; but time goes on to the next tick at once.
        carrier.hear(clock.wall(), store.ticks)
        delay = await carrier._turn()
        due = [known.plan.next_run for known in carrier._known.values() if known.plan]
        left = min(at for at in (*due, end) if at is not None) - clock.wall()
        # The first tick of each is left for a moment to others that may have written one before.
        clock.freeze(left if left > 0 else delay)
    # Of this process: what else the machine does is no matter.
    assert time.process_time() - began_cpu < 20.0
    for name, (cron, timezone) in YEARLY.items():
        last = datetime.fromtimestamp(end, UTC)
        to_fire = [at for at in expected(cron, timezone, began, last) if at < end]
        assert store.fired[name] == to_fire, name
    await store.close()


@pytest.mark.store("memory")
def test_a_worker_without_a_free_slot_learns_of_a_schedule_within_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker, "atexit", NoExit())

    async def main(sim: Sim) -> None:
        store = open_memory(sim.clock)
        await store.open()
        seams = Seams(clock=sim.clock, random=sim.dice("worker"), threads=False)
        queue = Queue(store, concurrency=1, poll_interval=3_600.0, seams=seams)
        full = Worker(queue)
        running = asyncio.create_task(full.run())
        handle = await queue.enqueue(lasting)
        await asyncio.sleep(5.0)
        assert (await handle.info()).status == "processing"
        scheduler = Scheduler(queue=queue)
        await scheduler.schedule("each", "* * * * * *", ticked)
        await asyncio.sleep(5.0)
        # Whoever is free runs their jobs; none was missed.
        assert {tick.outcome for tick in await scheduler.history("each")} == {"fired"}
        await full.stop(timeout=0)
        await running
        await queue.close()
        await store.close()

    simulate(main, 1)


class Told(MemoryStore):
    """Notes what its ticks add."""

    def __init__(self, **rest: Any) -> None:
        super().__init__(**rest)
        self.ticks = 0
        self.fired: defaultdict[str, list[float]] = defaultdict(list)

    async def tick(
        self,
        schedule: str,
        version: int,
        value: bytes,
        entries: Sequence[tuple[str, bytes]],
        jobs: Sequence[NewJob],
        **rest: Any,
    ) -> Ticked:
        self.ticks += 1
        self.fired[schedule] += [each.run_at or 0.0 for each in jobs]
        return await super().tick(schedule, version, value, entries, jobs, **rest)


def expected(cron: str, timezone: str, after: datetime, end: datetime) -> Iterator[float]:
    expression = CronExpression(cron)
    while (after := expression.next(after, timezone)).timestamp() <= end.timestamp():
        yield after.timestamp()


# ------------------------------------------------------------------------------- clocks


@pytest.fixture(
    params=[
        pytest.param("memory", marks=pytest.mark.store("memory")),
        pytest.param("sqlite", marks=pytest.mark.store("sqlite")),
        pytest.param("redis", marks=pytest.mark.store("redis")),
    ]
)
def make(request: pytest.FixtureRequest) -> MakeStore:
    if request.param == "memory":
        return open_memory
    name = {"sqlite": "open_sqlite", "redis": "open_on_redis"}[request.param]
    opened: MakeStore = request.getfixturevalue(name)
    return opened


@pytest.mark.parametrize("jump", [-3_600.0, -600.0, 600.0])
def test_a_clock_that_is_set_fires_no_tick_twice(make: MakeStore, jump: float) -> None:
    async def main(sim: Sim) -> None:
        store = make(sim.clock)
        stage = Stage(sim, store, QUIET)
        await store.open()
        scheduler = stage.scheduler("one")
        await scheduler.schedule("each", "*/10 * * * * *", ticked, misfire="catch_up")
        await scheduler.start()
        await asyncio.sleep(305.0)
        sim.clock.jump(jump)
        await asyncio.sleep(abs(jump) + 300.0)
        await scheduler.stop()
        fired = stage.fired()
        assert set(fired.values()) == {1}
        ticks = sorted(at for _, at in fired)
        assert all(later - sooner == 10.0 for sooner, later in pairwise(ticks))
        assert ticks[-1] >= (await store.counts()).now - 20.0
        await stage.faults.close()
        await store.close()

    simulate(main, 0)


def test_a_frozen_machine_follows_the_misfire_rule_when_it_wakes(make: MakeStore) -> None:
    async def main(sim: Sim) -> None:
        store = make(sim.clock)
        stage = Stage(sim, store, QUIET)
        await store.open()
        scheduler = stage.scheduler("one")
        for misfire in ("run_once", "skip", "catch_up"):
            await scheduler.schedule(misfire, "*/5 * * * *", ticked, misfire=misfire)
        await scheduler.start()
        await asyncio.sleep(30.0)
        sim.clock.freeze(3_600.0 + 60.0)
        await asyncio.sleep(10.0)
        told = {}
        for misfire in ("run_once", "skip", "catch_up"):
            ticks = await scheduler.history(misfire)
            told[misfire] = Counter(tick.outcome for tick in ticks)
        assert told == {
            "run_once": {"missed": 11, "fired": 1},
            "skip": {"missed": 12},
            "catch_up": {"fired": 12},
        }
        await scheduler.stop()
        await stage.faults.close()
        await store.close()

    simulate(main, 0)


# ------------------------------------------------------------------------------- overlaps


RUNNING: list[tuple[str, int]] = []


@job(name="sim.long")
async def long() -> None:
    RUNNING.append(("begins", current_context().attempt))
    await asyncio.sleep(3.5)
    RUNNING.append(("ends", current_context().attempt))


def test_a_run_that_crashed_holds_up_ticks_until_it_has_ended_and_no_longer(
    make: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "atexit", NoExit())
    RUNNING.clear()

    async def main(sim: Sim) -> None:
        store = make(sim.clock)
        stage = Stage(sim, store, QUIET)
        await store.open()
        outside = stage.scheduler("outside", store.handle())

        def begin(name: str) -> tuple[Process, asyncio.Task[None]]:
            seams = Seams(clock=sim.clock, random=sim.dice(name), threads=False)
            handle = FaultyStore(store.handle(), stage.faults)
            process = sim.process(name)
            engine = Worker(Queue(handle, lease=5.0, seams=seams))
            return process, process.start(engine.run())

        process, _task = begin("w1")
        await outside.schedule("long", "* * * * * *", long, allow_concurrent=False)
        while RUNNING.count(("begins", 1)) < 2:
            await asyncio.sleep(0.1)
        # The second run dies in the middle; the next worker takes it over when its lease is over.
        await asyncio.sleep(1.0)
        process.kill()
        another, _another = begin("w2")
        await asyncio.sleep(30.0)
        told = [what for what, _ in RUNNING]
        assert told[:3] == ["begins", "ends", "begins"]
        # The crashed one began again, and from then on they alternate: none overlaps.
        assert told[3:] == ["begins", "ends"] * (len(told[3:]) // 2) + ["begins"] * (
            len(told[3:]) % 2
        )
        ticks = await outside.history("long", limit=1_000)
        assert Counter(tick.outcome for tick in ticks)["fired"] >= 6
        assert Counter(tick.outcome for tick in ticks)["skipped"] >= 12
        assert not [tick for tick in ticks if tick.outcome == "missed"]
        another.kill()
        await stage.faults.close()
        await store.close()

    simulate(main, 0)


@pytest.mark.parametrize("seed", seeds(3))
def test_a_lost_reply_of_a_tick_is_no_second_tick(make: MakeStore, seed: int) -> None:
    async def main(sim: Sim) -> None:
        store = make(sim.clock)
        stage = Stage(sim, store, Odds(lose_request=0.2, lose_reply=0.4, deaf=0.0))
        await store.open()
        outside = stage.scheduler("outside", store.handle())
        start = datetime.fromtimestamp(sim.clock.wall(), UTC)
        await outside.schedule(
            "each", "* * * * * *", ticked, max_runs=50, start_date=start, misfire="catch_up"
        )
        alone = stage.scheduler("one")
        await stage.persist(alone.start)
        await asyncio.sleep(120.0)
        (told,) = await outside.get_scheduled_jobs()
        assert (told.runs, told.next_run) == (50, None)
        assert len(stage.fired()) == 50
        assert set(stage.fired().values()) == {1}
        await alone.stop()
        await stage.faults.close()
        await store.close()

    simulate(main, seed)
