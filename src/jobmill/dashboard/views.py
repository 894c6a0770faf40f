"""What the pages show, and /api gives: plain values, masked, the same for both.

Units: seconds; instants are aware.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, TypeAlias

import msgspec

from jobmill.health import HealthCode, HealthStatus
from jobmill.records import JobStatus
from jobmill.schedule import Misfire, Outcome
from jobmill.states import State


class Unanswered(msgspec.Struct, frozen=True, kw_only=True):
    """A queue whose store did not answer."""

    queue: str
    error: str


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What ended within the window, and how long it took and waited."""

    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    retried: int = 0
    lapsed: int = 0
    throughput: float = 0.0
    """Jobs that ended, a minute, over the last five minutes."""
    error_rate: float = 0.0
    p50_wait: float = 0.0
    p95_wait: float = 0.0
    p99_wait: float = 0.0
    p50_duration: float = 0.0
    p95_duration: float = 0.0
    p99_duration: float = 0.0


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One step of the window, for charts. `at`: its start."""

    at: datetime
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    retried: int = 0
    p50_wait: float = 0.0
    p95_wait: float = 0.0


class JobName(msgspec.Struct, frozen=True, kw_only=True):
    """The jobs of one name in a queue."""

    name: str
    paused: bool
    counts: dict[State, int]
    figures: Figures


class Workforce(msgspec.Struct, frozen=True, kw_only=True):
    """The workers that beat: how many, their slots, and how many of these are busy."""

    workers: int = 0
    slots: int = 0
    busy: int = 0


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """How much there is to do, and how fast it is done.

    `drain`: seconds until what is due now is done, at the rate of the last five minutes; None
    where nothing ended in them.
    """

    counts: dict[State, int]
    total: int = 0
    due: int = 0
    oldest_wait: float = 0.0
    drain: float | None = None
    workforce: Workforce = Workforce()
    figures: Figures = Figures()
    points: tuple[Point, ...] = ()


class Issue(msgspec.Struct, frozen=True, kw_only=True):
    """What is not as it should be in a queue: in words, and as a code for programs."""

    queue: str
    code: HealthCode
    text: str


class QueueView(msgspec.Struct, frozen=True, kw_only=True):
    """One queue. `error`: why its store does not answer; all else is then empty."""

    label: str
    name: str
    kind: str
    place: str
    error: str | None = None
    paused: bool = False
    status: HealthStatus = "healthy"
    issues: tuple[Issue, ...] = ()
    load: Load
    jobs: tuple[JobName, ...] = ()


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """All queues together, and each by itself. `window`: seconds that figures go back.

    `left_out`: queues that the stores have beside these, and that are too many to be shown.
    """

    at: datetime
    window: float
    step: float
    status: HealthStatus
    issues: tuple[Issue, ...]
    load: Load
    queues: tuple[QueueView, ...]
    left_out: int = 0


class JobRow(msgspec.Struct, frozen=True, kw_only=True):
    """A job in a list. `payload`: how it begins, as JSON; None where it is too long for a list."""

    id: str
    name: str
    queue: str
    status: JobStatus
    attempts: int
    max_attempts: int
    lapses: int
    priority: int
    unique_key: str | None
    payload: str | None
    progress: float | None
    progress_note: str | None
    error: str | None
    worker: str | None
    enqueued_at: datetime
    run_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    duration: float | None


class JobList(msgspec.Struct, frozen=True, kw_only=True):
    """Some jobs, newest first. `cursor` goes on after them; None at the end.

    `problems`: what of the search could not be understood, in words. `complete`: False where the
    search ended before it had found as many as were wanted, since it took too long: there may be
    more, and the cursor goes on.
    """

    jobs: tuple[JobRow, ...]
    cursor: str | None = None
    complete: bool = True
    problems: tuple[str, ...] = ()
    unanswered: tuple[Unanswered, ...] = ()


class Failed(msgspec.Struct, frozen=True, kw_only=True):
    """Why one attempt failed."""

    type: str
    message: str
    traceback: str
    attempt: int
    at: datetime


class LogLine(msgspec.Struct, frozen=True, kw_only=True):
    """A line that a job logged."""

    at: datetime | None
    message: str
    fields: dict[str, Any]


Moment: TypeAlias = Literal[
    "enqueued", "due", "started", "failed_attempt", "completed", "failed", "cancelled", "expires"
]


class Happened(msgspec.Struct, frozen=True, kw_only=True):
    """One instant in the life of a job."""

    at: datetime
    what: Moment
    text: str = ""
    coming: bool = False


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """A job, with all that is known of it. `payload` and `result` are masked JSON values."""

    row: JobRow
    payload: Any
    raw_payload: str | None
    """Its bytes in hex, where they are no JSON."""
    result: Any
    errors: tuple[Failed, ...]
    logs: tuple[LogLine, ...]
    metadata: dict[str, str]
    schedule: str | None
    timeline: tuple[Happened, ...]
    timeout: float | None
    generation: int
    suspect: bool
    asked: bool
    lease_until: datetime | None
    expires_at: datetime | None
    commands: dict[str, str]
    """What to type to do the same on the command line, by action."""
    actions: tuple[str, ...]
    """What can be done to it now."""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A coming tick. `change`: what the clocks do between the tick before and this one."""

    at: datetime
    offset: str
    change: str | None = None


class Ticked(msgspec.Struct, frozen=True, kw_only=True):
    """A tick that was, and what became of it."""

    at: datetime
    outcome: Outcome
    job_id: str | None
    until: datetime | None


ScheduleStatus: TypeAlias = Literal["active", "paused", "ended", "broken"]


class ScheduleRow(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule in a list. `error`: why it cannot be read."""

    name: str
    queue: str
    status: ScheduleStatus
    job_name: str = ""
    cron: str | None = None
    description: str = ""
    timezone: str = "UTC"
    next_run: datetime | None = None
    last_run: datetime | None = None
    runs: int = 0
    max_runs: int | None = None
    error: str | None = None


class ScheduleList(msgspec.Struct, frozen=True, kw_only=True):
    """Schedules, the next to tick first."""

    schedules: tuple[ScheduleRow, ...]
    unanswered: tuple[Unanswered, ...] = ()


class ScheduleView(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule, with its coming ticks and its past ones."""

    row: ScheduleRow
    payload: Any
    allow_concurrent: bool
    misfire: Misfire
    start_date: datetime | None
    end_date: datetime | None
    last_job_id: str | None
    runs: tuple[Run, ...]
    history: tuple[Ticked, ...]


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """A run that goes on."""

    job_id: str
    job_name: str
    attempt: int
    since: datetime
    aborted: str | None


class RunningHere(msgspec.Struct, frozen=True, kw_only=True):
    """A run that goes on, and where."""

    run: Running
    queue: str
    worker: str


class WorkerView(msgspec.Struct, frozen=True, kw_only=True):
    """A worker, as it tells of itself. `status`: "dead" where it is silent for too long."""

    id: str
    queue: str
    status: Literal["running", "stopping", "stuck", "dead"]
    host: str
    pid: int
    version: str
    queues: tuple[str, ...]
    names: tuple[str, ...] | None
    slots: int
    busy: int
    memory: int | None
    started_at: datetime
    last_beat: datetime
    silent: float
    blocked: float | None
    blocked_by: str | None
    unknown: dict[str, int]
    running: tuple[Running, ...]


class WorkerList(msgspec.Struct, frozen=True, kw_only=True):
    """Who works; a worker of several queues is told of for each."""

    workers: tuple[WorkerView, ...]
    unanswered: tuple[Unanswered, ...] = ()


class ErrorView(msgspec.Struct, frozen=True, kw_only=True):
    """Errors that are alike. `search`: the filter of the jobs whose last error it is."""

    fingerprint: str
    queue: str
    job_name: str
    count: int
    first_seen: datetime
    last_seen: datetime
    last_job_id: str
    type: str
    message: str
    traceback: str
    search: str


class ErrorList(msgspec.Struct, frozen=True, kw_only=True):
    """Groups of errors, the last seen first."""

    groups: tuple[ErrorView, ...]
    unanswered: tuple[Unanswered, ...] = ()


class AuditView(msgspec.Struct, frozen=True, kw_only=True):
    """Who did what. `outcome`: "begun" where the process ended in the midst of it."""

    at: datetime
    queue: str
    who: str
    role: str
    ip: str
    action: str
    target: str
    count: int
    outcome: str


class AuditList(msgspec.Struct, frozen=True, kw_only=True):
    """Some entries, the last first."""

    entries: tuple[AuditView, ...]
    cursor: str | None = None
    unanswered: tuple[Unanswered, ...] = ()
