"""jobmill: background jobs for Python, with one set of tested promises on every store."""

from typing import TYPE_CHECKING, Any

from jobmill.context import AbortSignal, JobContext, current_context
from jobmill.errors import (
    Cancel,
    ConfigError,
    CronError,
    DefinitionError,
    DuplicateJob,
    Fail,
    JobCancelled,
    JobFailed,
    JobNotFound,
    JobsError,
    JobTimeout,
    LeaseLost,
    PayloadError,
    PayloadTooLarge,
    Retry,
    SchemaMismatch,
    Snooze,
    StoreError,
    StoreUnavailable,
    UnknownJob,
    Unsupported,
)
from jobmill.job import Call, JobDefinition, JobHandler, JobHooks, JobMiddleware, define_job, job
from jobmill.options import EnqueueOptions, JobOptions

if TYPE_CHECKING:
    from jobmill.cron import CronExpression, CronPatterns
    from jobmill.factory import (
        InMemoryQueue,
        PostgresQueue,
        RedisQueue,
        SQLiteQueue,
        create_queue,
    )
    from jobmill.handle import JobHandle
    from jobmill.health import SystemHealth
    from jobmill.metrics import JobMetrics
    from jobmill.middleware import (
        compose_middleware,
        create_logging_middleware,
        create_rate_limit_middleware,
        create_retry_middleware,
        create_validation_middleware,
    )
    from jobmill.monitor import Monitor
    from jobmill.queue import Queue
    from jobmill.records import JobError, JobInfo, JobPage, QueueStats
    from jobmill.schedule import Schedule
    from jobmill.scheduler import Scheduler
    from jobmill.timezones import Timezones
    from jobmill.worker import Worker

__all__ = [
    "AbortSignal",
    "Call",
    "Cancel",
    "ConfigError",
    "CronError",
    "CronExpression",
    "CronPatterns",
    "DefinitionError",
    "DuplicateJob",
    "EnqueueOptions",
    "Fail",
    "InMemoryQueue",
    "JobCancelled",
    "JobContext",
    "JobDefinition",
    "JobError",
    "JobFailed",
    "JobHandle",
    "JobHandler",
    "JobHooks",
    "JobInfo",
    "JobMetrics",
    "JobMiddleware",
    "JobNotFound",
    "JobOptions",
    "JobPage",
    "JobTimeout",
    "JobsError",
    "LeaseLost",
    "Monitor",
    "PayloadError",
    "PayloadTooLarge",
    "PostgresQueue",
    "Queue",
    "QueueStats",
    "RedisQueue",
    "Retry",
    "SQLiteQueue",
    "Schedule",
    "Scheduler",
    "SchemaMismatch",
    "Snooze",
    "StoreError",
    "StoreUnavailable",
    "SystemHealth",
    "Timezones",
    "UnknownJob",
    "Unsupported",
    "Worker",
    "compose_middleware",
    "create_logging_middleware",
    "create_queue",
    "create_rate_limit_middleware",
    "create_retry_middleware",
    "create_validation_middleware",
    "current_context",
    "define_job",
    "job",
]

_LAZY = {
    "CronExpression": "jobmill.cron",
    "CronPatterns": "jobmill.cron",
    "InMemoryQueue": "jobmill.factory",
    "JobError": "jobmill.records",
    "JobHandle": "jobmill.handle",
    "JobInfo": "jobmill.records",
    "JobMetrics": "jobmill.metrics",
    "JobPage": "jobmill.records",
    "Monitor": "jobmill.monitor",
    "PostgresQueue": "jobmill.factory",
    "Queue": "jobmill.queue",
    "QueueStats": "jobmill.records",
    "RedisQueue": "jobmill.factory",
    "SQLiteQueue": "jobmill.factory",
    "Schedule": "jobmill.schedule",
    "Scheduler": "jobmill.scheduler",
    "SystemHealth": "jobmill.health",
    "Timezones": "jobmill.timezones",
    "Worker": "jobmill.worker",
    "compose_middleware": "jobmill.middleware",
    "create_logging_middleware": "jobmill.middleware",
    "create_queue": "jobmill.factory",
    "create_rate_limit_middleware": "jobmill.middleware",
    "create_retry_middleware": "jobmill.middleware",
    "create_validation_middleware": "jobmill.middleware",
}
"""Where a name comes from that is loaded at its first use, so that `import jobmill` is quick."""


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message, name=name)
    from importlib import import_module

    value = getattr(import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
