"""The limit: loops over the same driver with the same statements, and no library."""

from __future__ import annotations

import asyncio
import itertools
import json
import sqlite3
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from redis.asyncio import Redis

from jobmill.policy import Policy, encode_policy
from jobmill.states import Move
from jobmill.store import NewJob, Want
from jobmill.stores import postgresql
from jobmill.stores.postgresql.driver import connect
from jobmill.stores.redis import wire
from jobmill.stores.redis.address import Address
from jobmill.stores.redis.keys import tag
from jobmill.stores.redis.scripts import SCRIPTS
from jobmill.stores.sqlite.statements import statements

BATCH = 100
THOUSAND = 1_000
"""Jobs that are enqueued in one call, in bulk."""
_NAME = "bench.noop"
_POLICY = encode_policy(Policy())
_INSERT_POSTGRESQL = """\
INSERT INTO jobmill.jobs (
    queue, id, name, state, priority, run_at, enqueued_at, policy, payload, keep_result, keep_failed
)
SELECT $1, n.id, $2, 'pending', 0, $3, $3, $4, n.payload, 86400, 604800
FROM unnest($5::text[], $6::bytea[]) WITH ORDINALITY AS n (id, payload, ord)
ORDER BY n.ord ON CONFLICT DO NOTHING RETURNING id"""


def drain_sqlite(path: Path, batch: int = BATCH) -> float:
    """Claim and settle all that is pending, by `batch`, each batch one transaction: jobs/s."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    claim, move = statements("claim"), statements("move")
    done = 0
    settled: list[tuple[object, ...]] = []
    began = time.perf_counter()
    while True:
        now = time.time()
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(move["settle"], settled)
        ready = connection.execute(claim["ready"], ("default", 0, batch)).fetchall()
        seqs = json.dumps([row[2] for row in ready])
        rows = connection.execute(
            claim["hand_out"], ("token", "worker", now + 30, now, seqs)
        ).fetchall()
        connection.execute("COMMIT")
        for row in rows:
            json.loads(row[-1])
        settled = [
            ("completed", row[7], 0, 0, 1, 0, None, now, now + 86_400, b"null", None, row[0])
            for row in rows
        ]
        done += len(rows)
        if not rows:
            break
    seconds = time.perf_counter() - began
    left = connection.execute(
        "SELECT count(*) FROM jobmill_jobs WHERE state <> 'completed'"
    ).fetchone()[0]
    connection.close()
    assert left == 0, f"{left} jobs were not completed"
    return done / seconds


async def drain_redis(address: Address, batch: int = BATCH) -> float:
    """Claim and settle all that is pending, by `batch`, in one script call a batch: jobs/s."""
    client = Redis(**address.options(), protocol=2)
    claim = SCRIPTS["claim"]
    sha = await client.script_load(claim.text)
    done = 0
    settled: list[Move] = []
    began = time.perf_counter()
    for number in itertools.count():
        want = Want(worker="bare", token=f"bare.{number}", limit=batch, lease=30.0)
        words = wire.packed([None, *wire.told_want(want), *wire.told_moves(settled)])
        answer = await client.evalsha(sha, 1, tag("default"), words)
        rows = answer[1]
        for row in rows:
            json.loads(row[2])
        settled = [
            Move(
                event="succeed",
                job_id=row[0].decode(),
                token=want.token,
                result=b"null",
            )
            for row in rows
        ]
        done += len(rows)
        if not rows:
            break
    seconds = time.perf_counter() - began
    left = await client.zcard(f"{tag('default')}:ended")
    await client.aclose()
    assert left == done, f"{done} jobs were claimed, {left} have ended"
    return done / seconds


async def drain_memory(payloads: list[bytes], batch: int = BATCH) -> float:
    """Decode each payload and run it in an asyncio task of its own, `batch` at once: jobs/s."""

    async def handler(payload: object) -> None:
        assert payload is not None

    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    for start in range(0, len(payloads), batch):
        await asyncio.gather(
            *[
                loop.create_task(handler(json.loads(data)))
                for data in payloads[start : start + batch]
            ]
        )
    return len(payloads) / (time.perf_counter() - began)


def _batches(jobs: int, batch: int) -> Iterator[list[tuple[str, bytes]]]:
    """Ids and payloads, made as they are asked for: what no producer can leave out."""
    for start in range(0, jobs, batch):
        yield [
            (str(uuid.uuid4()), json.dumps({"number": number}).encode())
            for number in range(start, min(start + batch, jobs))
        ]


def enqueue_memory(jobs: int, batch: int = THOUSAND) -> float:
    """Put ids and payloads into a dict, by `batch`: jobs/s."""
    there: dict[str, bytes] = {}
    began = time.perf_counter()
    for some in _batches(jobs, batch):
        there.update(some)
    seconds = time.perf_counter() - began
    assert len(there) == jobs
    return jobs / seconds


def enqueue_sqlite(path: Path, jobs: int, batch: int = THOUSAND) -> float:
    """Insert by its statement, each batch one transaction: jobs/s."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    insert = statements("add")["insert"]
    began = time.perf_counter()
    for some in _batches(jobs, batch):
        now = time.time()
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(
            insert,
            [
                ("default", id_, _NAME, "pending", 0, now, now, None, _POLICY, None, payload)
                for id_, payload in some
            ],
        )
        connection.execute("COMMIT")
    seconds = time.perf_counter() - began
    there = connection.execute("SELECT count(*) FROM jobmill_jobs").fetchone()[0]
    connection.close()
    assert there == jobs, f"{there} jobs were stored"
    return jobs / seconds


async def enqueue_redis(address: Address, jobs: int, batch: int = THOUSAND) -> float:
    """Add by its script, each batch one call: jobs/s."""
    client = Redis(**address.options(), protocol=2)
    sha = await client.script_load(SCRIPTS["add"].text)
    policy = Policy()
    added = 0
    began = time.perf_counter()
    for some in _batches(jobs, batch):
        new = [NewJob(id_, _NAME, payload, policy) for id_, payload in some]
        words = wire.packed([None, False, True, *wire.told_jobs(new)])
        _, answers = await client.evalsha(sha, 1, tag("default"), words)
        added += len(answers)
    seconds = time.perf_counter() - began
    await client.aclose()
    assert added == jobs, f"{added} jobs were stored"
    return jobs / seconds


async def enqueue_postgresql(
    address: postgresql.Address, jobs: int, batch: int = THOUSAND
) -> float:
    """Insert by one statement, each batch one transaction: jobs/s."""
    connection = await connect(**address.options(), ssl=False)
    added = 0
    began = time.perf_counter()
    for some in _batches(jobs, batch):
        ids, payloads = [id_ for id_, _ in some], [payload for _, payload in some]
        rows = await connection.fetch(
            _INSERT_POSTGRESQL, "default", _NAME, time.time(), _POLICY, ids, payloads
        )
        added += len(rows)
    seconds = time.perf_counter() - began
    await connection.close()
    assert added == jobs, f"{added} jobs were stored"
    return jobs / seconds
