"""What the JSON of each command looks like."""

from __future__ import annotations

from typing import Any

STATUS = {"enum": ["pending", "delayed", "processing", "completed", "failed", "cancelled"]}
COUNT = {"type": "integer", "minimum": 0}
TEXT = {"type": "string"}
FLAG = {"type": "boolean"}
INSTANT = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?[+-]\d\d:\d\d$"}
ANY: dict[str, Any] = {}


def maybe(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


def exactly(**properties: Any) -> dict[str, Any]:
    """An object with these, and nothing else."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def listed(**lists: Any) -> dict[str, Any]:
    (name, item), *more = lists.items()
    return exactly(**{name: {"type": "array", "items": item}}, **dict(more))


ERROR = exactly(type=TEXT, module=TEXT, message=TEXT, traceback=TEXT, attempt=COUNT, at=INSTANT)
JOB = exactly(
    id=TEXT,
    name=TEXT,
    queue=TEXT,
    status=STATUS,
    payload=ANY,
    result=ANY,
    error=maybe(ERROR),
    errors={"type": "array", "items": ERROR},
    attempts=COUNT,
    max_attempts=COUNT,
    lapses=COUNT,
    priority={"type": "integer"},
    progress=maybe({"type": "number"}),
    progress_note=maybe(TEXT),
    logs={"type": "array", "items": {"type": "object", "required": ["at", "message"]}},
    unique_key=maybe(TEXT),
    metadata={"type": "object", "additionalProperties": TEXT},
    raw_payload=maybe(TEXT),
    enqueued_at=INSTANT,
    run_at=INSTANT,
    started_at=maybe(INSTANT),
    completed_at=maybe(INSTANT),
    worker=maybe(TEXT),
    duration=maybe({"type": "number", "minimum": 0}),
)
COUNTS = exactly(
    name=TEXT,
    pending=COUNT,
    delayed=COUNT,
    processing=COUNT,
    completed=COUNT,
    failed=COUNT,
    cancelled=COUNT,
    paused=FLAG,
    oldest_due=maybe(INSTANT),
)
SCHEDULE = exactly(
    name=TEXT,
    job_name=TEXT,
    cron=maybe(TEXT),
    description=TEXT,
    timezone=TEXT,
    payload=ANY,
    next_run=maybe(INSTANT),
    last_run=maybe(INSTANT),
    runs=COUNT,
    max_runs=maybe(COUNT),
    paused=FLAG,
    allow_concurrent=FLAG,
    misfire={"enum": ["run_once", "skip", "catch_up"]},
    start_date=maybe(INSTANT),
    end_date=maybe(INSTANT),
)
TICK = exactly(schedule=TEXT, at=INSTANT)
NAMES = {"type": "array", "items": TEXT}

JOBS = listed(jobs=JOB, next_cursor=maybe(TEXT))
LOGS = exactly(id=TEXT, logs=JOB["properties"]["logs"])
QUEUES = listed(queues=COUNTS)
STATS = listed(jobs=COUNTS, total=COUNTS, paused=FLAG)
SCHEDULES = listed(schedules=SCHEDULE)
TICKS = listed(ticks=TICK)
ENQUEUED = exactly(id=TEXT, deduplicated=FLAG, checked=FLAG)
TRIGGERED = exactly(id=TEXT, deduplicated=FLAG)
CHANGED = exactly(done=NAMES, left=NAMES)
COUNTED = exactly(count=COUNT, dry_run=FLAG)
PAUSED = exactly(queue=TEXT, job=maybe(TEXT), paused=FLAG)
SYNCED = exactly(
    written=NAMES,
    removed=NAMES,
    dry_run=FLAG,
    declared_by={"type": "object", "additionalProperties": NAMES},
)
WORKER = exactly(
    id=TEXT,
    state={"enum": ["running", "stopping", "stuck", "dead"]},
    host=TEXT,
    pid=COUNT,
    version=TEXT,
    queues=NAMES,
    slots=COUNT,
    busy=COUNT,
    memory=maybe(COUNT),
    started_at=INSTANT,
    last_beat=INSTANT,
    running={"type": "array", "items": exactly(id=TEXT, name=TEXT, attempt=COUNT)},
)
WORKERS = listed(workers=WORKER)
FINDING = exactly(
    code={"type": "string", "pattern": "^[a-z_]+$"},
    level={"enum": ["ok", "note", "bad"]},
    text=TEXT,
    advice=TEXT,
    about={"enum": ["store", "clock", "queue", "schedules", "jobs"]},
)
DOCTOR = exactly(healthy=FLAG, findings={"type": "array", "items": FINDING})
MIGRATED = exactly(
    store=TEXT, schema=maybe(TEXT), applied=maybe(COUNT), latest=maybe(COUNT), current=FLAG
)
PROJECT = exactly(
    directory=TEXT, store={"enum": ["sqlite", "redis", "postgresql"]}, files=NAMES, dry_run=FLAG
)
RATE = {"type": "number", "exclusiveMinimum": 0}
FIGURES = exactly(
    store=TEXT,
    jobs=COUNT,
    concurrency=COUNT,
    one_at_a_time=RATE,
    in_bulk=RATE,
    drained=RATE,
    round_trip=RATE,
)
