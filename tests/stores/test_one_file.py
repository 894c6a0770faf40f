"""The store that was written from docs/writing-a-store.md alone keeps the contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples.store.one_file import OneFileStore
from jobmill import Queue, job
from jobmill.clock import Clock
from jobmill.registry import isolated
from jobmill.store import Store
from jobmill.testing import StoreContract


class TestOneFile(StoreContract):
    @pytest.fixture(autouse=True)
    def _in_folder(self, tmp_path: Path) -> None:
        self._folder = tmp_path

    async def open_store(self, clock: Clock) -> Store:
        store = OneFileStore(self._folder, clock=clock)
        await store.open()
        return store


async def test_a_queue_works_on_it(tmp_path: Path) -> None:
    with isolated():

        @job(name="double")
        async def double(number: int) -> int:
            return number * 2

        async with Queue(OneFileStore(tmp_path)) as queue:
            queue.process()
            handles = await queue.enqueue_many([double.call(number) for number in range(20)])
            assert [await each.result(timeout=30) for each in handles] == [*range(0, 40, 2)]
