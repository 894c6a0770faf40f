"""Against the rule walked step by step: nothing is skipped, nothing is added, in any zone."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given, settings, strategies as st

from jobmill import CronError, CronExpression
from tests.conftest import SOAK
from tests.unit.cron.oracle import DAY, Drawn, at_times, expressions, fires, utc

MINUTE, SECOND = timedelta(minutes=1), timedelta(seconds=1)

ZONES = [
    "America/New_York",
    "Europe/London",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Africa/Casablanca",
    "Asia/Kathmandu",
    "America/St_Johns",
    "Africa/Cairo",
    "America/Santiago",
    "UTC",
]
FIRST, LAST = utc(2025, 1, 1), utc(2027, 1, 1)

ODDITIES = [
    pytest.param("America/New_York", utc(1883, 11, 18, 17), id="offsets with seconds end"),
    pytest.param("Europe/Amsterdam", utc(1937, 6, 30, 23), id="seconds in daylight time"),
    pytest.param("Africa/Monrovia", utc(1972, 1, 7), id="a gap of 44 minutes and a half"),
    pytest.param("Asia/Manila", utc(1844, 12, 31), id="a skipped day, with seconds"),
    pytest.param("America/Juneau", utc(1867, 10, 18, 15), id="a day that came twice"),
    pytest.param("Pacific/Apia", utc(2011, 12, 30, 10), id="30 December 2011 was skipped"),
    pytest.param("Pacific/Kiritimati", utc(1994, 12, 31, 10, 40), id="New Year's Eve was skipped"),
    pytest.param("Pacific/Kwajalein", utc(1993, 8, 21, 12), id="Kwajalein skipped a Saturday"),
    pytest.param("Africa/Freetown", utc(1939, 9, 3), id="back after four days"),
    pytest.param("Europe/Dublin", utc(2025, 3, 30, 1), id="winter time is negative"),
    pytest.param("Europe/Dublin", utc(2025, 10, 26, 1), id="and its end a fold"),
    pytest.param("Antarctica/Troll", utc(2025, 3, 30, 1), id="a gap of two hours"),
    pytest.param("Antarctica/Troll", utc(2025, 10, 26, 1), id="a fold of two hours"),
    pytest.param("America/New_York", utc(2107, 3, 13, 7), id="beyond the tables"),
    # Folds that follow a block's end within the hour that they repeat.
    pytest.param("America/Los_Angeles", utc(2013, 11, 3, 9), id="a fold half in the next block"),
    pytest.param("America/Goose_Bay", utc(2010, 11, 7, 3), id="a fold over midnight, likewise"),
]


def changes(zone: str, first: datetime, last: datetime) -> list[datetime]:
    """The hours before which the zone's offset changes."""
    info = ZoneInfo(zone)
    hours = [first + n * timedelta(hours=1) for n in range((last - first) // timedelta(hours=1))]
    return [
        after
        for before, after in pairwise(hours)
        if before.astimezone(info).utcoffset() != after.astimezone(info).utcoffset()
    ]


CHANGES = {zone: changes(zone, FIRST + 4 * DAY, LAST - 4 * DAY) for zone in ZONES}


def understood(drawn: Drawn) -> CronExpression:
    try:
        return CronExpression(drawn.text)
    except CronError as error:
        assert "can never fire" in str(error)  # noqa: PT017 - the rest of the message is free
        assume(False)
        raise


def forwards(cron: CronExpression, zone: str, first: datetime, last: datetime) -> list[datetime]:
    """What `next` gives from just before `first` to `last`, each answer checked by itself."""
    found = list[datetime]()
    at = first - timedelta(microseconds=1)
    while True:
        try:
            answer = cron.next(at, zone)
        except CronError:
            return found
        # In UTC: within one zone Python compares wall times, and a fold has them twice.
        after = answer.astimezone(UTC)
        assert after > at
        assert after.microsecond == 0
        exists = after.astimezone(ZoneInfo(zone))
        assert (answer.isoformat(), answer.fold) == (exists.isoformat(), exists.fold)
        if after > last:
            return found
        at = after
        found.append(after)


def backwards(cron: CronExpression, zone: str, first: datetime, last: datetime) -> list[datetime]:
    found = list[datetime]()
    at = last + timedelta(microseconds=1)
    while True:
        try:
            before = cron.previous(at, zone).astimezone(UTC)
        except CronError:
            return found[::-1]
        assert before < at
        if before < first:
            return found[::-1]
        at = before
        found.append(before)


def agree(drawn: Drawn, zone: str, first: datetime, last: datetime, step: timedelta) -> None:
    cron = understood(drawn)
    expected = fires(drawn, zone, first, last, step=step)
    assert forwards(cron, zone, first, last) == expected
    assert backwards(cron, zone, first, last) == expected
    for at in expected[:50]:
        assert cron.matches(at, zone)
        assert cron.matches(at.astimezone(UTC), zone)
        assert not cron.matches(at + timedelta(microseconds=1), zone)
        assert cron.matches(at + SECOND, zone) == (
            cron.next(at, zone).astimezone(UTC) == at + SECOND
        )


@pytest.mark.parametrize("zone", ZONES)
@settings(max_examples=300 if SOAK else 20)
@given(data=st.data())
def test_two_days_of_any_expression_are_as_walked_by_minutes(
    zone: str, data: st.DataObject
) -> None:
    near = [change + n * DAY for change in CHANGES[zone] for n in (-2, -1, 0)]
    anywhere = st.datetimes(
        FIRST.replace(tzinfo=None), LAST.replace(tzinfo=None) - 2 * DAY, timezones=st.just(UTC)
    ).map(lambda at: at.replace(second=0, microsecond=0))
    first = data.draw(st.sampled_from(near) | anywhere if near else anywhere)
    agree(data.draw(expressions()), zone, first, first + 2 * DAY, MINUTE)


@pytest.mark.parametrize("zone", ZONES)
@settings(max_examples=200 if SOAK else 8)
@given(data=st.data())
def test_hours_of_any_expression_are_as_walked_by_seconds(zone: str, data: st.DataObject) -> None:
    change = data.draw(st.sampled_from(CHANGES[zone] or [utc(2026, 2, 28, 23)]))
    first = change - timedelta(hours=data.draw(st.integers(0, 3)))
    agree(
        data.draw(expressions(with_seconds=True)), zone, first, first + timedelta(hours=3), SECOND
    )


@pytest.mark.parametrize("zone", ZONES)
def test_two_years_of_daily_times_are_as_walked(zone: str) -> None:
    # All that happens in these years happens at a quarter of an hour.
    step = MINUTE if SOAK else 15 * MINUTE
    for drawn in (
        at_times("30 2 * * *", {30}, {2}),
        at_times("15,45 0-3 * * *", {15, 45}, {0, 1, 2, 3}),
        at_times("*/15 1,2 * * *", {0, 15, 30, 45}, {1, 2}),
        at_times("45 */3 * * *", {45}, {*range(0, 24, 3)}),
    ):
        cron = CronExpression(drawn.text)
        expected = fires(drawn, zone, FIRST, LAST, step=step)
        assert forwards(cron, zone, FIRST, LAST) == expected
        assert backwards(cron, zone, FIRST, LAST) == expected


@pytest.mark.parametrize(("zone", "change"), ODDITIES)
def test_the_oddities_of_the_zones_are_as_walked_by_seconds(zone: str, change: datetime) -> None:
    first, last = change - timedelta(hours=13), change + timedelta(hours=13)
    assert changes(zone, change - 2 * DAY, change + 2 * DAY)
    for drawn in (
        at_times("*/10 * * * *", {*range(0, 60, 10)}, {*range(24)}),
        at_times("*/60 * * * *", {0}, {*range(24)}),
        at_times("0,30 0-23 * * *", {0, 30}, {*range(24)}),
        at_times("15 12 * * *", {15}, {12}),
    ):
        agree(drawn, zone, first, last, SECOND)


@given(drawn=expressions())
def test_what_can_never_fire_is_refused_and_nothing_else(drawn: Drawn) -> None:
    # These years have every shape that a month can have.
    days = (date(2000, 1, 1) + n * DAY for n in range(28 * 366))
    if any(drawn.day(day) for day in days):
        CronExpression(drawn.text)
    else:
        with pytest.raises(CronError, match="can never fire"):
            CronExpression(drawn.text)
