"""An order and its job are there together or not at all, wherever the process is killed."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import msgspec
import pytest

from jobmill.stores.postgresql import Address, PostgresStore
from tests.callers import words
from tests.conftest import SOAK
from tests.faults.nursery import ROOT
from tests.faults.processes import comes_true
from tests.faults.shop_app import NAME
from tests.servers import cleared

pytestmark = [pytest.mark.store("postgresql"), pytest.mark.timeout(900 if SOAK else 120)]

KILLS = 100 if SOAK else 10
LONGEST = 0.05
"""Seconds for which a child goes on after its first order; a transaction takes milliseconds."""


@pytest.fixture
async def address(postgres_address: Address) -> Address:
    store = PostgresStore(await cleared(postgres_address))
    await store.open()
    await store.close()
    return postgres_address


@pytest.fixture
async def plain(address: Address) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(**words(address))
    await connection.execute(
        "DROP TABLE IF EXISTS orders; CREATE TABLE orders (id text PRIMARY KEY, n bigserial)"
    )
    yield connection
    await connection.execute("DROP TABLE orders")
    await connection.close()


async def test_no_kill_leaves_an_order_without_its_job_or_a_job_without_its_order(
    address: Address, plain: Any
) -> None:
    shop = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.faults.shop_app", msgspec.json.encode(address).decode()),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert shop.stdin is not None
    assert shop.stdout is not None
    before = await drawn(plain)
    kills = 0
    undone = [0]
    # So often, and until one has struck in the middle of a transaction.
    while kills < KILLS or not max(undone):
        number, kills = kills, kills + 1
        shop.stdin.write(f"{number}\n".encode())
        pid = int(await shop.stdout.readline())

        async def ordered(first: str = f"{number}-0") -> bool:
            found: bool = await plain.fetchval(
                "SELECT EXISTS (SELECT 1 FROM orders WHERE id = $1)", first
            )
            return found

        await comes_true(ordered, f"an order of child {number}")
        await asyncio.sleep(random.uniform(0, LONGEST))
        os.kill(pid, signal.SIGKILL)
        if kills >= KILLS:
            await comes_true(lambda: nobody_is_left(plain), "the end of the last transaction")
            undone = await never_committed(plain, before)
    shop.stdin.close()
    _, told = await shop.communicate()
    assert told.decode() == ""

    orders = {row["id"] for row in await plain.fetch("SELECT id FROM orders")}
    jobs = {row["id"] for row in await plain.fetch("SELECT id FROM jobmill.jobs")}
    assert orders == jobs
    assert {order.partition("-")[0] for order in orders} == {str(n) for n in range(kills)}
    assert 0 < max(undone) <= kills
    assert min(undone) >= 0


async def never_committed(plain: Any, before: list[int]) -> list[int]:
    """How many numbers of the orders, and of the jobs, were drawn since then for nothing."""
    orders = await plain.fetchval("SELECT count(*) FROM orders")
    return [last - first - orders for first, last in zip(before, await drawn(plain), strict=True)]


async def drawn(plain: Any) -> list[int]:
    """How many numbers the orders, and the jobs, have drawn."""
    last = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM "
    jobs = await plain.fetchval("SELECT pg_get_serial_sequence('jobmill.jobs', 'seq')")
    return [await plain.fetchval(last + each) for each in ("orders_n_seq", jobs)]


async def nobody_is_left(plain: Any) -> bool:
    found = await plain.fetch("SELECT 1 FROM pg_stat_activity WHERE application_name = $1", NAME)
    return not found
