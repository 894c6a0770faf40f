"""Waiting in tests: for the thing itself, with a deadline; never for an amount of time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from jobmill import StoreUnavailable

INTERVAL = 0.005
PATIENCE = 30.0
"""Seconds for what takes a moment on a machine that is not busy."""
T = TypeVar("T")


async def eventually(predicate: Callable[[], object], within: float = PATIENCE) -> None:
    """Return as soon as the predicate holds; fail where it does not hold in time."""
    deadline = time.monotonic() + within
    while not predicate():
        assert time.monotonic() < deadline, f"not within {within} s: {predicate}"
        await asyncio.sleep(INTERVAL)


async def once_available(call: Callable[[], Awaitable[T]], within: float = PATIENCE) -> T:
    """What the call gives, as soon as it no longer raises StoreUnavailable."""
    deadline = time.monotonic() + within
    while True:
        try:
            return await call()
        except StoreUnavailable:
            assert time.monotonic() < deadline, f"not within {within} s: {call}"
            await asyncio.sleep(INTERVAL)


def eventually_sync(predicate: Callable[[], object], within: float = PATIENCE) -> None:
    """The same, where there is no event loop."""
    deadline = time.monotonic() + within
    while not predicate():
        assert time.monotonic() < deadline, f"not within {within} s: {predicate}"
        time.sleep(INTERVAL)
