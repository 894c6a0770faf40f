"""Binds the running job to structlog's context variables (extra `structlog`).

    from jobmill.contrib.structlog import bind

    bind(queue)

With `structlog.contextvars.merge_contextvars` among the processors, each line that is logged while
a job runs has its `job_id`, `job_name`, `queue` and `attempt`. For the logging of the standard
library there is `jobmill.logs.JobFilter`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from structlog.contextvars import bound_contextvars

from jobmill.context import JobContext
from jobmill.queue import Queue

__all__ = ["bind"]


def bind(*queues: Queue) -> None:
    """Bind each run of these queues; to be called before workers start."""
    for queue in queues:
        queue.middleware = (_around, *queue.middleware)


async def _around(ctx: JobContext[Any], call_next: Callable[[], Awaitable[Any]]) -> Any:
    with bound_contextvars(
        job_id=ctx.job_id, job_name=ctx.job_name, queue=ctx.queue_name, attempt=ctx.attempt
    ):
        return await call_next()
