"""Workers, groups of errors, and who did what."""

from __future__ import annotations

from functools import partial
from typing import Final

from jobmill.dashboard.audit import entries
from jobmill.dashboard.board import Board
from jobmill.dashboard.filters import Filter
from jobmill.dashboard.masking import Mask
from jobmill.dashboard.views import (
    AuditList,
    ErrorList,
    ErrorView,
    Running,
    RunningHere,
    WorkerList,
    WorkerView,
)
from jobmill.errors import PayloadError
from jobmill.infos import instant_of
from jobmill.records import JobError
from jobmill.roster import Roster, WorkerInfo, read_roster
from jobmill.store import ErrorGroup, Query, Store

MOST: Final = 200
"""Groups of errors, and entries of the audit, on one page, at most."""


async def workers(board: Board, queue: str | None = None) -> WorkerList:
    """Who works, and on what; a worker of several queues is told of for each.

    Cost: two statements for each queue.

    Raises: StoreError.
    """
    answers = await board.ask(lambda each: each.ask(_roster), queue)
    found = [
        _worker(worker, each.label) for each, roster in answers.found for worker in roster.workers
    ]
    return WorkerList(workers=tuple(found), unanswered=answers.silent)


async def running(board: Board, limit: int) -> tuple[RunningHere, ...]:
    """What runs now, the longest first. Cost: two statements for each queue.

    Raises: StoreError.
    """
    found = [
        RunningHere(run=run, queue=worker.queue, worker=worker.id)
        for worker in (await workers(board)).workers
        if worker.status != "dead"
        for run in worker.running
    ]
    return tuple(sorted(found, key=lambda each: each.run.since)[:limit])


async def errors(
    board: Board, mask: Mask, queue: str | None = None, limit: int = MOST
) -> ErrorList:
    """Groups of errors, last seen first. Cost: one statement for each queue.

    Raises: StoreError.
    """
    limit = max(1, min(limit, MOST))
    answers = await board.ask(lambda each: each.ask(partial(_errors, limit)), queue)
    views = [_error(group, each.label, mask) for each, groups in answers.found for group in groups]
    views.sort(key=lambda view: view.last_seen, reverse=True)
    return ErrorList(groups=tuple(views[:limit]), unanswered=answers.silent)


async def audit(
    board: Board, queue: str | None = None, *, limit: int = 50, cursor: str | None = None
) -> AuditList:
    """Who did what, the last first. Cost: one statement for each queue.

    Raises: StoreError.
    """
    limit = max(1, min(limit, MOST))
    # Keys fall with time and are told apart by chance, so that one cursor serves all queues.
    answers = await board.ask(
        lambda each: each.ask(partial(entries, each.label, cursor or "", limit + 1)), queue
    )
    merged = sorted((pair for _, page in answers.found for pair in page), key=lambda pair: pair[0])
    shown = merged[:limit]
    more = shown[-1][0] if len(merged) > limit else None
    views = tuple(view for _, view in shown)
    return AuditList(entries=views, cursor=more, unanswered=answers.silent)


async def _roster(store: Store) -> Roster:
    return await read_roster(store, (await store.counts(Query(states=("processing",)))).now)


async def _errors(limit: int, store: Store) -> list[ErrorGroup]:
    return await store.errors(limit)


def _worker(worker: WorkerInfo, label: str) -> WorkerView:
    entry = worker.entry
    return WorkerView(
        id=worker.id,
        queue=label,
        status=entry.state if worker.alive else "dead",
        host=entry.host,
        pid=entry.pid,
        version=entry.version,
        queues=entry.queues,
        names=entry.names,
        slots=entry.slots,
        busy=entry.busy,
        memory=entry.memory,
        started_at=worker.started_at,
        last_beat=worker.last_beat,
        silent=worker.silent,
        blocked=entry.blocked,
        blocked_by=entry.blocked_by,
        unknown=dict(entry.unknown),
        running=tuple(
            Running(
                job_id=run.id,
                job_name=run.name,
                attempt=run.attempt,
                since=instant_of(run.since),
                aborted=run.aborted,
            )
            for run in entry.running
        ),
    )


def _error(group: ErrorGroup, label: str, mask: Mask) -> ErrorView:
    last = instant_of(group.last_seen)
    try:
        error = JobError.from_json(group.last_error, at=last)
    except PayloadError as problem:
        error = JobError("PayloadError", "", str(problem), "", 0, last)
    return ErrorView(
        fingerprint=group.fingerprint,
        queue=label,
        job_name=group.job_name,
        count=group.count,
        first_seen=instant_of(group.first_seen),
        last_seen=last,
        last_job_id=group.last_job_id,
        type=error.type,
        message=mask.text(error.message),
        traceback=mask.text(error.traceback),
        search=Filter(error=group.fingerprint, queue=label).text,
    )
