"""The text of a cron expression, read into sets.

Five fields (minute, hour, day of month, month, day of week), or six with seconds first, or one
of the @-words. A set is an int: bit n stands for the number n.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NoReturn

import msgspec

from jobmill.errors import CronError

LONGEST: Final = 256
"""Characters that are read; a longer text is refused unread."""

WORDS: Final[Mapping[str, str]] = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}

WEEKDAYS: Final = (*("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"),)
MONTHS: Final = (
    *("", "January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)
_MOST_OF_A_WEEKDAY: Final = 5
"""No month has a weekday more often."""
_SUNDAY_AGAIN: Final = 7
_WHOLE_WEEK: Final = {"0-7", "SUN-7"}
"""Ranges that end with Sunday again, a week later; 5-7 just goes round to 0."""
_SHOWN: Final = 40
"""Characters of the user's text that an error repeats."""


class Monthdays(msgspec.Struct, frozen=True):
    """What a day-of-month field names: days, `L`, `LW`, and the n of each `nW`."""

    days: int = 0
    last: bool = False
    last_workday: bool = False
    near: int = 0


class Weekdays(msgspec.Struct, frozen=True):
    """What a day-of-week field names: weekdays (0 is Sunday), those of `5L`, and of `5#2`.

    `nth` are pairs of a weekday and which one of the month, in order.
    """

    days: int = 0
    last: int = 0
    nth: tuple[tuple[int, int], ...] = ()


class Fields(msgspec.Struct, frozen=True, kw_only=True):
    """A cron expression, read.

    `both`: a day must be in both fields of days, since one of them begins with `*` or is `?`;
    otherwise either will do. `real`: the minute or the hour begins with `*`.
    """

    seconds: int
    minutes: int
    hours: int
    monthdays: Monthdays
    months: int
    weekdays: Weekdays
    both: bool
    real: bool


class _Kind(msgspec.Struct, frozen=True):
    """What may stand in one field."""

    name: str
    low: int
    high: int
    names: Mapping[str, int] = {}
    form: str = ""

    @property
    def takes(self) -> str:
        """What to write instead, in words."""
        return self.form or f"{self.low} to {self.high}"


_SECOND: Final = _Kind("second", 0, 59)
_MINUTE: Final = _Kind("minute", 0, 59)
_HOUR: Final = _Kind("hour", 0, 23)
_MONTHDAY: Final = _Kind("day of month", 1, 31, form="1 to 31, L, LW or 15W")
_MONTH: Final = _Kind(
    *("month", 1, 12),
    {name[:3].upper(): n for n, name in enumerate(MONTHS) if n},
    "1 to 12 or JAN to DEC",
)
_WEEKDAY: Final = _Kind(
    *("day of week", 0, 6),
    {name[:3].upper(): n for n, name in enumerate(WEEKDAYS)},
    "0 to 7 or SUN to SAT, 5L or FRI#2",
)


def read(text: object) -> Fields:
    """Read a cron expression.

    Cost: at most LONGEST characters are looked at, each a few times.

    Raises: CronError, naming the field.
    """
    plain = _plain(text)
    if plain.startswith("@"):
        word = WORDS.get(plain.lower())
        if word is None:
            _refuse("cron", f"{shown(plain)} is not known; give one of {', '.join(WORDS)}")
        plain = word
    parts = plain.upper().split()
    if len(parts) not in {5, 6}:
        _refuse(
            "cron",
            f"{shown(plain)} has {len(parts)} fields; give five (minute, hour, day of month, "
            "month, day of week), or six with seconds first",
        )
    second = parts.pop(0) if len(parts) == 6 else "0"  # noqa: PLR2004 - seconds come sixth
    minute, hour, monthday, month, weekday = parts
    return Fields(
        seconds=_numbers(second, _SECOND),
        minutes=_numbers(minute, _MINUTE),
        hours=_numbers(hour, _HOUR),
        monthdays=_monthdays(monthday),
        months=_numbers(month, _MONTH),
        weekdays=_weekdays(weekday),
        both=monthday[0] in "*?" or weekday[0] in "*?",
        real=minute.startswith("*") or hour.startswith("*"),
    )


def bits(numbers: int) -> list[int]:
    """The members of a set, in order."""
    return [n for n in range(numbers.bit_length()) if numbers >> n & 1]


def _plain(text: object) -> str:
    if not isinstance(text, str):
        _refuse("cron", f"{type(text).__name__} is no text; give one such as '0 8 * * *'")
    if len(text) > LONGEST:
        _refuse("cron", f"the text has {len(text)} characters; give at most {LONGEST}")
    plain = text.strip()
    if not plain:
        _refuse("cron", "the text is empty; give one such as '0 8 * * *'")
    for character in plain:
        if not (" " <= character <= "~" or character == "\t"):
            _refuse("cron", f"{character!a} is no character of an expression; write plain ASCII")
    return plain


def _numbers(text: str, kind: _Kind) -> int:
    found = 0
    for item in text.split(","):
        found |= _item(item, kind)
    return found


def _item(item: str, kind: _Kind) -> int:
    """The set of one item of a list: `*`, `a`, `a-b`, and `*/n`, `a/n`, `a-b/n`."""
    head, slash, tail = item.partition("/")
    step = _step(item, tail, kind) if slash else 1
    size = kind.high - kind.low + 1
    if head == "*":
        first, count = kind.low, size
    else:
        start, dash, stop = head.partition("-")
        first = _number(item, start, kind)
        if dash:
            last = _number(item, stop, kind)
            count = (last - first) % size + 1
            if kind is _WEEKDAY and head in _WHOLE_WEEK:
                count = size
        else:
            count = kind.high - first + 1 if slash else 1
    found = 0
    for n in range(0, count, step):
        found |= 1 << kind.low + (first - kind.low + n) % size
    return found


def _step(item: str, text: str, kind: _Kind) -> int:
    size = kind.high - kind.low + 1
    step = int(text) if text.isdigit() else 0
    if not 1 <= step <= size:
        _refuse(kind.name, f"the step of {shown(item)} cannot be taken; give 1 to {size}")
    return step


def _number(item: str, text: str, kind: _Kind) -> int:
    named = kind.names.get(text)
    if named is not None:
        return named
    if not text.isdigit():
        _unreadable(item, kind)
    number = int(text)
    if number == _SUNDAY_AGAIN and kind is _WEEKDAY:
        return 0
    if not kind.low <= number <= kind.high:
        _refuse(kind.name, f"{shown(item)} is out of range; give {kind.takes}")
    return number


def _monthdays(text: str) -> Monthdays:
    if text == "?":
        text = "*"
    days, near, last, last_workday = 0, 0, False, False
    for item in text.split(","):
        if item == "L":
            last = True
        elif item in {"LW", "WL"}:
            last_workday = True
        elif item.endswith("W"):
            near |= 1 << _number(item, item[:-1], _MONTHDAY)
        else:
            days |= _item(item, _MONTHDAY)
    return Monthdays(days, last, last_workday, near)


def _weekdays(text: str) -> Weekdays:
    if text == "?":
        text = "*"
    days, last, nth = 0, 0, set[tuple[int, int]]()
    for item in text.split(","):
        day, hash_, which = item.partition("#")
        if hash_:
            n = int(which) if which.isdigit() else 0
            if not 1 <= n <= _MOST_OF_A_WEEKDAY:
                _refuse(_WEEKDAY.name, f"{shown(item)} is no such day; give #1 to #5")
            nth.add((n, _number(item, day, _WEEKDAY)))
        elif item.endswith("L"):
            if item == "L":
                _refuse(_WEEKDAY.name, "L alone is unclear; give SAT, or 5L for the last Friday")
            last |= 1 << _number(item, item[:-1], _WEEKDAY)
        else:
            days |= _item(item, _WEEKDAY)
    return Weekdays(days, last, tuple((day, n) for n, day in sorted(nth)))


def _unreadable(item: str, kind: _Kind) -> NoReturn:
    if not item:
        _refuse(kind.name, f"an item of the list is empty; give {kind.takes}")
    if "?" in item:
        where = "stands alone, for any day of month or day of week"
        _refuse(kind.name, f"{shown(item)} cannot be read; ? {where}")
    _refuse(
        kind.name, f"{shown(item)} cannot be read; give {kind.takes}, ranges, lists or */n steps"
    )


def shown(text: str) -> str:
    """The user's text as an error repeats it: quoted, and not for long."""
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")


def _refuse(name: str, why: str) -> NoReturn:
    message = f"{name}: {why}" if name == "cron" else f"cron: {name}: {why}"
    raise CronError(message, field=name)
