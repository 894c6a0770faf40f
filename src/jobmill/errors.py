"""Every error that jobmill raises, and the exceptions a handler raises to steer its own job."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any


class JobsError(Exception):
    """Something went wrong in jobmill."""

    def __init__(self, message: str | None = None, **data: Any) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip().split("\n", 1)[0])
        self.__dict__.update(data)


class ConfigError(JobsError, ValueError):
    """An option has a value that it cannot have.

    `field` names the option.
    """

    field: str | None = None


class CronError(ConfigError):
    """The text is no cron expression that can ever fire."""


class DefinitionError(JobsError):
    """A job is defined in a way that cannot work."""


class PayloadError(JobsError, ValueError):
    """The payload does not fit its job.

    `path` says where, from the root `$`: `$.to`.
    """

    path: str = "$"


class PayloadTooLarge(PayloadError):
    """The payload is larger than the queue takes.

    `size` and `limit` are bytes of JSON.
    """

    size: int = 0
    limit: int = 0


class DuplicateJob(JobsError):
    """Another job has this job_id, or an unfinished one holds this unique key.

    `job_id` is the job that is there already.
    """

    job_id: str | None = None


class JobNotFound(JobsError, LookupError):
    """The store has no record of this job.

    `job_id` is what was asked for.
    """

    job_id: str | None = None


class UnknownJob(JobsError):
    """No job of this name is defined in this process.

    `job_name` is the name; `job_id` the job, where it is in the queue all the same.
    """

    job_name: str | None = None
    job_id: str | None = None


class JobFailed(JobsError):
    """The job failed.

    `job_id` is the job; `error` its last JobError.
    """

    job_id: str | None = None
    error: Any = None


class JobCancelled(JobsError):
    """The job was cancelled.

    `job_id` is the job; `reason` what the canceller said.
    """

    job_id: str | None = None
    reason: str = ""


class JobTimeout(JobsError, TimeoutError):
    """The attempt ran longer than its timeout."""


class LeaseLost(JobsError):
    """The lease ran out and the job is no longer this worker's."""


class StoreError(JobsError):
    """The store refused."""


class StoreUnavailable(StoreError):
    """The store cannot be reached now; trying again later may work, and does no harm.

    Out of `enqueue`, `job_ids` are the ids under which sending again is harmless.
    """

    job_ids: Sequence[str] = ()


class SchemaMismatch(StoreError):
    """The store's schema is not the one that this release works with."""


class Unsupported(StoreError):
    """This store cannot do that."""


class ControlFlow(BaseException):
    """What a handler raises to say how its run ends.

    A BaseException, so that a handler's own `except Exception` does not swallow it.
    """

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason


class Retry(ControlFlow):
    """Count this attempt as failed and try again, after `delay` seconds where it is given."""

    def __init__(self, delay: float | timedelta | None = None, reason: str = "") -> None:
        super().__init__(reason)
        self.delay = delay


class Snooze(ControlFlow):
    """Run again after `delay` seconds; the attempt is not spent."""

    def __init__(self, delay: float | timedelta, reason: str = "") -> None:
        super().__init__(reason)
        self.delay = delay


class Cancel(ControlFlow):
    """End the job as cancelled."""


class Fail(ControlFlow):
    """End the job as failed, with no more retries."""
