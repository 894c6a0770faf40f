"""How long a job waits before its next retry."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import assert_never

from jobmill.options import BackoffFunction, BackoffName
from jobmill.policy import Policy

_LARGEST_EXPONENT = 1023
_LARGEST_FACTOR = 2**1023


def retry_delay(policy: Policy, n: int, *, random: Callable[[], float]) -> float:
    """Seconds before retry `n` (1 is the first): never less than the backoff without jitter.

    The jitter is added after the cap, so that capped retries are spread too.
    """
    return _spread(policy, backoff_delay(policy.backoff, policy.retry_delay, n), random)


def backoff_delay(backoff: BackoffName, base: float, n: int) -> float:
    """Seconds before retry `n` (1 is the first), exact and without a cap; infinite at worst."""
    match backoff:
        case "fixed":
            return base
        case "linear":
            return base * min(n, _LARGEST_FACTOR)
        case "exponential":
            return base * math.ldexp(1.0, min(n - 1, _LARGEST_EXPONENT))
        case _:
            assert_never(backoff)


def chosen_delay(
    backoff: BackoffFunction,
    policy: Policy,
    n: int,
    error: BaseException,
    *,
    random: Callable[[], float],
) -> tuple[float, Exception | None]:
    """Seconds before retry `n` by the job's own function, and what was wrong with its answer.

    A function that raises, or gives no finite number of at least 0, falls back to the policy's
    own backoff; the second value then says why, for the caller to log.
    """
    try:
        delay = _seconds(backoff(n, error))
    except Exception as problem:  # noqa: BLE001 - the function is the user's; it may raise anything
        return retry_delay(policy, n, random=random), problem
    return _spread(policy, delay, random), None


def _seconds(answer: object) -> float:
    if isinstance(answer, bool) or not isinstance(answer, int | float):
        message = f"a backoff gives seconds, not {type(answer).__name__}"
        raise TypeError(message)
    seconds = float(answer)
    if not math.isfinite(seconds) or seconds < 0:
        message = f"a backoff gives at least 0 seconds, not {seconds}"
        raise ValueError(message)
    return seconds


def _spread(policy: Policy, delay: float, random: Callable[[], float]) -> float:
    capped = min(delay, policy.max_retry_delay)
    if not policy.jitter:
        return capped
    return capped * (1 + policy.jitter * random())
