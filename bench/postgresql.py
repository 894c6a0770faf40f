"""The limit on PostgreSQL: a loop over asyncpg on the same tables, and no library."""

from __future__ import annotations

import json
import time

from bench.bare import BATCH
from jobmill.stores.postgresql import Address
from jobmill.stores.postgresql.driver import connect

# One statement, one commit that waits for the disk: what a settle and a claim cannot go below.
_DRAIN = """\
WITH settled AS (
    UPDATE jobmill.jobs AS j SET
        state = 'completed', lease_until = NULL, result = m.result,
        ended_at = $2, expires_at = $2 + j.keep_result
    FROM unnest($3::text[], $4::text[], $5::bytea[]) AS m (id, token, result)
    WHERE j.queue = $1 AND j.id = m.id AND j.token = m.token AND j.state = 'processing'
)
UPDATE jobmill.jobs AS j SET
    state = 'processing', token = 'token', worker = 'worker', lease_until = $2 + 30,
    started_at = $2, attempts = j.attempts + 1
WHERE j.queue = $1 AND j.seq = ANY (ARRAY(
    SELECT n.seq FROM jobmill.jobs AS n
    WHERE n.queue = $1 AND n.state = 'pending' AND NOT n.suspect
    ORDER BY n.priority, n.run_at, n.seq LIMIT $6 FOR UPDATE SKIP LOCKED
))
RETURNING j.id, j.token, j.payload, j.name, j.policy, j.attempts, j.run_at"""


async def drain_postgresql(address: Address, queue: str, batch: int = BATCH) -> float:
    """Claim and settle all that is pending, by `batch`, each batch one transaction: jobs/s."""
    connection = await connect(**address.options(), ssl=False)
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
    await connection.close()
    assert left == 0, f"{left} jobs were not completed"
    return done / seconds
