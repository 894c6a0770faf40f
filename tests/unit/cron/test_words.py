from __future__ import annotations

import pytest
from hypothesis import given

from jobmill import CronError, CronExpression
from tests.unit.cron.oracle import Drawn, expressions


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("* * * * *", "Every minute"),
        ("* * * * * *", "Every second"),
        ("*/10 * * * * *", "Every 10 seconds"),
        ("15 * * * * *", "At second 15 of every minute"),
        ("*/20 30 2 * * *", "At 02:30:00, 02:30:20 and 02:30:40"),
        ("*/10 30 2-4 * * *", "Every 10 seconds of minute 30 of hours 2 to 4"),
        ("10 30 2 * * *", "At 02:30:10"),
        ("*/5 * * * *", "Every 5 minutes"),
        ("*/40 * * * *", "At minutes 0 and 40 of every hour"),
        ("5/15 * * * *", "At minutes 5, 20, 35 and 50 of every hour"),
        ("*/15 9-17 * * *", "Every 15 minutes from 09:00 to 17:45"),
        ("* 2 * * *", "Every minute from 02:00 to 02:59"),
        ("* 2,4 * * *", "Every minute of hours 2 and 4"),
        ("0 * * * *", "Every hour"),
        ("5 * * * *", "At minute 5 of every hour"),
        ("30 9-17 * * *", "Every hour from 09:30 to 17:30"),
        ("0 */6 * * *", "Every 6 hours from 00:00"),
        ("0 8 * * *", "At 08:00"),
        ("0 8,12,20 * * *", "At 08:00, 12:00 and 20:00"),
        ("0 8 * * 1-5", "At 08:00 on Monday to Friday"),
        ("0 8 * * 0,6", "At 08:00 on Saturday and Sunday"),
        ("0 8 * * FRI-MON", "At 08:00 on Monday and Friday to Sunday"),
        ("0 0 * * 5L", "At 00:00 on the last Friday of the month"),
        ("0 0 * * FRI#2,MON", "At 00:00 on Monday and the second Friday of the month"),
        ("0 0 1 * *", "At 00:00 on day 1 of the month"),
        ("0 0 1-7,15 * ?", "At 00:00 on days 1 to 7 and 15 of the month"),
        ("0 0 L * *", "At 00:00 on the last day of the month"),
        ("0 0 LW * *", "At 00:00 on the last working day of the month"),
        ("0 0 15W * *", "At 00:00 on the working day nearest to day 15 of the month"),
        ("0 9 1 * 5", "At 09:00 on day 1 of the month or on Friday"),
        ("0 9 1 * 0-6", "At 09:00"),
        (
            "0 9 */15 * 5",
            "At 09:00 on days 1, 16 and 31 of the month where that is Friday",
        ),
        ("@yearly", "At 00:00 on day 1 of the month in January"),
        (
            "0 0 1 NOV-FEB *",
            "At 00:00 on day 1 of the month in January, February, November and December",
        ),
    ],
)
def test_an_expression_reads_so_in_words(text: str, words: str) -> None:
    assert CronExpression(text).describe() == words


@given(drawn=expressions(with_seconds=True))
def test_any_expression_has_words(drawn: Drawn) -> None:
    try:
        cron = CronExpression(drawn.text)
    except CronError:
        return
    words = cron.describe()
    assert words.startswith(("At ", "Every "))
    assert "  " not in words
    assert words.isprintable()
