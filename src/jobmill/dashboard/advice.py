"""What to do about what health finds, and where."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from jobmill.health import HealthCode


class Advice(NamedTuple):
    """What to do, and the page (a path, with its query) on which to do it."""

    text: str
    page: str = ""
    link: str = ""


_FAILED: Final = Advice(
    "See which error it is. Once it is mended, retry its whole group.", "errors", "Errors"
)
_ADVICE: Final[Mapping[HealthCode, Advice]] = {
    "unreachable": Advice(
        "Nothing is lost: workers wait, and go on by themselves. Start the store, or check its URL "
        "and the network between.",
    ),
    "no_worker": Advice(
        "Start a worker: jobmill worker app:queue. If one should be running, look at its log.",
        "workers",
        "Workers",
    ),
    "workers_gone": Advice(
        "Start a worker: it takes these jobs over as soon as their leases run out.",
        "jobs?state=processing",
        "The jobs",
    ),
    "long_wait": Advice(
        "Jobs come faster than they are done: start more workers, or give them more slots "
        "(--concurrency).",
        "queues",
        "Queues",
    ),
    "some_failed": _FAILED,
    "many_failed": _FAILED,
    "paused": Advice("Resume it when it may go on.", "queues", "Resume"),
    "lapsed": Advice(
        "Workers were killed or ran out of memory; their jobs run again. Look at the worker's log; "
        "limit memory with --max-memory.",
        "workers",
        "Workers",
    ),
    "stuck": Advice("Restart it: its event loop has stopped turning.", "workers", "Workers"),
    "silent": Advice(
        "If it was stopped on purpose, nothing: it leaves the list in ten minutes. If not, start "
        "it again.",
        "workers",
        "Workers",
    ),
    "blocked": Advice(
        "Its handler computes or waits without await: make it a plain def, or give it "
        'executor="process".',
        "workers",
        "Workers",
    ),
    "unknown_job": Advice(
        "Deploy a worker that defines it. Until then its jobs are put off, unspent; after a day "
        "they fail.",
        "jobs?state=delayed",
        "The jobs",
    ),
    "untaken_job": Advice(
        "Every worker is restricted to other names (--jobs): start one that takes it.",
        "workers",
        "Workers",
    ),
}


def advice(code: HealthCode) -> Advice:
    """What to do about an issue of this code."""
    return _ADVICE[code]
