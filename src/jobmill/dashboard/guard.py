"""Stands before every page: who may come in, from where, and with which form.

Nothing behind it can forget a check: it looks at each request, whatever its path.
"""

from __future__ import annotations

import logging
from typing import Final
from urllib.parse import parse_qs, quote

import msgspec
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jobmill.dashboard.hosts import Hosts, is_loopback, is_same_site
from jobmill.dashboard.identity import Identity
from jobmill.dashboard.rendering import refusal
from jobmill.dashboard.sessions import LASTS
from jobmill.dashboard.visit import Visit, base_of, path_within, remember

log: Final = logging.getLogger("jobmill.dashboard")

_MOST_BODY: Final = 1 << 20
_MOST_FIELDS: Final = 5_000
_READS: Final = frozenset({"GET", "HEAD"})
_PROBES: Final = frozenset({"/healthz", "/readyz"})
"""Paths that anybody may ask, and that know nobody."""
_DOORS: Final = frozenset({"/login", "/logout"})
_MACHINES: Final = ("/api", "/metrics", "/scale", "/events")
"""Paths that no person reads: who asks them is not sent to the login."""


class Guard:
    """Lets in who may come in, and gives each answer its headers."""

    def __init__(self, app: ASGIApp, identity: Identity, hosts: Hosts, cookie: str) -> None:
        self._app = app
        self._identity = identity
        self._sessions = identity.sessions
        self._hosts = hosts
        self._cookie = cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "http":
            await self._answer(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._app(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Read one by one: what another application has in its cookies is no reason to lose ours.
        known = self._sessions.read(Request(scope).cookies.get(self._cookie))
        session = known or self._sessions.new()
        visit = Visit(
            base=base_of(scope),
            session=session,
            csrf=self._sessions.token(session),
            ip=(scope.get("client") or ("",))[0],
            changed=known is None,
        )
        remember(scope, visit)
        path = path_within(scope)
        started = False

        async def answer(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                self._dress(MutableHeaders(scope=message), scope, visit, path)
            await send(message)

        try:
            refused = self._outside(scope, visit) or await self._inside(scope, receive, visit, path)
            await (refused or self._app)(scope, receive, answer)
        except Exception:
            # Whatever it is, nobody is shown a traceback.
            log.exception("the dashboard failed to answer %s %s", scope["method"], path)
            if started:
                raise
            text = "The dashboard failed; its log says why."
            await refusal(scope, visit, 500, text)(scope, receive, answer)

    # -- who comes in -----------------------------------------------------------------------

    def _outside(self, scope: Scope, visit: Visit) -> Response | None:
        """Why it is refused, whoever asks: by its host, its place, its method; None: it is not."""
        headers, method = Headers(scope=scope), scope["method"]
        host = headers.get("host", "")
        if not self._hosts.allows(host):
            text = (
                f"The name {host[:100]!r} is none of this dashboard's. Allow it: "
                "--allowed-host, or create_app(allowed_hosts=[...])."
            )
            return refusal(scope, visit, 421, text)
        if not self._identity.is_asked and not _is_at_home(scope):
            text = (
                "This dashboard has no login, so it answers on loopback only. Give it users: "
                "--users FILE, or create_app(users=...) or (login=...)."
            )
            return refusal(scope, visit, 403, text)
        if method not in _READS and method != "POST":
            refused = refusal(scope, visit, 405, "That cannot be done here.")
            refused.headers["allow"] = "GET, HEAD, POST"
            return refused
        if method == "POST" and _is_foreign(scope, headers, host):
            return refusal(scope, visit, 403, "This came from another site.")
        return None

    async def _inside(
        self, scope: Scope, receive: Receive, visit: Visit, path: str
    ) -> Response | None:
        """Why it is refused by who asks, and with what; None where it is not."""
        if path in _PROBES or path.startswith("/static/"):
            return None
        authorization = Headers(scope=scope).get("authorization", "")
        basic = authorization if authorization.lower().startswith("basic ") else None
        wait = self._identity.seconds_to_guess(visit, basic) if basic else 0.0
        if wait > 0:
            return too_many(scope, visit, wait)
        visit.user = await self._identity.of(Request(scope), visit, basic)
        # A program that names itself each time needs no session.
        visit.changed = visit.changed and basic is None
        if scope["method"] == "POST":
            refused = await self._read(scope, receive, visit)
            if refused is not None or path in _DOORS:
                return refused
        if visit.user is None and path not in _DOORS:
            return self._stranger(scope, visit, path)
        if scope["method"] == "POST" and not (visit.user and visit.user.can_operate):
            return refusal(scope, visit, 403, "A viewer may look, not act.")
        return None

    def _stranger(self, scope: Scope, visit: Visit, path: str) -> Response:
        """To the login with people who read pages; there is none where the host says who it is."""
        if self._identity.users is None or scope["method"] == "POST" or path.startswith(_MACHINES):
            return refusal(scope, visit, 401, "Who are you? Log in.")
        query = scope.get("query_string", b"").decode("latin-1")
        there = visit.base + path + (f"?{query}" if query else "")
        return RedirectResponse(f"{visit.url('/login')}?next={quote(there, safe='')}", 303)

    async def _read(self, scope: Scope, receive: Receive, visit: Visit) -> Response | None:
        """Read the body, and look for the token in it; why it will not do."""
        headers = Headers(scope=scope)
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        try:
            body = await _body(receive)
            if body is None:
                return refusal(scope, visit, 413, "That is too much.")
            if kind == "application/json":
                visit.json = msgspec.json.decode(body) if body else {}
            elif kind == "application/x-www-form-urlencoded":
                visit.form = parse_qs(
                    body.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS
                )
            elif body:
                return refusal(scope, visit, 415, "Send a form, or JSON.")
        except (ValueError, RecursionError, ClientDisconnect):
            return refusal(scope, visit, 400, "The body cannot be read.")
        if kind == "application/json" and "authorization" in headers and visit.user is not None:
            # A foreign page can make a browser send neither this header nor this type.
            return None
        token = headers.get("x-csrf-token") or visit.one("csrf")
        if self._sessions.is_token(visit.session, token):
            return None
        text = "The form is too old, or none of this dashboard's. Load its page anew."
        return refusal(scope, visit, 403, text)

    # -- what goes out ----------------------------------------------------------------------

    def _dress(self, headers: MutableHeaders, scope: Scope, visit: Visit, path: str) -> None:
        for name, value in _HEADERS.items():
            headers.setdefault(name, value)
        headers["content-security-policy"] = _CSP.format(nonce=visit.nonce)
        if path.startswith("/static/"):
            return
        headers.setdefault("cache-control", "no-store")
        if visit.changed and path not in _PROBES:
            headers.append("set-cookie", self._told(scope, visit))

    def _told(self, scope: Scope, visit: Visit) -> str:
        cookie = f"{self._cookie}={self._sessions.seal(visit.session)}; Path={visit.base or '/'}"
        secure = "; Secure" if scope.get("scheme") == "https" else ""
        return f"{cookie}; HttpOnly; SameSite=Lax; Max-Age={LASTS}{secure}"


_CSP: Final = (
    "default-src 'self'; script-src 'self' 'nonce-{nonce}'; style-src 'self' 'nonce-{nonce}'; "
    "img-src 'self' data:; connect-src 'self'; object-src 'none'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)
_HEADERS: Final = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


def too_many(scope: Scope, visit: Visit, wait: float) -> Response:
    """The answer to who guesses too fast."""
    seconds = int(wait) + 1
    refused = refusal(scope, visit, 429, f"Too many wrong guesses. Wait {seconds} s.")
    refused.headers["retry-after"] = str(seconds)
    return refused


def needs_no_store(path: str) -> bool:
    """Whether what is asked for tells nothing of any queue."""
    return path in {"/healthz", "/login"} or path.startswith("/static/")


def _is_at_home(scope: Scope) -> bool:
    """Whether both ends of the connection are on this machine, as far as the server says."""
    server, client = scope.get("server"), scope.get("client")
    here = server is None or is_loopback(server[0])
    return here and (client is None or is_loopback(client[0]))


def _is_foreign(scope: Scope, headers: Headers, host: str) -> bool:
    """Whether a POST says that it comes from another site."""
    site = headers.get("sec-fetch-site")
    if site == "same-origin":
        # The browser knows it, also where a proxy has put another name into Host.
        return False
    if site not in {None, "none"}:
        return True
    origin = headers.get("origin")
    return origin is not None and not is_same_site(origin, host, scope.get("scheme", "http"))


async def _body(receive: Receive) -> bytes | None:
    """The whole body; None where it is too long.

    Raises: ClientDisconnect where it ends before it is whole: half of what somebody wants may
    mean more than the whole.
    """
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientDisconnect
        part = message.get("body", b"")
        size += len(part)
        if size > _MOST_BODY:
            return None
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)
