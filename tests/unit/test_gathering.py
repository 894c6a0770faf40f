"""The end of a loop, for jobs that wait to be sent together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from jobmill import StoreUnavailable
from jobmill.gathering import PER_CALL, Gatherer, portions
from jobmill.store import Added, NewJob
from jobmill.stores.memory import MemoryStore
from jobmill.testing.contract.case import a_job


async def test_a_call_that_is_cancelled_before_it_begins_leaves_nobody_waiting() -> None:
    before = asyncio.all_tasks()
    gatherer = Gatherer(MemoryStore())
    answers = [gatherer.add(a_job(f"j{n}"), wake=False) for n in range(PER_CALL + 1)]
    for task in asyncio.all_tasks() - before:
        task.cancel()
    async with asyncio.timeout(10):
        given = await asyncio.gather(*answers, return_exceptions=True)
    assert all(isinstance(each, StoreUnavailable) for each in given)
    assert [each.job_ids for each in given if isinstance(each, StoreUnavailable)] == [
        (f"j{n}",) for n in range(PER_CALL + 1)
    ]
    store = MemoryStore()
    await store.open()
    later = Gatherer(store)
    assert (await later.add(a_job("k"), wake=False)).status == "added"
    await store.close()


class Counting(MemoryStore):
    """Notes how many jobs come in each call."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    async def add(
        self,
        jobs: Sequence[NewJob],
        *,
        wake: bool = True,
        whole: bool = False,
        now: float | None = None,
    ) -> list[Added]:
        self.sizes.append(len(jobs))
        await asyncio.sleep(0)
        return await super().add(jobs, wake=wake, whole=whole, now=now)


@pytest.mark.parametrize("count", [PER_CALL, PER_CALL + 1, 2 * PER_CALL + 1])
async def test_all_of_one_turn_go_in_as_few_calls_as_may_be(count: int) -> None:
    store = Counting()
    await store.open()
    gatherer = Gatherer(store)
    added = await asyncio.gather(*[gatherer.add(a_job(f"j{n}"), wake=False) for n in range(count)])
    assert [each.status for each in added] == ["added"] * count
    assert store.sizes == [min(PER_CALL, count - start) for start in range(0, count, PER_CALL)]
    await store.close()


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([], []),
        ([1] * (2 * PER_CALL + 1), [PER_CALL, PER_CALL, 1]),
        ([3 << 20] * 5, [2, 2, 1]),
        ([9 << 20, 1, 9 << 20, 9 << 20, 1, 1], [1, 1, 1, 1, 2]),
        ([8 << 20, 1], [1, 1]),
    ],
)
def test_a_call_carries_as_many_bytes_as_a_store_takes(
    sizes: list[int], expected: list[int]
) -> None:
    jobs = [a_job(f"j{n}", payload=b"x" * size) for n, size in enumerate(sizes)]
    some = list(portions(jobs))
    assert [job.id for each in some for job in each] == [job.id for job in jobs]
    assert [len(each) for each in some] == expected
