"""Schedules: in words, with the ticks that come, what the clocks do between, and what was."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

import msgspec

from jobmill.dashboard.board import Board, Watched
from jobmill.dashboard.masking import Mask
from jobmill.dashboard.views import (
    Run,
    ScheduleList,
    ScheduleRow,
    ScheduleStatus,
    ScheduleView,
    Ticked,
)
from jobmill.documents import read_one
from jobmill.errors import ConfigError
from jobmill.plans import SCHEDULES, history_space
from jobmill.schedule import (
    KEPT_TICKS,
    Plan,
    Schedule,
    decode_plan,
    schedule_of,
    tick_of,
    upcoming,
)
from jobmill.store import Doc, Store

COMING: Final = 20
"""Coming ticks that are shown."""
MOST: Final = 500
"""Schedules of one queue that are listed."""
PAST: Final = 50
"""Past ticks that are shown."""


async def schedule_list(board: Board, queue: str | None = None) -> ScheduleList:
    """All schedules, the next to tick first. Cost: one statement for each queue.

    Raises: StoreError.
    """
    answers = await board.ask(lambda each: each.ask(_docs), queue)
    rows = await asyncio.to_thread(_rows, answers.found)
    return ScheduleList(schedules=rows, unanswered=answers.silent)


async def schedule_view(
    board: Board, mask: Mask, name: str, queue: str | None = None
) -> tuple[Watched, ScheduleView | ScheduleRow] | None:
    """The schedule of this name, in the queue of this label or in any; a row where it is broken.

    Cost: a few statements for each queue that is asked.

    Raises: StoreError.
    """
    answers = await board.ask(lambda each: each.ask(partial(_doc, name)), queue)
    for each, doc in answers.found:
        if doc is not None:
            past, now = await each.ask(partial(_past, name))
            return each, await asyncio.to_thread(_view, doc, past, now, each, mask)
    return None


async def _docs(store: Store) -> list[Doc]:
    return await store.read(SCHEDULES, limit=MOST)


async def _doc(name: str, store: Store) -> Doc | None:
    return await read_one(store, SCHEDULES, name) if name else None


async def _past(name: str, store: Store) -> tuple[list[Doc], float]:
    # Keys rise with time, and there are KEPT_TICKS at most: they come in one page.
    docs = await store.read(history_space(name), limit=KEPT_TICKS)
    counts = await store.counts()
    return docs[: -PAST - 1 : -1], counts.now


def _rows(found: Sequence[tuple[Watched, list[Doc]]]) -> tuple[ScheduleRow, ...]:
    rows = [_row(doc, watched)[0] for watched, docs in found for doc in docs]
    never = datetime.max.replace(tzinfo=UTC)
    return tuple(sorted(rows, key=lambda row: (row.next_run or never, row.name)))


def _row(doc: Doc, watched: Watched) -> tuple[ScheduleRow, Plan | None, Schedule | None]:
    try:
        plan = decode_plan(doc.value)
        schedule = schedule_of(doc.key, plan)
    except (ValueError, OverflowError) as error:
        broken = ScheduleRow(name=doc.key, queue=watched.label, status="broken", error=str(error))
        return broken, None, None
    status: ScheduleStatus = "active"
    if plan.paused:
        status = "paused"
    elif plan.next_run is None:
        status = "ended"
    row = ScheduleRow(
        name=doc.key,
        queue=watched.label,
        status=status,
        job_name=plan.job,
        cron=plan.cron,
        description=schedule.description,
        timezone=plan.timezone,
        next_run=schedule.next_run,
        last_run=schedule.last_run,
        runs=plan.runs,
        max_runs=plan.max_runs,
    )
    return row, plan, schedule


def _view(
    doc: Doc, past: list[Doc], now: float, watched: Watched, mask: Mask
) -> ScheduleView | ScheduleRow:
    row, plan, schedule = _row(doc, watched)
    if plan is None or schedule is None:
        return row
    ticks: list[Ticked] = []
    for each in past:
        try:
            tick = tick_of(each.key, each.value, plan.timezone)
        except ValueError:
            continue
        ticks.append(Ticked(at=tick.at, outcome=tick.outcome, job_id=tick.job_id, until=tick.until))
    return ScheduleView(
        row=row,
        payload=mask.value(schedule.payload),
        allow_concurrent=plan.allow_concurrent,
        misfire=plan.misfire,
        start_date=schedule.start_date,
        end_date=schedule.end_date,
        last_job_id=plan.last_job_id,
        runs=tuple(_coming(plan, schedule, now)),
        history=tuple(ticks),
    )


def _coming(plan: Plan, schedule: Schedule, now: float) -> list[Run]:
    """The ticks from the next on, as if none failed to fire."""
    if schedule.next_run is None:
        return []
    zone = schedule.next_run.tzinfo
    before = datetime.fromtimestamp(now, zone)
    at: float | None = schedule.next_run.timestamp()
    left = COMING
    if plan.max_runs is not None:
        left = min(left, plan.max_runs - plan.runs)
    runs: list[Run] = []
    while at is not None and len(runs) < left:
        shown = datetime.fromtimestamp(at, zone)
        runs.append(Run(at=shown, offset=shown.strftime("%z"), change=_change(before, shown)))
        before = shown
        # One by one: `runs` of the plan would end it too soon.
        try:
            at = upcoming(msgspec.structs.replace(plan, max_runs=None), at)
        except ConfigError:
            break
    return runs


def _change(before: datetime, after: datetime) -> str | None:
    """What the clocks of the zone do between two instants, in words."""
    by = (after.utcoffset() or timedelta()) - (before.utcoffset() or timedelta())
    if not by:
        return None
    minutes = round(abs(by).total_seconds() / 60)
    span = f"{minutes // 60} h" if minutes % 60 == 0 else f"{minutes} min"
    way = "forward" if by > timedelta() else "back"
    return f"clocks go {way} by {span} before this one"
