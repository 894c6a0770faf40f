from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, strategies as st

from jobmill.backoff import backoff_delay, chosen_delay, retry_delay
from jobmill.options import BackoffName
from jobmill.policy import Policy

EXPECTED: dict[BackoffName, list[float]] = {
    "fixed": [3, 3, 3, 3, 3],
    "linear": [3, 6, 9, 12, 15],
    "exponential": [3, 6, 12, 24, 48],
}
PROBLEM = OSError("down")


def never() -> float:
    raise AssertionError


@pytest.mark.parametrize("backoff", EXPECTED)
def test_without_jitter_the_delay_is_exact(backoff: BackoffName) -> None:
    policy = Policy(retry_delay=3, backoff=backoff, jitter=0)
    delays = [retry_delay(policy, n, random=never) for n in range(1, 6)]
    assert delays == EXPECTED[backoff]
    assert [backoff_delay(backoff, 3, n) for n in range(1, 6)] == EXPECTED[backoff]


def test_the_delay_is_capped() -> None:
    policy = Policy(retry_delay=3, jitter=0, max_retry_delay=10)
    assert [retry_delay(policy, n, random=never) for n in (1, 2, 3, 4)] == [3, 6, 10, 10]


def test_jitter_adds_its_share_after_the_cap() -> None:
    policy = Policy(retry_delay=100, max_retry_delay=10, jitter=0.5)
    assert retry_delay(policy, 1, random=lambda: 0.0) == 10
    assert retry_delay(policy, 1, random=lambda: 0.5) == 12.5


@given(
    backoff=st.sampled_from(list(EXPECTED)),
    base=st.floats(0, 1e308),
    cap=st.floats(0, 1e300),
    jitter=st.floats(0, 1),
    n=st.one_of(st.integers(1, 5_000), st.integers(1, 10**400)),
    share=st.floats(0, 1, exclude_max=True),
)
def test_any_delay_is_finite_and_never_shortened(
    *, backoff: BackoffName, base: float, cap: float, jitter: float, n: int, share: float
) -> None:
    policy = Policy(retry_delay=base, backoff=backoff, max_retry_delay=cap, jitter=jitter)
    delay = retry_delay(policy, n, random=lambda: share)
    exact = min(backoff_delay(backoff, base, n), cap)
    assert math.isfinite(delay)
    assert exact <= delay <= exact * (1 + jitter)


def test_a_function_decides_under_the_cap_and_the_jitter() -> None:
    policy = Policy(max_retry_delay=10, jitter=0.5)
    asked: list[tuple[int, BaseException]] = []

    def backoff(attempt: int, error: BaseException) -> float:
        asked.append((attempt, error))
        return 4 * attempt

    def half() -> float:
        return 0.5

    assert chosen_delay(backoff, policy, 1, PROBLEM, random=half) == (5, None)
    assert chosen_delay(backoff, policy, 9, PROBLEM, random=half) == (12.5, None)
    assert asked == [(1, PROBLEM), (9, PROBLEM)]


@pytest.mark.parametrize("answer", ["5", None, True, math.nan, math.inf, -1, 10**400, [5]])
def test_a_nonsense_answer_falls_back_and_says_why(answer: Any) -> None:
    policy = Policy(retry_delay=3, jitter=0)
    delay, problem = chosen_delay(lambda _n, _e: answer, policy, 3, PROBLEM, random=never)
    assert delay == 12
    assert isinstance(problem, TypeError | ValueError | OverflowError)


def test_a_function_that_raises_falls_back_and_says_why() -> None:
    def broken(attempt: int, error: BaseException) -> float:
        raise KeyError(attempt)

    delay, problem = chosen_delay(broken, Policy(jitter=0), 2, PROBLEM, random=never)
    assert delay == 2
    assert isinstance(problem, KeyError)
