"""The limit on PostgreSQL: a loop over asyncpg on the same tables, and no library."""

from __future__ import annotations

import json
import time
from typing import Any

from bench.bare import BATCH
from jobmill.stores.postgresql import Address
from jobmill.stores.postgresql.driver import connect

# One statement, one commit that waits for the disk: what a settle and a claim cannot go below. Each
# job is looked up by its id, and no condition outside offers the planner another index.
_DRAIN = """\
WITH held AS MATERIALIZED (
    SELECT l.seq, m.result
    FROM unnest($3::text[], $4::text[], $5::bytea[]) AS m (id, token, result)
    CROSS JOIN LATERAL (
        SELECT k.seq, k.state, k.token FROM jobmill.jobs AS k
        WHERE k.queue = $1 AND k.id = m.id OFFSET 0 FOR UPDATE
    ) AS l
    WHERE l.state = 'processing' AND l.token = m.token
),
settled AS (
    UPDATE jobmill.jobs AS j SET
        state = 'completed', lease_until = NULL, result = held.result,
        ended_at = $2, expires_at = $2 + j.keep_result
    FROM held WHERE j.seq = ANY (ARRAY[held.seq])
)
UPDATE jobmill.jobs AS j SET
    state = 'processing', token = 'token', worker = 'worker', lease_until = $2 + 30,
    started_at = $2, attempts = j.attempts + 1
WHERE j.seq = ANY (ARRAY(
    SELECT n.seq FROM jobmill.jobs AS n
    WHERE n.queue = $1 AND n.state = 'pending' AND NOT n.suspect AND n.seq > 0
    ORDER BY n.priority, n.run_at, n.seq LIMIT $6 FOR UPDATE SKIP LOCKED
))
RETURNING j.id, j.token, j.payload, j.name, j.policy, j.attempts, j.run_at"""
# As its functions are planned: by indexes, whatever the statistics say.
_PLANS = """\
SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET enable_bitmapscan = off;
SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_sort = off; SET jit = off"""


async def drain_postgresql(address: Address, queue: str, batch: int = BATCH) -> float:
    """Claim and settle all that is pending, by `batch`, each batch one transaction: jobs/s."""
    connection = await connect(**address.options(), ssl=False)
    try:
        return await drain_over(connection, queue, batch)
    finally:
        await connection.close()


async def drain_over(connection: Any, queue: str, batch: int) -> float:
    """The same over a connection that is there."""
    await connection.execute(_PLANS)
    done = 0
    ids: list[str] = []
    tokens: list[str] = []
    began = time.perf_counter()
    while True:
        results = [b"null"] * len(ids)
        rows = await connection.fetch(_DRAIN, queue, time.time(), ids, tokens, results, batch)
        for row in rows:
            json.loads(row[2])
        ids, tokens = [row[0] for row in rows], [row[1] for row in rows]
        done += len(rows)
        if not rows:
            break
    seconds = time.perf_counter() - began
    left = await connection.fetchval(
        "SELECT count(*) FROM jobmill.jobs WHERE queue = $1 AND state <> 'completed'", queue
    )
    assert left == 0, f"{left} jobs were not completed"
    return done / seconds
