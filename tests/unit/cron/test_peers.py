"""Against cronsim and croniter: each difference has a reason that is listed here, or fails.

A reason is a form of text, or a place near a change of the clocks, in which that library is known
to answer otherwise; an example of each is asked, so that a reason goes when it is none any more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from croniter import CroniterError, croniter  # type: ignore[import-untyped]
from cronsim import CronSim, CronSimError
from hypothesis import given, settings, strategies as st

from jobmill import CronError, CronExpression
from tests.conftest import SOAK
from tests.unit.cron.oracle import DAY, MONTHS, WEEKDAYS, Drawn, expressions, utc
from tests.unit.cron.test_oracle import CHANGES

Peer = Callable[[str, datetime, str], datetime | None]
Question = tuple[str, datetime, str]
Reason = Callable[[list[str], datetime, str], bool]
Reasons = dict[str, tuple[Reason, Question]]


def by_cronsim(text: str, at: datetime, zone: str) -> datetime | None:
    start = at if zone == "UTC" else at.astimezone(ZoneInfo(zone))
    try:
        return next(CronSim(text, start)).astimezone(UTC)
    except (CronSimError, StopIteration):
        return None


def by_croniter(text: str, at: datetime, zone: str) -> datetime | None:
    start = at.astimezone(ZoneInfo(zone))
    try:
        found = croniter(text, start, second_at_beginning=True).get_next(datetime)
    except CroniterError:
        return None
    assert isinstance(found, datetime)
    return found.astimezone(UTC)


def by_jobmill(text: str, at: datetime, zone: str) -> datetime | None:
    try:
        return CronExpression(text).next(at, zone).astimezone(UTC)
    except CronError:
        return None


# ---------------------------------------------------------------------------- reasons in the text


def number(text: str) -> int:
    for names, low in ((WEEKDAYS, 0), (MONTHS, 1)):
        if text.upper() in names:
            return names.index(text.upper()) + low
    return int(text)


def ranges(fields: list[str]) -> Iterator[tuple[int, int, str]]:
    for field in fields:
        for item in field.split(","):
            head, _, step = item.partition("/")
            if "-" in head:
                first, last = head.split("-")
                yield number(first), number(last), step


def wraps(fields: list[str], at: datetime, zone: str) -> bool:
    return any(first > last for first, last, _ in ranges(fields))


def range_of_one(fields: list[str], at: datetime, zone: str) -> bool:
    return any(first == last for first, last, _ in ranges(fields))


def stepped_range_of_one(fields: list[str], at: datetime, zone: str) -> bool:
    return any(first == last and step for first, last, step in ranges(fields))


def stepped_wrap(fields: list[str], at: datetime, zone: str) -> bool:
    return any(first > last and step for first, last, step in ranges(fields))


def written(pattern: str, field: int | None = None) -> Reason:
    """The pattern occurs in the field (counted from the end), or anywhere."""
    found = re.compile(pattern, re.IGNORECASE)

    def see(fields: list[str], at: datetime, zone: str) -> bool:
        return bool(found.search(" ".join(fields) if field is None else fields[field]))

    return see


def star_within_days(fields: list[str], at: datetime, zone: str) -> bool:
    return any("*" in field and field != "*" for field in (fields[-3], fields[-1]))


# ---------------------------------------------------------------------------- reasons in the clock


def offset(at: datetime, zone: str) -> timedelta:
    found = at.astimezone(ZoneInfo(zone)).utcoffset()
    assert found is not None
    return found


def fixed(fields: list[str]) -> bool:
    return not (fields[-5].startswith("*") or fields[-4].startswith("*"))


def change(at: datetime, zone: str) -> timedelta:
    """By how much the clocks go forward around this time; less than nothing if back."""
    return offset(at + 2 * DAY, zone) - offset(at - 2 * DAY, zone)


def fixed_asked_late_in_a_fold(fields: list[str], at: datetime, zone: str) -> bool:
    return fixed(fields) and bool(at.astimezone(ZoneInfo(zone)).fold)


def fixed_near_a_fold(fields: list[str], at: datetime, zone: str) -> bool:
    return fixed(fields) and change(at, zone) < timedelta()


def real_near_a_gap(fields: list[str], at: datetime, zone: str) -> bool:
    return not fixed(fields) and change(at, zone) > timedelta()


def real_near_a_fold_of_half_an_hour(fields: list[str], at: datetime, zone: str) -> bool:
    return not fixed(fields) and change(at, zone) == timedelta(minutes=-30)


CRONSIM: Reasons = {
    "it has no ?": (written(r"\?"), ("0 0 ? * 1", utc(2026, 1, 1), "UTC")),
    "it has no 15W": (written(r"\dW"), ("0 0 15W * *", utc(2026, 1, 1), "UTC")),
    "its names take no L": (written(r"[A-Z]L", -1), ("0 0 * * FRIL", utc(2026, 1, 1), "UTC")),
    "its ranges do not wrap": (wraps, ("0 22-2 * * *", utc(2026, 1, 1), "UTC")),
    "a step after a range of one goes on to the end of the field": (
        stepped_range_of_one,
        ("0-0/20 * * * *", utc(2026, 1, 1), "UTC"),
    ),
    "a step of weekdays goes on to 7, Sunday": (
        written(r"(^|,)[^*,]+/", -1),
        ("0 0 * * 1/2", utc(2026, 1, 3), "UTC"),
    ),
    "in a fold it answers with a time in the past": (
        fixed_asked_late_in_a_fold,
        ("30 1 * * *", utc(2026, 11, 1, 6, 10), "America/New_York"),
    ),
    "it skips real times in a fold of half an hour": (
        real_near_a_fold_of_half_an_hour,
        ("*/20 2 * * *", utc(2026, 4, 4, 14), "Australia/Lord_Howe"),
    ),
}

CRONITER: Reasons = {
    "it has no LW": (written(r"LW"), ("0 0 LW * *", utc(2026, 1, 1), "UTC")),
    "its last Friday is L5": (written(r"\wL", -1), ("0 0 * * 5L", utc(2026, 1, 1), "UTC")),
    "its 15W stands alone, and goes with both days": (
        written(r"\dW"),
        ("0 0 15W * 1", utc(2026, 1, 1), "UTC"),
    ),
    "its FRI#2 goes with no other day": (written("#"), ("0 0 1 * 5#2", utc(2026, 1, 1), "UTC")),
    "its range of one is the whole field": (
        range_of_one,
        ("5-5 * * * *", utc(2026, 1, 1), "UTC"),
    ),
    "a step does not go on where its range wraps": (
        stepped_wrap,
        ("0 3-1/2 * * *", utc(2026, 1, 1), "UTC"),
    ),
    "only a lone * leaves the other field of days to decide": (
        star_within_days,
        ("0 0 */2 * 1", utc(2026, 1, 1), "UTC"),
    ),
    "a fixed time fires on both sides of a fold": (
        fixed_near_a_fold,
        ("15,45 1 * * *", utc(2026, 10, 25, 1, 35), "Europe/London"),
    ),
    "a real time in a gap fires after it": (
        real_near_a_gap,
        ("*/20 2 * * *", utc(2026, 3, 8, 4), "America/New_York"),
    ),
    "it skips real times in a fold of half an hour": (
        real_near_a_fold_of_half_an_hour,
        ("*/20 1 * * *", utc(2025, 4, 5, 14, 47), "Australia/Lord_Howe"),
    ),
}


def unexplained(
    peer: Peer,
    reasons: Reasons,
    question: Question,
) -> str | None:
    text, at, zone = question
    ours, theirs = by_jobmill(*question), peer(*question)
    if ours == theirs or any(reason(text.split(), at, zone) for reason, _ in reasons.values()):
        return None
    return f"{text} after {at} in {zone}: {ours}, not {theirs}"


MOMENTS = st.datetimes(datetime(2024, 1, 1), datetime(2028, 1, 1), timezones=st.just(UTC)).map(  # noqa: DTZ001 - the zone is given beside
    lambda at: at.replace(microsecond=0)
)


@settings(max_examples=5_000 if SOAK else 300)
@given(drawn=expressions() | expressions(with_seconds=True), at=MOMENTS)
def test_cronsim_gives_the_same_where_clocks_stand(drawn: Drawn, at: datetime) -> None:
    assert unexplained(by_cronsim, CRONSIM, (drawn.text, at, "UTC")) is None


@settings(max_examples=5_000 if SOAK else 300)
@given(drawn=expressions() | expressions(with_seconds=True), at=MOMENTS)
def test_croniter_gives_the_same_where_clocks_stand(drawn: Drawn, at: datetime) -> None:
    assert unexplained(by_croniter, CRONITER, (drawn.text, at, "UTC")) is None


DAILY = [
    *("* * * * *", "*/30 * * * *", "*/20 1 * * *", "*/20 2 * * *", "0 * * * *", "15 * * * *"),
    *("0 */2 * * *", "30 2 * * *", "15,45 1 * * *", "0 0 * * *", "30 0 * * *", "0,30 2 * * *"),
    *("30 0-3 * * *", "0 2,3 * * *", "5/15 1 * * *", "45 1,4 * * *"),
]


@pytest.mark.parametrize(
    ("peer", "reasons"), [(by_cronsim, CRONSIM), (by_croniter, CRONITER)], ids=lambda of: ""
)
@settings(max_examples=5_000 if SOAK else 300)
@given(data=st.data(), text=st.sampled_from(DAILY), zone=st.sampled_from(sorted(CHANGES)))
def test_they_give_the_same_where_clocks_change(
    peer: Peer, reasons: Reasons, data: st.DataObject, text: str, zone: str
) -> None:
    near = data.draw(st.sampled_from(CHANGES[zone] or [utc(2026, 2, 28)]))
    at = near + data.draw(st.integers(-30 * 60, 6 * 60)) * timedelta(minutes=1)
    assert unexplained(peer, reasons, (text, at, zone)) is None


@pytest.mark.parametrize("reason", CRONSIM)
def test_a_reason_to_differ_from_cronsim_is_still_one(reason: str) -> None:
    see, (text, at, zone) = CRONSIM[reason]
    assert see(text.split(), at, zone)
    assert by_cronsim(text, at, zone) != by_jobmill(text, at, zone)


@pytest.mark.parametrize("reason", CRONITER)
def test_a_reason_to_differ_from_croniter_is_still_one(reason: str) -> None:
    see, (text, at, zone) = CRONITER[reason]
    assert see(text.split(), at, zone)
    assert by_croniter(text, at, zone) != by_jobmill(text, at, zone)
