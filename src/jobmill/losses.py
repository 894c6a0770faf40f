"""Says that a store has lost what it had: the records of jobs that run."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from jobmill.run import Run
from jobmill.store import Store

log: Final = logging.getLogger("jobmill.worker")

_NAMED: Final = 3


async def tell_losses(store: Store, lost: Sequence[Run], now: float) -> None:
    """Warn once of those of these runs, whose leases are lost, that the store knows nothing of.

    A job that runs is never removed, and a record stays for a while after its end. So where there
    is none, nobody took the job over: the store was emptied, or put back. `now` is an instant of
    the clock by which leases were renewed.
    """
    # The thread that renews and the loop that claims may both find them lost, at the same time.
    lost = [run for run in lost if not run.missed]
    if not lost:
        return
    for run in lost:
        run.missed = True
    records = await store.get([run.claim.id for run in lost])
    gone = [
        run.claim.id
        for run, record in zip(lost, records, strict=True)
        if record is None and now - run.renewed < _kept(run)
    ]
    if gone:
        named = ", ".join(gone[:_NAMED]) + (", ..." if len(gone) > _NAMED else "")
        log.warning(
            "the store of %s has lost data: it has no record of %d jobs that run here (%s); it was "
            "emptied, put back to an earlier state, or lost its last writes",
            store.queue,
            len(gone),
            named,
        )


def _kept(run: Run) -> float:
    """Seconds from the last renewal for which there is a record, whatever others did."""
    policy = run.claim.policy
    return min(policy.keep_result, policy.keep_failed)
