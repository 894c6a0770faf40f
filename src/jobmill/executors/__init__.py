"""Where plain `def` handlers run: in threads, or in child processes that can be killed."""

from __future__ import annotations

from jobmill.executors.failures import ChildDied, ChildFailure, matches
from jobmill.executors.processes import ProcessExecutor
from jobmill.executors.threads import ThreadExecutor
from jobmill.executors.wire import ContextFields

__all__ = [
    "ChildDied",
    "ChildFailure",
    "ContextFields",
    "ProcessExecutor",
    "ThreadExecutor",
    "matches",
]
