"""Where plain `def` handlers run."""

from __future__ import annotations

from jobmill.executors.threads import ThreadExecutor

__all__ = ["ThreadExecutor"]
