"""A search for a name, to which no index leads, ends early and goes on where it was."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from jobmill.states import Move
from jobmill.store import Query
from jobmill.stores.postgresql import Address, PostgresStore, programs
from jobmill.testing.contract.case import a_job, a_want
from tests.servers import cleared

pytestmark = pytest.mark.store("postgresql")

MANY = 2 * programs._WINDOW + 100


@pytest.fixture
async def store(postgres_address: Address) -> AsyncIterator[PostgresStore]:
    """Three rare jobs, of which two have ended, under more than two windows of others."""
    opened = PostgresStore(await cleared(postgres_address))
    await opened.open()
    await opened.add([a_job(f"rare{number}", "rare") for number in range(3)])
    got = (await opened.claim(a_want("t1", limit=2))).claims
    await opened.move([Move(event="succeed", job_id=each.id, token="t1") for each in got])
    for start in range(0, MANY, 5_000):
        jobs = [a_job(f"new{number}") for number in range(start, min(start + 5_000, MANY))]
        await opened.add(jobs, wake=False)
    yield opened
    await opened.close()


async def pages(store: PostgresStore, query: Query, within: float | None) -> list[list[str]]:
    """The ids of all pages, two on each."""
    found: list[list[str]] = []
    cursor: str | None = None
    while True:
        page = await store.find(query, limit=2, cursor=cursor, within=within)
        found.append([record.id for record in page.records])
        cursor = page.cursor
        if cursor is None:
            return found


async def test_a_search_by_name_ends_early_and_misses_nothing(store: PostgresStore) -> None:
    rare = Query(name="rare")
    # In its time it finds all at once; without time it looks at one window on each page.
    assert await pages(store, rare, None) == [["rare2", "rare1"], ["rare0"]]
    assert await pages(store, rare, 60.0) == [["rare2", "rare1"], ["rare0"]]
    assert await pages(store, rare, 0.0) == [[], [], ["rare2", "rare1"], ["rare0"]]
    assert await pages(store, Query(name="nobody"), 0.0) == [[], [], []]
    # Along the ends of one state there is only one window.
    ended = Query(name="rare", states=("completed",))
    assert await pages(store, ended, 0.0) == [["rare1", "rare0"]]
    # An index leads to those that wait.
    assert await pages(store, Query(name="rare", states=("pending",)), 0.0) == [["rare2"]]
    # What is full is no early end, and what comes meanwhile is not seen twice.
    first = await store.find(Query(name="a"), limit=3, within=0.0)
    assert [each.id for each in first.records] == [f"new{MANY - n}" for n in (1, 2, 3)]
    await store.add([a_job("newest", "a")])
    second = await store.find(Query(name="a"), limit=1, cursor=first.cursor, within=0.0)
    assert [each.id for each in second.records] == [f"new{MANY - 4}"]
