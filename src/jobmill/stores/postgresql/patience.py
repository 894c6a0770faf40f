"""How long an answer is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

PATIENCE: Final = 5.0
"""Seconds for which a connection, and each answer, is waited for."""
_STEPS: Final = 10


@contextmanager
def bounded(
    give_up: Callable[[], None],
    seconds: float = PATIENCE,
    progress: Callable[[], object] | None = None,
) -> Generator[None]:
    """Call `give_up` where what is done inside takes longer than `seconds`.

    Time in which the loop stood still does not count, because nobody could hear the answer: the
    patience ends by steps, one for each turn of the loop at most. It begins anew while
    `progress` changes.
    """
    loop = asyncio.get_running_loop()
    seen = None if progress is None else progress()
    left = _STEPS
    timer: asyncio.TimerHandle

    def step() -> None:
        nonlocal left, seen, timer
        left -= 1
        if progress is not None and (now := progress()) != seen:
            seen, left = now, _STEPS
        if left:
            timer = loop.call_later(seconds / _STEPS, step)
        else:
            give_up()

    timer = loop.call_later(seconds / _STEPS, step)
    try:
        yield
    finally:
        timer.cancel()


@asynccontextmanager
async def limited(
    seconds: float = PATIENCE, progress: Callable[[], object] | None = None
) -> AsyncGenerator[None]:
    """Cut off what is done inside where it takes longer, as `bounded` counts.

    Raises: TimeoutError.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as scope:
        with bounded(lambda: scope.reschedule(loop.time()), seconds, progress):
            yield
