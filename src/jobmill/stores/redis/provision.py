"""Throwaway servers, for tests of what uses a store."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from jobmill.errors import StoreUnavailable
from jobmill.stores.redis.address import Address

_BINARIES: Final = ("redis-server", "valkey-server")
_START_WITHIN: Final = 15.0


def binary() -> str | None:
    """The server's program on PATH; None where there is none."""
    return next(filter(None, map(shutil.which, _BINARIES)), None)


@contextmanager
def server(*, databases: int = 16) -> Generator[Address]:
    """A server of its own on a free port of this machine, which keeps nothing.

    Raises: StoreUnavailable where there is no program, or it does not start.
    """
    program = binary()
    if program is None:
        raise StoreUnavailable(f"none of {', '.join(_BINARIES)} is on PATH: install one")
    with tempfile.TemporaryDirectory(prefix="jobmill-redis-") as folder:
        port = _free_port()
        words = ["--port", str(port), "--bind", "127.0.0.1", "--dir", folder]
        words += ["--save", "", "--appendonly", "no", "--databases", str(databases)]
        process = subprocess.Popen(  # noqa: S603
            [program, *words], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        try:
            _wait_for(process, port)
            yield Address(host="127.0.0.1", port=port)
        finally:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _START_WITHIN
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                if connection.recv(16).startswith(b"+PONG"):
                    return
        except OSError:
            pass
        time.sleep(0.02)
    raise StoreUnavailable("the throwaway server did not start")
