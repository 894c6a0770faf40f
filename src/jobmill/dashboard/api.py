"""The pages' values as JSON, and their actions for programs."""

from __future__ import annotations

from typing import Any, Final, cast

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from jobmill.dashboard.actions import (
    JOB_ACTIONS,
    MOST_SELECTED,
    Done,
    JobAction,
    count_matching,
    on_matching,
    on_selected,
    pause,
    pause_schedule,
    resume,
    resume_schedule,
    settled,
    trigger,
)
from jobmill.dashboard.board import Watched
from jobmill.dashboard.desk import desk_of
from jobmill.dashboard.filters import read_filter
from jobmill.dashboard.masking import without_passwords
from jobmill.dashboard.reads.figures import overview, queue_view
from jobmill.dashboard.reads.fleet import audit, errors, workers
from jobmill.dashboard.reads.jobs import job_list, job_view
from jobmill.dashboard.reads.schedules import schedule_list, schedule_view
from jobmill.dashboard.rendering import refusal
from jobmill.dashboard.visit import visit_of
from jobmill.errors import ConfigError
from jobmill.options import check_named


class SessionView(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks. `csrf`: what a POST by this session has to carry, as `X-CSRF-Token`."""

    user: str
    role: str
    csrf: str


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why something was not done, in words."""

    error: str
    status: int


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """How much there is to do in a queue. `value`: what is due, and what runs."""

    queue: str
    value: int
    due: int
    processing: int
    delayed: int
    oldest_wait: float


class JobsBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which jobs: by their ids in `queue`, or by a filter.

    A filter acts on `count` jobs at most; without `count` nothing is done, and how many there are
    is told.
    """

    ids: list[str] | None = None
    queue: str | None = None
    q: str | None = None
    states: list[str] = []
    count: int | None = None


class PauseBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which job name of the queue; None for all of it."""

    job: str | None = None


class QueueBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose schedule; it may be left out where there is one queue."""

    queue: str | None = None


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """How many jobs it would be done to, by queue.

    `searches`: what to send as `q` with that queue's count, so that an error said in words is the
    one that was counted, whatever the words would mean by then.
    """

    action: str
    count: int
    by_queue: dict[str, int]
    searches: dict[str, str]


async def get_scale(request: Request) -> Response:
    """How much there is to do in a queue, as an autoscaler wants it."""
    watched = desk_of(request).board.get(request.path_params["queue"])
    if watched is None:
        return _missing(request, "queue")
    counts = await watched.ask(lambda store: store.counts())
    running = counts.states.get("processing", 0)
    oldest = 0.0 if counts.oldest_due is None else max(0.0, counts.now - counts.oldest_due)
    found = Scale(
        queue=watched.label,
        value=counts.due + running,
        due=counts.due,
        processing=running,
        delayed=counts.states.get("delayed", 0),
        oldest_wait=oldest,
    )
    return _json(found)


async def get_session(request: Request) -> Response:
    """Who asks, and the token that a POST carries."""
    visit = visit_of(request)
    user = visit.who.user
    return _json(SessionView(user=user.name, role=user.role, csrf=visit.csrf))


async def get_overview(request: Request) -> Response:
    """All queues together, and each."""
    desk = desk_of(request)
    return _json(await overview(desk.board, desk.surveyor, desk.window(request)))


async def get_queue(request: Request) -> Response:
    """One queue, with its jobs by name."""
    desk = desk_of(request)
    watched = desk.board.get(request.path_params["queue"])
    if watched is None:
        return _missing(request, "queue")
    return _json(await queue_view(watched, desk.surveyor, desk.window(request)))


async def get_jobs(request: Request) -> Response:
    """Jobs by a filter, newest first."""
    desk = desk_of(request)
    cursor = request.query_params.get("cursor") or None
    wanted = desk.filter(request)
    if wanted.problems:
        return refusal(request.scope, visit_of(request), 400, "; ".join(wanted.problems))
    limit = desk.limit(request)
    return _json(await job_list(desk.board, desk.mask, wanted, limit=limit, cursor=cursor))


async def get_job(request: Request) -> Response:
    """One job, with its whole life."""
    desk = desk_of(request)
    found = await job_view(desk.board, desk.mask, request.path_params["id"], desk.queue(request))
    return _missing(request, "job") if found is None else _json(found[1])


async def get_schedules(request: Request) -> Response:
    """All schedules."""
    desk = desk_of(request)
    return _json(await schedule_list(desk.board, desk.queue(request)))


async def get_schedule(request: Request) -> Response:
    """One schedule, with its coming and past ticks."""
    desk = desk_of(request)
    found = await schedule_view(
        desk.board, desk.mask, request.path_params["name"], desk.queue(request)
    )
    return _missing(request, "schedule") if found is None else _json(found[1])


async def get_workers(request: Request) -> Response:
    """Who works, and on what."""
    desk = desk_of(request)
    return _json(await workers(desk.board, desk.queue(request)))


async def get_errors(request: Request) -> Response:
    """What fails, and how often."""
    desk = desk_of(request)
    limit = desk.limit(request)
    return _json(await errors(desk.board, desk.mask, desk.queue(request), limit))


async def get_audit(request: Request) -> Response:
    """Who did what."""
    desk = desk_of(request)
    cursor = request.query_params.get("cursor")
    limit = desk.limit(request)
    return _json(await audit(desk.board, desk.queue(request), limit=limit, cursor=cursor))


async def post_jobs(request: Request) -> Response:
    """Retry, cancel, delete or make due: the jobs of some ids, or all that match."""
    desk, visit = desk_of(request), visit_of(request)
    action = cast("JobAction", request.path_params["action"])
    if action not in JOB_ACTIONS:
        return _missing(request, "action")
    body = _body(visit.json, JobsBody)
    if (body.ids is None) == (body.q is None and not body.states):
        message = "ids: say which jobs: ids, or q and states, and not both"
        raise ConfigError(message, field="ids")
    if body.ids is not None:
        if len(body.ids) > MOST_SELECTED:
            message = f"ids: {len(body.ids)} are too many; give {MOST_SELECTED} at most"
            raise ConfigError(message, field="ids")
        watched = _the_queue(request, body.queue)
        if watched is None:
            return _missing(request, "queue")
        done = await on_selected(watched, visit.who, action, body.ids)
        desk.surveyor.forget(watched.label)
        return _json(done)
    wanted = read_filter(body.q or "", tuple(body.states), body.queue)
    if wanted.problems:
        raise ConfigError("; ".join(wanted.problems), field="q")
    some = desk.board.some(wanted.queue)
    if body.count is None:
        exactly = {each.label: await settled(each, wanted) for each in some}
        by_queue = {
            each.label: await count_matching(each, action, exactly[each.label]) for each in some
        }
        counted = Counted(
            action=action,
            count=sum(by_queue.values()),
            by_queue=by_queue,
            searches={label: one.text for label, one in exactly.items()},
        )
        return _json(counted)
    if len(some) != 1:
        message = "queue: say in which queue; a count holds for one"
        raise ConfigError(message, field="queue")
    done = await on_matching(some[0], visit.who, action, wanted, max(0, body.count))
    desk.surveyor.forget(some[0].label)
    return _json(done)


async def post_queue(request: Request) -> Response:
    """Pause or resume a queue, or one job name of it."""
    desk, visit = desk_of(request), visit_of(request)
    watched = desk.board.get(request.path_params["queue"])
    if watched is None or request.path_params["action"] not in _QUEUES:
        return _missing(request, "queue")
    body = _body(visit.json, PauseBody)
    if body.job is not None:
        check_named("job", body.job)
    done = await _QUEUES[request.path_params["action"]](watched, visit.who, body.job)
    desk.surveyor.forget(watched.label)
    return _json(done)


async def post_schedule(request: Request) -> Response:
    """Pause, resume or trigger a schedule."""
    visit = visit_of(request)
    name = request.path_params["name"]
    watched = _the_queue(request, _body(visit.json, QueueBody).queue)
    if watched is None or request.path_params["action"] not in _SCHEDULES:
        return _missing(request, "queue")
    done: Done = await _SCHEDULES[request.path_params["action"]](watched, visit.who, name)
    if not done.count and not done.text:
        return _missing(request, "schedule")
    return _json(done)


_QUEUES: Final[dict[str, Any]] = {"pause": pause, "resume": resume}
_SCHEDULES: Final[dict[str, Any]] = {
    "pause": pause_schedule,
    "resume": resume_schedule,
    "trigger": trigger,
}


def _the_queue(request: Request, label: str | None) -> Watched | None:
    board = desk_of(request).board
    if label is None and len(board.labels) != 1:
        message = f"queue: say in which queue; there are {', '.join(board.labels)}"
        raise ConfigError(message, field="queue")
    return board.get(label or board.labels[0])


def _body(given: Any, kind: type[Any]) -> Any:
    try:
        return msgspec.convert({} if given is None else given, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(f"body: {error}", field="body") from error


def _missing(request: Request, what: str) -> Response:
    return refusal(request.scope, visit_of(request), 404, f"There is no such {what}.")


def _json(value: Any) -> Response:
    text = without_passwords(msgspec.json.encode(value).decode())
    return Response(text, media_type="application/json")
