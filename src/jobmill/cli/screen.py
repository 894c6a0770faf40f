"""What a worker says first: its queues, its jobs, where they are kept, and all versions."""

from __future__ import annotations

import logging
import os
import platform
import sys
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from typing import Final, TextIO

from jobmill.cli.logs import LogFormat
from jobmill.cli.text import clean
from jobmill.queue import Queue
from jobmill.registry import registered
from jobmill.worker import Worker

log: Final = logging.getLogger("jobmill.worker")

_SHOWN: Final = 20


def first_screen(
    worker: Worker,
    queues: Sequence[Queue],
    *,
    form: LogFormat,
    processes: int = 1,
    more: Iterable[tuple[str, str]] = (),
    to: TextIO | None = None,
) -> None:
    """Say what this worker works on; in a log of JSON, as one of its lines."""
    names = jobs_of(worker)
    if form == "json":
        places = ", ".join(f"{queue.name} in {queue.store.place}" for queue in queues)
        log.info("worker of %s, with %d jobs; %s", places, len(names), versions())
        return
    lines = [f"{versions()}, pid {os.getpid()}", ""]
    for head, queue in zip(_heads("queue", queues), queues, strict=True):
        lines.append(f"  {head:<10} {queue.name} in {queue.store.place}")
    shown = [*names[:_SHOWN], *([f"and {len(names) - _SHOWN} more"] if names[_SHOWN:] else [])]
    for head, name in zip(_heads("job", shown), shown, strict=True):
        lines.append(f"  {head:<10} {name}")
    if not names:
        lines.append(
            "  jobs       none are defined: each that comes waits for a worker that has it"
        )
    at_once = f"{worker.concurrency} jobs at once"
    each = f", in each of {processes} processes" if processes > 1 else ""
    lines.append(f"  {'runs':<10} {at_once}{each}")
    lines += [f"  {head:<10} {text}" for head, text in more]
    stream = to or sys.stderr
    stream.write(clean("\n".join([*lines, "", ""])))
    stream.flush()


def jobs_of(worker: Worker) -> list[str]:
    """The jobs that the worker runs, by name."""
    names = registered() if worker.names is None else worker.names
    return sorted(names)


def versions() -> str:
    """The versions that matter for a worker."""
    from jobmill.cli.command import version

    parts = [f"jobmill {version()}", f"Python {platform.python_version()}"]
    if find_spec("uvloop") is not None:
        from importlib.metadata import version as of

        parts.append(f"uvloop {of('uvloop')}")
    return ", ".join(parts)


def _heads(word: str, some: Sequence[object]) -> list[str]:
    return [f"{word}s" if len(some) > 1 else word, *[""] * (len(some) - 1)] if some else []
