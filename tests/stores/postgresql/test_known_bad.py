"""The contract catches every fault that is planted in the functions."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from jobmill.clock import Clock
from jobmill.store import Store
from jobmill.stores.postgresql import Address, PostgresStore
from jobmill.stores.postgresql.driver import connect
from jobmill.testing.contract import StoreContract, waiting
from jobmill.testing.contract.case import StillClock, a_want
from tests.servers import cleared
from tests.stores.catching import fails
from tests.stores.postgresql.known_bad import FAULTS, Fault

pytestmark = pytest.mark.store("postgresql")


class Suite(StoreContract):
    """The contract, and what a server's clock can do to a store."""

    def __init__(self, address: Address) -> None:
        self.address = address

    async def open_store(self, clock: Clock) -> Store:
        store = PostgresStore(await cleared(self.address))
        await store.open()
        return store

    async def test_the_time_does_not_go_back_with_the_server(self) -> None:
        store = await self.open_store(StillClock())
        told = time.time() + 3_600.0
        plain = await connect(**self.address.options(), ssl=False)
        clock = f"UPDATE {self.address.schema}.clock SET at = $1"
        try:
            await plain.execute(clock, told)
            times = [(await store.claim(a_want())).now, (await store.counts()).now]
        finally:
            await plain.execute(clock, 0.0)
            await plain.close()
            await store.close()
        assert min(times) >= told


@pytest.fixture
def suite(postgres_address: Address) -> Suite:
    """Of a schema of its own, in which faults may be planted."""
    return Suite(msgspec.structs.replace(postgres_address, schema="planted"))


@pytest.fixture
async def plain(suite: Suite) -> AsyncIterator[Any]:
    await (await suite.open_store(StillClock())).close()
    connection = await connect(**suite.address.options(), ssl=False)
    yield connection
    await connection.close()


@pytest.mark.parametrize("fault", FAULTS, ids=str)
async def test_a_planted_fault_is_caught(
    fault: Fault, suite: Suite, plain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "_SOON", 0.2)  # what is good may take longer
    bad, good = fault.planted(suite.address.schema)
    assert bad
    assert fault.by
    try:
        for function in bad:
            await plain.execute(function)
        for name in fault.by:
            assert await fails(suite, name), f"{name} did not catch a store that {fault}"
    finally:
        for function in good:
            await plain.execute(function)


async def test_what_the_faults_are_planted_in_is_good(suite: Suite) -> None:
    """The whole contract runs on the same functions, where no fault was ever planted."""
    caught = {name for fault in FAULTS for name in fault.by}
    own = {name for name in caught if not hasattr(StoreContract, name)}
    assert own
    for name in sorted(own | set(sorted(caught)[::6])):
        assert not await fails(suite, name), name
