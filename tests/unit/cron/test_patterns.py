from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from jobmill import CronError, CronExpression, CronPatterns, Timezones

PATTERNS = {
    "EVERY_MINUTE": "* * * * *",
    "EVERY_5_MINUTES": "*/5 * * * *",
    "EVERY_15_MINUTES": "*/15 * * * *",
    "EVERY_30_MINUTES": "*/30 * * * *",
    "EVERY_HOUR": "0 * * * *",
    "EVERY_6_HOURS": "0 */6 * * *",
    "EVERY_12_HOURS": "0 */12 * * *",
    "DAILY": "0 0 * * *",
    "DAILY_MIDNIGHT": "0 0 * * *",
    "DAILY_NOON": "0 12 * * *",
    "WEEKLY": "0 0 * * 0",
    "WEEKLY_MONDAY": "0 0 * * 1",
    "MONTHLY": "0 0 1 * *",
    "MONTHLY_FIRST": "0 0 1 * *",
    "YEARLY": "0 0 1 1 *",
}

ZONES = {
    "UTC": "UTC",
    "NEW_YORK": "America/New_York",
    "CHICAGO": "America/Chicago",
    "DENVER": "America/Denver",
    "LOS_ANGELES": "America/Los_Angeles",
    "SAO_PAULO": "America/Sao_Paulo",
    "LONDON": "Europe/London",
    "PARIS": "Europe/Paris",
    "BERLIN": "Europe/Berlin",
    "MOSCOW": "Europe/Moscow",
    "DUBAI": "Asia/Dubai",
    "KOLKATA": "Asia/Kolkata",
    "SINGAPORE": "Asia/Singapore",
    "HONG_KONG": "Asia/Hong_Kong",
    "SHANGHAI": "Asia/Shanghai",
    "TOKYO": "Asia/Tokyo",
    "SYDNEY": "Australia/Sydney",
    "MELBOURNE": "Australia/Melbourne",
    "AUCKLAND": "Pacific/Auckland",
}


def constants(owner: type) -> dict[str, object]:
    return {name: getattr(owner, name) for name in vars(owner) if name.isupper()}


def test_the_patterns_are_these_and_each_is_an_expression() -> None:
    assert constants(CronPatterns) == PATTERNS
    for text in PATTERNS.values():
        CronExpression(text)


def test_the_zones_are_these_and_each_is_known() -> None:
    assert constants(Timezones) == ZONES
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    for zone in ZONES.values():
        assert CronExpression("* * * * *").next(noon, zone) == noon + timedelta(minutes=1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (CronPatterns.at(8), "0 8 * * *"),
        (CronPatterns.at(23, 59), "59 23 * * *"),
        (CronPatterns.at(hour=0, minute=5), "5 0 * * *"),
        (CronPatterns.every_minutes(10), "*/10 * * * *"),
        (CronPatterns.every_hours(4), "0 */4 * * *"),
        (CronPatterns.weekday(3), "0 0 * * 3"),
        (CronPatterns.weekday(7, 9), "0 9 * * 7"),
        (CronPatterns.weekday("fri", 9, 30), "30 9 * * 5"),
        (CronPatterns.weekday("Sunday", hour=9), "0 9 * * 0"),
        (CronPatterns.weekdays(), "0 0 * * 1-5"),
        (CronPatterns.weekdays(9, 30), "30 9 * * 1-5"),
        (CronPatterns.weekends(10), "0 10 * * 0,6"),
    ],
)
def test_a_function_writes_this_expression(text: str, expected: str) -> None:
    assert text == expected
    CronExpression(text)


@pytest.mark.parametrize(
    ("write", "field"),
    [
        (lambda: CronPatterns.at(24), "hour"),
        (lambda: CronPatterns.at(-1), "hour"),
        (lambda: CronPatterns.at(8, 60), "minute"),
        (lambda: CronPatterns.at(8.5), "hour"),  # type: ignore[arg-type]
        (lambda: CronPatterns.at("8"), "hour"),  # type: ignore[arg-type]
        (lambda: CronPatterns.at(True), "hour"),
        (lambda: CronPatterns.at(10**10_000), "hour"),
        (lambda: CronPatterns.every_minutes(0), "n"),
        (lambda: CronPatterns.every_minutes(60), "n"),
        (lambda: CronPatterns.every_hours(24), "n"),
        (lambda: CronPatterns.weekday(8), "day"),
        (lambda: CronPatterns.weekday("someday"), "day"),
        (lambda: CronPatterns.weekday(""), "day"),
        (lambda: CronPatterns.weekday(1, 25), "hour"),
        (lambda: CronPatterns.weekdays(minute=-1), "minute"),
        (lambda: CronPatterns.weekends(24), "hour"),
    ],
)
def test_an_argument_out_of_range_is_refused_by_its_name(
    write: Callable[[], str], field: str
) -> None:
    with pytest.raises(CronError, match="; give ") as caught:
        write()
    assert caught.value.field == field
    assert str(caught.value).startswith(f"{field}: ")
