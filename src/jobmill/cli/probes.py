"""Answers `/healthz` and `/readyz`, for whoever looks after the process (Kubernetes, a proxy)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Final

from jobmill.cli.ending import Ended, Exit

_LONGEST_REQUEST: Final = 8_192
_PATIENCE: Final = 5.0


@dataclass(frozen=True, slots=True)
class Probes:
    """What is answered: `ready` says whether jobs are claimed now."""

    ready: Callable[[], bool]

    def answer(self, path: str) -> tuple[int, str]:
        """The status and the text for a path."""
        if path == "/healthz":
            return 200, "ok"
        if path == "/readyz":
            return (200, "ready") if self.ready() else (503, "not ready")
        return 404, "there are /healthz and /readyz"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request, and hang up."""
        with contextlib.suppress(OSError, EOFError, asyncio.LimitOverrunError):
            async with asyncio.timeout(_PATIENCE):
                head = await reader.readuntil(b"\r\n\r\n")
                words = head.split(b"\r\n", 1)[0].decode("ascii", "replace").split(" ")
                path = words[1].partition("?")[0] if len(words) > 1 else ""
                status, text = (405, "GET only") if words[0] not in ("GET", "HEAD") else (0, "")
                if not status:
                    status, text = self.answer(path)
                body = b"" if words[0] == "HEAD" else f"{text}\n".encode()
                writer.write(_head(status, len(text) + 1) + body)
                await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def probes(address: tuple[str, int], answers: Probes) -> AsyncGenerator[None]:
    """Answer on that host and port.

    Raises: Ended where nobody can listen there.
    """
    host, port = address
    try:
        server = await asyncio.start_server(answers.serve, host, port, limit=_LONGEST_REQUEST)
    except OSError as error:
        message = f"--health-port: nobody can listen on {host}:{port}: {error.strerror or error}"
        raise Ended(Exit.FAILED, message) from error
    try:
        yield
    finally:
        server.close()


def address_of(text: str) -> tuple[str, int]:
    """The host and port of `8080` or `127.0.0.1:8080`; without a host, all of the machine.

    Raises: Ended where it is none.
    """
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or not 0 < int(port) < 1 << 16:
        message = f"--health-port: {text!r} is no port; give one such as 8080 or 127.0.0.1:8080"
        raise Ended(Exit.USAGE, message)
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104  a probe comes from outside


def _head(status: int, length: int) -> bytes:
    reason = {200: "OK", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}
    return (
        f"HTTP/1.1 {status} {reason[status]}\r\n"
        f"Content-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n"
        "Connection: close\r\n\r\n"
    ).encode()
