"""Errors of jobs, reported to Sentry (extra `sentry`).

    from jobmill.contrib.sentry import capture

    sentry_sdk.init(dsn=...)
    capture(queue)

An event has the tags `job.name`, `job.queue` and `job.attempt`, the job's name as its transaction,
and a context "job" with its id. Payloads are left out: they may hold anything.
Sentry itself shows the arguments of a handler, as it does all local variables of your functions,
unless its `init` has `include_local_variables=False`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import sentry_sdk
from sentry_sdk.scope import Scope

from jobmill.context import JobContext
from jobmill.errors import Cancel, JobTimeout, Snooze
from jobmill.failures import is_retryable
from jobmill.options import JobOptions
from jobmill.queue import Queue
from jobmill.registry import lookup
from jobmill.runner import MAX_RESULT_BYTES

__all__ = ["capture"]

_NO_ERRORS = (Cancel, Snooze)
"""What a handler raises to say what is to become of its job, and not because it failed."""
_NO_FAILURES = frozenset({"cancelled", "shutdown", "lease_lost"})
"""Why a run is stopped from outside, for which its own code is not to blame."""


def capture(*queues: Queue, every_attempt: bool = False) -> None:
    """Report what makes a job of these queues fail; with `every_attempt` also what is retried.

    Each run has an isolation scope of its own. To be called before workers start.
    """
    for queue in queues:
        queue.middleware = (partial(_around, every_attempt), *queue.middleware)


async def _around(
    every_attempt: bool, ctx: JobContext[Any], call_next: Callable[[], Awaitable[Any]]
) -> Any:
    with sentry_sdk.isolation_scope() as scope:
        _describe(scope, ctx)
        try:
            result = await call_next()
        except _NO_ERRORS:
            raise
        except BaseException as error:
            reason = ctx.signal.reason
            if reason in _NO_FAILURES:
                raise
            shown = error
            if reason == "timeout":
                shown = JobTimeout(f"{ctx.job_name} ran longer than its timeout")
                shown.__cause__ = error
            if every_attempt or _is_last(ctx, shown):
                await _report(shown)
            raise
        # The runner finds that out after all middleware, and fails the job for good.
        if (refused := _refusal(ctx, result)) is not None:
            await _report(refused)
        return result


async def _report(error: BaseException) -> None:
    # It reads the source of each frame, for which no loop should wait.
    await asyncio.to_thread(sentry_sdk.capture_exception, error)


def _describe(scope: Scope, ctx: JobContext[Any]) -> None:
    scope.clear_breadcrumbs()
    scope.set_transaction_name(ctx.job_name, source="task")
    scope.set_tag("job.name", ctx.job_name)
    scope.set_tag("job.queue", ctx.queue_name)
    scope.set_tag("job.attempt", ctx.attempt)
    scope.set_context(
        "job",
        {
            "id": ctx.job_id,
            "attempt": ctx.attempt,
            "max_attempts": ctx.max_attempts,
            "enqueued_at": ctx.enqueued_at.isoformat(),
        },
    )


def _refusal(ctx: JobContext[Any], result: object) -> Exception | None:
    """Why the result cannot be kept, where it cannot."""
    job = lookup(ctx.job_name)
    if job is None or ctx.signal.aborted:
        return None
    try:
        job.encode_result(result, limit=MAX_RESULT_BYTES)
    except Exception as error:  # noqa: BLE001  classes of the user's take part
        return error
    return None


def _is_last(ctx: JobContext[Any], error: BaseException) -> bool:
    job = lookup(ctx.job_name)
    options = JobOptions() if job is None else job.options.over(ctx.queue.default_options)
    return ctx.attempt >= ctx.max_attempts or not is_retryable(error, options)
