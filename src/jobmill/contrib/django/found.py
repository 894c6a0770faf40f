"""The tasks that this process knows, by the path of their function."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from django.tasks import Task, TaskResult

if TYPE_CHECKING:
    # Generic in their stubs only.
    AnyTask: TypeAlias = Task[..., Any]
    AnyResult: TypeAlias = TaskResult[..., Any]
else:
    AnyTask = Task
    AnyResult = TaskResult

TASKS: Final[dict[str, AnyTask]] = {}
"""Filled by `definitions.remember`."""
