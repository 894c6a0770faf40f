"""Values as the pages say them: durations, instants, numbers, and text that may be anyone's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

import msgspec
from markupsafe import Markup

from jobmill.cli.text import ago as _ago, escaped, span
from jobmill.dashboard.advice import advice

_THOUSAND: Final = 1_000
_KIBI: Final = 1_024
_MANY: Final = 10_000
_MINUTE: Final = 60
_HOUR: Final = 3_600
_DAY: Final = 86_400
_DASH: Final = "\u2013"
_UNSAID: Final = Markup('<span class="muted">{}</span>').format(_DASH)


def visible(value: Any) -> Any:
    """What a template prints: in text, characters that have no shape, or turn it, are spelt out.

    So a name or an error with a right-to-left override reads as what it is, in every place.
    """
    if isinstance(value, str) and not isinstance(value, Markup):
        return escaped(value.encode(errors="backslashreplace").decode())
    return value


def moment(at: datetime | None, now: datetime | None = None) -> Markup:
    """How far the instant is from now; pointing at it says which it is."""
    if at is None:
        return _UNSAID
    return _time(at, _ago(at, now=now))


def instant(at: datetime | None) -> Markup:
    """The instant to the second, in its own zone."""
    if at is None:
        return _UNSAID
    zone = at.tzname() or ""
    return _time(at, f"{at:%Y-%m-%d %H:%M:%S} {zone}".strip())


def clock(at: datetime | None) -> Markup:
    """The time of the day, to the millisecond."""
    if at is None:
        return _UNSAID
    return _time(at, f"{at:%H:%M:%S}.{at.microsecond // 1_000:03d}")


def duration(seconds: float | None) -> str:
    """A duration as people say it: two units where one would round too much."""
    if seconds is None:
        return _DASH
    seconds = max(0.0, seconds)
    if _MINUTE <= seconds < _HOUR:
        return _two(seconds, _MINUTE, "min", 1, "s")
    if _HOUR <= seconds < _DAY:
        return _two(seconds, _HOUR, "h", _MINUTE, "min")
    if seconds >= _DAY:
        return _two(seconds, _DAY, "d", _HOUR, "h")
    return span(seconds)


def figure(seconds: float) -> str:
    """A duration out of figures, where 0 means that nothing was counted."""
    return duration(seconds or None)


def number(value: float) -> str:
    """A number in groups of three digits."""
    if value < _THOUSAND and value != round(value):
        return f"{value:,.1f}"
    return f"{value:,.0f}"


def short(value: float) -> str:
    """A number in few letters: 12.3k, 4.5M."""
    if value < _MANY:
        return number(value)
    for unit, size in (("k", 1e3), ("M", 1e6), ("G", 1e9)):
        if value < 999.5 * size or unit == "G":
            scaled = value / size
            return f"{scaled:.0f}{unit}" if scaled >= 100 else f"{scaled:.1f}{unit}"  # noqa: PLR2004
    return number(value)


def percent(share: float) -> str:
    """A share in hundredths; one that is tiny is not said to be nothing."""
    if 0 < share < 0.001:  # noqa: PLR2004
        return "< 0.1 %"
    return f"{share:.1%}".replace(".0%", "%").replace("%", " %")


def size(count: int | None) -> str:
    """Bytes, as people say them."""
    if count is None:
        return _DASH
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < _KIBI or unit == "GiB":
            break
        value /= _KIBI
    return f"{value:.0f} {unit}" if value >= 10 or unit == "B" else f"{value:.1f} {unit}"  # noqa: PLR2004


def pretty(value: Any) -> str:
    """A JSON value, indented."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def many(count: int, one: str, more: str | None = None) -> str:
    """A number and its noun: 1 job, 2 jobs."""
    return f"{number(count)} {one if count == 1 else more or one + 's'}"


def tail(identifier: str, letters: int = 8) -> str:
    """The end of an id: the part in which ids that were made together differ."""
    return identifier if len(identifier) <= letters + 4 else f"…{identifier[-letters:]}"


def path(name: str) -> str:
    """A name as one step of a path."""
    return quote(name, safe="")


def _two(seconds: float, big: int, big_name: str, small: int, small_name: str) -> str:
    whole, rest = divmod(round(seconds / small) * small, big)
    first = f"{whole:.0f} {big_name}"
    return f"{first} {rest / small:.0f} {small_name}" if rest else first


def _time(at: datetime, text: str) -> Markup:
    exact = at.astimezone(UTC)
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        exact.isoformat(), f"{exact:%Y-%m-%d %H:%M:%S} UTC", text
    )


FILTERS: Final[Mapping[str, Callable[..., Any]]] = {
    "advice": advice,
    "clock": clock,
    "duration": duration,
    "figure": figure,
    "instant": instant,
    "many": many,
    "moment": moment,
    "number": number,
    "path": path,
    "percent": percent,
    "pretty": pretty,
    "short": short,
    "size": size,
    "tail": tail,
}
"""The filters of the templates, by name."""
