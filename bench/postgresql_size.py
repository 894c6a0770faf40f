"""Measures what jobs take of a PostgreSQL database, in bytes a job: rows, and all of their indexes.

python -m bench.postgresql_size [--jobs 100000]
"""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

from bench.load import PAYLOAD, a_payload
from jobmill.policy import Policy
from jobmill.states import Move
from jobmill.store import NewJob, Want
from jobmill.stores.postgresql import Address, PostgresStore
from jobmill.stores.postgresql.driver import connect
from jobmill.stores.postgresql.provision import server

_PAGE = 1_000
_SIZES = """\
SELECT pg_table_size('jobmill.jobs') AS rows, pg_indexes_size('jobmill.jobs') AS indexes,
    (SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class AS c
        WHERE c.relnamespace = 'jobmill'::regnamespace AND c.relkind = 'r') AS everything"""


async def told(plain: Any, what: str, jobs: int) -> None:
    """Print the sizes, after what is dead was removed as autovacuum does."""
    await plain.execute("VACUUM jobmill.jobs")
    row = await plain.fetchrow(_SIZES)
    print(
        f"{what:28} {row['rows'] / jobs:7.0f} of rows, {row['indexes'] / jobs:7.0f} of indexes, "
        f"{float(row['everything']) / jobs:7.0f} in all"
    )


async def measure(address: Address, jobs: int) -> None:
    """Pending, then ended one after the other in batches of 100, as a worker does."""
    store = PostgresStore(address)
    await store.open()
    plain = await connect(**address.options(), ssl=False)
    payload = f'{{"text":"{a_payload(PAYLOAD)}"}}'.encode()
    for start in range(0, jobs, _PAGE):
        await store.add(
            [
                NewJob(id=f"019a{n:032x}", name="bench.parcel", payload=payload, policy=Policy())
                for n in range(start, start + _PAGE)
            ]
        )
    await told(plain, f"pending, payload {len(payload)} B", jobs)
    moves: list[Move] = []
    for turn in range(jobs // 100 + 1):
        want = Want(worker="bench", token=f"bench.{turn}", limit=100, lease=30.0)
        claims = (await store.claim(want, moves)).claims
        moves = [
            Move(event="succeed", job_id=each.id, token=each.token, result=b"null")
            for each in claims
        ]
        if turn % 200 == 199:
            await plain.execute("VACUUM jobmill.jobs")
    await told(plain, "completed", jobs)
    assert (await store.counts()).states == {"completed": jobs}
    await plain.execute("UPDATE jobmill.jobs SET expires_at = 0")
    while await store.prune(_PAGE):
        pass
    await told(plain, "pruned (room for new ones)", jobs)
    await plain.close()
    await store.close()


def main() -> None:
    """Measure on a server of its own."""
    parser = argparse.ArgumentParser(prog="python -m bench.postgresql_size")
    parser.add_argument("--jobs", type=int, default=100_000)
    options = parser.parse_args()
    with server(durable=False) as running:
        asyncio.run(measure(running.address, options.jobs))


if __name__ == "__main__":
    main()
