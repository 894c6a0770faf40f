"""Text out of a store may be anyone's: nothing of it is obeyed by a terminal."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, strategies as st

from jobmill.cli.text import ago, clean, escaped, one_line, span

EVIL = [
    "\x1b]0;title\x07",
    "\x1b[2J\x1b[31m",
    "\x9b31m",
    "\u202eevil\u202c",
    "\u2066isolated\u2069",
    "\ufeff\u200bzero",
    "a\x00b\x08c\x7f",
    "lone \ud800",
]


@pytest.mark.parametrize("text", EVIL, ids=ascii)
def test_nothing_is_left_that_a_terminal_obeys(text: str) -> None:
    for shown in (clean(text), one_line(text)):
        assert shown.isprintable()
    said = escaped(json.dumps(text.encode(errors="replace").decode(), ensure_ascii=False))
    assert said.isprintable()
    assert json.loads(said) == text.encode(errors="replace").decode()


@given(st.text())
def test_any_text_is_one_line(text: str) -> None:
    shown = one_line(text)
    assert len(shown.splitlines()) <= 1
    assert "\x1b" not in shown


def test_lines_and_tabs_of_a_traceback_stay() -> None:
    assert clean("a\n\tb\r\nc") == "a\n\tb\nc"
    assert one_line("a\n  b\r\n\tc") == "a b c"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0034, "3 ms"),
        (1.24, "1.2 s"),
        (59, "59 s"),
        (61, "1 min"),
        (3_700, "1 h"),
        (86_400, "24 h"),
        (3 * 86_400, "3 d"),
    ],
)
def test_a_span_has_one_unit(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_an_instant_is_ago_or_to_come() -> None:
    now = datetime(2026, 5, 1, tzinfo=UTC)
    assert ago(now - timedelta(minutes=5), now=now) == "5 min ago"
    assert ago(now + timedelta(seconds=30), now=now) == "in 30 s"
    assert ago(None, now=now) == ""
