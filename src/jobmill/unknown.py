"""Jobs whose name this process does not know, as while a new release is rolled out."""

from __future__ import annotations

import logging
from typing import Final

import msgspec

from jobmill.errors import UnknownJob
from jobmill.failures import failure_at
from jobmill.logs import job_fields
from jobmill.states import Claim, Move, after_failure, after_snooze

log: Final = logging.getLogger("jobmill.worker")

FIRST_DELAY: Final = 5.0
MAX_DELAY: Final = 300.0
FAILS_AFTER: Final = 86_400.0
"""Seconds for which a job that nobody knows is put off before it fails."""


class _Memo(msgspec.Struct, frozen=True):
    """Since when the name is unknown, and how often the job was put off."""

    unknown_since: float
    times: int


def put_off(claim: Claim, queue: str) -> Move:
    """Put the job off, unspent: a newer release may know its name; fail it after a day."""
    before = _before(claim)
    if claim.started_at - before.unknown_since >= FAILS_AFTER:
        message = f"no worker has known a job of the name {claim.name} for a day"
        error = UnknownJob(message, job_name=claim.name)
        failure = failure_at(claim, error, claim.started_at)
        return after_failure(claim, failure, retryable=False, delay=0.0)
    times = min(max(before.times, 0), 10)
    delay = min(MAX_DELAY, FIRST_DELAY * 2.0**times)
    log.warning(
        "no job of the name %s is defined here; %s is put off for %g s",
        claim.name,
        claim.id,
        delay,
        extra=job_fields(claim, queue),
    )
    memo = msgspec.json.encode(_Memo(before.unknown_since, times + 1))
    return after_snooze(claim, delay, untried=True, memo=memo)


_MEMO: Final = msgspec.json.Decoder(_Memo)


def _before(claim: Claim) -> _Memo:
    first = _Memo(claim.started_at, 0)
    try:
        return _MEMO.decode(claim.memo) if claim.memo else first
    except msgspec.MsgspecError:
        return first
