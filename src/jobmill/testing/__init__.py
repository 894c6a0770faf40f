"""For tests of jobmill, of its users' jobs and of stores: virtual time, faults, invariants."""

from typing import TYPE_CHECKING, Any

from jobmill.testing.kit import assert_enqueued, drain, make_context, run_inline
from jobmill.testing.loop import SimClock, SimLoop

if TYPE_CHECKING:
    from jobmill.testing.contract import StoreContract as StoreContract
    from jobmill.testing.machine import StoreMachine as StoreMachine

__all__ = [
    "SimClock",
    "SimLoop",
    "StoreContract",
    "StoreMachine",
    "assert_enqueued",
    "drain",
    "make_context",
    "run_inline",
]


def __getattr__(name: str) -> Any:
    # For authors of stores: one needs pytest, the other hypothesis.
    if name == "StoreContract":
        from jobmill.testing.contract import StoreContract

        return StoreContract
    if name == "StoreMachine":
        from jobmill.testing.machine import StoreMachine

        return StoreMachine
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
