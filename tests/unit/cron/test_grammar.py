from __future__ import annotations

from datetime import UTC, datetime

import pytest

from jobmill import CronError, CronExpression

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)
"""A Thursday."""


def times(text: str, count: int = 4) -> list[str]:
    """The first times in 2026, as text up to the minute, or to the second where they have one."""
    cron, at, found = CronExpression(text), NEW_YEAR, list[str]()
    for _ in range(count):
        at = cron.next(at)
        found.append(at.strftime("%m-%d %H:%M" + (":%S" if at.second else "")))
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # six fields: seconds first
        ("*/20 * * * * *", ["01-01 00:00:20", "01-01 00:00:40", "01-01 00:01", "01-01 00:01:20"]),
        ("30 5 * * * *", ["01-01 00:05:30", "01-01 01:05:30", "01-01 02:05:30", "01-01 03:05:30"]),
        ("0 0 8 * * MON", ["01-05 08:00", "01-12 08:00", "01-19 08:00", "01-26 08:00"]),
        # names
        ("0 0 1 MAR,jun *", ["03-01 00:00", "06-01 00:00", "03-01 00:00", "06-01 00:00"]),
        ("0 0 * * mon", ["01-05 00:00", "01-12 00:00", "01-19 00:00", "01-26 00:00"]),
        ("0 0 1 SEP-nov *", ["09-01 00:00", "10-01 00:00", "11-01 00:00", "09-01 00:00"]),
        # ranges, also wrapping
        ("0 9-11 * * *", ["01-01 09:00", "01-01 10:00", "01-01 11:00", "01-02 09:00"]),
        ("0 0-7 2 1 *", [f"01-02 0{hour}:00" for hour in range(8)] + ["01-02 00:00"]),
        ("0 22-1 * * *", ["01-01 01:00", "01-01 22:00", "01-01 23:00", "01-02 00:00"]),
        ("58-1 0 * * *", ["01-01 00:01", "01-01 00:58", "01-01 00:59", "01-02 00:00"]),
        ("0 0 * * FRI-MON", ["01-02 00:00", "01-03 00:00", "01-04 00:00", "01-05 00:00"]),
        ("0 0 * * 5-7", ["01-02 00:00", "01-03 00:00", "01-04 00:00", "01-09 00:00"]),
        ("0 0 * * 6-1", ["01-03 00:00", "01-04 00:00", "01-05 00:00", "01-10 00:00"]),
        ("0 0 * * 7-1", ["01-04 00:00", "01-05 00:00", "01-11 00:00", "01-12 00:00"]),
        ("0 0 * * 0-7", ["01-02 00:00", "01-03 00:00", "01-04 00:00", "01-05 00:00"]),
        ("0 0 * * SUN-7/3", ["01-03 00:00", "01-04 00:00", "01-07 00:00", "01-10 00:00"]),
        ("0 0 * * 7-7", ["01-04 00:00", "01-11 00:00"]),
        ("0 0 30-2 * *", ["01-02 00:00", "01-30 00:00", "01-31 00:00", "02-01 00:00"]),
        ("0 0 1 NOV-FEB *", ["02-01 00:00", "11-01 00:00", "12-01 00:00", "01-01 00:00"]),
        # lists
        ("0 8,20,12 * * *", ["01-01 08:00", "01-01 12:00", "01-01 20:00", "01-02 08:00"]),
        ("0 0 * * SAT,3,SUN", ["01-03 00:00", "01-04 00:00", "01-07 00:00", "01-10 00:00"]),
        ("5,*/30 0 1 1 *", ["01-01 00:05", "01-01 00:30", "01-01 00:00", "01-01 00:05"]),
        # steps
        ("*/25 * * * *", ["01-01 00:25", "01-01 00:50", "01-01 01:00", "01-01 01:25"]),
        ("5/20 * * * *", ["01-01 00:05", "01-01 00:25", "01-01 00:45", "01-01 01:05"]),
        ("10-40/15 * * * *", ["01-01 00:10", "01-01 00:25", "01-01 00:40", "01-01 01:10"]),
        ("0 22-4/3 * * *", ["01-01 01:00", "01-01 04:00", "01-01 22:00", "01-02 01:00"]),
        ("0 0 * * FRI-MON/2", ["01-02 00:00", "01-04 00:00", "01-09 00:00", "01-11 00:00"]),
        ("0 0 * * 1/2", ["01-02 00:00", "01-05 00:00", "01-07 00:00", "01-09 00:00"]),
        ("*/60 */24 */31 */12 */7", ["01-01 00:00"] * 2),
        # ? is any day
        ("0 0 ? * MON", ["01-05 00:00", "01-12 00:00"]),
        ("0 0 5 * ?", ["01-05 00:00", "02-05 00:00"]),
        ("0 0 ? * ?", ["01-02 00:00", "01-03 00:00"]),
        # the last day, and working days
        ("0 0 L * *", ["01-31 00:00", "02-28 00:00", "03-31 00:00", "04-30 00:00"]),
        ("0 0 15,L * *", ["01-15 00:00", "01-31 00:00", "02-15 00:00", "02-28 00:00"]),
        ("0 0 LW * *", ["01-30 00:00", "02-27 00:00", "03-31 00:00", "04-30 00:00"]),
        ("0 0 15W * *", ["01-15 00:00", "02-16 00:00", "03-16 00:00", "04-15 00:00"]),
        # never into another month
        ("0 0 1W * *", ["02-02 00:00", "03-02 00:00", "04-01 00:00", "05-01 00:00"]),
        ("0 0 1W 8 *", ["08-03 00:00"]),
        ("0 0 31W * *", ["01-30 00:00", "03-31 00:00", "05-29 00:00", "07-31 00:00"]),
        # weekdays of the month
        ("0 0 * * 5L", ["01-30 00:00", "02-27 00:00", "03-27 00:00", "04-24 00:00"]),
        ("0 0 * * friL", ["01-30 00:00", "02-27 00:00"]),
        ("0 0 * * 7L", ["01-25 00:00", "02-22 00:00"]),
        ("0 0 * * FRI#2", ["01-09 00:00", "02-13 00:00", "03-13 00:00", "04-10 00:00"]),
        ("0 0 * * 0#1,MON#5", ["01-04 00:00", "02-01 00:00", "03-01 00:00", "03-30 00:00"]),
        ("0 0 * * 7#1", ["01-04 00:00", "02-01 00:00"]),
        # either day will do, unless one field begins with *
        ("0 0 5 * MON", ["01-05 00:00", "01-12 00:00", "01-19 00:00", "01-26 00:00"]),
        ("0 0 4 * MON", ["01-04 00:00", "01-05 00:00", "01-12 00:00", "01-19 00:00"]),
        ("0 0 L * FRI#2", ["01-09 00:00", "01-31 00:00", "02-13 00:00", "02-28 00:00"]),
        ("0 0 */4 * MON", ["01-05 00:00", "02-09 00:00", "03-09 00:00", "04-13 00:00"]),
        ("0 0 1-7 * */7", ["01-04 00:00", "02-01 00:00", "03-01 00:00", "04-05 00:00"]),
        # words
        ("@hourly", ["01-01 01:00", "01-01 02:00"]),
        ("@daily", ["01-02 00:00", "01-03 00:00"]),
        ("@MIDNIGHT", ["01-02 00:00", "01-03 00:00"]),
        ("@weekly", ["01-04 00:00", "01-11 00:00"]),
        ("@monthly", ["02-01 00:00", "03-01 00:00"]),
        ("@yearly", ["01-01 00:00", "01-01 00:00"]),
        ("@annually", ["01-01 00:00", "01-01 00:00"]),
        # white space, leading zeros
        ("  0\t8   * * *  \n", ["01-01 08:00", "01-02 08:00"]),
        ("00 08 01 01 *", ["01-01 08:00"]),
    ],
)
def test_an_expression_gives_these_times(text: str, expected: list[str]) -> None:
    assert times(text, len(expected)) == expected


@pytest.mark.parametrize(
    ("text", "years"),
    [
        ("0 0 29 2 *", [2028, 2032, 2036]),
        ("0 0 */28 2 SUN#5", [2032, 2060, 2088, 2128]),
        ("0 0 29 2 ?", [2028, 2032]),
    ],
)
def test_a_leap_day_is_waited_for(text: str, years: list[int]) -> None:
    cron, at = CronExpression(text), NEW_YEAR
    for year in years:
        at = cron.next(at)
        assert at == datetime(year, 2, 29, tzinfo=UTC)


def test_a_century_is_a_leap_year_once_in_four() -> None:
    cron = CronExpression("0 0 29 2 *")
    assert cron.next(datetime(2097, 1, 1, tzinfo=UTC)).year == 2104
    assert cron.previous(datetime(1903, 1, 1, tzinfo=UTC)).year == 1896
    assert cron.next(datetime(1997, 1, 1, tzinfo=UTC)).year == 2000
    last = CronExpression("0 0 L 2 *")
    assert last.next(datetime(2100, 1, 1, tzinfo=UTC)) == datetime(2100, 2, 28, tzinfo=UTC)
    assert last.next(datetime(2000, 1, 1, tzinfo=UTC)) == datetime(2000, 2, 29, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "field", "advice"),
    [
        ("", "cron", "give one such as"),
        ("   ", "cron", "give one such as"),
        ("* * * *", "cron", "give five"),
        ("* * * * * * *", "cron", "give five"),
        ("@reboot", "cron", "give one of @hourly"),
        ("@every 5m", "cron", "give one of @hourly"),
        ("@", "cron", "give one of @hourly"),
        ("0 0 * * *\n0 1 * * *", "cron", "write plain ASCII"),
        ("0 0 * * MÖN", "cron", "write plain ASCII"),
        ("0 ٣ * * *", "cron", "write plain ASCII"),
        ("0\u00a00 * * *", "cron", "write plain ASCII"),
        ("* " * 129, "cron", "give at most 256"),
        ("60 * * * *", "minute", "give 0 to 59"),
        ("-1 * * * *", "minute", "give 0 to 59"),
        ("1- * * * *", "minute", "give 0 to 59"),
        ("1-2-3 * * * *", "minute", "give 0 to 59"),
        ("1.5 * * * *", "minute", "give 0 to 59"),
        ("+1 * * * *", "minute", "give 0 to 59"),
        ("1_0 * * * *", "minute", "give 0 to 59"),
        ("0x1 * * * *", "minute", "give 0 to 59"),
        ("? * * * *", "minute", "any day of month or day of week"),
        ("1,,2 * * * *", "minute", "give 0 to 59"),
        ("*/0 * * * *", "minute", "give 1 to 60"),
        ("*/-5 * * * *", "minute", "give 1 to 60"),
        ("*/61 * * * *", "minute", "give 1 to 60"),
        ("*/ * * * *", "minute", "give 1 to 60"),
        ("*/5/5 * * * *", "minute", "give 1 to 60"),
        ("** * * * *", "minute", "give 0 to 59"),
        ("*-5 * * * *", "minute", "give 0 to 59"),
        ("MON * * * *", "minute", "give 0 to 59"),
        ("60 * * * * *", "second", "give 0 to 59"),
        ("0 24 * * *", "hour", "give 0 to 23"),
        ("0 0-24 * * *", "hour", "give 0 to 23"),
        ("0 */90 * * *", "hour", "give 1 to 24"),
        ("0 0 0 * *", "day of month", "give 1 to 31"),
        ("0 0 32 * *", "day of month", "give 1 to 31"),
        ("0 0 32W * *", "day of month", "give 1 to 31"),
        ("0 0 W * *", "day of month", "give 1 to 31"),
        ("0 0 1-5W * *", "day of month", "give 1 to 31"),
        ("0 0 L-3 * *", "day of month", "give 1 to 31"),
        ("0 0 L/2 * *", "day of month", "give 1 to 31"),
        ("0 0 ?,5 * *", "day of month", "any day of month"),
        ("0 0 */32 * *", "day of month", "give 1 to 31"),
        ("0 0 1 0 *", "month", "give 1 to 12"),
        ("0 0 1 13 *", "month", "give 1 to 12"),
        ("0 0 1 JANUARY *", "month", "JAN to DEC"),
        ("0 0 1 MON *", "month", "JAN to DEC"),
        ("0 0 * * 8", "day of week", "give 0 to 7"),
        ("0 0 * * MONDAY", "day of week", "SUN to SAT"),
        ("0 0 * * L", "day of week", "5L"),
        ("0 0 * * 8L", "day of week", "give 0 to 7"),
        ("0 0 * * MON#0", "day of week", "give #1 to #5"),
        ("0 0 * * MON#6", "day of week", "give #1 to #5"),
        ("0 0 * * MON#", "day of week", "give #1 to #5"),
        ("0 0 * * #2", "day of week", "give 0 to 7"),
        ("0 0 * * 1-5#2", "day of week", "give 0 to 7"),
        ("0 0 * * */8", "day of week", "give 1 to 7"),
        ("0 0 30 2 *", "day of month", "can never fire"),
        ("0 0 31 2,4,6 *", "day of month", "can never fire"),
        ("0 0 30W 2 ?", "day of month", "can never fire"),
        ("0 0 31 6 */7", "day of month", "can never fire"),
        ("0 0 */28 2 MON#2", "day of month", "can never fire"),
    ],
)
def test_what_is_no_expression_is_refused(text: str, field: str, advice: str) -> None:
    with pytest.raises(CronError) as caught:
        CronExpression(text)
    assert caught.value.field == field
    assert field in str(caught.value)
    assert advice in str(caught.value)


@pytest.mark.parametrize("text", [None, 5, b"* * * * *", ["*"] * 5])
def test_what_is_no_text_is_refused(text: object) -> None:
    with pytest.raises(CronError, match="is no text"):
        CronExpression(text)  # type: ignore[arg-type]


def test_days_that_some_year_has_are_taken() -> None:
    for text in ("0 0 29 2 *", "0 0 30 2 MON", "0 0 31 2,3 *", "0 0 29W 2 *", "0 0 * 2 MON#5"):
        CronExpression(text)


def test_a_text_of_256_characters_is_read_and_of_257_is_not() -> None:
    longest = ("1," * 124)[:-1] + " * * * *"
    longest += " " * (256 - len(longest))
    CronExpression(longest)
    with pytest.raises(CronError, match="257 characters"):
        CronExpression(longest + " ")
