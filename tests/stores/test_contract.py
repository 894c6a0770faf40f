"""Every store keeps the contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobmill.clock import Clock
from jobmill.store import Store
from jobmill.testing.contract import StoreContract
from tests.stores.conftest import Opener


class TestContract(StoreContract):
    @pytest.fixture(autouse=True)
    def _opened_by(self, opener: Opener, tmp_path: Path) -> None:
        self._open = opener
        self._folder = tmp_path

    async def open_store(self, clock: Clock) -> Store:
        return await self._open(self._folder, clock)
