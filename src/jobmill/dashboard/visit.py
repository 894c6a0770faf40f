"""What is known of one request: who asks, by which session, with which form."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast
from urllib.parse import urlencode

from starlette.requests import HTTPConnection
from starlette.types import Scope

from jobmill.dashboard.actions import Who
from jobmill.dashboard.sessions import Session
from jobmill.dashboard.users import User

_KEY: Final = "jobmill.visit"


@dataclass(kw_only=True)
class Visit:
    """One request. `base` is the path that the dashboard is mounted at, without a last slash.

    `session` is sent back where it was `changed`.
    """

    base: str
    session: Session
    csrf: str
    user: User | None = None
    ip: str = ""
    changed: bool = False
    form: Mapping[str, list[str]] = field(default_factory=dict[str, list[str]])
    json: Any = None
    nonce: str = field(default_factory=lambda: secrets.token_urlsafe(16))

    @property
    def who(self) -> Who:
        """Who acts. There is one, or the guard had let nobody in."""
        assert self.user is not None  # noqa: S101  the guard's promise
        return Who(self.user, self.ip)

    def url(self, path: str, /, **query: Any) -> str:
        """The path within the dashboard, as a browser has to ask for it."""
        given = {key: value for key, value in query.items() if value not in (None, "", ())}
        told = urlencode(given, doseq=True)
        return f"{self.base}{path}{f'?{told}' if told else ''}"

    def one(self, name: str) -> str:
        """The field of the form; nothing where it is not there."""
        return (self.form.get(name) or [""])[-1]

    def back(self, field_name: str, default: str) -> str:
        """The path within this site that a field names; the default where it names another."""
        given = self.one(field_name)
        return given if is_local(given) else self.url(default)


def path_within(scope: Scope) -> str:
    """The path that is asked for, within the dashboard."""
    path: str = scope["path"]
    base = base_of(scope)
    if base and (path == base or path.startswith(f"{base}/")):
        path = path[len(base) :]
    return path or "/"


def base_of(scope: Scope) -> str:
    """The path that the dashboard is mounted at, without a last slash."""
    base: str = scope.get("root_path", "")
    return base.rstrip("/")


def is_local(path: str) -> bool:
    """Whether it is a path of this very site."""
    return (
        path.startswith("/")
        and not path.startswith("//")
        and path.isprintable()
        and "\\" not in path
    )


def visit_of(connection: HTTPConnection) -> Visit:
    """What the guard knows of the request."""
    return cast("Visit", connection.scope[_KEY])


def remember(scope: Any, visit: Visit) -> None:
    """Let `visit_of` find it."""
    scope[_KEY] = visit
