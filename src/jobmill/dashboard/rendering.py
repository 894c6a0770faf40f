"""Makes pages of values: templates that escape all that they show."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Final
from urllib.parse import quote

import msgspec
from jinja2 import DictLoader, Environment, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import Scope

from jobmill.dashboard.masking import without_passwords
from jobmill.dashboard.visit import Visit, visit_of
from jobmill.dashboard.words import FILTERS, visible
from jobmill.version import VERSION

_FOLDER: Final = files("jobmill.dashboard")
_WEEK: Final = 604_800
# Said here, since the tables of the system differ, and reading them blocks.
_KINDS: Final = {
    "css": "text/css",
    "js": "text/javascript",
    "svg": "image/svg+xml",
    "txt": "text/plain",
}
LIVE: Final = "x-jobmill-live"
"""The header of a request that brings a page up to date."""


def _read(folder: Traversable, head: str = "") -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for each in folder.iterdir():
        if each.is_dir():
            found |= _read(each, f"{head}{each.name}/")
        else:
            found[f"{head}{each.name}"] = each.read_bytes()
    return found


# Read at import, since a page is made on a loop, where reading a file blocks.
_STATIC: Final = _read(_FOLDER / "static")
_TEMPLATES: Final = {name: data.decode() for name, data in _read(_FOLDER / "templates").items()}
ASSETS: Final = hashlib.sha256(
    b"".join(name.encode() + data for name, data in sorted(_STATIC.items()))
).hexdigest()[:12]
"""What changes when anything static does."""


def _environment() -> Environment:
    environment = Environment(
        loader=DictLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=visible,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
        cache_size=-1,
    )
    environment.filters.update(FILTERS)
    for name in _TEMPLATES:
        environment.get_template(name)
    return environment


_ENVIRONMENT: Final = _environment()


def page(
    request: Request, template: str, values: Mapping[str, Any], *, status: int = 200
) -> HTMLResponse:
    """The page of a template. What every template knows beside `values` is in docs/dashboard.md."""
    visit = visit_of(request)
    flash = ""
    # A page that is only brought up to date, perhaps in another tab, does not use it up.
    if LIVE not in request.headers:
        flash, visit.session = visit.session.flash, _quiet(visit)
    return HTMLResponse(
        _rendered(visit, template, {"flash": flash, **values}, request.scope), status
    )


def refusal(scope: Scope, visit: Visit, status: int, text: str) -> Response:
    """Why a request is not answered: a page for people, JSON for programs."""
    accepts = b""
    for name, value in scope["headers"]:
        if name == b"accept":
            accepts = value
    if b"text/html" not in accepts:
        return JSONResponse({"error": without_passwords(text), "status": status}, status)
    values = {"status": status, "text": text, "flash": ""}
    return HTMLResponse(_rendered(visit, "error.html", values, scope), status)


def static(name: str) -> Response | None:
    """The file of this name; its URL changes when it does, so that it is kept for long."""
    data = _STATIC.get(name)
    if data is None:
        return None
    kind = _KINDS.get(name.rpartition(".")[2], "application/octet-stream")
    headers = {"cache-control": f"public, max-age={_WEEK}, immutable"}
    return Response(data, media_type=kind, headers=headers)


def _rendered(visit: Visit, template: str, values: Mapping[str, Any], scope: Scope) -> str:
    # Not imported: it stands above. Nor is it there where the guard refuses.
    desk: Any = getattr(scope["app"].state, "desk", None)

    def asset(name: str) -> str:
        return visit.url(f"/static/{name}", v=ASSETS)

    known: dict[str, Any] = {
        "base": visit.base,
        "csrf": visit.csrf,
        "nonce": visit.nonce,
        "now": datetime.now(UTC),
        "can_operate": visit.user is not None and visit.user.can_operate,
        "here": _here(scope, visit.base),
        "queues": () if desk is None else desk.board.labels,
        "static": asset,
        "url": visit.url,
        "user": visit.user,
        "version": VERSION,
        "has_login": desk is not None and desk.identity.users is not None,
    }
    # Whatever text it is in: no page can forget it.
    return without_passwords(_ENVIRONMENT.get_template(template).render({**known, **values}))


def _here(scope: Scope, base: str) -> str:
    """The page that is asked for, so that a form can lead back to it."""
    path: str = scope["path"]
    if base and path != base and not path.startswith(f"{base}/"):
        path = base + path
    query = scope["query_string"].decode("latin-1")
    return quote(path) + (f"?{query}" if query else "")


def _quiet(visit: Visit) -> Any:
    if not visit.session.flash:
        return visit.session
    visit.changed = True
    return msgspec.structs.replace(visit.session, flash="")
