"""The contract catches every store that is known to be bad, and passes a good one."""

from __future__ import annotations

import inspect

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from jobmill.clock import Clock
from jobmill.store import Store
from jobmill.stores.memory import MemoryStore
from jobmill.testing.contract import StoreContract, waiting
from jobmill.testing.machine import StoreMachine
from tests.stores.catching import cases, fails
from tests.stores.known_bad import KNOWN_BAD, BadStore

_SETTINGS = settings(
    max_examples=1_000,
    stateful_step_count=50,
    phases=[Phase.generate],  # one difference is enough, however long the way to it
    database=None,
    deadline=None,
    derandomize=True,
    print_blob=False,
    suppress_health_check=list(HealthCheck),
)


def _name(kind: type[BadStore]) -> str:
    return kind.__name__


class Suite(StoreContract):
    """The contract over stores of one kind."""

    def __init__(self, kind: type[BadStore | MemoryStore]) -> None:
        self._kind = kind

    async def open_store(self, clock: Clock) -> Store:
        store = self._kind(clock=clock)
        await store.open()
        return store


@pytest.mark.parametrize("kind", KNOWN_BAD, ids=_name)
async def test_it_is_caught(kind: type[BadStore], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_SOON", 0.2)
    assert kind.by
    for name in kind.by:
        assert await fails(Suite(kind), name), f"{name} did not catch {kind.__name__}"


async def test_a_good_store_is_not_caught() -> None:
    suite = Suite(MemoryStore)
    names = [name for name, _ in inspect.getmembers(Suite) if name.startswith("test_")]
    assert len(names) > 150
    for name in names:
        for arguments in cases(suite, name):
            await getattr(suite, name)(**arguments)


async def test_what_the_known_bad_are_made_of_is_good() -> None:
    names = {name for kind in KNOWN_BAD for name in kind.by}
    for name in sorted(names):
        assert not await fails(Suite(BadStore), name)


@pytest.mark.parametrize("kind", [kind for kind in KNOWN_BAD if kind.seen], ids=_name)
def test_the_machine_sees_it(kind: type[BadStore]) -> None:
    class Machine(StoreMachine):
        async def open_store(self, clock: Clock) -> Store:
            return kind(clock=clock)

    with pytest.raises((AssertionError, KeyError)):
        run_state_machine_as_test(Machine, settings=_SETTINGS)
