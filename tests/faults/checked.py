"""The invariants, after a run of real processes: by what the witness saw and the store kept."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from jobmill import Queue
from jobmill.testing.checker import check_outside, dump
from tests.faults.witness import Witness


async def assert_invariants(
    queue: Queue,
    witness: Witness,
    accepted: Iterable[str] = (),
    *,
    forgotten: Collection[str] = (),
) -> None:
    """All has ended as it must; `forgotten` are jobs whose claims a crashed server lost."""
    store = queue.store.handle()
    await store.open()
    try:
        at_end = await dump(store)
    finally:
        await store.close()
    found = check_outside(witness.events, accepted, at_end, forgotten=forgotten)
    assert not found, "\n".join(map(str, found))
