"""Which wall times a cron expression means, by sets and without a search through time.

A wall time is a whole number of seconds since 0001-01-01T00:00, as if every day had 86,400 s.
"""

from __future__ import annotations

from datetime import date
from typing import Final, Self

import msgspec

from jobmill.crontext import Fields, Monthdays, Weekdays, bits, read, shown
from jobmill.errors import CronError

DAY: Final = 86_400
_HOUR: Final = 3_600
_MINUTE: Final = 60
_WEEK: Final = 7
_SUNDAY: Final = 0
_SATURDAY: Final = 6
_FEBRUARY: Final = 2
_DECEMBER: Final = 12
_SHORTEST: Final = 28
"""Days of the shortest month."""
_LENGTHS: Final = (0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_LONGEST_YEAR: Final = date.max.year


class Rule(msgspec.Struct, frozen=True):
    """The wall times of an expression.

    `days` has a set for each of the 28 shapes that a month can have: 28 to 31 days, and for
    each length the weekday of its first (0 is Sunday). `real`: the expression follows real
    time; otherwise each of its wall times comes once.
    """

    seconds: int
    minutes: int
    hours: int
    months: int
    days: tuple[int, ...]
    real: bool

    @classmethod
    def read(cls, text: object) -> Self:
        """The rule of this text.

        Raises: CronError where it cannot be read, or no day of any year fits it.
        """
        fields = read(text)
        days = tuple(
            _days(fields, length, first)
            for length in range(_SHORTEST, 32)
            for first in range(_WEEK)
        )
        if not any(_fits(days, month) for month in bits(fields.months)):
            message = (
                f"cron: day of month: {shown(str(text))} can never fire, since no month that it "
                "names has such a day; give one that comes in some year"
            )
            raise CronError(message, field="day of month")
        return cls(fields.seconds, fields.minutes, fields.hours, fields.months, days, fields.real)

    def first_from(self, wall: int) -> int | None:
        """The first wall time of the rule that is not before `wall`; None past the year 9999.

        Cost: at most 41 years, a step for each month that the rule names.
        """
        day, second = divmod(wall, DAY)
        when = date.fromordinal(day + 1)
        days = self._days_of(when.year, when.month)
        if days >> when.day & 1:
            time = self._time_from(second)
            if time is not None:
                return day * DAY + time
        later = days >> when.day + 1
        if later:
            return (day + 1 + _lowest(later)) * DAY + self._first_time()
        month = when.month + 1
        for year in range(when.year, _LONGEST_YEAR + 1):
            months = self.months >> month << month
            while months:
                month = _lowest(months)
                months &= months - 1
                days = self._days_of(year, month)
                if days:
                    first = date(year, month, _lowest(days)).toordinal() - 1
                    return first * DAY + self._first_time()
            month = 1
        return None

    def last_until(self, wall: int) -> int | None:
        """The last wall time of the rule that is not after `wall`; None before the year 1.

        Cost: as `first_from`.
        """
        day, second = divmod(wall, DAY)
        when = date.fromordinal(day + 1)
        days = self._days_of(when.year, when.month)
        if days >> when.day & 1:
            time = self._time_until(second)
            if time is not None:
                return day * DAY + time
        earlier = _below(days, when.day)
        if earlier:
            return (day - when.day + _highest(earlier)) * DAY + self._last_time()
        month = when.month
        for year in range(when.year, 0, -1):
            months = _below(self.months, month)
            while months:
                month = _highest(months)
                months ^= 1 << month
                days = self._days_of(year, month)
                if days:
                    last = date(year, month, _highest(days)).toordinal() - 1
                    return last * DAY + self._last_time()
            month = _DECEMBER + 1
        return None

    def _days_of(self, year: int, month: int) -> int:
        if not self.months >> month & 1:
            return 0
        leap = month == _FEBRUARY and year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
        first = date(year, month, 1).toordinal() % _WEEK
        return self.days[(_LENGTHS[month] + leap - _SHORTEST) * _WEEK + first]

    def _time_from(self, second: int) -> int | None:
        hour, rest = divmod(second, _HOUR)
        minute, second = divmod(rest, _MINUTE)
        if self.hours >> hour & 1:
            if self.minutes >> minute & 1:
                seconds = self.seconds >> second
                if seconds:
                    return hour * _HOUR + minute * _MINUTE + second + _lowest(seconds)
            minutes = self.minutes >> minute + 1
            if minutes:
                minute += 1 + _lowest(minutes)
                return hour * _HOUR + minute * _MINUTE + _lowest(self.seconds)
        hours = self.hours >> hour + 1
        if not hours:
            return None
        hour += 1 + _lowest(hours)
        return hour * _HOUR + _lowest(self.minutes) * _MINUTE + _lowest(self.seconds)

    def _time_until(self, second: int) -> int | None:
        hour, rest = divmod(second, _HOUR)
        minute, second = divmod(rest, _MINUTE)
        if self.hours >> hour & 1:
            if self.minutes >> minute & 1:
                seconds = _below(self.seconds, second + 1)
                if seconds:
                    return hour * _HOUR + minute * _MINUTE + _highest(seconds)
            minutes = _below(self.minutes, minute)
            if minutes:
                return hour * _HOUR + _highest(minutes) * _MINUTE + _highest(self.seconds)
        hours = _below(self.hours, hour)
        if not hours:
            return None
        return _highest(hours) * _HOUR + _highest(self.minutes) * _MINUTE + _highest(self.seconds)

    def _first_time(self) -> int:
        return _lowest(self.hours) * _HOUR + _lowest(self.minutes) * _MINUTE + _lowest(self.seconds)

    def _last_time(self) -> int:
        return (
            _highest(self.hours) * _HOUR + _highest(self.minutes) * _MINUTE + _highest(self.seconds)
        )


def _days(fields: Fields, length: int, first: int) -> int:
    """The days that fit, in a month of so many days whose first is this weekday."""
    monthdays = _of_month(fields.monthdays, length, first)
    weekdays = _of_week(fields.weekdays, length, first)
    return monthdays & weekdays if fields.both else monthdays | weekdays


def _of_month(named: Monthdays, length: int, first: int) -> int:
    found = _below(named.days, length + 1)
    if named.last:
        found |= 1 << length
    near = _below(named.near, length + 1)
    if named.last_workday:
        near |= 1 << length
    for day in bits(near):
        found |= 1 << _workday_near(day, length, first)
    return found


def _workday_near(day: int, length: int, first: int) -> int:
    """The day from Monday to Friday that is nearest to this one, within its month."""
    weekday = (first + day - 1) % _WEEK
    if weekday == _SATURDAY:
        return day - 1 if day > 1 else day + 2
    if weekday == _SUNDAY:
        return day + 1 if day < length else day - 2
    return day


def _of_week(named: Weekdays, length: int, first: int) -> int:
    found = 0
    for weekday in bits(named.days):
        for day in range(1 + (weekday - first) % _WEEK, length + 1, _WEEK):
            found |= 1 << day
    for weekday, which in named.nth:
        found |= 1 << 1 + (weekday - first) % _WEEK + (which - 1) * _WEEK
    for weekday in bits(named.last):
        found |= 1 << length - (first + length - 1 - weekday) % _WEEK
    return _below(found, length + 1)


def _fits(days: tuple[int, ...], month: int) -> bool:
    lengths = (28, 29) if month == _FEBRUARY else (_LENGTHS[month],)
    return any(days[(length - _SHORTEST) * _WEEK + n] for length in lengths for n in range(_WEEK))


def _lowest(numbers: int) -> int:
    return (numbers & -numbers).bit_length() - 1


def _highest(numbers: int) -> int:
    return numbers.bit_length() - 1


def _below(numbers: int, end: int) -> int:
    """Those of the numbers that are smaller than `end`."""
    return numbers & (1 << end) - 1
