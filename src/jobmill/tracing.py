"""The seam for tracing: what is told of each enqueue and each run, and what goes with a job.

The core knows no tracer. `jobmill.contrib.opentelemetry` puts one into `Queue.tracing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Final, Protocol

from jobmill.job import JobMiddleware
from jobmill.store import NewJob


class Tracing(Protocol):
    """What a tracer does for one queue."""

    def sending(self, jobs: Sequence[NewJob]) -> AbstractContextManager[Sequence[NewJob]]:
        """Around one call that enqueues: the jobs as they are to be sent.

        It is entered in the caller's own context, and left once the store has answered.
        """
        ...

    @property
    def layers(self) -> Sequence[JobMiddleware]:
        """What goes around each run, outside all other middleware."""
        ...


class _Untraced:
    """Does nothing."""

    layers: Sequence[JobMiddleware] = ()

    def sending(self, jobs: Sequence[NewJob]) -> AbstractContextManager[Sequence[NewJob]]:
        """Send them as they are."""
        return nullcontext(jobs)


UNTRACED: Final[Tracing] = _Untraced()
