"""Counters, events and health tell the truth, whichever process dies."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from jobmill import Monitor, Queue, create_queue
from jobmill.store import Query, Record, Store
from jobmill.tally import Tally
from tests.conftest import SOAK
from tests.faults.jobs import Gate, Work, hold, mixed, work
from tests.faults.places import SERVERS, Place, ServerPlace
from tests.faults.processes import Processes, comes_true, eventually
from tests.faults.witness import Witness

JOBS = 10_000 if SOAK else 500
MIX = ("fail", "retry", "cancel", *["good"] * 7)
LEASE = 1.0
REPEATED = 100
"""Entries that a monitor tells between two writes of its cursor."""
AFTER_ALL_RECORDS = 7.5 * 86_400
"""Seconds after which every record may go, and no figure yet."""


@pytest.fixture
async def store(queue: Queue) -> AsyncIterator[Store]:
    opened = queue.store.handle()
    await opened.open()
    yield opened
    await opened.close()


async def all_records(store: Store) -> list[Record]:
    records: list[Record] = []
    cursor: str | None = None
    while True:
        page = await store.find(Query(), limit=1_000, cursor=cursor)
        records += page.records
        cursor = page.cursor
        if cursor is None:
            return records


async def counted(store: Store) -> dict[str, int]:
    """What the figures say, over all minutes and names."""
    sums = Tally(0.0, "")
    for bucket in await store.metrics(0.0):
        sums.add(bucket)
    found = sums.bucket()
    names = ("started", "completed", "failed", "cancelled", "retried", "lapsed")
    return {
        **{name: getattr(found, name) for name in names},
        "waits": sum(found.wait_histogram),
        "runs": sum(found.run_histogram),
    }


def truth(records: list[Record]) -> dict[str, int]:
    """The same, by what the records say."""
    ends = Counter(record.state for record in records)
    retried = sum(record.attempts - 1 for record in records)
    lapsed = sum(record.lapses for record in records)
    started = sum(record.attempts for record in records) + lapsed
    return {
        "started": started,
        "completed": ends["completed"],
        "failed": ends["failed"],
        "cancelled": ends["cancelled"],
        "retried": retried,
        "lapsed": lapsed,
        "waits": started,
        "runs": ends["completed"] + ends["failed"] + retried,
    }


@pytest.mark.timeout(1_200 if SOAK else 150)
async def test_figures_and_events_are_those_of_the_records(
    queue: Queue, store: Store, processes: Processes, witness: Witness, gate: Gate
) -> None:
    monitor = processes.monitor("audit")
    await eventually(lambda: witness.of("ready"), "the monitor ready")
    workers = [processes.worker(lease=LEASE) for _ in range(3)]
    await eventually(lambda: len(witness.of("ready")) == 4, "the workers ready")
    # So that the victim dies with a job in hand.
    held = await queue.enqueue_many([hold.call(gate)] * 12)
    victim = workers[0].pid
    await eventually(lambda: witness.running(victim), "the victim in a job")
    half = [mixed.call(MIX[n % len(MIX)]) for n in range(JOBS // 2)]
    sent = [handle.id for handle in (*held, *await queue.enqueue_many(half))]
    workers[0].kill()
    gate.open()

    await eventually(lambda: len(witness.of("heard")) > JOBS // 4, "the monitor at work")
    monitor.send(signal.SIGTERM)
    assert await monitor.ends() == 0
    heard = len(witness.of("heard"))
    sent += [handle.id for handle in await queue.enqueue_many(half)]

    async def all_ended() -> bool:
        stats = await queue.stats()
        return stats.completed + stats.failed + stats.cancelled == len(sent)

    await comes_true(all_ended, "all ended", within=900 if SOAK else 60)
    assert len(witness.of("heard")) == heard, "a monitor that was stopped tells of events"
    processes.monitor("audit")

    records = await all_records(store)
    expected = truth(records)
    assert {record.id for record in records} == set(sent)
    assert expected["lapsed"] >= 1
    assert expected["failed"] == expected["cancelled"] == JOBS // len(MIX)
    assert expected["retried"] == 2 * (JOBS // len(MIX))
    assert await counted(store) == expected

    ended = len(records) + expected["retried"]
    await eventually(lambda: len(witness.of("heard")) >= ended, "all events", within=60)
    told = Counter((line.job, line.note) for line in witness.of("heard"))
    assert set(told.values()) == {1}, "an event was told twice"
    assert set(told) == {
        *((record.id, record.state) for record in records),
        *((record.id, "retried") for record in records if record.attempts > 1),
    }

    later = (await store.counts()).now + AFTER_ALL_RECORDS
    while await store.prune(1_000, now=later):
        pass
    assert (await store.counts()).states == {}
    assert await counted(store) == expected


async def test_a_monitor_that_is_killed_misses_nothing(
    queue: Queue, processes: Processes, witness: Witness
) -> None:
    monitor = processes.monitor("audit")
    await eventually(lambda: witness.of("ready"), "the monitor ready")
    processes.worker(lease=LEASE)
    sent = [handle.id for handle in await queue.enqueue_many([mixed.call("good")] * 300)]
    await eventually(lambda: len(witness.of("heard")) > 50, "the monitor at work")
    monitor.kill()
    processes.monitor("audit")
    await eventually(
        lambda: {line.job for line in witness.of("heard")} == set(sent), "all events told"
    )
    again = [
        job for job, times in Counter(line.job for line in witness.of("heard")).items() if times > 1
    ]
    assert len(again) <= REPEATED
    assert max(Counter(line.job for line in witness.of("heard")).values()) <= 2


async def test_health_follows_the_only_worker(
    place: Place, processes: Processes, witness: Witness, gate: Gate
) -> None:
    async with create_queue(place.url, lease=LEASE) as queue:
        monitor = Monitor(queue)
        only = processes.worker(lease=LEASE, concurrency=2)
        await queue.enqueue_many([hold.call(gate)] * 4)
        await eventually(lambda: len(witness.running(only.pid)) == 2, "its jobs")

        async def at_work() -> bool:
            health = await monitor.get_system_health()
            told = (health.status, health.queue_depth, health.active_workers)
            return told == ("healthy", 2, 1)

        # Its first beat may come after its first claim.
        await comes_true(at_work, "the worker on the roster")
        # With all that it has asked for, so that no beat comes after its death.
        await asyncio.to_thread(place.kill, only)
        killed_at = time.monotonic()

        async def three_heartbeats_later() -> bool:
            asked_at = time.monotonic()
            health = await monitor.get_system_health()
            if asked_at - killed_at >= LEASE:
                # Its last beat came before the kill, and so did the jobs.
                assert (health.status, health.active_workers) == ("unhealthy", 0)
                assert any("no worker" in issue for issue in health.issues)
                return True
            return False

        await comes_true(three_heartbeats_later, "three heartbeats")
        gate.open()
        processes.worker(lease=LEASE)

        async def healthy() -> bool:
            health = await monitor.get_system_health()
            return health.status == "healthy" and health.active_workers == 1

        await comes_true(healthy, "healthy again")

        async def lapses_shown() -> bool:
            issues = (await monitor.get_system_health()).issues
            return any("leases lapsed in the last 5 minutes" in issue for issue in issues)

        await comes_true(lapses_shown, "the lapses in the issues")
        health = await monitor.get_system_health()
        assert any(f":{only.pid}:" in issue for issue in health.issues)


@pytest.mark.parametrize("place", SERVERS, indirect=True)
async def test_a_server_that_is_away_is_unhealthy(
    place: ServerPlace, processes: Processes, witness: Witness
) -> None:
    async with create_queue(place.url, lease=LEASE) as queue:
        monitor = Monitor(queue)
        processes.worker(lease=LEASE)

        async def healthy() -> bool:
            health = await monitor.get_system_health()
            return (health.status, health.active_workers) == ("healthy", 1)

        await comes_true(healthy, "healthy")
        await asyncio.to_thread(place.server.kill)
        health = await monitor.get_system_health()
        assert health.status == "unhealthy"
        assert health.issues[0].startswith("the store cannot be reached")
        await asyncio.to_thread(place.server.start)
        await comes_true(healthy, "healthy again")
        handle = await queue.enqueue(work, Work())
        assert await handle.result(40)
