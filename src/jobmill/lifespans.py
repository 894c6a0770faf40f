"""Enters and exits the lifespans of queues, in a time that a stop can promise."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from jobmill.queue import Queue

log: Final = logging.getLogger("jobmill.worker")

EXIT_WITHIN: Final = 5.0
"""Seconds that a lifespan has for its exit before it is cancelled."""


class Lifespans:
    """The lifespans of one worker, all entered and exited in its one asyncio task.

    One asyncio task, because what a lifespan holds, such as a task group, may insist on it.
    """

    def __init__(self) -> None:
        self.entered: asyncio.Event = asyncio.Event()
        """Set while none is being entered."""
        self.entered.set()
        self._task: asyncio.Task[Any] | None = None
        self._given_up = False

    async def enter(self, queue: Queue, stack: AsyncExitStack) -> tuple[bool, Any]:
        """Enter the queue's lifespan, to exit with the stack: True and what it gave.

        False and nothing where it was given up.
        """
        if queue.lifespan is None:
            return True, None
        lifespan = queue.lifespan(queue)
        self._task = task = asyncio.current_task()
        self.entered.clear()
        try:
            state = await lifespan.__aenter__()
        except asyncio.CancelledError:
            if self._given_up and task is not None and task.cancelling() == 1:
                log.warning("the lifespan of %s was cancelled while it was entered", queue.name)
                return False, None
            raise
        finally:
            if self._given_up and task is not None:
                task.uncancel()
            self.entered.set()
        stack.push_async_exit(partial(_exit, queue.name, lifespan))
        return True, state

    def give_up(self) -> None:
        """Cancel the lifespan that is being entered."""
        if not self.entered.is_set() and not self._given_up and self._task is not None:
            self._given_up = True
            self._task.cancel()


async def _exit(
    queue: str,
    lifespan: AbstractAsyncContextManager[Any],
    kind: type[BaseException] | None,
    error: BaseException | None,
    frames: TracebackType | None,
) -> bool | None:
    late = False

    def cut() -> None:
        nonlocal late
        late = True
        log.warning("the lifespan of %s took over %g s to exit; cancelling", queue, EXIT_WITHIN)
        if task is not None:
            task.cancel()

    task = asyncio.current_task()
    timer = asyncio.get_running_loop().call_later(EXIT_WITHIN, cut)
    try:
        return await lifespan.__aexit__(kind, error, frames)
    except asyncio.CancelledError:
        if not late:
            raise
        return None
    finally:
        timer.cancel()
        if late and task is not None:
            task.uncancel()
