"""What Django reads about a job: its TaskResult."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

import msgspec
from django.tasks import TaskResult, TaskResultStatus
from django.tasks.base import TaskError

from jobmill.context import JobContext
from jobmill.contrib.django.found import AnyResult, AnyTask
from jobmill.records import JobInfo, JobStatus

RUN_AFTER: Final = "django.run_after"
"""The key in a job's metadata: its own due time moves when it is retried."""
UNRECORDED: Final = "unrecorded"
"""In the place of the workers of earlier attempts, of which a job keeps no list."""

_STATUSES: Final[Mapping[JobStatus, TaskResultStatus]] = {
    "pending": TaskResultStatus.READY,
    "delayed": TaskResultStatus.READY,
    "processing": TaskResultStatus.RUNNING,
    "completed": TaskResultStatus.SUCCESSFUL,
    "failed": TaskResultStatus.FAILED,
    "cancelled": TaskResultStatus.FAILED,
}


class Arguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The payload of a job that is a task."""

    args: list[Any] = []
    kwargs: dict[str, Any] = {}


# msgspec learns it here: two threads that have it learn one at once kill the process.
msgspec.convert({}, Arguments)


def result_id(queue: str, job_id: str) -> str:
    """The id under which Django knows the job: ids of jobs belong to a queue."""
    return f"{queue}:{job_id}"


def new_result(task: AnyTask, alias: str, args: Any, kwargs: Any) -> AnyResult:
    """The result of a task that is not enqueued yet.

    Raises: TypeError for arguments that JSON cannot say.
    """
    return TaskResult(
        task=task,
        id="",
        status=TaskResultStatus.READY,
        enqueued_at=None,
        started_at=None,
        last_attempted_at=None,
        finished_at=None,
        args=args,
        kwargs=kwargs,
        backend=alias,
        errors=[],
        worker_ids=[],
    )


def result_of(info: JobInfo, task: AnyTask, alias: str) -> AnyResult | None:
    """The result of a job as it is now; None where its payload is not that of a task."""
    try:
        arguments = msgspec.convert(info.payload, Arguments)
    except msgspec.ValidationError:
        return None
    workers = [UNRECORDED] * (info.attempts - 1) + [info.worker or UNRECORDED]
    result: AnyResult = TaskResult(
        task=_as_enqueued(task, -info.priority, info.queue, alias, info.metadata),
        id=result_id(info.queue, info.id),
        status=_STATUSES[info.status],
        enqueued_at=info.enqueued_at,
        started_at=info.started_at,
        last_attempted_at=info.started_at,
        finished_at=info.completed_at,
        args=arguments.args,
        kwargs=arguments.kwargs,
        backend=alias,
        errors=[
            TaskError(
                exception_class_path=f"{error.module}.{error.type}", traceback=error.traceback
            )
            for error in info.errors
        ],
        worker_ids=workers if info.attempts else [],
    )
    _set(result, _return_value=info.result)
    return result


def running_result(ctx: JobContext[Arguments], task: AnyTask, alias: str) -> AnyResult:
    """The result of a job while it runs."""
    here = f"{socket.gethostname()}:{os.getpid()}"
    return TaskResult(
        task=_as_enqueued(task, task.priority, ctx.queue_name, alias, ctx.metadata),
        id=result_id(ctx.queue_name, ctx.job_id),
        status=TaskResultStatus.RUNNING,
        enqueued_at=ctx.enqueued_at,
        started_at=ctx.started_at,
        last_attempted_at=ctx.started_at,
        finished_at=None,
        args=ctx.payload.args,
        kwargs=ctx.payload.kwargs,
        backend=alias,
        errors=[],
        worker_ids=[UNRECORDED] * (ctx.attempt - 1) + [here],
    )


def end(
    result: AnyResult, at: datetime, *, value: Any = None, error: TaskError | None = None
) -> None:
    """Let the result say how its run ended."""
    if error is not None:
        result.errors.append(error)
    status = TaskResultStatus.SUCCESSFUL if error is None else TaskResultStatus.FAILED
    _set(result, status=status, finished_at=at, _return_value=value)


def enqueued(result: AnyResult, queue: str, job_id: str, at: datetime | None) -> None:
    """Let the result say under which id its job is stored, and since when."""
    _set(result, id=result_id(queue, job_id), enqueued_at=at)


def _set(result: AnyResult, **values: Any) -> None:
    # Frozen for those who read it; Django's own backends do the same.
    for name, value in values.items():
        object.__setattr__(result, name, value)


def _as_enqueued(
    task: AnyTask, priority: int, queue: str, alias: str, metadata: Mapping[str, str]
) -> AnyTask:
    """The task with what `using` had changed of it when it was enqueued."""
    said = metadata.get(RUN_AFTER)
    return replace(
        task,
        priority=priority,
        queue_name=queue,
        backend=alias,
        run_after=None if said is None else datetime.fromisoformat(said),
    )
