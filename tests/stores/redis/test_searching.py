"""Jobs that are few among very many are found without a look at all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from jobmill.states import Move
from jobmill.store import Query
from jobmill.stores.redis import Address, RedisStore
from jobmill.stores.redis.scripts import SCAN_LIMIT
from jobmill.testing.contract.case import a_job, a_want
from tests.servers import by_another, emptied

pytestmark = pytest.mark.store("redis")

MANY = 2 * SCAN_LIMIT + 100


@pytest.fixture
async def store(redis_address: Address) -> AsyncIterator[RedisStore]:
    """A store with three failed and two running jobs under more than two looks at others."""
    opened = RedisStore(emptied(redis_address))
    await opened.open()
    await opened.add([a_job(f"old{number}") for number in range(5)])
    got = (await opened.claim(a_want("t1", limit=5))).claims
    await opened.move(
        [
            Move(event="fail", job_id=each.id, token="t1", error=b"{}", fingerprint="f")
            for each in got[:3]
        ]
    )
    await opened.add([a_job(f"new{number}") for number in range(MANY)], wake=False)
    yield opened
    await opened.close()


async def ids(store: RedisStore, query: Query, *, within: float | None = None) -> list[str]:
    """The ids of all pages, two on each."""
    found: list[str] = []
    cursor: str | None = None
    while True:
        page = await store.find(query, limit=2, cursor=cursor, within=within)
        found += [record.id for record in page.records]
        cursor = page.cursor
        if cursor is None:
            return found


def ran(address: Address) -> int:
    """How many scripts the server has run."""
    with by_another(address) as connection:
        stats = connection.info("commandstats")
        return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "eval"))


async def calls(address: Address, query: Query, store: RedisStore) -> int:
    """How many scripts the server runs for the first page of a query."""
    before = ran(address)
    await store.find(query, limit=10)
    return ran(address) - before


async def test_they_are_found_by_one_script(store: RedisStore, redis_address: Address) -> None:
    failed, running = Query(states=("failed",)), Query(states=("processing",))
    assert await ids(store, failed) == ["old2", "old1", "old0"]
    assert await ids(store, running) == ["old4", "old3"]
    assert await ids(store, Query(states=("failed",), fingerprint="f")) == ["old2", "old1", "old0"]
    assert await calls(redis_address, failed, store) == 1
    assert await calls(redis_address, running, store) == 1
    # The same without an index takes a script for each SCAN_LIMIT jobs.
    assert await calls(redis_address, Query(name="nobody"), store) > 2
    assert (await store.counts(Query(states=("failed",), fingerprint="f"))).states == {"failed": 3}
    # One that takes too long goes on by its cursor.
    first = await store.find(Query(fingerprint="f"), limit=2, within=0.0)
    assert first.records == ()
    assert first.cursor is not None
    assert await ids(store, Query(fingerprint="f"), within=0.0) == ["old2", "old1", "old0"]
    await store.move([Move(event="revive", job_id="old1")])
    assert await ids(store, failed) == ["old2", "old0"]
    assert await store.drop(failed, limit=10) == 2
    assert await ids(store, failed) == []


async def test_what_is_due_is_counted_by_steps_that_hold_up_nobody(redis_address: Address) -> None:
    store = RedisStore(emptied(redis_address))
    await store.open()
    # More than a step of each: due at one instant, and of a priority of their own.
    jobs = [a_job(f"due{n}", name="ab"[n % 2], delay=5.0) for n in range(MANY)]
    jobs += [a_job(f"first{n}", name="c", priority=n) for n in range(SCAN_LIMIT + 100)]
    jobs += [a_job(f"later{n}", name="a", delay=100.0) for n in range(3)]
    await store.add(jobs, wake=False, now=1_000.0)
    await store.counts(now=1_000.0)  # the server learns the script
    before = ran(redis_address)
    counts = await store.counts(now=1_010.0)
    assert ran(redis_address) - before == 4
    half = MANY // 2
    assert counts.states == {"pending": MANY + SCAN_LIMIT + 100, "delayed": 3}
    assert counts.by_name == {
        "a": {"pending": half, "delayed": 3},
        "b": {"pending": half},
        "c": {"pending": SCAN_LIMIT + 100},
    }
    assert (counts.due, counts.oldest_due) == (counts.states["pending"], 1_000.0)
    of_b = await store.counts(Query(name="b"), now=1_010.0)
    assert (of_b.states, of_b.oldest_due) == ({"pending": half}, 1_005.0)
    delayed = await store.counts(Query(states=("delayed",)), now=1_010.0)
    assert (delayed.states, delayed.oldest_due) == ({"delayed": 3}, None)
    before = ran(redis_address)
    assert (await store.counts(Query(states=("processing",)), now=1_010.0)).states == {}
    assert ran(redis_address) - before == 1
    await store.close()
