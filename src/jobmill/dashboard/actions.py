"""What can be done to jobs, queues and schedules: each told in the audit, before and after."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final, Literal, TypeAlias, TypeVar, get_args

import msgspec

from jobmill.dashboard import audit
from jobmill.dashboard.board import Watched
from jobmill.dashboard.filters import Filter
from jobmill.dashboard.reads.jobs import job_of, matching
from jobmill.dashboard.users import User
from jobmill.errors import JobsError, UnknownJob
from jobmill.records import cancellation
from jobmill.scheduler import Scheduler
from jobmill.states import STATES, Move, State
from jobmill.store import Query, Store

T = TypeVar("T")

JobAction: TypeAlias = Literal["retry", "cancel", "delete", "run_now"]
JOB_ACTIONS: Final[tuple[JobAction, ...]] = get_args(JobAction)
ACTS_ON: Final[dict[JobAction, tuple[State, ...]]] = {
    "retry": ("failed", "cancelled", "completed"),
    "cancel": ("pending", "delayed", "processing"),
    "delete": tuple(state for state in STATES if state != "processing"),
    "run_now": ("delayed",),
}
"""The states in which a job can be done that to."""
MOST_SELECTED: Final = 1_000
"""Jobs that one call names, at most."""

_AT_ONCE: Final = 500
_WITHIN: Final = 0.5
"""Seconds of one look, where no index leads to the jobs."""
_SECONDS_TO_COUNT: Final = 3.0
_SECONDS: Final = 20.0
"""How long one call goes on; what is left then is told."""


class Who(msgspec.Struct, frozen=True):
    """Somebody who does something. `ip`: from where."""

    user: User
    ip: str = ""


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """What an action did. `left`: jobs that it did not come to; call it again."""

    action: str
    count: int
    refused: int = 0
    left: int = 0
    text: str = ""


async def on_selected(watched: Watched, who: Who, action: JobAction, ids: Sequence[str]) -> Done:
    """Do it to these jobs; those in another state are refused, and counted.

    Raises: StoreError.
    """
    ids = list(dict.fromkeys(ids))[:MOST_SELECTED]
    target = ids[0] if len(ids) == 1 else f"{len(ids)} jobs: {', '.join(ids[:5])}"

    async def act(store: Store) -> Done:
        count = await _act(store, action, ids, who, Query(states=None))
        return Done(action=action, count=count, refused=len(ids) - count)

    return await _told(watched, who, action, target, partial(watched.queue.ask, act))


async def settled(watched: Watched, wanted: Filter) -> Filter:
    """The filter with the one kind of error that its words mean now: later they may mean another.

    Raises: StoreError.
    """
    query = None if wanted.error is None else await watched.ask(lambda it: matching(it, wanted))
    return wanted if query is None else replace(wanted, error=query.fingerprint)


async def count_matching(watched: Watched, action: JobAction, wanted: Filter) -> int:
    """How many jobs the filter finds to which that can be done.

    Raises: StoreError.
    """
    return await watched.ask(partial(_count, action, wanted))


async def on_matching(
    watched: Watched, who: Who, action: JobAction, wanted: Filter, counted: int
) -> Done:
    """Do it to the jobs that the filter finds, to no more than were `counted` before.

    Raises: StoreError.
    """

    async def act(store: Store) -> Done:
        query = await _query(store, action, wanted)
        if query is None or not counted:
            return Done(action=action, count=0)
        if wanted.id is not None:
            # A query says nothing of ids: this is about one job, and no other.
            record = await job_of(store, wanted.id, query)
            ids = [] if record is None else [record.id]
            count = await _act(store, action, ids, who, query)
            return Done(action=action, count=count, refused=len(ids) - count)
        done, refused = await _each_page(store, action, query, who, counted)
        return Done(
            action=action, count=done, refused=refused, left=max(0, counted - done - refused)
        )

    words = " ".join([*(f"state:{state}" for state in wanted.states), wanted.text]).strip()
    target = f"all that match {words or 'nothing more'}"
    return await _told(watched, who, action, target, partial(watched.queue.ask, act))


async def pause(watched: Watched, who: Who, job_name: str | None = None) -> Done:
    """Let no worker claim from the queue, or no job of this name."""
    return await _told(
        watched, who, "pause", _what(job_name), lambda: _nothing(watched.queue.pause(job_name))
    )


async def resume(watched: Watched, who: Who, job_name: str | None = None) -> Done:
    """Undo a pause."""
    return await _told(
        watched, who, "resume", _what(job_name), lambda: _nothing(watched.queue.resume(job_name))
    )


async def pause_schedule(watched: Watched, who: Who, name: str) -> Done:
    """Let it tick no more until it is resumed; count 0 where there is none."""
    return await _told(
        watched,
        who,
        "pause",
        f"schedule {name}",
        lambda: _one(Scheduler(watched.queue).pause(name)),
    )


async def resume_schedule(watched: Watched, who: Who, name: str) -> Done:
    """Let it tick again; count 0 where there is none."""
    return await _told(
        watched,
        who,
        "resume",
        f"schedule {name}",
        lambda: _one(Scheduler(watched.queue).resume(name)),
    )


async def trigger(watched: Watched, who: Who, name: str) -> Done:
    """Add the schedule's job now; `text` is the job's id.

    Raises: JobNotFound where there is no such schedule.
    """

    async def act() -> Done:
        try:
            handle = await Scheduler(watched.queue).trigger(name)
        except UnknownJob as error:
            # It was added all the same: a dashboard need not define the jobs.
            return Done(action="trigger", count=1, text=error.job_id or "")
        count = 0 if handle.deduplicated else 1
        return Done(action="trigger", count=count, text=handle.id)

    return await _told(watched, who, "trigger", f"schedule {name}", act)


async def _told(
    watched: Watched, who: Who, action: str, target: str, act: Callable[[], Awaitable[Done]]
) -> Done:
    entry = audit.Entry(
        who=who.user.name, role=who.user.role, action=action, target=target, ip=who.ip
    )
    key = await watched.ask(lambda store: audit.begin(store, entry))
    try:
        done = await act()
    except JobsError as error:
        ended = msgspec.structs.replace(entry, outcome=f"failed: {type(error).__name__}")
        await watched.ask(lambda store: audit.end(store, key, ended))
        raise
    outcome = "done" if not done.left else f"{done.left} left"
    ended = msgspec.structs.replace(entry, outcome=outcome, count=done.count)
    await watched.ask(lambda store: audit.end(store, key, ended))
    return msgspec.structs.replace(done, action=action)


async def _query(store: Store, action: JobAction, wanted: Filter) -> Query | None:
    """The jobs of the filter that are in a state for it; None where there can be none."""
    states: Sequence[State] = ACTS_ON[action]
    if wanted.states:
        states = [state for state in states if state in wanted.states]
    elif action == "retry":
        # What ended well is started over only where somebody asks for that.
        states = ("failed",)
    query = await matching(store, wanted)
    if query is None or not states:
        return None
    return msgspec.structs.replace(query, states=tuple(states))


async def _count(action: JobAction, wanted: Filter, store: Store) -> int:
    query = await _query(store, action, wanted)
    if query is None:
        return 0
    if wanted.id is not None:
        return int(await job_of(store, wanted.id, query) is not None)
    if query.unique_key is not None:
        return await _count_by_search(store, query)
    return sum((await store.counts(query)).states.values())


async def _count_by_search(store: Store, query: Query) -> int:
    """How many were found in the time there is: no store counts by key, and few have the same."""
    until = time.monotonic() + _SECONDS_TO_COUNT
    count = 0
    cursor: str | None = None
    while True:
        page = await store.find(query, limit=_AT_ONCE, cursor=cursor, within=_WITHIN)
        count += len(page.records)
        cursor = page.cursor
        if cursor is None or time.monotonic() >= until:
            return count


async def _each_page(
    store: Store, action: JobAction, query: Query, who: Who, most: int
) -> tuple[int, int]:
    """How many were done, and how many refused, within the time there is."""
    until = time.monotonic() + _SECONDS
    done = refused = 0
    if action == "delete" and query.unique_key is None:
        while done < most and time.monotonic() < until:
            dropped = await store.drop(query, limit=min(_AT_ONCE, most - done))
            done += dropped
            if not dropped:
                break
        return done, 0
    cursor: str | None = None
    while done + refused < most and time.monotonic() < until:
        limit = min(_AT_ONCE, most - done - refused)
        page = await store.find(query, limit=limit, cursor=cursor, within=_WITHIN)
        ids = [record.id for record in page.records]
        count = await _act(store, action, ids, who, query)
        done, refused = done + count, refused + len(ids) - count
        cursor = page.cursor
        if cursor is None:
            break
    return done, refused


async def _act(store: Store, action: JobAction, ids: Sequence[str], who: Who, query: Query) -> int:
    if not ids:
        return 0
    if action == "delete":
        return await store.drop(query, ids=ids, limit=len(ids))
    moved = await store.move([_move(action, job_id, who) for job_id in ids])
    return sum(one.status == "applied" for one in moved)


def _move(action: JobAction, job_id: str, who: Who) -> Move:
    if action == "cancel":
        reason = f"by {who.user.name}, in the dashboard"
        return Move(event="cancel", job_id=job_id, error=cancellation(reason))
    return Move(event="revive" if action == "retry" else "hasten", job_id=job_id)


def _what(job_name: str | None) -> str:
    return "the queue" if job_name is None else f"job {job_name}"


async def _nothing(asked: Awaitable[None]) -> Done:
    await asked
    return Done(action="", count=1)


async def _one(asked: Awaitable[bool]) -> Done:
    return Done(action="", count=int(await asked))
