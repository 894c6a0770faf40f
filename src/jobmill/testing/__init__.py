"""For tests of jobmill, of its users' jobs and of stores: virtual time, faults, invariants."""

from jobmill.testing.kit import assert_enqueued, drain, make_context, run_inline
from jobmill.testing.loop import SimClock, SimLoop

__all__ = ["SimClock", "SimLoop", "assert_enqueued", "drain", "make_context", "run_inline"]
