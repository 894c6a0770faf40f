"""The rule of cron once more, as it is written down, by walking through time step by step.

It shares nothing with jobmill: an expression is drawn together with its meaning, so that nothing
is parsed, and each instant of UTC is asked what the zone's clock shows at it.
"""

from __future__ import annotations

from bisect import bisect_right
from calendar import monthrange
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

DAY = timedelta(days=1)
WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")

Days = Callable[[date], bool]


@dataclass(frozen=True)
class Drawn:
    """An expression and what it means."""

    text: str
    seconds: frozenset[int]
    minutes: frozenset[int]
    hours: frozenset[int]
    months: frozenset[int]
    monthday: Days
    weekday: Days
    both: bool
    real: bool

    def day(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        answers = (self.monthday(day), self.weekday(day))
        return all(answers) if self.both else any(answers)

    def matches(self, wall: datetime) -> bool:
        return (
            wall.second in self.seconds
            and wall.minute in self.minutes
            and wall.hour in self.hours
            and self.day(wall.date())
        )


def fires(
    drawn: Drawn, zone: str, first: datetime, last: datetime, *, step: timedelta
) -> list[datetime]:
    """All instants from `first` to `last`, both inclusive, at which it fires."""
    info = ZoneInfo(zone)
    # What was shown two days before is the past for any gap or fold.
    walk = _walk(first - 2 * DAY, last, step)
    if drawn.real:
        return [at for at in walk if at >= first and drawn.matches(at.astimezone(info))]
    shown = dict[datetime, datetime]()
    for at in walk:
        shown.setdefault(at.astimezone(info).replace(tzinfo=None, fold=0), at)
    walls = sorted(shown)
    found = set[datetime]()
    for wall in _walk(walls[0].replace(second=0), walls[-1], step):
        if not drawn.matches(wall):
            continue
        if wall in shown:
            found.add(shown[wall])
        elif wall > walls[0]:
            found.add(shown[walls[bisect_right(walls, wall)]])
    return sorted(at for at in found if at >= first)


def _walk(first: datetime, last: datetime, step: timedelta) -> list[datetime]:
    return [first + n * step for n in range((last - first) // step + 1)]


def _number(n: int, names: tuple[str, ...], low: int) -> st.SearchStrategy[str]:
    texts = [str(n), f"{n:02}"]
    if names:
        texts += [names[n - low], names[n - low].lower()]
    return st.sampled_from(texts)


@st.composite
def _items(
    draw: st.DrawFn, low: int, high: int, names: tuple[str, ...] = ()
) -> tuple[str, frozenset[int]]:
    a, b = (draw(st.integers(low, high)) for _ in range(2))
    shape = draw(st.sampled_from(["one", "range", "range step", "start step", "all", "all step"]))
    step = draw(st.integers(1, high - low + 1)) if "step" in shape else 1
    tail = f"/{step}" if "step" in shape else ""
    if shape == "one":
        return draw(_number(a, names, low)), frozenset({a})
    if shape.startswith("all"):
        return f"*{tail}", frozenset(range(low, high + 1, step))
    if shape == "start step":
        return f"{draw(_number(a, names, low))}{tail}", frozenset(range(a, high + 1, step))
    text = f"{draw(_number(a, names, low))}-{draw(_number(b, names, low))}{tail}"
    row = [*range(a, b + 1)] if a <= b else [*range(a, high + 1), *range(low, b + 1)]
    return text, frozenset(row[::step])


@st.composite
def _lists(
    draw: st.DrawFn, low: int, high: int, names: tuple[str, ...] = ()
) -> tuple[str, frozenset[int]]:
    if draw(st.booleans()):
        return "*", frozenset(range(low, high + 1))
    items = draw(st.lists(_items(low, high, names), min_size=1, max_size=3))
    return ",".join(text for text, _ in items), frozenset().union(*(found for _, found in items))


def _last_of(month: date) -> int:
    return monthrange(month.year, month.month)[1]


def _nearest_workday(year: int, month: int, day: int) -> date | None:
    if day > monthrange(year, month)[1]:
        return None
    middle = date(year, month, day)
    near = sorted(
        (middle + n * DAY for n in range(-2, 3)), key=lambda other: abs((other - middle).days)
    )
    return next(other for other in near if other.month == month and other.weekday() < 5)


@st.composite
def _monthdays(draw: st.DrawFn) -> tuple[str, Days]:
    shape = draw(st.sampled_from(["plain", "plain", "?", "L", "LW", "W"]))
    if shape == "?":
        return "?", lambda day: True
    text, days = draw(_lists(1, 31))
    if shape == "plain":
        return text, lambda day: day.day in days
    n = draw(st.integers(1, 31))
    special: dict[str, tuple[str, Days]] = {
        "L": ("L", lambda day: day.day == _last_of(day)),
        "LW": ("LW", lambda day: day == _nearest_workday(day.year, day.month, _last_of(day))),
        "W": (f"{n}W", lambda day: day == _nearest_workday(day.year, day.month, n)),
    }
    extra, fits = special[shape]
    if draw(st.booleans()):
        return extra, fits
    return f"{text},{extra}", lambda day: day.day in days or fits(day)


def _sunday_first(day: date) -> int:
    return day.isoweekday() % 7


@st.composite
def _weekdays(draw: st.DrawFn) -> tuple[str, Days]:
    shape = draw(st.sampled_from(["plain", "plain", "?", "L", "#", "7"]))
    if shape == "?":
        return "?", lambda day: True
    text, days = draw(_lists(0, 6, WEEKDAYS))
    if shape == "plain":
        return text, lambda day: _sunday_first(day) in days
    n, which = draw(st.integers(0, 6)), draw(st.integers(1, 5))
    name = draw(_number(n, WEEKDAYS, 0))
    start = draw(st.integers(0, 6))
    special: dict[str, tuple[str, Days]] = {
        "L": (
            f"{name}L",
            lambda day: _sunday_first(day) == n and (day + 7 * DAY).month != day.month,
        ),
        "#": (
            f"{name}#{which}",
            lambda day: _sunday_first(day) == n and (day.day - 1) // 7 + 1 == which,
        ),
        "7": (f"{start}-7", lambda day: day.isoweekday() >= start),
    }
    extra, fits = special[shape]
    if draw(st.booleans()):
        return extra, fits
    return f"{text},{extra}", lambda day: _sunday_first(day) in days or fits(day)


@st.composite
def expressions(draw: st.DrawFn, *, with_seconds: bool = False) -> Drawn:
    """Any expression of the grammar, the @-words left out, with its meaning."""
    second = draw(_lists(0, 59)) if with_seconds else ("0", frozenset({0}))
    minute, hour = draw(_lists(0, 59)), draw(_lists(0, 23))
    monthday, month, weekday = draw(_monthdays()), draw(_lists(1, 12, MONTHS)), draw(_weekdays())
    texts = [minute[0], hour[0], monthday[0], month[0], weekday[0]]
    return Drawn(
        text=" ".join([second[0], *texts] if with_seconds else texts),
        seconds=second[1],
        minutes=minute[1],
        hours=hour[1],
        months=month[1],
        monthday=monthday[1],
        weekday=weekday[1],
        both=monthday[0][0] in "*?" or weekday[0][0] in "*?",
        real=minute[0][0] == "*" or hour[0][0] == "*",
    )


def at_times(text: str, minutes: set[int], hours: set[int]) -> Drawn:
    """An expression of each day, whose times of day are told again by sets."""
    return Drawn(
        text=text,
        seconds=frozenset({0}),
        minutes=frozenset(minutes),
        hours=frozenset(hours),
        months=frozenset(range(1, 13)),
        monthday=lambda day: True,
        weekday=lambda day: True,
        both=True,
        real=text.split(maxsplit=1)[0][0] == "*" or text.split()[1][0] == "*",
    )


def utc(*fields: int) -> datetime:
    return datetime(*fields, tzinfo=UTC)  # type: ignore[misc, arg-type]
