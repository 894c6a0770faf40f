"""Says, in each log record, which job it is about.

All records of jobmill come from loggers under `jobmill`, and those that are about one job carry
its `job_id`, `job_name`, `attempt` and `queue` as attributes. `JobFilter` gives the same to what a
handler, and whatever it calls, logs by itself. No record ever holds a payload.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from jobmill.context import CURRENT
from jobmill.states import Claim

FIELDS: Final = ("job_id", "job_name", "attempt", "queue")
"""The attributes of a record that is about a job."""


def job_fields(claim: Claim, queue: str) -> dict[str, Any]:
    """The attributes that say which job of which queue."""
    return {
        "job_id": claim.id,
        "job_name": claim.name,
        "attempt": claim.attempt,
        "queue": queue,
    }


class JobFilter(logging.Filter):
    """Gives each record the attributes of the job that is running where it was logged.

    It lets every record through. Add it to a handler, as a filter of a logger does not see the
    records of loggers below: `handler.addFilter(JobFilter())`. A record that has the attributes
    keeps them; where no job runs they are `missing`, so that a format may name them. It works in
    coroutines, in the threads of plain functions, and in child processes that add it themselves.
    """

    def __init__(self, missing: str | None = "-") -> None:
        super().__init__()
        self._missing = missing

    def filter(self, record: logging.LogRecord) -> bool:
        """Let the record through, with its attributes."""
        fields = vars(record)
        if "job_id" in fields:
            for name in FIELDS:
                fields.setdefault(name, self._missing)
            return True
        ctx = CURRENT.get(None)
        if ctx is None:
            fields.update(dict.fromkeys(FIELDS, self._missing))
        else:
            fields["job_id"] = ctx.job_id
            fields["job_name"] = ctx.job_name
            fields["attempt"] = ctx.attempt
            fields["queue"] = ctx.queue_name
        return True
