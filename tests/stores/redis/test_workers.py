"""Workers on Redis: what they cost it, and what a backlog and a rate limit do to them."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis

from jobmill import JobContext, JobDefinition, RedisQueue, create_rate_limit_middleware, define_job
from jobmill.registry import isolated
from jobmill.store import JOBS, Claimed
from jobmill.stores.redis import Address, RedisStore
from jobmill.testing.contract.case import a_job
from jobmill.worker import Worker
from tests.faults.test_limits import most_in_a_second
from tests.servers import emptied
from tests.stalls import Stalls
from tests.waiting import eventually

pytestmark = [pytest.mark.store("redis"), pytest.mark.alone]

ASKED = ("evalsha", "eval", "ping", "subscribe", "sadd")
"""The commands that a worker sends; scripts run none of these, as they do SMEMBERS."""


@pytest.fixture
def address(redis_address: Address) -> Address:
    return emptied(redis_address)


@pytest.fixture(autouse=True)
def definitions_of_one_test() -> Iterator[None]:
    with isolated():
        yield


async def test_an_idle_worker_sends_at_most_two_commands_a_second(address: Address) -> None:
    server = Redis(**address.options(), decode_responses=True)

    def commands() -> int:
        stats: Any = server.info("commandstats")
        return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ASKED)

    server.config_resetstat()
    async with RedisQueue(str(address)) as queue:
        queue.process()
        # Its start takes some: connections, subscription, scripts.
        await eventually(lambda: commands() >= 10, within=30.0)
        began, before = time.monotonic(), commands()
        # Long enough for what comes now and then, as its sign of life does, not to stand out.
        await eventually(lambda: commands() - before >= 15, within=60.0)
        rate = (commands() - before) / (time.monotonic() - began)
        await queue.shutdown()
    server.close()
    assert rate <= 2.0


async def test_what_is_told_before_the_first_subscription_stands_is_not_slept_through(
    address: Address,
) -> None:
    store = RedisStore(address)
    await store.open()
    waiting = asyncio.create_task(store.wait((JOBS,), 600.0))
    await store.add([a_job()])
    async with asyncio.timeout(30):
        await waiting
    await store.close()


async def test_a_worker_of_one_job_is_not_slowed_down_by_a_backlog_of_others(
    address: Address,
) -> None:
    runs: Counter[str] = Counter()

    async def handler(ctx: JobContext[Any]) -> None:
        runs[ctx.job_name] += 1

    common = define_job(name="common", handler=handler)
    rare = define_job(name="rare", handler=handler)

    async def seconds(jobs: JobDefinition[Any, Any] | None) -> float:
        """How long a worker takes to run 1,000 jobs."""
        name = "common" if jobs is None else "rare"
        runs.clear()
        worker = Worker(queue, jobs=jobs)
        began = time.perf_counter()
        running = asyncio.create_task(worker.run())
        while runs[name] < 1_000:
            await asyncio.sleep(0)
        took = time.perf_counter() - began
        await worker.stop()
        await running
        assert set(runs) == {name}
        return took

    async with RedisQueue(str(address), concurrency=100) as queue:
        await queue.enqueue_many([common.call() for _ in range(110_000)])
        restricted: list[float] = []
        unrestricted: list[float] = []
        for _ in range(5):
            await queue.enqueue_many([rare.call() for _ in range(1_000)])
            restricted.append(await seconds(rare))
            unrestricted.append(await seconds(None))
    assert statistics.median(unrestricted) / statistics.median(restricted) >= 0.5


async def test_a_rate_limit_is_used_up_and_never_exceeded_by_four_workers(
    address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    slots: list[tuple[float, float]] = []
    claims: Counter[str] = Counter()
    claim = RedisStore.claim

    async def counted(store: RedisStore, *args: Any, **options: Any) -> Claimed:
        claimed = await claim(store, *args, **options)
        claims.update(each.id for each in claimed.claims)
        return claimed

    async def told(store: RedisStore, *args: Any, **options: Any) -> float:
        asked = time.monotonic()
        seconds = await reserve(store, *args, **options)
        if not seconds:
            slots.append((asked, time.monotonic()))
        return seconds

    reserve = RedisStore.reserve
    monkeypatch.setattr(RedisStore, "claim", counted)
    monkeypatch.setattr(RedisStore, "reserve", told)

    async def handler(ctx: JobContext[Any]) -> None:
        pass

    limit = create_rate_limit_middleware(max_per_second=100)
    job = define_job(name="limited", handler=handler, middleware=limit)
    queues = [RedisQueue(str(address)) for _ in range(4)]
    for queue in queues:
        queue.process()
    began = time.monotonic()
    async with Stalls() as stalls:
        await queues[0].enqueue_many([job.call() for _ in range(1_000)])
        await eventually(lambda: len(slots) == 1_000, within=40.0)
    for queue in queues:
        await queue.shutdown()
    # Each start was recorded between its two instants.
    assert max(told for _, told in slots) - min(asked for asked, _ in slots) >= 8.9
    assert max(told for _, told in slots) - began <= 11 + stalls.since(began)
    assert most_in_a_second(slots) <= 100
    assert len(claims) == 1_000
    assert claims.total() / 1_000 <= 2.1
    assert max(claims.values()) <= 4
