"""A schedule as somebody wants it: its keywords, checked where they are given."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, TypedDict

from jobmill.cron import CronExpression
from jobmill.errors import ConfigError, CronError
from jobmill.options import (
    check_duration,
    check_flag,
    check_instant,
    check_whole,
    is_job_id,
    refuse_unknown,
)
from jobmill.schedule import Misfire
from jobmill.timezones import zone_named

_MISFIRES: Final = ("run_once", "skip", "catch_up")


class OnceOptions(TypedDict, total=False):
    """The keywords of `schedule_once`."""

    timezone: str | None
    misfire: Misfire
    misfire_grace: float | timedelta


class ScheduleOptions(OnceOptions, total=False):
    """The keywords of `schedule`. None means the same as leaving it out."""

    run_on_start: bool
    allow_concurrent: bool
    max_runs: int | None
    start_date: datetime | None
    end_date: datetime | None


@dataclass(frozen=True, slots=True)
class Wish:
    """A schedule as somebody wants it: `fields` are those of its plan, checked."""

    name: str
    fields: dict[str, Any]
    run_on_start: bool


def recurring(name: object, cron: object, options: Mapping[str, Any], timezone: str) -> Wish:
    """The wish of `schedule`; `timezone` where it names none.

    Cost: may read the file of a zone.

    Raises: ConfigError, CronError; TypeError for a keyword that `schedule` does not have.
    """
    called = check_schedule_name(name)
    fields = _checked("schedule", options, _CHECKS, timezone)
    at_once: bool = fields.pop("run_on_start", False)
    if not isinstance(cron, str | CronExpression):
        message = f"cron: {type(cron).__name__} is no text; give one such as '0 8 * * *'"
        raise CronError(message, field="cron")
    fields["cron"] = (CronExpression(cron) if isinstance(cron, str) else cron).text
    start, end = fields.get("start_date"), fields.get("end_date")
    if start is not None and end is not None and end < start:
        message = "end_date: it is before start_date, so that nothing would ever run"
        raise ConfigError(message, field="end_date")
    return Wish(called, fields, at_once)


def single(name: object, at: object, options: Mapping[str, Any], timezone: str) -> Wish:
    """The wish of `schedule_once`; cost and errors as those of `recurring`."""
    called = check_schedule_name(name)
    fields = _checked("schedule_once", options, _ONCE, timezone)
    return Wish(called, {**fields, "at": check_instant("at", at)}, run_on_start=False)


def _checked(
    called: str,
    options: Mapping[str, Any],
    checks: Mapping[str, Callable[[str, Any], Any]],
    timezone: str,
) -> dict[str, Any]:
    refuse_unknown(called, options, checks)
    given = {name: value for name, value in options.items() if value is not None}
    return {"timezone": timezone} | {
        name: checks[name](name, value) for name, value in given.items()
    }


def check_schedule_name(name: object) -> str:
    """The name, where it can name a schedule."""
    if isinstance(name, str) and is_job_id("name", name):
        return name
    given = reprlib.repr(name)
    message = f"name: {given} will not do; give 1 to 200 characters out of A-Z a-z 0-9 _ . : -"
    raise ConfigError(message, field="name")


def _timezone(_field: str, value: object) -> str:
    zone_named(value)
    return str(value)


def _misfire(field: str, value: object) -> str:
    if isinstance(value, str) and value in _MISFIRES:
        return value
    wanted = " or ".join(f'"{each}"' for each in _MISFIRES)
    raise ConfigError(f"{field}: {reprlib.repr(value)} will not do; give {wanted}", field=field)


_ONCE: Final[Mapping[str, Callable[[str, Any], Any]]] = {
    "timezone": _timezone,
    "misfire": _misfire,
    "misfire_grace": check_duration,
}
_CHECKS: Final[Mapping[str, Callable[[str, Any], Any]]] = {
    **_ONCE,
    "run_on_start": check_flag,
    "allow_concurrent": check_flag,
    "max_runs": lambda field, value: check_whole(field, value, 1),
    "start_date": check_instant,
    "end_date": check_instant,
}
