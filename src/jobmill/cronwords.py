"""What a cron expression means, in English words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from jobmill.crontext import MONTHS, WEEKDAYS, Fields, Monthdays, Weekdays, bits, read

_NTH: Final = ("", "first", "second", "third", "fourth", "fifth")
_HOURS: Final = 24
_MINUTES: Final = 60
_ALL_MONTHDAYS: Final = 31
_FEW: Final = 4
"""Times of day that are told one by one."""
_RUN: Final = 3
"""Numbers in a row that are told as `a to b`."""


def describe(text: str) -> str:
    """The meaning in one phrase, the time of day first: `At 08:00 on Monday to Friday`.

    Raises: CronError where the text cannot be read.
    """
    fields = read(text)
    phrase = " ".join(part for part in (_time(fields), _days(fields), _months(fields)) if part)
    return phrase[0].upper() + phrase[1:]


def _time(fields: Fields) -> str:
    seconds, minutes, hours = bits(fields.seconds), bits(fields.minutes), bits(fields.hours)
    if seconds == [0]:
        return _to_the_minute(minutes, hours)
    if len(seconds) * len(minutes) * len(hours) <= _FEW:
        times = [f"{h:02}:{m:02}:{s:02}" for h in hours for m in minutes for s in seconds]
        return f"at {_joined(times)}"
    told = _every("second", seconds, _MINUTES) or f"at {_counted('second', seconds)}"
    if len(minutes) == _MINUTES and len(hours) == _HOURS:
        return told if told.startswith("every") else f"{told} of every minute"
    which = "every minute" if len(minutes) == _MINUTES else _counted("minute", minutes)
    return f"{told} of {which} of {_which_hours(hours)}"


def _to_the_minute(minutes: list[int], hours: list[int]) -> str:
    even_minutes = _every("minute", minutes, _MINUTES)
    if even_minutes and len(hours) == _HOURS:
        return even_minutes
    if minutes == [0] and len(hours) > 1:
        even_hours = _every("hour", hours, _HOURS)
        if even_hours:
            return even_hours if len(hours) == _HOURS else f"{even_hours} from 00:00"
    if len(minutes) * len(hours) <= _FEW:
        return f"at {_joined([f'{h:02}:{m:02}' for h in hours for m in minutes])}"
    in_a_row = hours[-1] - hours[0] == len(hours) - 1 and len(hours) < _HOURS
    told = even_minutes or ("every hour" if len(minutes) == 1 and len(hours) >= _RUN else "")
    if told and in_a_row:
        return f"{told} from {hours[0]:02}:{minutes[0]:02} to {hours[-1]:02}:{minutes[-1]:02}"
    told = even_minutes or f"at {_counted('minute', minutes)}"
    return f"{told} of {_which_hours(hours)}"


def _which_hours(hours: list[int]) -> str:
    return "every hour" if len(hours) == _HOURS else _counted("hour", hours)


def _days(fields: Fields) -> str:
    any_monthday = len(bits(fields.monthdays.days)) == _ALL_MONTHDAYS
    any_weekday = len(bits(fields.weekdays.days)) == len(WEEKDAYS)
    monthdays = _of_month(fields.monthdays)
    weekdays = _of_week(fields.weekdays)
    if fields.both:
        if any_monthday:
            return "" if any_weekday else f"on {weekdays}"
        return f"on {monthdays}" if any_weekday else f"on {monthdays} where that is {weekdays}"
    if any_monthday or any_weekday:
        return ""
    return f"on {monthdays} or on {weekdays}"


def _of_month(named: Monthdays) -> str:
    told = [_counted("day", bits(named.days))] if named.days else []
    if named.last:
        told.append("the last day")
    if named.last_workday:
        told.append("the last working day")
    told += [f"the working day nearest to day {day}" for day in bits(named.near)]
    return f"{_joined(told)} of the month"


def _of_week(named: Weekdays) -> str:
    told = _week(bits(named.days))
    of_month = [f"the {_NTH[n]} {WEEKDAYS[day]}" for day, n in named.nth]
    of_month += [f"the last {WEEKDAYS[day]}" for day in bits(named.last)]
    if of_month:
        told.append(f"{_joined(of_month)} of the month")
    return _joined(told)


def _week(days: list[int]) -> list[str]:
    """The weekdays from Monday on, so that a weekend stays together."""
    order = sorted((day - 1) % len(WEEKDAYS) for day in days)
    return _ranges(order, [*WEEKDAYS[1:], WEEKDAYS[0]])


def _months(fields: Fields) -> str:
    months = bits(fields.months)
    if len(months) == len(MONTHS) - 1:
        return ""
    return f"in {_joined(_ranges(months, MONTHS))}"


def _every(unit: str, numbers: list[int], size: int) -> str:
    """`every 5 minutes`, where the numbers are evenly spread over the whole."""
    step = numbers[1] if len(numbers) > 1 else size
    if numbers != list(range(0, size, step)) or size % step or step == size:
        return ""
    return f"every {unit}" if step == 1 else f"every {step} {unit}s"


def _counted(unit: str, numbers: list[int]) -> str:
    told = _joined(_ranges(numbers, [str(n) for n in range(_MINUTES)]))
    return f"{unit}s {told}" if len(numbers) > 1 else f"{unit} {told}"


def _ranges(numbers: list[int], names: Sequence[str]) -> list[str]:
    told = list[str]()
    while numbers:
        run = 1
        while run < len(numbers) and numbers[run] == numbers[0] + run:
            run += 1
        if run >= _RUN:
            told.append(f"{names[numbers[0]]} to {names[numbers[run - 1]]}")
            numbers = numbers[run:]
        else:
            told.append(names[numbers[0]])
            numbers = numbers[1:]
    return told


def _joined(told: list[str]) -> str:
    return told[0] if len(told) == 1 else f"{', '.join(told[:-1])} and {told[-1]}"
