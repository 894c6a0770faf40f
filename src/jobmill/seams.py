"""What the engines take from outside themselves, so that tests and simulation can own it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from jobmill.clock import Clock, SystemClock
from jobmill.ids import JobIds


@dataclass(frozen=True, slots=True)
class Seams:
    """Time, randomness and ids.

    `threads`: whether leases are renewed from a thread; without, from the worker's loop.
    """

    clock: Clock = field(default_factory=SystemClock)
    random: random.Random = field(default_factory=random.SystemRandom)
    threads: bool = True

    def job_ids(self) -> JobIds:
        """A new source of job ids."""
        return JobIds(self.clock.wall, self.random.getrandbits)
