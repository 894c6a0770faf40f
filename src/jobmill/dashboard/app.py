"""Puts a dashboard together: its queues, its guard, and which path leads where."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from jobmill.dashboard import api, doing, pages, probes
from jobmill.dashboard.board import Board, Queues
from jobmill.dashboard.desk import Desk, desk_of
from jobmill.dashboard.guard import Guard, needs_no_store
from jobmill.dashboard.hosts import Hosts
from jobmill.dashboard.identity import Identity, Login
from jobmill.dashboard.logouts import Logouts
from jobmill.dashboard.masking import Mask
from jobmill.dashboard.openapi import description
from jobmill.dashboard.rendering import refusal
from jobmill.dashboard.sessions import Sessions, read_secret
from jobmill.dashboard.users import Users
from jobmill.dashboard.visit import path_within, visit_of
from jobmill.errors import ConfigError, DuplicateJob, JobNotFound, StoreError

Found = Users | str | os.PathLike[str] | None


def create_app(
    queues: Queues,
    *,
    users: Found = None,
    login: Login | None = None,
    secret_file: str | os.PathLike[str] | None = None,
    read_only: bool = False,
    allowed_hosts: Iterable[str] = (),
    mask: Iterable[str] = (),
    discover: bool = False,
) -> Starlette:
    """The dashboard of some queues, as an ASGI app.

    `queues`: one, some, or a mapping of labels to them. Who may use it says `users`, a file
    of `jobmill dashboard --add-user`, or `login`, a function of the request that gives a User or
    None; with neither it answers on loopback only. `secret_file` signs sessions, so that they
    outlive a restart and hold in several processes. `read_only`: nobody may act.
    `allowed_hosts`: names under which it is asked, beside localhost and addresses of numbers; "*"
    for any. `mask`: names of fields that are secret, beside those that look so. `discover`: show
    also what other queues their stores have.

    Raises: ConfigError for what will not do.
    """
    if users is not None and login is not None:
        message = "login: users says who may come in already; give one of them"
        raise ConfigError(message, field="login")
    known = users if isinstance(users, Users | None) else Users(users)
    secret = secrets.token_bytes(32) if secret_file is None else read_secret(secret_file)
    sessions = Sessions(secret)
    board = Board(queues, discover=discover)
    logouts = Logouts(board, sessions)
    identity = Identity(sessions, known, login, logouts, read_only=read_only)
    desk = Desk(board, Mask(mask), identity)
    app = Starlette(
        routes=_routes(),
        lifespan=_lifespan,
        exception_handlers={
            StoreError: _store_down,
            ConfigError: _wrong,
            JobNotFound: _not_found,
            DuplicateJob: _conflict,
            HTTPException: _http,
        },
        middleware=[
            Middleware(
                Guard,
                identity=identity,
                hosts=Hosts(allowed_hosts),
                # Cookies of one machine are the same for all its ports: each dashboard has its own.
                cookie=f"jobmill_{hashlib.sha256(secret).hexdigest()[:8]}",
            ),
            Middleware(_Discovery, board=desk.board),
        ],
    )
    app.state.desk = desk
    return app


class _Discovery:
    """Behind the guard: has new queues taken in before a request is answered."""

    def __init__(self, app: ASGIApp, *, board: Board) -> None:
        self._app = app
        self._board = board

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # What needs no queue does not wait for a store that does not answer.
        if scope["type"] == "http" and not needs_no_store(path_within(scope)):
            await self._board.discover()
        await self._app(scope, receive, send)


def _routes() -> Sequence[Route]:
    def get(path: str, endpoint: Any) -> Route:
        return Route(path, endpoint, methods=["GET"])

    def post(path: str, endpoint: Any) -> Route:
        return Route(path, endpoint, methods=["POST"])

    return [
        get("/", pages.show_overview),
        get("/jobs", pages.show_jobs),
        get("/jobs/{id}", pages.show_job),
        get("/queues", pages.show_queues),
        get("/queues/{name}", pages.show_queue),
        get("/schedules", pages.show_schedules),
        get("/schedules/{name}", pages.show_schedule),
        get("/workers", pages.show_workers),
        get("/errors", pages.show_errors),
        get("/audit", pages.show_audit),
        get("/login", pages.show_login),
        get("/static/{name:path}", pages.give_static),
        get("/events", events),
        get("/healthz", probes.healthz),
        get("/readyz", probes.readyz),
        get("/metrics", probes.metrics),
        get("/scale/{queue}", api.get_scale),
        get("/api/openapi.json", get_description),
        get("/api/session", api.get_session),
        get("/api/overview", api.get_overview),
        get("/api/queues/{queue}", api.get_queue),
        get("/api/jobs", api.get_jobs),
        get("/api/jobs/{id}", api.get_job),
        get("/api/schedules", api.get_schedules),
        get("/api/schedules/{name}", api.get_schedule),
        get("/api/workers", api.get_workers),
        get("/api/errors", api.get_errors),
        get("/api/audit", api.get_audit),
        post("/api/jobs/{action}", api.post_jobs),
        post("/api/queues/{queue}/{action}", api.post_queue),
        post("/api/schedules/{name}/{action}", api.post_schedule),
        post("/login", doing.log_in),
        post("/logout", doing.log_out),
        post("/jobs/{action}", doing.act_on_jobs),
        post("/queues/{name}/{action}", doing.act_on_queue),
        post("/schedules/{name}/{action}", doing.act_on_schedule),
    ]


async def get_description(request: Request) -> Response:
    """What /api takes and gives."""
    return JSONResponse(description(visit_of(request).base))


async def events(request: Request) -> Response:
    """Tells that something changed, for as long as somebody listens."""
    streams = desk_of(request).streams
    if streams.full:
        refused = refusal(request.scope, visit_of(request), 503, "Too many listen; poll.")
        refused.headers["retry-after"] = "30"
        return refused
    if request.method == "HEAD":
        return Response(media_type="text/event-stream")
    headers = {"x-accel-buffering": "no", "cache-control": "no-store"}
    return StreamingResponse(streams.events(), media_type="text/event-stream", headers=headers)


@contextlib.asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncGenerator[None]:
    app.state.desk.streams.begin()
    yield
    app.state.desk.streams.end()
    await app.state.desk.board.close()


def _refused(request: Request, status: int, text: str) -> Response:
    return refusal(request.scope, visit_of(request), status, text)


async def _store_down(request: Request, error: Exception) -> Response:
    return _refused(request, 503, f"The store does not answer: {error}")


async def _wrong(request: Request, error: Exception) -> Response:
    return _refused(request, 400, str(error))


async def _not_found(request: Request, error: Exception) -> Response:
    return _refused(request, 404, str(error))


async def _conflict(request: Request, error: Exception) -> Response:
    return _refused(request, 409, str(error))


async def _http(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    return _refused(request, status, _SAYS.get(status, "That will not do."))


_SAYS: Final = {404: "There is no such page.", 405: "That cannot be done here."}
