"""Which sessions were logged out, as all processes know it that share a secret."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING, Final

from jobmill.dashboard.board import Board, in_time
from jobmill.dashboard.sessions import LASTS, Session, Sessions
from jobmill.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from jobmill.dashboard.board import Watched
    from jobmill.store import Store

log: Final = logging.getLogger("jobmill.dashboard")

LOGOUTS: Final = "logouts"
"""The document space; a key is the instant of the logout, and the session's id."""
_EVERY: Final = 1.0
"""Seconds between two looks."""
_AFTER_SILENCE: Final = 10.0
_WITHIN: Final = 1.0
_PAGE: Final = 1_000
_PAGES: Final = 10
_SKEW: Final = 300
"""Seconds by which the clocks of two processes may differ."""


class Logouts:
    """Tells the stores of each logout, and hears of those in other processes.

    They are written to every queue that the dashboard was given, and read from one of each store:
    processes that share a secret have a queue in common. A store that does not answer keeps nobody
    from coming in: its logouts are known once it answers.
    """

    def __init__(self, board: Board, sessions: Sessions) -> None:
        self._board = board
        self._sessions = sessions
        self._next = 0.0

    async def tell(self, session: Session) -> None:
        """Let the other processes know that this session is over."""
        key = f"{_key(time.time())}{session.id}"

        async def write(store: Store) -> None:
            await store.write(LOGOUTS, key, b"")
            old = await store.read(LOGOUTS, limit=_PAGE)
            for doc in old:
                if doc.key < _key(time.time() - LASTS - _SKEW):
                    await store.write(LOGOUTS, doc.key, None)

        answers = await asyncio.gather(
            *(in_time(each.queue.ask(write), each.place) for each in self._board.given),
            return_exceptions=True,
        )
        for answer in answers:
            if isinstance(answer, StoreError | ConfigError):
                log.warning("other processes do not hear of a logout: %s", answer)
            elif isinstance(answer, BaseException):
                raise answer

    async def refresh(self) -> None:
        """Hear of logouts, at most every second."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _EVERY
        one_of_each = {each.place: each for each in self._board.given}
        heard = await asyncio.gather(*map(self._hear, one_of_each.values()))
        if not all(heard):
            self._next = time.monotonic() + _AFTER_SILENCE

    async def _hear(self, watched: Watched) -> bool:
        with contextlib.suppress(StoreError, ConfigError):
            await in_time(watched.queue.ask(self._read), watched.place, _WITHIN)
            return True
        return False

    async def _read(self, store: Store) -> None:
        after = _key(time.time() - LASTS - _SKEW)
        for _ in range(_PAGES):
            docs = await store.read(LOGOUTS, after=after, limit=_PAGE)
            for doc in docs:
                self._sessions.end(doc.key.partition(".")[2])
            if len(docs) < _PAGE:
                return
            after = docs[-1].key


def _key(at: float) -> str:
    return f"{round(at):012d}."
