"""CronExpression as users meet it: instants in, instants out, and what it is as a value."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from itertools import pairwise
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given, strategies as st

from jobmill import ConfigError, CronError, CronExpression, walltime
from tests.unit.cron.oracle import DAY

DAILY = CronExpression("0 8 * * *")
NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)


def test_the_answer_is_in_the_zone_that_was_asked_for() -> None:
    found = DAILY.next(NOON, "America/New_York")
    assert found.isoformat() == "2026-07-02T08:00:00-04:00"
    assert found.tzinfo == ZoneInfo("America/New_York")
    assert DAILY.next(NOON).tzinfo is UTC


def test_the_question_may_be_in_any_zone() -> None:
    for zone in (timezone(timedelta(hours=5, minutes=30)), ZoneInfo("Asia/Tokyo"), UTC):
        assert DAILY.next(NOON.astimezone(zone), "Europe/Paris") == DAILY.next(NOON, "Europe/Paris")


def test_both_sides_of_a_fold_are_questions() -> None:
    cron, zone = CronExpression("*/30 * * * *"), ZoneInfo("America/New_York")
    first = datetime(2026, 11, 1, 1, 15, tzinfo=zone)
    assert cron.next(first, zone.key).isoformat() == "2026-11-01T01:30:00-04:00"
    assert cron.next(first.replace(fold=1), zone.key).isoformat() == "2026-11-01T01:30:00-05:00"


def test_the_answer_is_never_the_question_itself() -> None:
    eight = datetime(2026, 7, 1, 8, tzinfo=UTC)
    tick = timedelta(microseconds=1)
    assert DAILY.next(eight) == eight + DAY
    assert DAILY.next(eight - tick) == eight
    assert DAILY.next(eight + tick) == eight + DAY
    assert DAILY.previous(eight) == eight - DAY
    assert DAILY.previous(eight + tick) == eight
    assert DAILY.previous(eight - tick) == eight - DAY
    assert DAILY.matches(eight)
    assert not DAILY.matches(eight + tick)
    assert not DAILY.matches(eight + timedelta(seconds=1))


def test_days_of_both_fields_are_either_unless_one_begins_with_a_star() -> None:
    monday_or_first = CronExpression("0 0 1 * MON")
    assert monday_or_first.matches(datetime(2026, 6, 1, tzinfo=UTC))
    assert monday_or_first.matches(datetime(2026, 6, 8, tzinfo=UTC))
    assert monday_or_first.matches(datetime(2026, 7, 1, tzinfo=UTC))
    odd_mondays = CronExpression("0 0 */2 * MON")
    assert not odd_mondays.matches(datetime(2026, 6, 8, tzinfo=UTC))
    assert odd_mondays.matches(datetime(2026, 6, 15, tzinfo=UTC))


@pytest.mark.parametrize("method", ["next", "previous", "matches"])
def test_a_naive_datetime_is_refused(method: str) -> None:
    with pytest.raises(ConfigError, match=r"naive datetime says no instant; give") as caught:
        getattr(DAILY, method)(NOON.replace(tzinfo=None))
    assert caught.value.field in {"after", "before", "at"}
    assert str(caught.value).startswith(f"{caught.value.field}: ")


@pytest.mark.parametrize("at", [None, 1_700_000_000, "2026-01-01", NOON.date()])
def test_what_is_no_datetime_is_refused(at: object) -> None:
    with pytest.raises(ConfigError, match="is no datetime") as caught:
        DAILY.next(at)  # type: ignore[arg-type]
    assert caught.value.field == "after"


ENDS = [
    datetime.min.replace(tzinfo=UTC),
    datetime.max.replace(tzinfo=UTC),
    *(
        end.replace(tzinfo=timezone(timedelta(hours=hours)))
        for end in (datetime.min, datetime.max)  # noqa: DTZ901 - a zone is given at once
        for hours in (-23, 23)
    ),
    *(
        end.replace(tzinfo=ZoneInfo(zone))
        for end in (datetime.min, datetime.max)  # noqa: DTZ901 - a zone is given at once
        for zone in ("Pacific/Kiritimati", "America/New_York", "Asia/Manila")
    ),
]


@pytest.mark.parametrize("at", ENDS, ids=str)
@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "Asia/Manila", "America/Adak"])
@pytest.mark.parametrize("text", ["* * * * * *", "0 8 * * *", "@yearly", "0 0 29 2 *"])
def test_the_ends_of_the_calendar_are_no_overflow(at: datetime, zone: str, text: str) -> None:
    cron = CronExpression(text)
    early = at.year == 1
    towards, away = (cron.next, cron.previous) if early else (cron.previous, cron.next)
    found = towards(at, zone)
    assert found.astimezone(UTC).year in {1, 2, 4, 9999, 9998, 9996}
    assert towards(found, zone).astimezone(UTC) != found.astimezone(UTC)
    with pytest.raises(CronError, match="the calendar ends"):
        away(at, zone)
    assert not cron.matches(at + (1 if early else -1) * timedelta(microseconds=3), zone)


@given(
    at=st.datetimes(timezones=st.timezones() | st.just(UTC)),
    zone=st.sampled_from(sorted(available_timezones())),
    text=st.sampled_from(["* * * * *", "30 2 * * *", "*/7 1-3 * * *", "0 0 L * FRI#2", "@yearly"]),
)
def test_any_instant_in_any_zone_has_an_answer_that_its_mirror_gives_back(
    at: datetime, zone: str, text: str
) -> None:
    cron = CronExpression(text)
    try:
        after = cron.next(at, zone).astimezone(UTC)
    except CronError:
        assert at.year >= 9997
        return
    assert since(after) > since(at)
    assert cron.matches(after, zone)
    assert cron.previous(after + timedelta(seconds=1), zone).astimezone(UTC) == after
    try:
        before = cron.previous(after, zone)
    except CronError:
        assert at.year <= 4
        return
    assert since(before) <= since(at)


def since(at: datetime) -> timedelta:
    """As a subtraction in UTC, where UTC has no date for it, too."""
    return at.replace(tzinfo=None) - datetime(1, 1, 1) - (at.utcoffset() or timedelta())  # noqa: DTZ001 - counted from


def test_no_zone_has_two_changes_nearer_than_the_steps_in_which_they_are_looked_for() -> None:
    """What `walltime` builds on; read out of the pure-Python twin of zoneinfo."""
    from importlib import import_module

    pure = import_module("zoneinfo._zoneinfo").ZoneInfo
    nearest = float("inf")
    for name in available_timezones():
        zone = pure.no_cache(name)
        offsets = [info.utcoff for info in zone._ttinfos]
        moments = [
            at
            for at, old, new in zip(
                zone._trans_utc, [zone._tti_before.utcoff, *offsets], offsets, strict=False
            )
            if old != new
        ]
        gaps = [after - before for before, after in pairwise(moments)]
        nearest = min([nearest, *gaps])
    assert nearest > 3 * walltime.DAY > 3 * walltime._STEP


# ---------------------------------------------------------------------------- as a value


def test_its_text_is_what_it_was_made_of() -> None:
    cron = CronExpression(" 0 8 * *  mon ")
    assert str(cron) == cron.text == "0 8 * *  mon"
    assert eval(repr(cron)) == cron
    assert repr(cron) == "CronExpression('0 8 * *  mon')"


@pytest.mark.parametrize(
    "texts",
    [
        ("0 0 * * 0", "@weekly", "0 0 * * SUN", "0 0 ? * 7", "0 0 0 * * sun"),
        ("* * * * *", "*/1 * * * *", "0-59 * * * *", "* 0-23 */1 1-12 0-6"),
        ("0 0 1,2,3 * *", "0 0 1-3 * *", "0 0 3,1-2 * ?"),
    ],
)
def test_expressions_that_mean_the_same_are_equal(texts: tuple[str, ...]) -> None:
    assert len({CronExpression(text) for text in texts}) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("0 0 * * *", "0 1 * * *"),
        ("0 */1 * * *", "0 0-23 * * *"),  # one follows real time
        ("0 0 */2 * MON", "0 0 1-31/2 * MON"),  # one wants both days
        ("0 0 L * *", "0 0 31 * *"),
    ],
)
def test_expressions_that_mean_something_else_are_not_equal(one: str, other: str) -> None:
    assert CronExpression(one) != CronExpression(other)
    assert CronExpression(one) != one


def test_it_cannot_be_changed() -> None:
    cron = CronExpression("0 8 * * *")
    with pytest.raises(AttributeError):
        cron.text = "0 9 * * *"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        cron.zone = "UTC"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))]
)
def test_a_copy_is_equal(again: Callable[[CronExpression], CronExpression]) -> None:
    assert again(DAILY) == DAILY
    assert again(DAILY).next(NOON) == DAILY.next(NOON)


# ---------------------------------------------------------------------------- zones


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("America/New_Yrok", "America/New_York"),
        ("america/new_york", "America/New_York"),
        ("New York", "America/New_York"),
        ("Europe/Kolkata", "Asia/Kolkata"),
        ("utc", "UTC"),
        ("Mars/Olympus", "give one such as"),
        ("", "give one such as"),
        ("America", "give one such as"),
        ("../../etc/passwd", "give one such as"),
        ("/etc/localtime", "is no IANA time zone"),
        ("a\x00b", "give one such as"),
        ("\ud800", "give one such as"),
        ("x" * 100_000, "give one such as"),
        ("Zürich", "Europe/Zurich"),
    ],
)
def test_an_unknown_zone_is_told_with_the_one_that_was_meant(name: str, advice: str) -> None:
    with pytest.raises(ConfigError) as caught:
        DAILY.next(NOON, name)
    assert caught.value.field == "timezone"
    assert str(caught.value).startswith("timezone: ")
    assert advice in str(caught.value)
    assert len(str(caught.value)) < 250
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("zone", [None, 3, UTC, ZoneInfo("Asia/Tokyo")])
def test_a_zone_is_given_by_its_name(zone: tzinfo | None) -> None:
    with pytest.raises(ConfigError, match="is no name") as caught:
        DAILY.next(NOON, zone)  # type: ignore[arg-type]
    assert caught.value.field == "timezone"


def test_without_zone_data_utc_works_and_the_rest_says_what_to_install() -> None:
    program = """
import sys
sys.modules["tzdata"] = None
from datetime import UTC, datetime
from jobmill import CronExpression, ConfigError
cron = CronExpression("0 8 * * *")
print(cron.next(datetime(2026, 1, 1, tzinfo=UTC), "UTC"))
try:
    cron.next(datetime(2026, 1, 1, tzinfo=UTC), "Europe/Berlin")
except ConfigError as error:
    print(error)
"""
    told = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        check=True,
        env={"PYTHONTZPATH": ""},
        text=True,
        timeout=30,
    )
    since = "since this machine has no time zone data"
    assert told.stdout.splitlines() == [
        "2026-01-01 08:00:00+00:00",
        f"timezone: 'Europe/Berlin' is not known, {since}; pip install tzdata",
    ]
