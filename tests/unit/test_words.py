"""How the pages say values, and what they advise."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest
from markupsafe import Markup

from jobmill.dashboard.advice import advice
from jobmill.dashboard.words import (
    duration,
    figure,
    instant,
    many,
    moment,
    number,
    percent,
    pretty,
    short,
    size,
    tail,
    visible,
)
from jobmill.health import HealthCode

NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "\u2013"),
        (0.004, "4 ms"),
        (1.26, "1.3 s"),
        (59.4, "59 s"),
        (60.0, "1 min"),
        (87.0, "1 min 27 s"),
        (3_599.9, "60 min"),
        (3_600.0, "1 h"),
        (5_400.0, "1 h 30 min"),
        (86_400.0 * 2 + 3_600.0, "2 d 1 h"),
        (-3.0, "0 ms"),
    ],
)
def test_durations_are_said_in_units_that_people_use(seconds: float | None, said: str) -> None:
    assert duration(seconds) == said


def test_a_figure_of_nothing_is_no_figure() -> None:
    assert figure(0.0) == "\u2013"
    assert figure(0.5) == "500 ms"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "0"),
        (12.34, "12.3"),
        (9_999, "9,999"),
        (12_345, "12.3k"),
        (4_560_000, "4.6M"),
        (999_960, "1.0M"),
    ],
)
def test_numbers_are_short_where_there_is_little_room(value: float, said: str) -> None:
    assert short(value) == said


def test_other_values_are_said_plainly() -> None:
    assert number(1_234_567) == "1,234,567"
    assert number(0.25) == "0.2"
    shares = [percent(each) for each in (0.0, 0.0004, 0.017, 1.0)]
    assert shares == ["0 %", "< 0.1 %", "1.7 %", "100 %"]
    sizes = [size(each) for each in (None, 512, 41_287_680, 5 << 30)]
    assert sizes == ["\u2013", "512 B", "39 MiB", "5.0 GiB"]
    counts = [many(1, "job"), many(2_000, "job"), many(2, "entry", "entries")]
    assert counts == ["1 job", "2,000 jobs", "2 entries"]
    assert tail("0193c2aa-7c1e-7b40-9d20-3c1f0a8e1102") == "\u20260a8e1102"
    assert tail("order-42") == "order-42"
    assert pretty({"b": [1, None]}) == '{\n  "b": [\n    1,\n    null\n  ]\n}'


def test_an_instant_says_how_far_it_is_and_which_it_is() -> None:
    said = moment(NOW - timedelta(minutes=3), NOW)
    assert said.startswith('<time datetime="2026-11-28T11:57:00+00:00"')
    assert said.endswith('title="2026-11-28 11:57:00 UTC">3 min ago</time>')
    assert "12:00:00 UTC</time>" in instant(NOW)
    assert moment(None) == instant(None) == '<span class="muted">\u2013</span>'


def test_characters_that_turn_or_hide_text_are_spelt_out() -> None:
    assert visible("a\u202eb\x1b[31m\x00") == "a\\u202eb\\u001b[31m\\u0000"
    assert visible("\ud800") == "\\ud800"
    assert visible("two\nlines\tof <text>") == "two\nlines\tof <text>"
    assert visible(Markup("<b>")) == Markup("<b>")
    assert visible(7) == 7


def test_there_is_advice_for_all_that_health_finds() -> None:
    """An issue of a new kind comes with what to do about it."""
    for code in get_args(HealthCode):
        assert advice(code).text, code
