"""What a job costs a PostgreSQL server: processor time of the backends that serve it, by /proc.

    python -m bench.postgresql_cost --jobs 10000 --rounds 6

Of `add` by thousands, of claim and settle by hundreds, and of the bare loop, in alternating rounds
on databases of their own. It is told apart from the rest of a busy machine, which rates are not.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
from pathlib import Path
from typing import Any

import msgspec

from bench.bare import BATCH
from bench.postgresql import drain_over
from bench.store_work import add, work
from jobmill.stores.postgresql import Address, PostgresStore
from jobmill.stores.postgresql.driver import connect
from jobmill.stores.postgresql.provision import server

_BACKENDS = (
    "SELECT pid FROM pg_stat_activity WHERE datname = $1 AND backend_type = 'client backend'"
)


def _computed(pid: int) -> float:
    """Seconds that a process has computed so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _worked(plain: Any, address: Address) -> float:
    """The same of all backends of a database."""
    return sum(_computed(pid) for (pid,) in await plain.fetch(_BACKENDS, address.database))


async def _round(plain: Any, address: Address, jobs: int) -> dict[str, float]:
    """Microseconds a job."""
    costs: dict[str, float] = {}
    store = PostgresStore(address)
    await store.open()
    try:
        await add(store, jobs)
        costs["add"] = await _worked(plain, address)
        await work(store, jobs)
        costs["claim and settle"] = await _worked(plain, address) - costs["add"]
        await add(store, jobs)
        before = await _worked(plain, address)
        bare = await connect(**address.options(), ssl=False)
        try:
            await drain_over(bare, "default", BATCH)
            costs["bare loop"] = await _worked(plain, address) - before
        finally:
            await bare.close()
    finally:
        await store.close()
    return {name: seconds / jobs * 1e6 for name, seconds in costs.items()}


async def _measure(address: Address, jobs: int, rounds: int) -> None:
    found: dict[str, list[float]] = {}
    plain = await connect(**address.options(), ssl=False)
    try:
        for turn in range(rounds):
            await plain.execute(f"CREATE DATABASE cost{turn}")
            database = msgspec.structs.replace(address, database=f"cost{turn}")
            for name, cost in (await _round(plain, database, jobs)).items():
                found.setdefault(name, []).append(cost)
    finally:
        await plain.close()
    for name, costs in found.items():
        print(f"{name}: {min(costs):.0f} us a job at best, {statistics.median(costs):.0f} usually")


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=6)
    options = parser.parse_args()
    with server() as running:
        asyncio.run(_measure(running.address, options.jobs, options.rounds))


if __name__ == "__main__":
    main()
