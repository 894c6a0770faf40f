"""Serves the dashboard over HTTP, beside whatever else the process does."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
from collections.abc import AsyncGenerator, Generator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from jobmill.cli.ending import Ended, Exit

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.types import ASGIApp, Receive, Scope, Send

log: Final = logging.getLogger("jobmill.dashboard")

PORT: Final = 8080
_LAST_PORT: Final = 65_535
_NEEDED: Final = ("starlette", "jinja2", "uvicorn")
_BASE: Final = re.compile(r"(/[A-Za-z0-9._~-]+)+")
_OPEN_FOR: Final = 2
"""Seconds that open connections have at the end."""


def is_installed() -> bool:
    """Whether all is there that the dashboard needs."""
    return all(find_spec(name) is not None for name in _NEEDED)


def need_it() -> None:
    """Go on only where all is there.

    Raises: Ended.
    """
    if not is_installed():
        message = 'the dashboard needs more; pip install "jobmill[dashboard]"'
        raise Ended(Exit.USAGE, message)


def check_port(port: int) -> None:
    """Go on only with a port that there can be.

    Raises: Ended.
    """
    if not 0 <= port <= _LAST_PORT:
        raise Ended(Exit.USAGE, f"--port: {port} will not do; give 0 to {_LAST_PORT}")


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0 takes a free one.

    Raises: OSError.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family)


def bound_or_ended(host: str, port: int) -> socket.socket:
    """The same.

    Raises: Ended.
    """
    try:
        return bound(host, port)
    except OSError as error:
        message = f"--port: nobody can listen on {host}:{port}: {error.strerror or error}"
        raise Ended(Exit.FAILED, message) from error


def url_of(listening: socket.socket) -> str:
    """Where a browser finds what listens there."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


@contextlib.asynccontextmanager
async def served(app: Starlette, listening: socket.socket, base: str = "") -> AsyncGenerator[None]:
    """Serve it there until the end of the block; `base`: the path under which it is asked for."""
    import uvicorn

    class Server(uvicorn.Server):
        """One that leaves signals to the command."""

        @contextlib.contextmanager
        def capture_signals(self) -> Generator[None]:
            yield

    config = uvicorn.Config(
        _under(app, base) if base else app,
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="on",
        ws="none",
        timeout_graceful_shutdown=_OPEN_FOR,
    )
    server = Server(config)
    serving = asyncio.ensure_future(server.serve(sockets=[listening]))
    try:
        yield
    finally:
        # Streams would keep their connections open.
        app.state.desk.streams.end()
        server.should_exit = True
        await serving
        listening.close()


def check_base(path: str) -> str:
    """The path without its last slash; nothing where it is the root.

    Raises: Ended.
    """
    base = path.rstrip("/")
    if base and not _BASE.fullmatch(base):
        message = f"--base-path {path}: give a path such as /jobmill, as the browser asks for it"
        raise Ended(Exit.USAGE, message)
    return base


def _under(app: ASGIApp, base: str) -> ASGIApp:
    """The app under a path; the root leads there, and all else is not found."""

    async def mounted(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        path = scope["path"]
        if path == base or path.startswith(f"{base}/"):
            await app({**scope, "root_path": base}, receive, send)
            return
        status, headers = (307, [(b"location", f"{base}/".encode())]) if path == "/" else (404, [])
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    return mounted


async def serve_beside(app: Starlette, host: str, port: int) -> None:
    """Serve it until cancelled; where another process still listens, as soon as that is gone."""
    async with served(app, listening := await _bound_at_last(host, port)):
        log.info("the dashboard is at %s", url_of(listening))
        await asyncio.Event().wait()


async def _bound_at_last(host: str, port: int) -> socket.socket:
    told = False
    while True:
        try:
            return bound(host, port)
        except OSError as error:
            if not told:
                log.warning("no dashboard on %s:%d yet: %s", host, port, error.strerror or error)
                told = True
            await asyncio.sleep(1.0)
