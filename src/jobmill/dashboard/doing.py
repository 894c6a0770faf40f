"""The forms of the pages: each does something, and leads back to a page that says so."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import replace
from typing import Final, cast

import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from jobmill.dashboard.actions import (
    JOB_ACTIONS,
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
from jobmill.dashboard.desk import desk_of, whole
from jobmill.dashboard.filters import read_filter
from jobmill.dashboard.guard import too_many
from jobmill.dashboard.rendering import page, refusal
from jobmill.dashboard.users import MOST_PASSWORD
from jobmill.dashboard.visit import Visit, is_local, visit_of
from jobmill.errors import JobNotFound
from jobmill.options import check_named

QUEUE_ACTIONS: Final = ("pause", "resume")
SCHEDULE_ACTIONS: Final = ("pause", "resume", "trigger")
_MOST_NAME: Final = 100
_DID: Final = {
    "retry": "started over",
    "cancel": "cancelled",
    "delete": "deleted",
    "run_now": "made due now",
}


async def act_on_jobs(request: Request) -> Response:
    """Do it to the jobs of the form, or to all that match; those are counted first, and shown."""
    visit = visit_of(request)
    action = cast("JobAction", request.path_params["action"])
    if action not in JOB_ACTIONS:
        return refusal(request.scope, visit, 404, "Nothing of that name can be done to jobs.")
    if visit.one("all"):
        return await _act_on_all(request, action)
    chosen = chosen_jobs(
        visit.form.get("ids", []), visit.one("queue"), desk_of(request).board.labels
    )
    if not chosen:
        return _back(visit, "/jobs", "No job was selected.")
    total = Done(action=action, count=0)
    for label, ids in chosen.items():
        watched = _watched(request, label)
        if watched is None:
            continue
        done = await on_selected(watched, visit.who, action, ids)
        desk_of(request).surveyor.forget(label)
        total = sum_of(total, done)
    return _back(visit, "/jobs", told(total))


async def _act_on_all(request: Request, action: JobAction) -> Response:
    desk, visit = desk_of(request), visit_of(request)
    wanted = read_filter(
        visit.one("q"), tuple(visit.form.get("state", [])), visit.one("queue") or None
    )
    if wanted.problems:
        # To leave out what was not understood would mean more jobs than were asked for.
        return refusal(request.scope, visit, 400, "; ".join(wanted.problems))
    some = desk.board.some(wanted.queue)
    if not visit.one("confirmed"):
        counted: list[tuple[str, int]] = []
        errors: list[tuple[str, str]] = []
        for each in some:
            exactly = await settled(each, wanted)
            counted.append((each.label, await count_matching(each, action, exactly)))
            errors += [(f"error.{each.label}", exactly.error)] if exactly.error else []
        values = {
            "action": action,
            "filter": wanted,
            "count": sum(number for _, number in counted),
            "back": visit.back("back", "/jobs"),
            "fields": [
                ("all", "1"),
                ("confirmed", "1"),
                ("q", wanted.text),
                *(("state", state) for state in wanted.states),
                *((f"count.{label}", str(number)) for label, number in counted),
                *errors,
            ],
        }
        return page(request, "confirm.html", values)
    total = Done(action=action, count=0)
    for each in some:
        counted_before = whole(visit.one(f"count.{each.label}"), 0)
        if counted_before:
            error = visit.one(f"error.{each.label}") or wanted.error
            exactly = replace(wanted, error=error)
            done = await on_matching(each, visit.who, action, exactly, counted_before)
            desk.surveyor.forget(each.label)
            total = sum_of(total, done)
    return _back(visit, "/jobs", told(total))


async def act_on_queue(request: Request) -> Response:
    """Pause or resume a queue, or one job name of it."""
    visit = visit_of(request)
    name, action = request.path_params["name"], request.path_params["action"]
    watched = _watched(request, name)
    if watched is None or action not in QUEUE_ACTIONS:
        return refusal(request.scope, visit, 404, "No queue here is called that.")
    job_name = visit.one("job") or None
    if job_name is not None:
        check_named("job", job_name)
    what = f"{watched.label}: {job_name}" if job_name else watched.label
    if action == "pause":
        await pause(watched, visit.who, job_name)
        text = f"{what} is paused: no worker claims from it."
    else:
        await resume(watched, visit.who, job_name)
        text = f"{what} goes on."
    desk_of(request).surveyor.forget(watched.label)
    return _back(visit, f"/queues/{name}", text)


async def act_on_schedule(request: Request) -> Response:
    """Pause, resume or trigger a schedule."""
    visit = visit_of(request)
    name, action = request.path_params["name"], request.path_params["action"]
    watched = _watched(request, visit.one("queue") or desk_of(request).board.labels[0])
    if watched is None or action not in SCHEDULE_ACTIONS:
        return refusal(request.scope, visit, 404, "No queue here is called that.")
    if action == "trigger":
        done = await trigger(watched, visit.who, name)
        text = f"{name}: the job {done.text} was added."
        if not done.count:
            text = f"{name}: its last job, {done.text}, has not ended; none was added."
    else:
        act: Awaitable[Done] = (pause_schedule if action == "pause" else resume_schedule)(
            watched, visit.who, name
        )
        if not (await act).count:
            message = f"no schedule is called {name!r}"
            raise JobNotFound(message)
        text = f"{name} is paused." if action == "pause" else f"{name} ticks again."
    return _back(visit, f"/schedules/{name}", text)


async def log_in(request: Request) -> Response:
    """Let somebody in who knows the password; who guesses is slowed down."""
    visit, identity = visit_of(request), desk_of(request).identity
    if identity.users is None:
        return RedirectResponse(visit.url("/"), 303)
    name, password = visit.one("name")[:_MOST_NAME], visit.one("password")[:MOST_PASSWORD]
    wait = identity.seconds_to_wait(visit, name)
    if wait > 0:
        return too_many(request.scope, visit, wait)
    user = await identity.check(name, password, visit)
    if user is None:
        values = {"next": visit.one("next"), "problem": "The name or the password is wrong."}
        return page(request, "login.html", values, status=401)
    identity.begin(visit, user)
    there = visit.one("next")
    return RedirectResponse(there if is_local(there) else visit.url("/"), 303)


async def log_out(request: Request) -> Response:
    """Forget who it is."""
    visit = visit_of(request)
    await desk_of(request).identity.end(visit)
    return RedirectResponse(visit.url("/"), 303)


def chosen_jobs(words: list[str], queue: str, labels: tuple[str, ...]) -> dict[str, list[str]]:
    """Ids by the label of their queue: a word is an id, or a label, a slash and an id."""
    chosen: dict[str, list[str]] = {}
    for word in words:
        label, slash, job_id = word.partition("/")
        if not slash:
            label, job_id = queue or labels[0], word
        chosen.setdefault(label, []).append(job_id)
    return chosen


def sum_of(one: Done, other: Done) -> Done:
    """Both together."""
    return msgspec.structs.replace(
        one,
        count=one.count + other.count,
        refused=one.refused + other.refused,
        left=one.left + other.left,
    )


def told(done: Done) -> str:
    """What was done, in words."""
    parts = [f"{_jobs(done.count)} {_DID[done.action]}"]
    if done.refused:
        parts.append(f"{_jobs(done.refused)} could not be: in another state by now, or not there")
    if done.left:
        parts.append(f"{_jobs(done.left)} are left: do it again to go on")
    return "; ".join(parts) + "."


def _jobs(number: int) -> str:
    return "1 job" if number == 1 else f"{number:,} jobs"


def _watched(request: Request, label: str) -> Watched | None:
    return desk_of(request).board.get(label)


def _back(visit: Visit, default: str, text: str) -> Response:
    visit.session = msgspec.structs.replace(visit.session, flash=text[:500])
    visit.changed = True
    return RedirectResponse(visit.back("back", default), 303)
