"""What a job costs, counted and not timed: a change that makes it dearer fails here.

The bounds stand a little above what there is; whoever makes a job cheaper lowers them.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from jobmill import JobContext, PostgresQueue, Queue, RedisQueue, SQLiteQueue
from jobmill.stores import postgresql
from jobmill.stores.redis import Address
from tests.api.running.kit import define
from tests.servers import ask_postgres, by_another, cleared, emptied
from tests.waiting import eventually_sync

ROOT = Path(__file__).parents[3]
CALLS = 114.0
"""Functions called for each job, on any Python that is supported; 102 on 3.11."""
BLOCKS = 34.0
"""Blocks of memory that a running job holds; 30 on 3.11."""
FEW, MANY = 500, 1_500
CONCURRENCY = 100


def test_a_job_calls_few_functions_and_holds_little_memory() -> None:
    # In a process of its own, since what guards these tests wraps functions that a job calls.
    command = [sys.executable, "-m", "bench.cost"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    costs = json.loads(done.stdout)
    assert 0 < costs["calls"] <= CALLS, costs
    assert 0 < costs["blocks"] <= BLOCKS, costs


async def drain(queue: Queue, jobs: int) -> None:
    """Add and run so many jobs, and settle them; nothing else asks the store meanwhile."""
    left = jobs
    ended = asyncio.Event()

    async def handler(ctx: JobContext[int]) -> None:
        nonlocal left
        left -= 1
        if not left:
            ended.set()

    job = define(handler)
    await queue.enqueue_many([job.call(number) for number in range(jobs)])
    queue.process()
    async with asyncio.timeout(60):
        await ended.wait()
    await queue.shutdown()


async def of_a_thousand(
    make: Callable[[str], Queue], count: Callable[[], Mapping[str, int]]
) -> Counter[str]:
    """By how much the counts rise for a thousand jobs, without what a worker takes by itself."""
    rises: list[Counter[str]] = []
    for jobs in (FEW, MANY):
        before = Counter(await asyncio.to_thread(count))
        await drain(make(f"of{jobs}"), jobs)
        rise = Counter(await asyncio.to_thread(count))
        rise.subtract(before)
        rises.append(rise)
    rises[1].subtract(rises[0])
    return rises[1]


@pytest.mark.store("sqlite")
async def test_statements_for_a_thousand_jobs_on_sqlite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    statements = Counter[str]()
    connect: Any = sqlite3.connect

    def traced(*words: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*words, **options)
        connection.set_trace_callback(lambda text: statements.update([text.split(None, 1)[0]]))
        return connection

    monkeypatch.setattr(sqlite3, "connect", traced)

    def make(name: str) -> Queue:
        return SQLiteQueue(tmp_path / f"{name}.db", concurrency=CONCURRENCY)

    rise = await of_a_thousand(make, statements.copy)
    # For each job: one that adds it, one that settles it, one event. A hundred share the rest.
    assert 3_000 <= rise.total() <= 3_600, rise
    assert 0 < rise["COMMIT"] <= 40, rise


@pytest.mark.store("redis")
async def test_commands_for_a_thousand_jobs_on_redis(redis_address: Address) -> None:
    def make(name: str) -> Queue:
        return RedisQueue(str(redis_address), name=name, concurrency=CONCURRENCY)

    emptied(redis_address)
    with by_another(redis_address) as server:

        def calls() -> Mapping[str, int]:
            return {name: each["calls"] for name, each in server.info("commandstats").items()}

        rise = await of_a_thousand(make, calls)
    assert 0 < rise["cmdstat_evalsha"] + rise["cmdstat_eval"] <= 40, rise
    # Those that the scripts run are counted, too.
    assert 3_000 <= rise.total() <= 7_500, rise


@pytest.mark.store("postgresql")
async def test_transactions_for_a_thousand_jobs_on_postgresql(
    postgres_address: postgresql.Address,
) -> None:
    address = await cleared(postgres_address)

    def make(name: str) -> Queue:
        return PostgresQueue(
            host=address.host,
            port=address.port,
            username=address.username,
            password=address.password,
            database=address.database,
            name=name,
            concurrency=CONCURRENCY,
        )

    def transactions() -> Mapping[str, int]:
        # A process of the server tells what it did at its end, at the latest.
        others = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'jobmill'"
        eventually_sync(lambda: ask_postgres(address, others).strip() == "0", within=30.0)
        # What the server cleans up meanwhile, a transaction for each table, is none of the jobs'.
        cleaned = "SELECT sum(autovacuum_count + autoanalyze_count) FROM pg_stat_all_tables"
        done = f"SELECT xact_commit + xact_rollback - ({cleaned}) FROM pg_stat_database"
        return {"all": int(ask_postgres(address, f"{done} WHERE datname = '{address.database}'"))}

    rise = await of_a_thousand(make, transactions)
    assert 0 < rise["all"] <= 60, rise
