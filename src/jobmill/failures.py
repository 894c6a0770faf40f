"""What is kept of the error of a run."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from jobmill.errors import Fail, Retry
from jobmill.executors import ChildFailure, matches
from jobmill.options import JobOptions
from jobmill.records import JobError
from jobmill.run import Run
from jobmill.states import Claim, Failure

_ODD_FAILURES: Final = (asyncio.CancelledError, SystemExit)
"""What is retried although it is no Exception."""


def failure_of(run: Run, error: BaseException) -> Failure:
    """What is kept of an error that happens now."""
    return failure_at(run.claim, error, run.now())


def failure_at(claim: Claim, error: BaseException, at: float) -> Failure:
    """What is kept of an error at an instant: its text, and the group of its like.

    Errors of one job, one type and one place in the code are alike.
    """
    moment = datetime.fromtimestamp(at, UTC)
    if isinstance(error, ChildFailure):
        shown = replace(error.error, attempt=claim.attempt, at=moment)
    else:
        shown = JobError.from_exception(error, claim.attempt, moment)
    group = f"{claim.name}|{shown.module}.{shown.type}|{_place(error)}"
    fingerprint = hashlib.sha256(group.encode()).hexdigest()[:16]
    return Failure(error=shown.to_json(), fingerprint=fingerprint)


def is_retryable(error: BaseException, options: JobOptions) -> bool:
    """Whether the job may be tried again after this error, where it has attempts left."""
    if isinstance(error, Retry):
        return True
    return (
        not isinstance(error, Fail)
        and not matches(error, options.fail_on)
        and (matches(error, options.retry_on) or matches(error, _ODD_FAILURES))
    )


def log_failure(
    log: logging.Logger, error: BaseException, message: str, *args: object, **extra: object
) -> None:
    """Log an error of the user's with its traceback, whatever the error does then."""
    try:
        log.error(message, *args, exc_info=error, extra=extra)
    except BaseException as problem:  # noqa: BLE001  not even its text can be had
        text = f"{message}: %s, which cannot be shown"
        log.error(text, *args, type(problem).__name__)  # noqa: TRY400  that is what cannot be shown


def _place(error: BaseException) -> str:
    """Where the error was raised: the file and the function."""
    if isinstance(error, ChildFailure):
        return error.place
    frames = error.__traceback__
    if frames is None:
        return ""
    while frames.tb_next is not None:
        frames = frames.tb_next
    code = frames.tb_frame.f_code
    return f"{code.co_filename}:{code.co_qualname}"
