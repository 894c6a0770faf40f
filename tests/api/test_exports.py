from __future__ import annotations

import subprocess
import sys

import jobmill

PUBLIC = {
    *("define_job", "job", "JobDefinition", "Call", "JobContext", "JobOptions", "JobHooks"),
    *("AbortSignal", "current_context", "create_queue", "Queue", "InMemoryQueue"),
    *("SQLiteQueue", "RedisQueue", "PostgresQueue"),
    *("JobHandle", "JobInfo", "JobPage", "JobError", "QueueStats", "Worker", "JobHandler"),
    *("JobMiddleware", "EnqueueOptions", "compose_middleware", "create_validation_middleware"),
    *("create_logging_middleware", "create_rate_limit_middleware", "create_retry_middleware"),
    *("Retry", "Snooze", "Cancel", "Fail"),
    *("JobsError", "ConfigError", "CronError", "DefinitionError", "PayloadError"),
    *("PayloadTooLarge", "DuplicateJob", "JobNotFound", "UnknownJob", "JobFailed"),
    *("JobCancelled", "JobTimeout", "LeaseLost", "StoreError", "StoreUnavailable"),
    *("SchemaMismatch", "Unsupported", "CronExpression", "CronPatterns", "Timezones"),
    *("Scheduler", "Schedule", "Monitor", "JobMetrics", "SystemHealth"),
}


def test_what_is_public_is_this_list_and_nothing_else() -> None:
    assert len(jobmill.__all__) == len(set(jobmill.__all__))
    assert set(jobmill.__all__) == PUBLIC


def test_a_star_import_gives_exactly_this_list() -> None:
    told = subprocess.run(
        [sys.executable, "-c", "from jobmill import *; print(*dir())"],
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    )
    assert {name for name in told.stdout.split() if not name.startswith("__")} == PUBLIC


def test_errors_descend_as_users_catch_them() -> None:
    for name in PUBLIC:
        public = getattr(jobmill, name)
        if isinstance(public, type) and issubclass(public, Exception):
            assert issubclass(public, jobmill.JobsError)
            assert str(public()) == (public.__doc__ or "").split("\n")[0]
    assert issubclass(jobmill.ConfigError, ValueError)
    assert issubclass(jobmill.CronError, jobmill.ConfigError)
    assert issubclass(jobmill.PayloadError, ValueError)
    assert issubclass(jobmill.PayloadTooLarge, jobmill.PayloadError)
    assert issubclass(jobmill.JobNotFound, LookupError)
    assert issubclass(jobmill.JobTimeout, TimeoutError)
    for name in ("StoreUnavailable", "SchemaMismatch", "Unsupported"):
        assert issubclass(getattr(jobmill, name), jobmill.StoreError)
