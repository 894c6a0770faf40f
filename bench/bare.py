"""The limit: loops over the same driver with the same statements, and no library."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from pathlib import Path

from jobmill.stores.sqlite.statements import statements

BATCH = 100


def drain_sqlite(path: Path) -> float:
    """Claim and settle all that is pending, by BATCH, each batch one transaction: jobs/s."""
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
        ready = connection.execute(claim["ready"], ("default", 0, BATCH)).fetchall()
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


async def drain_memory(payloads: list[bytes]) -> float:
    """Decode each payload and run it in an asyncio task of its own, 100 at once: jobs/s."""

    async def handler(payload: object) -> None:
        assert payload is not None

    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    for start in range(0, len(payloads), BATCH):
        await asyncio.gather(
            *[
                loop.create_task(handler(json.loads(data)))
                for data in payloads[start : start + BATCH]
            ]
        )
    return len(payloads) / (time.perf_counter() - began)
