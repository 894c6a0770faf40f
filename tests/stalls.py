"""What the machine itself costs a test that measures time."""

from __future__ import annotations

import asyncio
import time
from typing import Final, Self

_STEP: Final = 0.02
_USUAL: Final = 0.003
"""Seconds by which a sleep is late where nothing else runs."""


class Stalls:
    """How long this process had to wait for its turn, while a block of a test ran.

    The processes that are measured wait as long, about: what they are given grows by that.
    """

    def __init__(self) -> None:
        self._late: list[tuple[float, float]] = []

    def since(self, instant: float) -> float:
        """Seconds of waiting since then, by the monotonic clock."""
        return sum(late for at, late in self._late if at > instant)

    async def __aenter__(self) -> Self:
        self._beating = asyncio.create_task(self._beat())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._beating.cancel()
        await asyncio.wait([self._beating])

    async def _beat(self) -> None:
        while True:
            due = time.monotonic() + _STEP
            await asyncio.sleep(_STEP)
            now = time.monotonic()
            self._late.append((now, max(0.0, now - due - _USUAL)))
