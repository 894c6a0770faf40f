"""Text from a store, made fit for a terminal: it may be anyone's."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

_LINE_ENDS: Final = re.compile(r"[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]+\s*")
# Control characters; what turns the direction of the text around it; what has no shape.
_UNSEEN: Final = "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff"
_CONTROL: Final = re.compile(f"[{_UNSEEN}]")
_MINUTE: Final = 60
_HOUR: Final = 3_600
_DAY: Final = 86_400


def clean(text: str) -> str:
    """The text without what a terminal would obey; line ends and tabs stay."""
    return _CONTROL.sub("", text.replace("\r\n", "\n").encode(errors="replace").decode())


def one_line(text: str) -> str:
    """The same, in one line."""
    return clean(_LINE_ENDS.sub(" ", text)).replace("\t", " ").strip()


def escaped(json: str) -> str:
    """The JSON with such characters escaped: the same value, and no more than text."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", json)


def stamp(at: datetime | None) -> str:
    """The instant to the second, in the machine's own zone."""
    return "" if at is None else at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def ago(at: datetime | None, *, now: datetime | None = None) -> str:
    """How far the instant is from now, in one unit."""
    if at is None:
        return ""
    seconds = ((now or datetime.now(UTC)) - at).total_seconds()
    return f"in {span(-seconds)}" if seconds < 0 else f"{span(seconds)} ago"


def span(seconds: float) -> str:
    """A duration in one unit, as people say it."""
    if seconds < 1:
        return f"{seconds * 1_000:.0f} ms"
    if seconds < _MINUTE:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"  # noqa: PLR2004
    if seconds < _HOUR:
        return f"{seconds / _MINUTE:.0f} min"
    if seconds < 2 * _DAY:
        return f"{seconds / _HOUR:.0f} h"
    return f"{seconds / _DAY:.0f} d"
