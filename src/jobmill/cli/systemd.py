"""Tells systemd how the worker is, where it was started by it (`Type=notify`)."""

from __future__ import annotations

import contextlib
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Final

_VARIABLE: Final = "NOTIFY_SOCKET"
_PATIENCE: Final = 5.0
"""Seconds that a word waits for room, where systemd has much to read; the process's end waits for
it, too."""
_WORDS: Final = ThreadPoolExecutor(1, thread_name_prefix="jobmill-systemd")
"""Says one word after the other, beside the loop. It has no thread before the first."""


def notify(state: str) -> None:
    """Send a line as `READY=1`, in the order of the calls; nothing where no systemd listens.

    Source: sd_notify(3).
    """
    if _path():
        _WORDS.submit(_send, state, _PATIENCE)


def feed_watchdog() -> None:
    """Say that the loop goes on, where there is room for it at once: the next time comes soon."""
    _send("WATCHDOG=1", 0.0)


def watchdog() -> float | None:
    """Seconds within which systemd wants to hear of `feed_watchdog`; None where it does not.

    Source: sd_watchdog_enabled(3).
    """
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    text = os.environ.get("WATCHDOG_USEC", "")
    return int(text) / 1_000_000 if text.isdigit() and int(text) else None


def _path() -> str | None:
    path = os.environ.get(_VARIABLE)
    return path if path and hasattr(socket, "AF_UNIX") else None


def _send(state: str, patience: float) -> None:
    path = _path()
    if path is None:
        return
    address = f"\0{path[1:]}" if path.startswith("@") else path
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.settimeout(patience)
        # Only one that is connected is told when there is room.
        line.connect(address)
        line.send(state.encode())
