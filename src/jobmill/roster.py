"""The roster: which workers there are, how they are, and what each runs now.

A worker writes one document for each of its queues, into the space "workers" of that queue, with
its id as the key. It does so when it starts and then three times in a lease (`every` seconds),
from the thread that renews its leases, so that a blocked event loop does not silence it; it is
removed by an orderly stop. Whoever reads it compares the document's `at`, stamped by the store,
with the store's now: a worker that has been silent for three beats is dead, and so are its
leases. Documents of the dead are removed by the others after ten minutes.

The value is JSON, an object of `Entry`'s fields. Durations are seconds, instants are Unix seconds
by the store's clock, `memory` is bytes; readers pass over fields that they do not know.

    {"host": "web-1", "pid": 4711, "version": "0.1.0", "queues": ["mail"], "slots": 10,
     "every": 10.0, "up": 86.1, "busy": 1, "memory": 41287680, "state": "running",
     "running": [{"id": "0190...", "name": "send_email", "attempt": 1, "since": 1764288000.25}]}
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, Literal

import msgspec

from jobmill.store import Doc, Store

WORKERS: Final = "workers"
"""The space of the documents of workers."""
SHOWN_RUNS: Final = 100
"""Runs that an entry names, at most."""
SHOWN_UNKNOWN: Final = 20
"""Unknown job names that an entry tells of, at most."""
BEATS_TO_DEATH: Final = 3
"""Beats in a lease: a worker that missed so many is dead."""

_PAGE: Final = 1_000


class Running(msgspec.Struct, frozen=True, omit_defaults=True):
    """A run that goes on. `since`: when it started."""

    id: str
    name: str
    attempt: int = 1
    since: float = 0.0
    aborted: str | None = None
    """Why it was asked to stop, where it was."""


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a worker tells of itself, for one of its queues.

    `queues` are all that it serves; `slots` how many jobs it runs at once, over all of them;
    `busy` how many it runs now, `running` those of this queue, the longest first, SHOWN_RUNS at
    most. `names`: the jobs that it is restricted to. `every`: seconds between its beats; `up`:
    since its start. `state`: "stopping" once it claims no more. `blocked`: seconds for which its
    event loop has not turned, by `blocked_by`; "stuck" is its state once its leases were given up
    for that. `unknown`: names of jobs that it met and does not know, with how often.
    """

    host: str
    pid: int
    version: str
    queues: tuple[str, ...]
    slots: int
    every: float
    up: float = 0.0
    busy: int = 0
    memory: int | None = None
    state: Literal["running", "stopping", "stuck"] = "running"
    names: tuple[str, ...] | None = None
    blocked: float | None = None
    blocked_by: str | None = None
    unknown: dict[str, int] = {}
    running: tuple[Running, ...] = ()


class WorkerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A worker as the roster shows it.

    `silent`: seconds since its last beat. `alive`: it has missed fewer than three.
    """

    id: str
    entry: Entry
    silent: float
    alive: bool
    last_beat: datetime
    started_at: datetime


class Roster(msgspec.Struct, frozen=True):
    """The workers of one queue, at the store's `now`, by id."""

    workers: tuple[WorkerInfo, ...]
    now: float

    @property
    def alive(self) -> tuple[WorkerInfo, ...]:
        """Those that beat; a stuck one, whose leases were given up, is no help to any job."""
        return tuple([each for each in self.workers if each.alive and each.entry.state != "stuck"])


_DECODER: Final = msgspec.json.Decoder(Entry)


def encode_entry(entry: Entry) -> bytes:
    """The document's value."""
    return msgspec.json.encode(entry)


def decode_entry(value: bytes) -> Entry | None:
    """What the document says; None where it is none of ours."""
    try:
        return _DECODER.decode(value)
    except msgspec.MsgspecError:
        return None


def roster_of(docs: Sequence[Doc], now: float) -> Roster:
    """The roster that these documents make; what does not decode is left out."""
    workers: list[WorkerInfo] = []
    for doc in docs:
        entry = decode_entry(doc.value)
        if entry is None:
            continue
        silent = max(0.0, now - doc.at)
        workers.append(
            WorkerInfo(
                id=doc.key,
                entry=entry,
                silent=silent,
                alive=silent < BEATS_TO_DEATH * entry.every,
                last_beat=datetime.fromtimestamp(doc.at, UTC),
                started_at=datetime.fromtimestamp(doc.at - entry.up, UTC),
            )
        )
    return Roster(tuple(workers), now)


async def read_roster(store: Store, now: float) -> Roster:
    """The roster of the store's queue; `now` is the store's.

    Cost: one statement for each thousand workers.
    """
    docs = await store.read(WORKERS, limit=_PAGE)
    page = docs
    while len(page) == _PAGE:
        page = await store.read(WORKERS, after=page[-1].key, limit=_PAGE)
        docs = [*docs, *page]
    return roster_of(docs, now)
