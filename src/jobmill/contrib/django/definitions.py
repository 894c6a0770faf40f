"""The jobs that Django's tasks are: each under the path of its function."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from inspect import iscoroutinefunction
from typing import Any, Final, cast

from django.apps import apps
from django.tasks import Task
from django.utils.module_loading import autodiscover_modules

from jobmill.contrib.django.found import TASKS, AnyTask
from jobmill.contrib.django.results import Arguments
from jobmill.contrib.django.running import hooks, run_async, run_sync
from jobmill.job import JobDefinition, define_job
from jobmill.options import JobOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class JobmillTask(AnyTask):
    """A task that may have job options: `@task(options=JobOptions(retries=5))`, from Django 6.1."""

    options: JobOptions | None = None


_lock: Final = threading.Lock()
_jobs: Final[dict[str, JobDefinition[Arguments, Any]]] = {}
_searched: Final[set[str]] = set()


def remember(task: AnyTask) -> JobDefinition[Arguments, Any]:
    """The job that the task is; workers of this process know it from now on.

    Raises: DefinitionError where its path is no name for a job, or is that of another one.
    """
    path = task.module_path
    with _lock:
        job = _jobs.get(path)
        if job is None:
            job = _jobs[path] = define_job(
                run_async if iscoroutinefunction(task.func) else run_sync,
                name=path,
                options=getattr(task, "options", None),
                hooks=hooks(),
            )
        TASKS[path] = task
        return job


def find(path: str, modules: Iterable[str]) -> AnyTask | None:
    """The task of this path, where the project's code defines one.

    The path comes out of the store, so nothing is ever imported by it: only the modules that
    hold the project's tasks are.
    """
    if path not in TASKS:
        discover(modules)
    return TASKS.get(path)


def discover(modules: Iterable[str]) -> None:
    """Import the `tasks` module of every installed app, and these; remember their tasks."""
    named = {f"{config.name}.tasks" for config in apps.get_app_configs()}
    missing = (named | set(modules)) - _searched
    if not missing:
        return
    autodiscover_modules("tasks")
    for name in sorted(missing):
        module = sys.modules.get(name) if name in named else import_module(name)
        values: list[Any] = [] if module is None else list(vars(module).values())
        for value in values:
            if isinstance(value, Task):
                remember(cast("AnyTask", value))
    _searched.update(missing)
