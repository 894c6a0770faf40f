from __future__ import annotations

import copy
import dataclasses
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, get_type_hints

import msgspec
import pytest
from hypothesis import given, strategies as st

from jobmill.errors import ConfigError, DefinitionError, PayloadError
from jobmill.options import (
    UNSET,
    EnqueueOptions,
    EnqueueRequest,
    JobOptions,
    OptionFields,
    check_enqueue,
    check_job_name,
    check_queue_name,
)
from jobmill.policy import Policy, decode_policy, encode_policy

NAN, INFINITY = float("nan"), float("inf")
NO_DURATIONS = ["30", True, None, NAN, INFINITY, -INFINITY, -1, -0.5, timedelta(-1), [1], 10**400]
NO_COUNTS = ["3", True, None, 2.0, NAN, 2**31]

WRONG: dict[str, list[Any]] = {
    "timeout": [*(value for value in NO_DURATIONS if value is not None), 0, timedelta(0)],
    "retries": [*NO_COUNTS, -1],
    "retry_delay": NO_DURATIONS,
    "backoff": ["quadratic", None, 2, ""],
    "max_retry_delay": NO_DURATIONS,
    "jitter": ["0.1", True, None, NAN, -0.1, 1.1, timedelta(seconds=1)],
    "retry_on": [None, "OSError", ("OSError",), (OSError, 1), int, 5],
    "fail_on": [None, b"OSError", [int], 5],
    "priority": [*NO_COUNTS, -(2**31) - 1],
    "unique": ["yes", True, 1],
    "keep_result": NO_DURATIONS,
    "keep_failed": NO_DURATIONS,
    "max_lapses": [*NO_COUNTS, 0, -1],
    "on_lapse": ["ignore", None, True],
    "abort_grace": NO_DURATIONS,
    "executor": ["fork", None, 1],
}


def payload_key(payload: object) -> str:
    return str(payload)


def growing(attempt: int, error: BaseException) -> float:
    return attempt


CHOSEN: dict[str, Any] = {
    "timeout": 5.0,
    "retries": 7,
    "retry_delay": 2.0,
    "backoff": "linear",
    "max_retry_delay": 9.0,
    "jitter": 0.5,
    "retry_on": (OSError,),
    "fail_on": (ValueError,),
    "priority": -4,
    "unique": "payload",
    "keep_result": 1.0,
    "keep_failed": 2.0,
    "max_lapses": 1,
    "on_lapse": "fail",
    "abort_grace": 0.0,
    "executor": "process",
}


def test_the_defaults_are_the_documented_ones() -> None:
    assert dataclasses.asdict(JobOptions()) | {"_given": None} == {
        "timeout": None,
        "retries": 3,
        "retry_delay": 1.0,
        "backoff": "exponential",
        "max_retry_delay": 3600.0,
        "jitter": 0.1,
        "retry_on": (Exception,),
        "fail_on": (),
        "priority": 0,
        "unique": None,
        "keep_result": 86_400.0,
        "keep_failed": 604_800.0,
        "max_lapses": 3,
        "on_lapse": "retry",
        "abort_grace": 1.0,
        "executor": "auto",
        "_given": None,
    }
    assert JobOptions().max_attempts == 4


def test_every_option_is_a_keyword_and_tested_here() -> None:
    names = {field.name for field in dataclasses.fields(JobOptions)} - {"_given"}
    assert names == OptionFields.__annotations__.keys() == WRONG.keys() == CHOSEN.keys()


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in WRONG.items() for value in values]
)
def test_a_wrong_value_is_refused_where_it_is_given(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"^{field}: .*give") as refused:
        JobOptions(**{field: value})
    assert refused.value.field == field


def test_an_option_that_is_none_is_a_type_error() -> None:
    with pytest.raises(
        TypeError, match=r"JobOptions\(\) got an unexpected keyword argument 'retry'"
    ):
        JobOptions(retry=3)  # type: ignore[call-arg]


@pytest.mark.parametrize("seconds", [90, 90.0, timedelta(minutes=1.5)])
def test_durations_are_read_as_seconds(seconds: Any) -> None:
    options = JobOptions(timeout=seconds, retry_delay=seconds, keep_result=seconds)
    assert (options.timeout, options.retry_delay, options.keep_result) == (90.0, 90.0, 90.0)
    assert type(options.timeout) is type(options.retry_delay) is float


@pytest.mark.parametrize("types", [OSError, (OSError,), [OSError], {OSError}])
def test_exception_types_are_read_as_a_tuple(types: Any) -> None:
    assert JobOptions(retry_on=types).retry_on == (OSError,)


def test_functions_are_taken_as_they_are() -> None:
    options = JobOptions(backoff=growing, unique=payload_key)
    assert (options.backoff, options.unique) == (growing, payload_key)


@given(st.sets(st.sampled_from(sorted(CHOSEN))), st.sets(st.sampled_from(sorted(CHOSEN))))
def test_options_merge_field_by_field(own: set[str], queue: set[str]) -> None:
    other = {name: getattr(JobOptions(), name) for name in queue}
    merged = JobOptions(**{name: CHOSEN[name] for name in own}).over(JobOptions(**other))
    for name, value in CHOSEN.items():
        wanted = value if name in own else getattr(JobOptions(), name)
        assert getattr(merged, name) == wanted
    assert merged.given == own | queue


def test_a_value_that_equals_the_default_still_counts_as_chosen() -> None:
    assert JobOptions(retries=3).over(JobOptions(retries=9)).retries == 3
    assert JobOptions().over(JobOptions(retries=9)).retries == 9
    assert JobOptions(timeout=None).over(JobOptions(timeout=5)).timeout is None
    assert JobOptions(retries=1).over(None).retries == 1


def test_replace_and_copy_keep_what_was_chosen() -> None:
    replaced = dataclasses.replace(JobOptions(retries=3), timeout=5)
    assert (replaced.retries, replaced.timeout) == (3, 5.0)
    assert replaced.given == {"retries", "timeout"}
    assert copy.copy(replaced) == replaced
    assert copy.copy(replaced).given == replaced.given
    with pytest.raises(ConfigError):
        dataclasses.replace(JobOptions(), retries=-1)


def test_options_do_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        JobOptions().retries = 5  # type: ignore[misc]


def test_a_policy_carries_what_any_worker_needs() -> None:
    chosen = {name: value for name, value in CHOSEN.items() if name in Policy.__struct_fields__}
    policy = JobOptions(**CHOSEN).policy()
    assert msgspec.structs.asdict(policy) == {"max_attempts": 8, **chosen}
    assert JobOptions().policy() == Policy()


def test_the_enqueue_decides_over_the_options() -> None:
    policy = JobOptions(retries=3, timeout=5).policy(max_attempts=1, timeout=None)
    assert (policy.max_attempts, policy.timeout) == (1, None)


def test_a_callable_backoff_travels_as_exponential() -> None:
    assert JobOptions(backoff=growing).policy().backoff == "exponential"


def test_a_policy_comes_back_and_defaults_cost_nothing() -> None:
    policy = JobOptions(**CHOSEN).policy()
    assert decode_policy(encode_policy(policy)) == policy
    assert encode_policy(Policy()) == b"{}"
    assert decode_policy(b"{}") is decode_policy(b"{}")


@pytest.mark.parametrize(
    "data", [b"", b"x", b"[]", b'{"max_attempts": "4"}', b"\xff", b"[" * 5_000, b"null"]
)
def test_a_policy_that_does_not_decode_is_a_payload_error(data: bytes) -> None:
    with pytest.raises(PayloadError, match="policy"):
        decode_policy(data)


NOON = datetime(2030, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))
WRONG_ENQUEUE: dict[str, list[Any]] = {
    "delay": [*(each for each in NO_DURATIONS if each is not None), 86_400 * 3_661.0],
    "run_at": [
        0,
        "2030-01-01",
        datetime(2030, 1, 1),  # noqa: DTZ001 - a naive datetime is the fault
        NOON.date(),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
        datetime.max.replace(tzinfo=UTC),
    ],
    "priority": ["1", True, 1.0, 2**31, -(2**31) - 1],
    "max_attempts": [0, -1, "3", True, 2.0, 2**31],
    "timeout": [0, -1, "30", NAN, True, timedelta(0)],
    "unique_key": ["", "k" * 501, 5, b"key", "\ud800"],
    "job_id": ["", "a" * 201, "a b", "a\n", "é", "٣", 5, "a/b"],
    "metadata": [
        [("a", "b")],
        "a",
        {"a": 1},
        {1: "a"},
        {"a": None},
        {"a": "\ud800"},
        {"\udfff": "a"},
        {"a": "x" * 17_000},
    ],
    "wake": ["yes", 1, 0],
}


def test_every_keyword_of_enqueue_is_tested_here() -> None:
    assert WRONG_ENQUEUE.keys() | {"tx"} == EnqueueOptions.__annotations__.keys()
    assert set(EnqueueRequest._fields) == EnqueueOptions.__annotations__.keys()
    assert get_type_hints(EnqueueOptions)


@pytest.mark.parametrize(
    ("field", "value"),
    [(field, value) for field, values in WRONG_ENQUEUE.items() for value in values],
)
def test_a_wrong_keyword_of_enqueue_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"^{field}: ") as refused:
        check_enqueue({field: value})
    assert refused.value.field == field


def test_right_keywords_of_enqueue_come_back_in_plain_units() -> None:
    connection = object()
    request = check_enqueue(
        {
            "run_at": NOON,
            "priority": -(2**31),
            "max_attempts": 1,
            "timeout": timedelta(minutes=1),
            "unique_key": "it's {a} *%:\n" + "k" * 400,
            "job_id": "aZ09_.:-",
            "metadata": {"a": "b\0"},
            "tx": connection,
            "wake": True,
        }
    )
    assert request == EnqueueRequest(
        run_at=NOON.timestamp(),
        priority=-(2**31),
        max_attempts=1,
        timeout=60.0,
        unique_key="it's {a} *%:\n" + "k" * 400,
        job_id="aZ09_.:-",
        metadata={"a": "b\0"},
        tx=connection,
        wake=True,
    )
    assert check_enqueue({"delay": 86_400 * 3_650}).delay == 86_400 * 3_650


def test_none_leaves_a_keyword_of_enqueue_out_but_for_the_timeout() -> None:
    nothing = dict.fromkeys(EnqueueOptions.__annotations__.keys() - {"timeout"})
    assert check_enqueue(nothing) == check_enqueue({}) == EnqueueRequest()
    assert check_enqueue({}).timeout is UNSET
    assert check_enqueue({"timeout": None}).timeout is None


def test_delay_and_run_at_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="delay") as refused:
        check_enqueue({"delay": 1, "run_at": datetime.now(UTC)})
    assert refused.value.field == "run_at"


def test_an_unknown_keyword_of_enqueue_is_a_type_error_that_names_it() -> None:
    with pytest.raises(
        TypeError, match=r"enqueue\(\) got an unexpected keyword argument 'retries'"
    ):
        check_enqueue({"retries": 3})


@pytest.mark.parametrize("name", ["a", "app.resize", "aZ09_.:-", "a" * 200])
def test_names_that_a_job_can_have(name: str) -> None:
    assert check_job_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "a b", "a\n", "a" * 201, "é", "٣", "a/b", "<lambda>", "a'", 5, None, b"a"]
)
def test_names_that_no_job_can_have(name: Any) -> None:
    with pytest.raises(DefinitionError, match="give 1 to 200"):
        check_job_name(name)


@pytest.mark.parametrize("name", ["default", "aZ09_.-", "a" * 100])
def test_names_that_a_queue_can_have(name: str) -> None:
    assert check_queue_name(name) == name


@pytest.mark.parametrize("name", ["", "a:b", "a\n", "a" * 101, "{a}", "a*", "a%", "é", 5, None])
def test_names_that_no_queue_can_have(name: Any) -> None:
    with pytest.raises(ConfigError, match="give 1 to 100") as refused:
        check_queue_name(name, "queue_name")
    assert refused.value.field == "queue_name"


@given(st.one_of(st.integers(), st.floats(), st.decimals(), st.text(), st.booleans(), st.none()))
def test_any_value_is_a_duration_or_a_config_error(value: Any) -> None:
    try:
        options = JobOptions(retry_delay=value)
    except ConfigError:
        return
    assert options.retry_delay == value
    assert not isinstance(value, Decimal | bool)
