"""Tells systemd how the worker is, where it was started by it (`Type=notify`)."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Final

_VARIABLE: Final = "NOTIFY_SOCKET"


def notify(state: str) -> None:
    """Send a line as `READY=1`; nothing where no systemd listens.

    Source: sd_notify(3).
    """
    path = os.environ.get(_VARIABLE)
    if not path or not hasattr(socket, "AF_UNIX"):
        return
    address = f"\0{path[1:]}" if path.startswith("@") else path
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        # Whoever does not read must not stop the worker.
        line.setblocking(False)
        line.sendto(state.encode(), address)


def watchdog() -> float | None:
    """Seconds within which systemd wants to hear `WATCHDOG=1`; None where it does not.

    Source: sd_watchdog_enabled(3).
    """
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    text = os.environ.get("WATCHDOG_USEC", "")
    return int(text) / 1_000_000 if text.isdigit() and int(text) else None
