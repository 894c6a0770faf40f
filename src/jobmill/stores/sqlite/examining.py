"""What an operator should know of the file, of how it is written, and of its disk."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from jobmill.store import Finding
from jobmill.stores.sqlite.turn import Turn

_LEAST_FREE: Final = 100_000_000
_LITTLE_FREE: Final = 1_000_000_000
_LONG_WAL: Final = 128_000_000
"""Twice what the -wal is cut to, once nobody reads it."""
_FULL: Final = 2
"""What `PRAGMA synchronous` says where each commit waits for the disk; 3 is more than that."""


def examine(turn: Turn, path: Path) -> list[Finding]:
    """What is to be said of the file; run by the thread that writes it."""
    ((mode,),) = turn.execute("PRAGMA journal_mode")
    ((synchronous,),) = turn.execute("PRAGMA synchronous")
    return [
        Finding(
            code="version", level="ok", text=f"SQLite {sqlite3.sqlite_version}, which is supported"
        ),
        _journal(str(mode)),
        _synchronous(int(synchronous)),
        _wal(path),
        *_disk(path),
    ]


def _journal(mode: str) -> Finding:
    if mode == "wal":
        return Finding(code="journal_mode", level="ok", text="journal_mode is wal")
    return Finding(
        code="journal_mode",
        level="bad",
        text=f"journal_mode is {mode}: readers and writers hold each other up",
        advice="restart the programs that use the file; each sets it to wal",
    )


def _synchronous(level: int) -> Finding:
    if level >= _FULL:
        text = "synchronous is full here: a power cut loses no job"
        return Finding(code="synchronous", level="ok", text=text)
    return Finding(
        code="synchronous",
        level="note",
        text="synchronous is normal here: a power cut may lose the last jobs",
        advice="leave ?synchronous=normal out of the URL",
    )


def _wal(path: Path) -> Finding:
    wal = path.with_name(f"{path.name}-wal")
    size = wal.stat().st_size if wal.exists() else 0
    text = f"{_megabytes(path.stat().st_size)}, and {_megabytes(size)} of -wal"
    if size < _LONG_WAL:
        return Finding(code="size", level="ok", text=text)
    return Finding(
        code="size",
        level="note",
        text=f"{text}: somebody reads the file for long, so that it is not written back",
        advice="end long transactions of other programs on the file",
    )


def _disk(path: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(path.parent).free
    text = f"{_megabytes(free)} are free on its disk"
    if free >= _LITTLE_FREE:
        yield Finding(code="disk", level="ok", text=text)
    else:
        yield Finding(
            code="disk",
            level="bad" if free < _LEAST_FREE else "note",
            text=text,
            advice="make room: a full disk takes no jobs",
        )


def _megabytes(number: int) -> str:
    return f"{number / 1_000_000:,.1f} MB"
