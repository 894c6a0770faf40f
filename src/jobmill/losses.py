"""Says that a store has lost what it had: the records of jobs that run."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Final

from jobmill.run import Run
from jobmill.store import Store

log: Final = logging.getLogger("jobmill.worker")

_NAMED: Final = 3
_TELLING: Final = threading.Lock()
"""Two look for lost leases, each in its thread: the renewer, and after a freeze the feed."""


async def tell_losses(store: Store, lost: Sequence[Run], now: float) -> None:
    """Warn once of those of these runs, whose leases are lost, that the store knows nothing of.

    A job that runs is never removed, and a record stays for a while after its end. So where there
    is none, nobody took the job over: the store was emptied, or put back. `now` is an instant of
    the clock by which leases were renewed.
    """
    records = await store.get([run.claim.id for run in lost])
    gone: list[str] = []
    with _TELLING:
        for run, record in zip(lost, records, strict=True):
            if record is None and not run.missed and now - run.renewed < _kept(run):
                run.missed = True
                gone.append(run.claim.id)
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
