"""Throwaway stores, for tests of what uses a store."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from jobmill.clock import Clock, SystemClock
from jobmill.stores.sqlite.store import SQLiteStore


@asynccontextmanager
async def throwaway(
    queue: str = "default", *, clock: Clock | None = None, inline: bool = False
) -> AsyncGenerator[SQLiteStore]:
    """An opened store on a file of its own, which is removed at the end.

    Nothing is waited for the disk: the file does not outlive a power cut anyway.
    """
    with tempfile.TemporaryDirectory(prefix="jobmill-") as folder:
        store = SQLiteStore(
            Path(folder, "jobs.db"),
            queue,
            synchronous="normal",
            clock=clock or SystemClock(),
            inline=inline,
        )
        await store.open()
        try:
            yield store
        finally:
            await store.close()
