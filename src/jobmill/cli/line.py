"""The line between a worker process and its supervisor: two pipes, a word in each line."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from typing import Final, Literal, Self, cast

Order = Literal["stop", "now"]
"""Stop in order; hand back what runs and go. The supervisor's end is an order to stop."""
News = Literal["loaded", "ready", "away", "recycle"]
"""The app is loaded; the worker claims; it does not, since its store is away, until it says
"ready" again; it is past a limit and wants to be replaced."""

_VARIABLE: Final = "JOBMILL_SUPERVISOR"
_CHUNK: Final = 4_096


class Line:
    """The worker's end. `first`: it is the first process, and says what all of them do."""

    def __init__(self, orders: int, news: int, *, first: bool) -> None:
        self.first = first
        self._orders = orders
        self._news = news

    @classmethod
    def inherited(cls) -> Self | None:
        """The line that this process was started with; None where nobody supervises it."""
        # Taken out, since the children of this process are none of the supervisor's.
        words = os.environ.pop(_VARIABLE, "").split(",")
        if len(words) != 3:  # noqa: PLR2004
            return None
        orders, news, first = map(int, words)
        for end in (orders, news):
            os.set_inheritable(end, False)
        return cls(orders, news, first=bool(first))

    def tell(self, news: News, reason: str = "") -> None:
        """Tell the supervisor, where it still lives."""
        with contextlib.suppress(OSError):
            os.write(self._news, f"{news} {reason}\n".encode())

    def hear(self, loop: asyncio.AbstractEventLoop, obey: Callable[[Order], None]) -> None:
        """Obey each order that comes."""

        def read() -> None:
            data = os.read(self._orders, _CHUNK)
            if not data:
                self.hang_up(loop)
                obey("stop")
            for word in data.decode().split():
                obey(cast("Order", word))

        loop.add_reader(self._orders, read)

    def hang_up(self, loop: asyncio.AbstractEventLoop) -> None:
        """Hear no more."""
        loop.remove_reader(self._orders)


def environment(orders: int, news: int, *, first: bool) -> dict[str, str]:
    """The environment of a worker process with these ends."""
    # What systemd wants to know the supervisor tells it.
    own = {key: value for key, value in os.environ.items() if key != "NOTIFY_SOCKET"}
    return {**own, _VARIABLE: f"{orders},{news},{int(first)}"}
