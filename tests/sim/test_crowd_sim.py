"""A crowd of jobs that all fail at one instant, and healthy jobs beside them, in virtual time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest

from jobmill import JobContext, JobDefinition, JobOptions, Queue, Worker, define_job, worker
from jobmill.registry import isolated
from jobmill.seams import Seams
from jobmill.testing.faults import Faults, Odds
from jobmill.testing.faulty import FaultyStore
from jobmill.testing.sim import Sim, simulate
from tests.conftest import SOAK
from tests.sim.stores import MakeStore, open_memory
from tests.sim.test_worker_sim import NoExit

pytestmark = pytest.mark.blocks_loop  # in virtual time, nothing is too slow

CROWD = 10_000 if SOAK else 500
SLOTS = 20
RUN = 0.02
"""Seconds that a healthy run takes, and a second attempt: the slots hold 1,000 in a second."""
RETRY_DELAY = CROWD * RUN / SLOTS * 20
"""So long that its retries, spread over as long, take a twentieth of the slots."""
HEALTHY_EVERY = RETRY_DELAY / 100
ODDS = Odds(lose_request=0.0, lose_reply=0.0, delay=0.02, slow=0.0, deaf=0.0)


@pytest.fixture(autouse=True)
def _apart(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(worker, "atexit", NoExit())
    logging.disable(logging.CRITICAL)
    with isolated():
        yield
    logging.disable(logging.NOTSET)


@pytest.fixture(
    params=[
        pytest.param("memory", marks=pytest.mark.store("memory")),
        pytest.param("open_sqlite", marks=pytest.mark.store("sqlite")),
        pytest.param("open_on_redis", marks=pytest.mark.store("redis")),
        pytest.param("open_on_postgres", marks=pytest.mark.store("postgresql")),
    ]
)
def make(request: pytest.FixtureRequest) -> MakeStore:
    if request.param == "memory":
        return open_memory
    opened: MakeStore = request.getfixturevalue(request.param)
    return opened


async def fail_at_first(ctx: JobContext[None]) -> None:
    if ctx.attempt == 1:
        raise ConnectionError("what all of them need is away")
    await asyncio.sleep(RUN)


async def be_well(ctx: JobContext[None]) -> None:
    await asyncio.sleep(RUN)


async def waits_of(queue: Queue, healthy: JobDefinition[None, None], seconds: float) -> list[float]:
    """How long healthy jobs wait, one after the other, over so many seconds; in rising order."""
    handles = []
    for _ in range(round(seconds / HEALTHY_EVERY)):
        handles.append(await queue.enqueue(healthy))
        await asyncio.sleep(HEALTHY_EVERY)
    waits: list[float] = []
    for each in handles:
        await each.result()
        info = await each.info()
        assert info.started_at is not None
        waits.append((info.started_at - info.enqueued_at).total_seconds())
    return sorted(waits)


def waits(make: MakeStore, jitter: float) -> tuple[float, float]:
    """What 95 of 100 healthy jobs waited at most: as ever, and while a crowd is tried again."""
    crowded = define_job(
        fail_at_first,
        name="crowded",
        options=JobOptions(retries=1, retry_delay=RETRY_DELAY, jitter=jitter),
    )
    healthy = define_job(be_well, name="healthy")

    async def main(sim: Sim) -> tuple[float, float]:
        faults = Faults(sim, ODDS)
        store = make(sim.clock)
        await store.open()

        def queue_of(name: str) -> Queue:
            seams = Seams(clock=sim.clock, random=sim.dice(name), threads=False)
            return Queue(FaultyStore(store.handle(), faults), concurrency=SLOTS, seams=seams)

        queue, engine = queue_of("program"), Worker(queue_of("worker"))
        running = asyncio.create_task(engine.run())
        usual = await waits_of(queue, healthy, RETRY_DELAY)
        await queue.enqueue_many([crowded.call() for _ in range(CROWD)])
        while (await queue.stats()).delayed < CROWD:
            await asyncio.sleep(0.1)
        # From now on none is due for a retry's delay, nor left after twice that.
        beside = await waits_of(queue, healthy, 2 * RETRY_DELAY)
        stats = await queue.stats()
        assert (stats.failed, stats.completed) == (0, stats.total)
        assert stats.total == CROWD + len(usual) + len(beside)
        await engine.stop()
        await running
        await queue.close()
        await faults.close()
        await store.close()
        half = beside[len(beside) // 2 :]  # those of the crowd's retries are the longer ones
        return usual[int(len(usual) * 0.95)], half[int(len(half) * 0.95)]

    return simulate(main, 1)


def test_jitter_spreads_a_crowd_so_that_healthy_jobs_wait_less_than_twice_as_long(
    make: MakeStore,
) -> None:
    usual, beside = waits(make, jitter=1.0)
    print(
        f"{CROWD} jobs failed at once: 95 of 100 healthy jobs waited {beside * 1000:.0f} ms at "
        f"most beside their retries, {usual * 1000:.0f} ms without"
    )
    assert usual > 0
    assert beside < 2 * usual


@pytest.mark.store("memory")
def test_without_jitter_they_would_wait_longer() -> None:
    usual, beside = waits(open_memory, jitter=0.0)
    assert beside > 2 * usual
