"""The pages: each reads some values and shows them; reading needs no JavaScript."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from jobmill.dashboard.actions import ACTS_ON, JOB_ACTIONS
from jobmill.dashboard.desk import Desk, desk_of, whole
from jobmill.dashboard.filters import Filter
from jobmill.dashboard.reads.figures import WINDOWS, overview, queue_view
from jobmill.dashboard.reads.fleet import audit, errors, running, workers
from jobmill.dashboard.reads.jobs import job_list, job_view
from jobmill.dashboard.reads.schedules import schedule_list, schedule_view
from jobmill.dashboard.rendering import page, refusal, static
from jobmill.dashboard.views import QueueView, ScheduleRow
from jobmill.dashboard.visit import visit_of
from jobmill.states import STATES, State

_BRIEF: Final = 5
_BRIEF_RUNS: Final = 10
_MOST_HOPS: Final = 20
"""Pages without a job by which a search goes on by itself."""
_NO_QUEUE: Final = "No queue here is called that."


async def show_overview(request: Request) -> Response:
    """How all is."""
    desk = desk_of(request)
    board = desk.board
    view = await overview(board, desk.surveyor, desk.window(request))
    values: dict[str, Any] = {
        "overview": view,
        "windows": WINDOWS,
        "running": (),
        "errors": (),
        "upcoming": (),
    }
    if any(each.error is None for each in view.queues):
        runs, failures, plans = await asyncio.gather(
            running(board, _BRIEF_RUNS),
            errors(board, desk.mask, None, _BRIEF),
            schedule_list(board),
        )
        values |= {
            "running": runs,
            "errors": failures.groups,
            "upcoming": plans.schedules[:_BRIEF],
        }
    return page(request, "overview.html", values)


async def show_jobs(request: Request) -> Response:
    """Jobs by a filter, which the URL says."""
    desk = desk_of(request)
    wanted = desk.filter(request)
    found, (counts, names) = await asyncio.gather(
        job_list(
            desk.board,
            desk.mask,
            wanted,
            limit=desk.limit(request),
            cursor=request.query_params.get("cursor") or None,
        ),
        _counted(desk, wanted),
    )
    values = {
        "found": found,
        "filter": wanted,
        "states": STATES,
        "counts": counts,
        "names": names,
        "actions": JOB_ACTIONS,
        "acts_on": ACTS_ON,
        "chosen": wanted.queue,
        "paged": "cursor" in request.query_params,
        "hops": whole(request.query_params.get("hops"), 0),
        "most_hops": _MOST_HOPS,
    }
    return page(request, "jobs.html", values)


async def show_job(request: Request) -> Response:
    """One job, with its whole life."""
    desk = desk_of(request)
    found = await job_view(
        desk.board, desk.mask, request.path_params["id"], request.query_params.get("queue")
    )
    if found is None:
        return _missing(request, "There is no record of this job: it was removed, or never there.")
    return page(request, "job.html", {"job": found[1]})


async def show_queues(request: Request) -> Response:
    """All queues."""
    desk = desk_of(request)
    view = await overview(desk.board, desk.surveyor, desk.window(request))
    return page(request, "queues.html", {"overview": view})


async def show_queue(request: Request) -> Response:
    """One queue, with its jobs by name."""
    desk = desk_of(request)
    watched = desk.board.get(request.path_params["name"])
    if watched is None:
        return _missing(request, _NO_QUEUE)
    view = await queue_view(watched, desk.surveyor, desk.window(request))
    return page(request, "queue.html", {"queue": view, **_windows(desk, request)})


async def show_schedules(request: Request) -> Response:
    """All schedules."""
    desk = desk_of(request)
    found = await schedule_list(desk.board, desk.queue(request))
    return page(request, "schedules.html", {"found": found, "chosen": desk.queue(request)})


async def show_schedule(request: Request) -> Response:
    """One schedule, with its coming and past ticks."""
    desk = desk_of(request)
    found = await schedule_view(
        desk.board, desk.mask, request.path_params["name"], desk.queue(request)
    )
    if found is None:
        return _missing(request, "No schedule is called that.")
    view = found[1]
    if isinstance(view, ScheduleRow):
        return page(request, "schedule.html", {"row": view, "schedule": None})
    return page(request, "schedule.html", {"row": view.row, "schedule": view})


async def show_workers(request: Request) -> Response:
    """Who works, and on what."""
    desk = desk_of(request)
    found = await workers(desk.board, desk.queue(request))
    return page(request, "workers.html", {"found": found, "chosen": desk.queue(request)})


async def show_errors(request: Request) -> Response:
    """What fails, and how often."""
    desk = desk_of(request)
    found = await errors(desk.board, desk.mask, desk.queue(request))
    return page(request, "errors.html", {"found": found, "chosen": desk.queue(request)})


async def show_audit(request: Request) -> Response:
    """Who did what."""
    desk = desk_of(request)
    found = await audit(
        desk.board,
        desk.queue(request),
        limit=desk.limit(request),
        cursor=request.query_params.get("cursor"),
    )
    return page(request, "audit.html", {"found": found, "chosen": desk.queue(request)})


async def give_static(request: Request) -> Response:
    """A file of the pages."""
    found = static(request.path_params["name"])
    return found or _missing(request, "There is no such file.")


def _missing(request: Request, text: str) -> Response:
    return refusal(request.scope, visit_of(request), 404, text)


def _windows(desk: Desk, request: Request) -> dict[str, Any]:
    window = desk.window(request)
    return {"window": window, "step": WINDOWS[window], "windows": WINDOWS}


async def _counted(desk: Desk, wanted: Filter) -> tuple[dict[State, int], list[str]]:
    """How many jobs there are in each state, and which names, as far as the filter says."""
    counts = dict.fromkeys(STATES, 0)
    names: set[str] = set()

    async def look(each: Any) -> QueueView:
        return await queue_view(each, desk.surveyor)

    for _, view in (await desk.board.ask(look, wanted.queue)).found:
        for job in view.jobs:
            names.add(job.name)
            if wanted.name in {None, job.name}:
                for state, number in job.counts.items():
                    counts[state] += number
    return counts, sorted(names)


async def show_login(request: Request) -> Response:
    """Where one says who one is."""
    values = {"next": request.query_params.get("next", ""), "problem": ""}
    visit = visit_of(request)
    if visit.user is not None or not desk_of(request).identity.users:
        return RedirectResponse(visit.url("/"), 303)
    return page(request, "login.html", values)
