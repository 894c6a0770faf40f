"""Where figures were measured, to be written beside them."""

from __future__ import annotations

import os
import platform
import sys
from datetime import UTC, datetime

from jobmill.stores.redis.provision import Server, running


def about_redis() -> str:
    """Command, server, Python, machine and day, in two lines. It blocks."""
    with running() as server:
        version = fact(server, "server", "redis_version")
    day = datetime.now(UTC).date()
    return (
        f"command: {' '.join(sys.orig_argv[1:])}\n"
        f"Redis {version}, Python {platform.python_version()}, {platform.machine()}, "
        f"{os.cpu_count()} cores, {day}"
    )


def fact(server: Server, section: str, name: str) -> str:
    """One value out of a server's INFO. It blocks."""
    told: str = server.ask("INFO", section)
    return told.partition(f"\n{name}:")[2].partition("\r")[0]


def span(figures: list[int] | list[float], digits: int = 0) -> str:
    """The least and the greatest of some figures."""
    least, most = f"{min(figures):,.{digits}f}", f"{max(figures):,.{digits}f}"
    return least if least == most else f"{least} to {most}"
