"""What happened in a run, in the store's order: the material of the Checker.

A simulation writes it at the store itself, so that a call whose reply was lost is in it too.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from jobmill.limits import Window
from jobmill.states import Move
from jobmill.store import Added, Beat, Claimed, Lease, Moved, NewJob, Want


class _Event(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """`at`: the store's instant. `boot`: seconds that never jump. `by`: the process."""

    at: float
    boot: float
    by: str


class Adds(_Event, frozen=True, kw_only=True, tag=True):
    """The store answered an add."""

    jobs: tuple[NewJob, ...]
    answers: tuple[Added, ...]


class Claims(_Event, frozen=True, kw_only=True, tag=True):
    """The store answered a claim; `sent`: the boot instant at which the worker asked."""

    sent: float
    want: Want
    settle: tuple[Move, ...]
    answer: Claimed


class Renews(_Event, frozen=True, kw_only=True, tag=True):
    """The store answered a renewal."""

    leases: tuple[Lease, ...]
    lease: float
    beats: tuple[Beat, ...]


class Moves(_Event, frozen=True, kw_only=True, tag=True):
    """The store answered moves: settles, cancels, revives."""

    moves: tuple[Move, ...]
    answers: tuple[Moved, ...]


class Drops(_Event, frozen=True, kw_only=True, tag=True):
    """An operator removed these jobs."""

    job_ids: tuple[str, ...]


class Reserves(_Event, frozen=True, kw_only=True, tag=True):
    """The store answered who asked for a start under a rate limit."""

    key: str
    job_id: str
    token: str
    windows: tuple[Window, ...]
    answer: float


class Pauses(_Event, frozen=True, kw_only=True, tag=True):
    """A pause, "*" or "job:NAME", is there now, or is gone."""

    key: str
    there: bool


class Begins(_Event, frozen=True, kw_only=True, tag=True):
    """The handler of a job began to run; `token`: that of its claim, where the witness knows."""

    job_id: str
    attempt: int
    token: str | None = None


class Ends(_Event, frozen=True, kw_only=True, tag=True):
    """The handler of a job ended; `how` in a word: what it returned or raised."""

    job_id: str
    attempt: int
    how: str
    token: str | None = None


class Holds(_Event, frozen=True, kw_only=True, tag=True):
    """A worker learned, at `boot`, that a lease is its own, until that boot instant at least.

    For runs of real processes, where nobody sees the store's side. `until`: counted from when the
    worker asked. `how`: "collected" by a claim that repeats one whose reply was lost.
    """

    job_id: str
    token: str
    until: float
    how: Literal["claimed", "collected", "renewed"]


class Yields(_Event, frozen=True, kw_only=True, tag=True):
    """A worker is about to settle a job, and counts on its lease no longer."""

    job_id: str
    token: str


class Disturbs(_Event, frozen=True, kw_only=True, tag=True):
    """A hook, a listener or a result's codec failed around a job; `what` says which."""

    job_id: str
    what: str


class Stops(_Event, frozen=True, kw_only=True, tag=True):
    """A worker was told to stop; it is to be gone within `grace` seconds."""

    grace: float


class Gone(_Event, frozen=True, kw_only=True, tag=True):
    """A worker ended by itself: None, in good order, otherwise with this error."""

    error: str | None = None


class Killed(_Event, frozen=True, kw_only=True, tag=True):
    """A process was killed."""


class Calm(_Event, frozen=True, kw_only=True, tag=True):
    """Faults end here; each job ends within `within` seconds of this, or of coming due."""

    within: float


class Fault(_Event, frozen=True, kw_only=True, tag=True):
    """A fault was put in the way of a call; for the reader only."""

    verb: str
    what: str


Event: TypeAlias = (
    Adds
    | Claims
    | Renews
    | Moves
    | Drops
    | Reserves
    | Pauses
    | Begins
    | Ends
    | Holds
    | Yields
    | Disturbs
    | Stops
    | Gone
    | Killed
    | Calm
    | Fault
)


def story(events: list[Event], job_id: str | None = None) -> str:
    """The events as text, one a line; those that name the job, where one is given."""
    lines = [f"{event.boot:12.6f} {event.by:>12} {event!r}" for event in events]
    return "\n".join(line for line in lines if job_id is None or job_id in line)
