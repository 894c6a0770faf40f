"""What of a job's options travels with it, and its JSON."""

from __future__ import annotations

from functools import lru_cache

import msgspec

from jobmill.errors import PayloadError
from jobmill.options import BackoffName, OnLapse


class Policy(msgspec.Struct, frozen=True, omit_defaults=True):
    """What travels with a job, so that any worker can decide what follows a run.

    Units: seconds.
    """

    max_attempts: int = 4
    timeout: float | None = None
    retry_delay: float = 1.0
    backoff: BackoffName = "exponential"
    max_retry_delay: float = 3600.0
    jitter: float = 0.1
    keep_result: float = 86_400.0
    keep_failed: float = 604_800.0
    max_lapses: int = 3
    on_lapse: OnLapse = "retry"
    abort_grace: float = 1.0


def encode_policy(policy: Policy) -> bytes:
    """The policy as JSON; what is default is left out."""
    return msgspec.json.encode(policy)


@lru_cache(maxsize=1024)
def decode_policy(data: bytes) -> Policy:
    """The policy that encode_policy wrote; PayloadError where it is none."""
    try:
        return _POLICY.decode(data)
    except (ValueError, RecursionError) as error:
        message = f"the job's policy does not decode: {error}"
        raise PayloadError(message) from error


_POLICY = msgspec.json.Decoder(Policy)
