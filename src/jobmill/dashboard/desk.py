"""What the answers of one dashboard share, and how they read a request."""

from __future__ import annotations

from typing import Final, cast

from starlette.requests import HTTPConnection, Request

from jobmill.dashboard.board import Board
from jobmill.dashboard.filters import Filter, read_filter
from jobmill.dashboard.identity import Identity
from jobmill.dashboard.masking import Mask
from jobmill.dashboard.reads.figures import HOUR, WINDOWS, Surveyor
from jobmill.dashboard.reads.jobs import LIMIT, MOST
from jobmill.dashboard.stream import Streams

_DIGITS: Final = 9


class Desk:
    """One dashboard: its queues, and all that goes with them."""

    def __init__(self, board: Board, mask: Mask, identity: Identity) -> None:
        self.identity: Final = identity
        self.board: Final = board
        self.mask: Final = mask
        self.surveyor: Final = Surveyor()
        self.streams: Final = Streams(board, self.surveyor)

    def window(self, request: Request) -> float:
        """How far back the request wants figures: one of WINDOWS."""
        window = float(whole(request.query_params.get("window"), round(HOUR)))
        return window if window in WINDOWS else HOUR

    def limit(self, request: Request) -> int:
        """How many the request wants; never more than MOST."""
        return max(1, min(whole(request.query_params.get("limit"), LIMIT), MOST))

    def queue(self, request: Request) -> str | None:
        """The queue that the request is about; None for all."""
        return request.query_params.get("queue") or None

    def filter(self, request: Request) -> Filter:
        """The jobs that the request is about."""
        given = request.query_params
        return read_filter(
            given.get("q", ""), tuple(filter(None, given.getlist("state"))), self.queue(request)
        )


def whole(text: str | None, default: int) -> int:
    """The whole number that a text says; the default where it says none."""
    if text is None or not text.isascii() or not text.isdigit():
        return default
    return int(text[: _DIGITS + 1])


def desk_of(connection: HTTPConnection) -> Desk:
    """The dashboard that was asked."""
    return cast("Desk", connection.app.state.desk)
