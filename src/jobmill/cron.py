"""Cron expressions: when they fire, in any time zone and across every change of its clocks.

The rule is Debian's. An expression whose minute or hour begins with `*` follows real time:
it fires at each real instant whose wall time matches. Any other has fixed times: each matching
wall time fires once, at the first instant at which the clock on the wall reaches or passes it.
So a time in a gap fires at the first instant after it, and one in a fold at the first of the two.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, NoReturn

from jobmill.cronrule import Rule
from jobmill.crontext import WEEKDAYS, shown
from jobmill.errors import ConfigError, CronError
from jobmill.timezones import zone_named
from jobmill.walltime import DAY, FIRST, LAST, WallClock, count

_HORIZON: Final = 50 * 366 * DAY
"""Seconds that an answer of an expression in real time is away, at most. The rarest days of the
calendar, a 29 February on one weekday, are 40 years apart; what does not fire for longer falls
into gaps of its zone, each year anew."""

_TOLD: Final = 1_000_000
"""Numbers of an argument that an error repeats are smaller than this."""


class CronExpression:
    """When something is due: five fields, six with seconds first, or a word such as @daily.

    Immutable. Two are equal where they mean the same, as `0 0 * * SUN` and `@weekly` do.

    Raises: CronError where the text cannot be read or can never fire; it names the field.
    """

    __slots__ = ("_rule", "_text")

    def __init__(self, text: str) -> None:
        self._rule: Rule = Rule.read(text)
        self._text: str = text.strip()

    @property
    def text(self) -> str:
        """The text that it was made of."""
        return self._text

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CronExpression):
            return NotImplemented
        return self._rule == other._rule

    def __hash__(self) -> int:
        return hash(self._rule)

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._text!r})"

    def next(self, after: datetime, timezone: str = "UTC") -> datetime:
        """The first time after `after` at which it fires, as an aware datetime of the zone.

        Cost: bounded, a few steps for each month that it passes over. The file of a zone is
        read when the zone is first named.

        Raises: ConfigError where `after` is naive or the zone is unknown; CronError where the
        years up to 9999 have no such time, or where it fell into gaps for 50 years.
        """
        clock = WallClock(zone_named(timezone))
        first = max(_instant(after, "after")[0] + 1, FIRST)
        found = None
        if first <= LAST:
            found = (_next_real if self._rule.real else _next_fixed)(self._rule, clock, first)
        if found is None or found > LAST:
            _refuse(self._text, timezone, "after", after)
        return clock.shows(found)

    def previous(self, before: datetime, timezone: str = "UTC") -> datetime:
        """The last time before `before` at which it fired: the mirror of `next`.

        Raises: as `next`.
        """
        clock = WallClock(zone_named(timezone))
        instant, whole = _instant(before, "before")
        last = min(instant - whole, LAST)
        found = None
        if last >= FIRST:
            found = (_last_real if self._rule.real else _last_fixed)(self._rule, clock, last)
        if found is None or found < FIRST:
            _refuse(self._text, timezone, "before", before)
        return clock.shows(found)

    def matches(self, at: datetime, timezone: str = "UTC") -> bool:
        """Whether it fires at exactly this instant, with no second more and no fraction of one.

        Raises: ConfigError, as `next`.
        """
        clock = WallClock(zone_named(timezone))
        instant, whole = _instant(at, "at")
        if not whole or not FIRST <= instant <= LAST:
            return False
        if self._rule.real:
            wall = instant + clock.span(instant).offset
            return self._rule.last_until(wall) == wall
        return _last_fixed(self._rule, clock, instant) == instant

    def describe(self) -> str:
        """What it means, in English words: `At 08:00 on Monday to Friday`."""
        from jobmill.cronwords import describe

        return describe(self._text)


class CronPatterns:
    """Expressions that are often needed, and functions that write others.

    The functions raise CronError, naming the argument.
    """

    EVERY_MINUTE: Final = "* * * * *"
    EVERY_5_MINUTES: Final = "*/5 * * * *"
    EVERY_15_MINUTES: Final = "*/15 * * * *"
    EVERY_30_MINUTES: Final = "*/30 * * * *"
    EVERY_HOUR: Final = "0 * * * *"
    EVERY_6_HOURS: Final = "0 */6 * * *"
    EVERY_12_HOURS: Final = "0 */12 * * *"
    DAILY: Final = "0 0 * * *"
    DAILY_MIDNIGHT: Final = "0 0 * * *"
    DAILY_NOON: Final = "0 12 * * *"
    WEEKLY: Final = "0 0 * * 0"
    WEEKLY_MONDAY: Final = "0 0 * * 1"
    MONTHLY: Final = "0 0 1 * *"
    MONTHLY_FIRST: Final = "0 0 1 * *"
    YEARLY: Final = "0 0 1 1 *"

    @staticmethod
    def at(hour: int, minute: int = 0) -> str:
        """Every day at this time."""
        return f"{_time(hour, minute)} * * *"

    @staticmethod
    def every_minutes(n: int) -> str:
        """At each minute of the hour that `n` divides, 1 to 59: evenly where it divides 60."""
        return f"*/{_checked('n', n, 1, 59)} * * * *"

    @staticmethod
    def every_hours(n: int) -> str:
        """At each hour of the day that `n` divides, 1 to 23: evenly where it divides 24."""
        return f"0 */{_checked('n', n, 1, 23)} * * *"

    @staticmethod
    def weekday(day: int | str, hour: int = 0, minute: int = 0) -> str:
        """Once a week, on 0 to 7 (0 and 7 are Sunday) or a name such as "mon" or "Monday"."""
        return f"{_time(hour, minute)} * * {_day(day)}"

    @staticmethod
    def weekdays(hour: int = 0, minute: int = 0) -> str:
        """Every Monday to Friday at this time."""
        return f"{_time(hour, minute)} * * 1-5"

    @staticmethod
    def weekends(hour: int = 0, minute: int = 0) -> str:
        """Every Saturday and Sunday at this time."""
        return f"{_time(hour, minute)} * * 0,6"


def _next_fixed(rule: Rule, clock: WallClock, first: int) -> int | None:
    wall = rule.first_from(clock.never_before(first))
    return None if wall is None else clock.reaches(wall)


def _last_fixed(rule: Rule, clock: WallClock, last: int) -> int | None:
    wall = rule.last_until(clock.never_before(last + 1) - 1)
    return None if wall is None else clock.reaches(wall)


def _next_real(rule: Rule, clock: WallClock, first: int) -> int | None:
    end = min(first + _HORIZON, LAST)
    while first <= end:
        span = clock.span(first)
        wall = rule.first_from(first + span.offset)
        if wall is not None and wall - span.offset < span.end:
            return wall - span.offset
        # Nothing more in this span: go to where a matching wall time can come next.
        wall = rule.first_from(clock.never_below(span.end))
        if wall is None:
            return None
        first = max(span.end, clock.reaches(wall))
    return None


def _last_real(rule: Rule, clock: WallClock, last: int) -> int | None:
    end = max(last - _HORIZON, FIRST)
    while last >= end:
        span = clock.span(last)
        wall = rule.last_until(last + span.offset)
        if wall is not None and wall - span.offset >= span.start:
            return wall - span.offset
        wall = rule.last_until(clock.never_before(span.start) - 1)
        if wall is None:
            return None
        last = min(span.start - 1, clock.leaves(wall))
    return None


def _instant(at: object, name: str) -> tuple[int, bool]:
    if not isinstance(at, datetime):
        message = f"{name}: {type(at).__name__} is no datetime; give one such as datetime.now(UTC)"
        raise ConfigError(message, field=name)
    if at.utcoffset() is None:
        message = f"{name}: a naive datetime says no instant; give one such as datetime.now(UTC)"
        raise ConfigError(message, field=name)
    return count(at)


def _refuse(text: str, timezone: str, side: str, at: datetime) -> NoReturn:
    message = (
        f"cron: {shown(text)} has no time {side} {at.isoformat()} in {timezone}: the calendar "
        "ends, or its times fall into the hour that this zone skips; give other times"
    )
    raise CronError(message, field="cron")


def _time(hour: object, minute: object) -> str:
    return f"{_checked('minute', minute, 0, 59)} {_checked('hour', hour, 0, 23)}"


def _day(day: object) -> int:
    if not isinstance(day, str):
        return _checked("day", day, 0, 7)
    for number, name in enumerate(WEEKDAYS):
        if day.upper() in {name[:3].upper(), name.upper()}:
            return number
    message = f"day: {shown(day)} is no weekday; give 0 to 7, or a name such as 'mon' or 'Monday'"
    raise CronError(message, field="day")


def _checked(name: str, number: object, low: int, high: int) -> int:
    if isinstance(number, bool) or not isinstance(number, int):
        message = f"{name}: {type(number).__name__} is no whole number; give {low} to {high}"
        raise CronError(message, field=name)
    if not low <= number <= high:
        # Python refuses to write a number of thousands of digits.
        told = number if -_TOLD < number < _TOLD else "the number"
        message = f"{name}: {told} is out of range; give {low} to {high}"
        raise CronError(message, field=name)
    return number
