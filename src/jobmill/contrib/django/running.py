"""Runs a task as the job that it is, and sends Django's signals about it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.db import close_old_connections, connections
from django.tasks import TaskContext
from django.tasks.base import TaskError
from django.tasks.signals import task_finished, task_started
from django.utils.json import normalize_json

from jobmill.context import JobContext
from jobmill.contrib.django.found import TASKS, AnyResult, AnyTask
from jobmill.contrib.django.queues import alias_of
from jobmill.contrib.django.results import Arguments, end, running_result
from jobmill.errors import Cancel, JobCancelled
from jobmill.job import JobHooks
from jobmill.middleware import Refused


@dataclass(slots=True)
class _Running:
    """What is known of a run until its end is told."""

    result: AnyResult
    error: BaseException | None = None


_running: Final[dict[tuple[str, str], _Running]] = {}


def run_sync(ctx: JobContext[Arguments]) -> Any:
    """Run a plain task, in a thread that keeps no stale connection to a database."""
    close_old_connections()
    try:
        task, result = _start(ctx)
        with _noted(ctx):
            return _value(task.func(*_arguments(task, result), **result.kwargs))
    finally:
        close_old_connections()


async def run_async(ctx: JobContext[Arguments]) -> Any:
    """Run an async task on the worker's loop; what it does in threads is in one of its own."""
    async with ThreadSensitiveContext():
        task, result = await sync_to_async(_start)(ctx)
        try:
            with _noted(ctx):
                return _value(await task.func(*_arguments(task, result), **result.kwargs))
        finally:
            await sync_to_async(connections.close_all)()


def hooks() -> JobHooks:
    """What tells Django how a run ended, once it is known that it is not retried."""
    return JobHooks(after_run=_succeeded, on_error=_failed, on_retry=_goes_on, on_finally=_ended)


def _start(ctx: JobContext[Arguments]) -> tuple[AnyTask, AnyResult]:
    task = TASKS[ctx.job_name]
    alias = alias_of(ctx.queue) or task.backend
    result = running_result(ctx, task, alias)
    _running[_key(ctx)] = _Running(result)
    task_started.send_robust(_sender(alias), task_result=result)
    return task, result


def _arguments(task: AnyTask, result: AnyResult) -> list[Any]:
    first: list[Any] = [TaskContext(task_result=result)] if task.takes_context else []
    return [*first, *result.args]


def _value(returned: object) -> Any:
    try:
        return normalize_json(returned)
    except TypeError as error:
        # Running it again would not make it sayable.
        raise Refused(error) from error


@contextmanager
def _noted(ctx: JobContext[Arguments]) -> Generator[None]:
    """Note a wish to be cancelled, of which no hook is told."""
    try:
        yield
    except Cancel as wish:
        _running[_key(ctx)].error = wish
        raise


def _succeeded(ctx: JobContext[Arguments], value: object) -> None:
    run = _running.pop(_key(ctx), None)
    if run is not None:
        end(run.result, datetime.now(UTC), value=value)
        _tell(run.result)


def _failed(ctx: JobContext[Arguments], error: BaseException) -> None:
    run = _running.get(_key(ctx))
    if run is not None:
        run.error = error


def _goes_on(ctx: JobContext[Arguments], _: int) -> None:
    _running.pop(_key(ctx), None)


def _ended(ctx: JobContext[Arguments]) -> None:
    run = _running.pop(_key(ctx), None)
    if run is None:
        return
    error = run.error
    if error is None and ctx.signal.reason == "cancelled":
        error = JobCancelled("the job was cancelled while it ran")
    if error is None:
        # Put off, handed back or lost: it has not ended.
        return
    try:
        # Whoever logs the signal asks for the exception that is being handled.
        raise error  # noqa: TRY301
    except BaseException:  # noqa: BLE001  it has ended the run, whatever it is
        _tell_failure(run.result, error)


def _tell_failure(result: AnyResult, error: BaseException) -> None:
    from traceback import format_exception

    kind = type(error)
    failure = TaskError(
        exception_class_path=f"{kind.__module__}.{kind.__qualname__}",
        traceback="".join(format_exception(error)),
    )
    end(result, datetime.now(UTC), error=failure)
    _tell(result)


def _tell(result: AnyResult) -> None:
    try:
        task_finished.send_robust(_sender(result.backend), task_result=result)
    finally:
        close_old_connections()


def _sender(alias: str) -> type[object]:
    from django.tasks import task_backends

    return type(task_backends[alias])


def _key(ctx: JobContext[Arguments]) -> tuple[str, str]:
    return ctx.job_id, ctx.token
