"""What it costs, in calls: time would measure the machine and its neighbours.

A call takes well under a microsecond; the deadlines, of this thread's own time, are ten times and
more what is promised, so that they fail for a search that does not end, and for nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, strategies as st, target

from jobmill import CronError, CronExpression, CronPatterns, walltime
from tests.counting import counted
from tests.unit.cron.oracle import Drawn, expressions

USUAL = [
    CronPatterns.EVERY_MINUTE,
    CronPatterns.EVERY_5_MINUTES,
    CronPatterns.EVERY_HOUR,
    CronPatterns.DAILY,
    CronPatterns.WEEKLY,
    CronPatterns.MONTHLY,
    CronPatterns.YEARLY,
    CronPatterns.weekdays(9, 30),
    "*/10 * * * * *",
    "0 0 L * FRI#2",
]
ZONES = ["UTC", "America/New_York", "Africa/Casablanca", "Australia/Lord_Howe"]

RAREST = [
    "0 0 29 2 *",
    "0 0 */28 2 SUN#5",
    "*/30 2 */28 2 SUN",
    "0 0 29W 2 ?",
    "0 0 31 12 *",
    "* * */30 1 SAT",
]
NEVER_IN_NEW_YORK = "*/30 2 * 3 SUN#2"
"""Each year at two o'clock of the day on which two o'clock is skipped."""

HOSTILE = [
    "*/0 * * * *",
    "0 0 30 2 *",
    "0 0 31 2,4,6,9,11 *",
    "1," * 100_000 + "1 * * * *",
    "* " * 5_000,
    "@reboot",
    "-5 * * * *",
    "\u0661 * * * *",
    "² * * * *",
    "9" * 200 + " * * * *",
    "*/" + "9" * 200 + " * * * *",
    "1-" * 127,
    "," * 256,
    "#" * 256,
    "* * " + "W," * 120 + " * *",
    "\x00" * 200,
    "((((((((((",
]


def calls_of(run: Callable[[], object]) -> int:
    with counted() as calls:
        run()
    return calls()


def refused(text: str) -> CronError:
    with pytest.raises(CronError) as caught:
        CronExpression(text)
    return caught.value


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: repr(text[:16]))
def test_hostile_text_is_refused_at_once_with_the_field_and_what_to_do(text: str) -> None:
    assert calls_of(lambda: refused(text)) < 3_000
    start = time.thread_time()
    error = refused(text)
    assert time.thread_time() - start < 0.05
    assert error.field in {"cron", "minute", "hour", "day of month", "month", "day of week"}
    assert error.field in str(error)
    assert "; " in str(error)
    assert len(str(error)) < 300
    assert str(error).isprintable()


@given(drawn=expressions(with_seconds=True))
def test_reading_an_expression_takes_bounded_work(drawn: Drawn) -> None:
    def read() -> None:
        with suppress(CronError):
            CronExpression(drawn.text)

    calls = calls_of(read)
    target(float(calls))
    assert calls < 3_000


@given(text=st.text(max_size=300) | st.text("0123456789*,-/LW#?@ MONFRI", max_size=300))
def test_no_text_raises_anything_but_a_cron_error(text: str) -> None:
    refusal = None
    try:
        CronExpression(text)
    except CronError as error:
        refusal = error
    if refusal is None:
        assert len(text) <= 256
    else:
        assert refusal.field
        assert str(refusal).isprintable()


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("text", USUAL)
def test_the_usual_patterns_take_few_calls_anywhere_in_the_year(text: str, zone: str) -> None:
    cron = CronExpression(text)
    for day in range(0, 365, 7):
        at = datetime(2026, 1, 1, 11, 17, tzinfo=UTC) + timedelta(days=day)
        cron.next(at, zone)
        cron.previous(at, zone)
        assert calls_of(lambda: cron.next(at, zone)) < 120  # noqa: B023 - called at once
        assert calls_of(lambda: cron.previous(at, zone)) < 120  # noqa: B023 - called at once


@pytest.mark.parametrize("year", [1890, 2026, 2071, 2090, 9900])
@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("text", [*RAREST, NEVER_IN_NEW_YORK])
def test_the_rarest_times_take_bounded_work_also_on_a_cold_cache(
    text: str, zone: str, year: int
) -> None:
    cron, at = CronExpression(text), datetime(year, 3, 1, tzinfo=UTC)
    for ask in (cron.next, cron.previous):

        def answer(ask: Callable[..., datetime] = ask) -> datetime | None:
            try:
                return ask(at, zone)
            except CronError:
                return None

        walltime._spans.cache_clear()
        assert calls_of(answer) < 25_000
        walltime._spans.cache_clear()
        start = time.thread_time()
        answer()
        assert time.thread_time() - start < 0.25


def test_what_always_falls_into_a_gap_is_told_and_not_searched_for_ever() -> None:
    cron = CronExpression(NEVER_IN_NEW_YORK)
    with pytest.raises(CronError, match="the hour that this zone skips") as caught:
        cron.next(datetime(2026, 1, 1, tzinfo=UTC), "America/New_York")
    assert caught.value.field == "cron"
    found = cron.next(datetime(2026, 1, 1, tzinfo=UTC), "Europe/London")
    assert found.isoformat() == "2026-03-08T02:00:00+00:00"


@given(drawn=expressions(), year=st.integers(1, 9999), zone=st.sampled_from(ZONES))
def test_any_question_takes_bounded_work(drawn: Drawn, year: int, zone: str) -> None:
    try:
        cron = CronExpression(drawn.text)
    except CronError:
        return
    walltime._spans.cache_clear()

    def ask() -> None:
        for answer in (cron.next, cron.previous):
            with suppress(CronError):
                answer(datetime(year, 3, 1, tzinfo=UTC), zone)

    calls = calls_of(ask)
    target(float(calls))
    assert calls < 25_000
