"""What can be chosen about a job, checked where it is chosen."""

from __future__ import annotations

import dataclasses
import enum
import math
import re
import reprlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Literal,
    NamedTuple,
    TypeAlias,
    TypedDict,
    Unpack,
    cast,
)

from jobmill.errors import ConfigError, DefinitionError

if TYPE_CHECKING:
    from jobmill.policy import Policy

BackoffName: TypeAlias = Literal["fixed", "linear", "exponential"]
BackoffFunction: TypeAlias = Callable[[int, BaseException], float]
OnLapse: TypeAlias = Literal["retry", "fail"]
Executor: TypeAlias = Literal["auto", "thread", "process"]
Unique: TypeAlias = Literal["payload"] | Callable[[Any], str] | None
ExceptionTypes: TypeAlias = tuple[type[BaseException], ...]

MAX_DELAY = 10 * 366 * 86_400.0
MAX_METADATA_BYTES = 16 * 1024
MAX_KEY = 500

_JOB_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,200}")
_QUEUE_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_INT32 = 2**31


class OptionFields(TypedDict, total=False):
    """The fields of JobOptions, as keywords."""

    timeout: float | timedelta | None
    retries: int
    retry_delay: float | timedelta
    backoff: BackoffName | BackoffFunction
    max_retry_delay: float | timedelta
    jitter: float
    retry_on: type[BaseException] | Iterable[type[BaseException]]
    fail_on: type[BaseException] | Iterable[type[BaseException]]
    priority: int
    unique: Unique
    keep_result: float | timedelta
    keep_failed: float | timedelta
    max_lapses: int
    on_lapse: OnLapse
    abort_grace: float | timedelta
    executor: Executor


class EnqueueOptions(TypedDict, total=False):
    """The keywords of `enqueue`. None means the same as leaving it out, but for `timeout`."""

    delay: float | timedelta | None
    run_at: datetime | None
    priority: int | None
    max_attempts: int | None
    timeout: float | timedelta | None
    unique_key: str | None
    job_id: str | None
    metadata: Mapping[str, str] | None
    tx: object
    wake: bool | None


class Unset(enum.Enum):
    """What stands where None would be a choice."""

    UNSET = enum.auto()


UNSET: Final = Unset.UNSET


class EnqueueRequest(NamedTuple):
    """The keywords of one `enqueue`, checked and in plain units.

    Units: `delay` and `timeout` in seconds, `run_at` in Unix seconds.
    """

    delay: float | None = None
    run_at: float | None = None
    priority: int | None = None
    max_attempts: int | None = None
    timeout: float | Unset | None = UNSET
    unique_key: str | None = None
    job_id: str | None = None
    metadata: dict[str, str] | None = None
    tx: object = None
    wake: bool | None = None


@dataclass(frozen=True, init=False)
class JobOptions:
    """How a job runs, is retried and is kept; each wrong value is a ConfigError that names it.

    Durations are given as seconds or timedelta and read as seconds.
    """

    timeout: float | None = None
    retries: int = 3
    retry_delay: float = 1.0
    backoff: BackoffName | BackoffFunction = "exponential"
    max_retry_delay: float = 3600.0
    jitter: float = 0.1
    retry_on: ExceptionTypes = (Exception,)
    fail_on: ExceptionTypes = ()
    priority: int = 0
    unique: Unique = None
    keep_result: float = 86_400.0
    keep_failed: float = 604_800.0
    max_lapses: int = 3
    on_lapse: OnLapse = "retry"
    abort_grace: float = 1.0
    executor: Executor = "auto"
    _given: frozenset[str] = dataclasses.field(default=frozenset(), repr=False, compare=False)

    def __init__(self, **fields: Unpack[OptionFields]) -> None:
        values = cast("dict[str, Any]", fields)
        # dataclasses.replace() passes every field, the chosen ones and the defaults alike, and
        # this one with them; without it all would count as chosen.
        replaced: frozenset[str] | None = values.pop("_given", None)
        refuse_unknown("JobOptions", values, _CHECKS)
        for name, check in _CHECKS.items():
            if name in values:
                values[name] = check(name, values[name])
                object.__setattr__(self, name, values[name])
        given = values.keys() if replaced is None else replaced | self._changed()
        object.__setattr__(self, "_given", frozenset(given))

    @property
    def max_attempts(self) -> int:
        """The first attempt and its retries."""
        return self.retries + 1

    @property
    def given(self) -> frozenset[str]:
        """The names of the fields that were chosen, also where the value is the default."""
        return self._given

    def over(self, defaults: JobOptions | None) -> JobOptions:
        """These options, and those of `defaults` where these chose nothing."""
        if defaults is None or not defaults.given:
            return self
        if not self.given:
            return defaults
        chosen = {name: getattr(defaults, name) for name in defaults.given}
        chosen |= {name: getattr(self, name) for name in self.given}
        return JobOptions(**cast("OptionFields", chosen))

    def policy(
        self,
        *,
        max_attempts: int | None = None,
        timeout: float | Unset | None = UNSET,
    ) -> Policy:
        """What travels with a job under these options; a callable backoff as "exponential"."""
        from jobmill.policy import Policy

        return Policy(
            max_attempts=self.max_attempts if max_attempts is None else max_attempts,
            timeout=self.timeout if timeout is UNSET else timeout,
            retry_delay=self.retry_delay,
            backoff="exponential" if callable(self.backoff) else self.backoff,
            max_retry_delay=self.max_retry_delay,
            jitter=self.jitter,
            keep_result=self.keep_result,
            keep_failed=self.keep_failed,
            max_lapses=self.max_lapses,
            on_lapse=self.on_lapse,
            abort_grace=self.abort_grace,
        )

    def _changed(self) -> frozenset[str]:
        return frozenset(
            name for name in _CHECKS if getattr(self, name) != getattr(JobOptions, name)
        )


def check_enqueue(options: Mapping[str, Any]) -> EnqueueRequest:
    """The keywords of one `enqueue`, checked: ConfigError names the first wrong one.

    Raises: TypeError for a keyword that `enqueue` does not have.
    """
    if not options:
        return _NOTHING_CHOSEN
    refuse_unknown("enqueue", options, _ENQUEUE_CHECKS)
    checked: dict[str, Any] = {
        name: _ENQUEUE_CHECKS[name](name, value)
        for name, value in options.items()
        if value is not None or name == "timeout"
    }
    if "delay" in checked and "run_at" in checked:
        message = "run_at: delay is given too; give one of them"
        raise ConfigError(message, field="run_at")
    return EnqueueRequest(**checked)


_NOTHING_CHOSEN = EnqueueRequest()


def check_job_name(name: object) -> str:
    """The name, where it can name a job; else DefinitionError says what can."""
    if isinstance(name, str) and _JOB_NAME.fullmatch(name):
        return name
    message = (
        f"{reprlib.repr(name)} cannot name a job: "
        "give 1 to 200 characters out of A-Z a-z 0-9 _ . : -"
    )
    raise DefinitionError(message)


def check_queue_name(name: object, field: str = "name") -> str:
    """The name, where it can name a queue; else ConfigError says what can."""
    if isinstance(name, str) and _QUEUE_NAME.fullmatch(name):
        return name
    raise _wrong(field, name, "give 1 to 100 characters out of A-Z a-z 0-9 _ . -")


def check_duration(field: str, value: object, *, positive: bool = False) -> float:
    """Seconds out of a number or a timedelta, finite and not negative."""
    wanted = f"give {'more than' if positive else 'at least'} 0 seconds, or a timedelta"
    seconds = value.total_seconds() if isinstance(value, timedelta) else _number(value)
    if seconds is None or seconds < 0 or (positive and seconds == 0):
        raise _wrong(field, value, wanted)
    return seconds


def check_whole(field: str, value: object, least: int, most: int = _INT32 - 1) -> int:
    """A whole number from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise _wrong(field, value, f"give a whole number from {least} to {most}")
    return int(value)


def check_share(field: str, value: object) -> float:
    """A number from 0 to 1."""
    share = _number(value)
    if share is None or not 0 <= share <= 1:
        raise _wrong(field, value, "give a number from 0 to 1")
    return share


def check_flag(field: str, value: object) -> bool:
    """True or False, and nothing that is merely like it."""
    if isinstance(value, bool):
        return value
    raise _wrong(field, value, "give True or False")


def check_key(field: str, value: object) -> str:
    """The key, where it can be one: text of 1 to 500 characters."""
    return _text(field, value, MAX_KEY)


def check_text(field: str, value: object) -> str:
    """The value, where it is text that a store can keep."""
    if isinstance(value, str):
        return _sayable(field, value)
    raise _wrong(field, value, "give text")


def check_named(field: str, value: object) -> str:
    """The value, where a job could have this name."""
    if isinstance(value, str) and _JOB_NAME.fullmatch(value):
        return value
    raise _wrong(field, value, "give the name of a job")


def is_job_id(field: str, value: object) -> bool:
    """Whether a job could have this id; ConfigError where it is no text at all."""
    if isinstance(value, str):
        return _JOB_NAME.fullmatch(value) is not None
    raise _wrong(field, value, "give the id of a job")


def refuse_unknown(called: str, given: Iterable[str], known: Iterable[str]) -> None:
    """TypeError, worded as Python's own, for the first keyword that is not known."""
    for name in given:
        if name not in known:
            message = f"{called}() got an unexpected keyword argument {name!r}"
            raise TypeError(message)


def _wrong(field: str, value: object, wanted: str) -> ConfigError:
    return ConfigError(f"{field}: {reprlib.repr(value)} will not do; {wanted}", field=field)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _timeout(field: str, value: object) -> float | None:
    return None if value is None else check_duration(field, value, positive=True)


def _at_least(least: int) -> Callable[[str, object], int]:
    return lambda field, value: check_whole(field, value, least)


def _priority(field: str, value: object) -> int:
    return check_whole(field, value, -_INT32)


def _one_of(*values: str, function: str | None = None) -> Callable[[str, object], Any]:
    wanted = "give " + " or ".join(f'"{value}"' for value in values)
    wanted += f", or {function}" if function else ""

    def check(field: str, value: object) -> Any:
        if (isinstance(value, str) and value in values) or (function and callable(value)):
            return value
        raise _wrong(field, value, wanted)

    return check


_BACKOFF = _one_of("fixed", "linear", "exponential", function="a function (attempt, error) -> s")
_UNIQUE = _one_of("payload", function="a function of the payload that gives a string, or None")


def _unique(field: str, value: object) -> Any:
    return None if value is None else _UNIQUE(field, value)


_SINGLE: tuple[type, ...] = (type, str, bytes)


def _exceptions(field: str, value: object) -> ExceptionTypes:
    types: tuple[object, ...] = (value,)
    if isinstance(value, Iterable) and not isinstance(value, _SINGLE):
        types = tuple(cast("Iterable[object]", value))
    for each in types:
        if not _is_exception(each):
            raise _wrong(field, each, "give exception types, as in (OSError, ValueError)")
    return cast("ExceptionTypes", types)


def _is_exception(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException)


_CHECKS: Mapping[str, Callable[[str, Any], Any]] = {
    "timeout": _timeout,
    "retries": _at_least(0),
    "retry_delay": check_duration,
    "backoff": _BACKOFF,
    "max_retry_delay": check_duration,
    "jitter": check_share,
    "retry_on": _exceptions,
    "fail_on": _exceptions,
    "priority": _priority,
    "unique": _unique,
    "keep_result": check_duration,
    "keep_failed": check_duration,
    "max_lapses": _at_least(1),
    "on_lapse": _one_of("retry", "fail"),
    "abort_grace": check_duration,
    "executor": _one_of("auto", "thread", "process"),
}


def _delay(field: str, value: object) -> float:
    seconds = check_duration(field, value)
    if seconds > MAX_DELAY:
        raise _wrong(field, value, "give at most 10 years")
    return seconds


def check_instant(field: str, value: object) -> float:
    """Unix seconds out of an aware datetime."""
    if not isinstance(value, datetime):
        raise _wrong(field, value, "give a datetime with a timezone")
    if value.utcoffset() is None:
        raise _wrong(field, value, "it has no timezone; give one, as in datetime.now(UTC)")
    try:
        seconds = value.timestamp()
        # Near the ends of time a zone, or a float's rounding, leads out of what can be shown.
        datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError):
        raise _wrong(field, value, "give an instant from year 1 to 9999 in UTC") from None
    return seconds


def _text(field: str, value: object, most: int) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= most:
        raise _wrong(field, value, f"give 1 to {most} characters")
    return _sayable(field, value)


def _sayable(field: str, text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _wrong(field, text, "it holds a lone surrogate, which no store can keep") from None
    return text


def _job_id(field: str, value: object) -> str:
    if isinstance(value, str) and _JOB_NAME.fullmatch(value):
        return value
    raise _wrong(field, value, "give 1 to 200 characters out of A-Z a-z 0-9 _ . : -")


def _metadata(field: str, value: object) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise _wrong(field, value, "give a mapping of strings to strings")
    entries = dict(cast("Mapping[object, object]", value))
    for each in (*entries.keys(), *entries.values()):
        if not isinstance(each, str):
            raise _wrong(field, each, "give strings as keys and as values")
        _sayable(field, each)
    checked = cast("dict[str, str]", entries)
    import json

    if (size := len(json.dumps(checked, ensure_ascii=False).encode())) > MAX_METADATA_BYTES:
        message = f"{field}: {size} bytes of JSON are too many; the limit is {MAX_METADATA_BYTES}"
        raise ConfigError(message, field=field)
    return checked


def _tx(_field: str, value: object) -> object:
    return value


_ENQUEUE_CHECKS: Mapping[str, Callable[[str, Any], Any]] = {
    "delay": _delay,
    "run_at": check_instant,
    "priority": _priority,
    "max_attempts": _at_least(1),
    "timeout": _timeout,
    "unique_key": check_key,
    "job_id": _job_id,
    "metadata": _metadata,
    "tx": _tx,
    "wake": check_flag,
}
