"""Instants and what a zone's clock on the wall shows at them, across gaps and folds.

Both are whole seconds since 0001-01-01T00:00, an instant in UTC. A wall time that the clock
passes over lies in a gap; one that it shows twice, in a fold.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Final

import msgspec

DAY: Final = 86_400
START: Final = datetime(1, 1, 1)  # noqa: DTZ001 - counts both instants and wall times
_END: Final = date.max.toordinal() * DAY

FIRST: Final = 2 * DAY
"""The first instant that is answered with: no zone has a date before the year 1 then."""
LAST: Final = _END - 2 * DAY
"""The last instant that is answered with: no zone has a date after the year 9999 then."""

_STEP: Final = 1 << 16
"""Seconds between two looks at the offset. No zone ever changed it twice within 3 days."""
_BLOCK: Final = _STEP << 3
"""Seconds whose spans are found and kept together, about 6 days."""


class Span(msgspec.Struct, frozen=True):
    """Instants from `start` to before `end` with one offset: wall time less instant.

    A span ends with its block, though the offset may go on.
    """

    start: int
    end: int
    offset: int


class WallClock:
    """A zone's clock on the wall."""

    __slots__ = ("_zone",)

    def __init__(self, zone: tzinfo) -> None:
        self._zone: tzinfo = zone

    def span(self, instant: int) -> Span:
        """The span that this instant lies in."""
        spans = _spans(self._zone, instant // _BLOCK)
        return next(span for span in spans if instant < span.end)

    def never_before(self, instant: int) -> int:
        """The first wall time that the clock had not reached at any time before this instant."""
        # A wall time is within a day of its instant, so two days back is far enough.
        return max(
            min(span.end, instant) + span.offset
            for span in self._around(instant - 2 * DAY, instant)
            if span.start < instant
        )

    def never_below(self, instant: int) -> int:
        """The earliest wall time that the clock shows at or after this instant."""
        return min(
            max(span.start, instant) + span.offset
            for span in self._around(instant, instant + 2 * DAY)
            if span.end > instant
        )

    def reaches(self, wall: int) -> int:
        """The first instant at which the clock shows this wall time, or a later one."""
        for span in self._around(wall - DAY, wall + DAY):
            if wall < span.end + span.offset:
                return max(span.start, wall - span.offset)
        raise AssertionError(wall)

    def leaves(self, wall: int) -> int:
        """The last instant at which the clock shows this wall time, or an earlier one."""
        for span in reversed(self._around(wall - DAY, wall + DAY)):
            if span.start + span.offset <= wall:
                return min(span.end - 1, wall - span.offset)
        raise AssertionError(wall)

    def shows(self, instant: int) -> datetime:
        """The aware datetime of this instant."""
        return self._zone.fromutc(_utc(self._zone, instant))

    def _around(self, first: int, last: int) -> tuple[Span, ...]:
        """The spans of all blocks from that of one instant to that of another."""
        block, end = first // _BLOCK, last // _BLOCK
        spans = _spans(self._zone, block)
        while block < end:
            block += 1
            spans += _spans(self._zone, block)
        return spans


def count(at: datetime) -> tuple[int, bool]:
    """The last whole second of an aware datetime that is not after it, and whether it is it."""
    since = at.replace(tzinfo=None) - START - (at.utcoffset() or timedelta())
    return since.days * DAY + since.seconds, not since.microseconds


@lru_cache(maxsize=4096)
def _spans(zone: tzinfo, block: int) -> tuple[Span, ...]:
    spans = list[Span]()
    start = begin = block * _BLOCK
    offset = _offset(zone, begin)
    for end in range(begin + _STEP, begin + _BLOCK + 1, _STEP):
        now = _offset(zone, end)
        if now != offset:
            change = _change(zone, end - _STEP, end)
            if change < begin + _BLOCK:
                spans.append(Span(start, change, offset))
                start, offset = change, now
    spans.append(Span(start, begin + _BLOCK, offset))
    return tuple(spans)


def _change(zone: tzinfo, before: int, after: int) -> int:
    """The first instant that has the offset of `after`, and not that of `before`."""
    old = _offset(zone, before)
    while after - before > 1:
        middle = (before + after) // 2
        if _offset(zone, middle) == old:
            before = middle
        else:
            after = middle
    return after


def _offset(zone: tzinfo, instant: int) -> int:
    at = _utc(zone, min(max(instant, FIRST - DAY), LAST + DAY))
    offset = zone.fromutc(at) - at
    return offset.days * DAY + offset.seconds


def _utc(zone: tzinfo, instant: int) -> datetime:
    return START.replace(tzinfo=zone) + timedelta(seconds=instant)
