"""Says what is wrong with a store once, and not at every try."""

from __future__ import annotations

import logging
from typing import Final

from jobmill.errors import JobsError

log: Final = logging.getLogger("jobmill.worker")


class Trouble:
    """What keeps one piece of work from being done; `what` is that work, as in "pruning mails"."""

    def __init__(self, what: str, *, first_pause: float, max_pause: float) -> None:
        self._what = what
        self._first_pause = first_pause
        self._max_pause = max_pause
        self._pause = first_pause
        self._said: str | None = None

    def say(self, error: JobsError) -> float:
        """Warn of it, where it is not what was said last; seconds until the next try."""
        text = f"{type(error).__name__}: {error}"
        if text != self._said:
            self._said = text
            log.warning("%s fails, and is tried again: %s", self._what, text)
        pause, self._pause = self._pause, min(self._max_pause, self._pause * 2)
        return pause

    def over(self) -> None:
        """It works."""
        if self._said is not None:
            self._said = None
            self._pause = self._first_pause
            log.info("%s works again", self._what)
