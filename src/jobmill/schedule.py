"""The rule of a schedule: which of its ticks fire, which are missed or skipped, and what is next.

Pure: from a plan and an instant to what has to be written. The plan is what the store keeps.
"""

from __future__ import annotations

import hashlib
import math
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, assert_never

import msgspec

from jobmill.errors import ConfigError, CronError
from jobmill.policy import Policy
from jobmill.timezones import zone_named

if TYPE_CHECKING:
    from jobmill.cron import CronExpression

Misfire: TypeAlias = Literal["run_once", "skip", "catch_up"]
Outcome: TypeAlias = Literal["fired", "skipped", "missed"]

CAUGHT_UP: Final = 100
"""Ticks that "catch_up" fires at once, at most: the last ones."""
KEPT_TICKS: Final = 1_000
"""Entries that one step writes, and that a history holds, at most: the last ones."""
GRACE: Final = 30.0
"""Seconds that a tick may be late under "skip", where nothing else is said."""

_MICROS: Final = 1_000_000


class Plan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A schedule as the store keeps it: what is wanted, and how far it is.

    `id` is made when the schedule is created, and stays when it is replaced. `at` is the one
    instant of a schedule without `cron`. Units: Unix seconds.
    """

    id: str
    job: str
    payload: msgspec.Raw
    policy: Policy
    priority: int = 0
    unique_key: str | None = None
    cron: str | None = None
    at: float | None = None
    timezone: str = "UTC"
    misfire: Misfire = "run_once"
    misfire_grace: float = GRACE
    allow_concurrent: bool = True
    max_runs: int | None = None
    start_date: float | None = None
    end_date: float | None = None
    paused: bool = False
    next_run: float | None = None
    last_run: float | None = None
    last_job_id: str | None = None
    runs: int = 0
    declared: bool = False
    """Whether `Scheduler.cron` wrote it, so that it is gone when the code no longer has it."""

    @property
    def single(self) -> bool:
        """Whether one of its jobs, while it is unfinished, lets no other be added."""
        return not self.allow_concurrent or self.unique_key is not None


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of a tick, as the history keeps it.

    `until` is the last of many missed ticks, of which `at` is the first. `job_id` is the job of a
    tick that fired, and the job because of which one was skipped.
    """

    outcome: Outcome
    job_id: str | None = None
    until: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What a look at a schedule leads to: `plan` is to be written with all the rest, or not at all.

    `entries` are pairs of key and value, oldest first. `fires` are the ticks that get a job, each
    with the id of its job.
    """

    plan: Plan
    entries: tuple[tuple[str, bytes], ...]
    fires: tuple[tuple[float, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A schedule, as its store has it at the moment of asking.

    `cron` is None where it runs once. `next_run` is None while it is paused, and when it has
    ended. `last_run` is the last tick that fired.
    """

    name: str
    job_name: str
    cron: str | None
    description: str
    timezone: str
    payload: Any
    next_run: datetime | None
    last_run: datetime | None
    runs: int
    max_runs: int | None
    paused: bool
    allow_concurrent: bool
    misfire: Misfire
    start_date: datetime | None
    end_date: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """One instant of a schedule, and what became of it.

    `job_id`: its job where it fired, the unfinished job that let it add none where it was
    skipped. Where very many ticks in a row were missed, one entry stands for all those from `at`
    to `until`.
    """

    at: datetime
    outcome: Outcome
    job_id: str | None = None
    until: datetime | None = None


def upcoming(plan: Plan, after: float) -> float | None:
    """The first tick later than `after`; None where there is none any more.

    Raises: ConfigError where this machine knows nothing of the zone or the expression.
    """
    if plan.max_runs is not None and plan.runs >= plan.max_runs:
        return None
    if plan.cron is None:
        tick = plan.at
        return tick if tick is not None and tick > after else None
    # Ticks are whole seconds, so that just before the start is a second less, rounded up.
    start = -math.inf if plan.start_date is None else math.ceil(plan.start_date) - 1
    try:
        found = _cron(plan.cron).next(_utc(max(math.floor(after), start)), plan.timezone)
    except CronError:
        return None
    tick = found.timestamp()
    return None if plan.end_date is not None and tick > plan.end_date else tick


def created(plan: Plan, now: float, *, at_once: bool) -> Plan:
    """The plan as it is first written; `at_once`: its first tick is now, or at its start."""
    if plan.cron is None:
        return msgspec.structs.replace(plan, next_run=plan.at)
    if not at_once:
        return msgspec.structs.replace(plan, next_run=upcoming(plan, now))
    first = now if plan.start_date is None else max(now, plan.start_date)
    over = plan.end_date is not None and first > plan.end_date
    return msgspec.structs.replace(plan, next_run=None if over else first)


def replaced(old: Plan, new: Plan, now: float) -> Plan:
    """The new plan in the place of the old one: what has run, and a pause, stay.

    So does the next tick where the instants are the same, though it is past: it was missed, and
    the step decides. A run-once schedule that is over is over for the same instant.
    """
    new = msgspec.structs.replace(
        new,
        id=old.id,
        runs=old.runs,
        last_run=old.last_run,
        last_job_id=old.last_job_id,
        paused=old.paused,
        next_run=None,
    )
    if old.paused:
        return new
    same = _same_instants(old, new)
    if new.cron is None:
        return msgspec.structs.replace(new, next_run=old.next_run if same else new.at)
    if new.max_runs is not None and new.runs >= new.max_runs:
        return new
    since = now if old.last_run is None else max(now, old.last_run)
    kept = old.next_run if same else None
    if kept is None or (new.start_date is not None and kept < new.start_date):
        return msgspec.structs.replace(new, next_run=upcoming(new, since))
    if kept > since:
        # Not missed; and the new plan may start sooner than the old one was to.
        kept = min(kept, upcoming(new, since) or kept)
    over = new.end_date is not None and kept > new.end_date
    return msgspec.structs.replace(new, next_run=None if over else kept)


def paused(plan: Plan) -> Plan:
    """The plan with no next tick until it is resumed."""
    return msgspec.structs.replace(plan, paused=True, next_run=None)


def resumed(plan: Plan, now: float) -> Plan:
    """The plan with its next tick from now on; those of the pause are not made up."""
    plan = msgspec.structs.replace(plan, paused=False, next_run=None)
    since = now if plan.last_run is None else max(now, plan.last_run)
    return msgspec.structs.replace(plan, next_run=upcoming(plan, since))


def step(
    plan: Plan, now: float, *, queue: str, name: str, blocker: str | None = None
) -> Step | None:
    """What the ticks that are due by `now` lead to; None where none is.

    All but the last are missed. "run_once" fires the last, "skip" only where it is at most
    `misfire_grace` late; "catch_up" fires CAUGHT_UP of them. `blocker`: the unfinished job because
    of which what would fire is skipped. Of a `single` plan the first to fire is one for the rest.

    Cost: KEPT_TICKS steps of the calendar at the most, however long ago the first one is.
    """
    first = plan.next_run
    if plan.paused or first is None or first > now:
        return None
    ticks, until = _due(plan, first, now)
    match plan.misfire:
        case "run_once":
            fires = ticks[-1:]
        case "skip":
            fires = ticks[-1:] if now - ticks[-1] <= plan.misfire_grace else []
        case "catch_up":
            fires = ticks[-CAUGHT_UP:]
        case _:
            assert_never(plan.misfire)
    missed = ticks[: len(ticks) - len(fires)]
    skipped: list[float] = []
    if plan.single:
        split = 0 if blocker is not None else 1
        fires, skipped = fires[:split], fires[split:]
    if plan.max_runs is not None:
        left = max(0, plan.max_runs - plan.runs)
        if len(fires) >= left:
            # What came after the last run was no tick any more.
            fires, skipped = fires[:left], []
    ids = [job_id(queue, name, plan.id, tick) for tick in fires]
    entries = {tick: Entry(outcome="missed") for tick in missed}
    if until is not None:
        entries[first] = Entry(outcome="missed", until=until)
    in_the_way = ids[0] if ids else blocker
    entries |= {tick: Entry(outcome="skipped", job_id=in_the_way) for tick in skipped}
    entries |= {
        tick: Entry(outcome="fired", job_id=made) for tick, made in zip(fires, ids, strict=True)
    }
    after = msgspec.structs.replace(plan, runs=plan.runs + len(fires))
    if fires:
        after = msgspec.structs.replace(after, last_run=fires[-1], last_job_id=ids[-1])
    after = msgspec.structs.replace(after, next_run=upcoming(after, max(now, ticks[-1])))
    return Step(
        plan=after,
        entries=tuple((tick_key(tick), entry_value(entries[tick])) for tick in sorted(entries)),
        fires=tuple(zip(fires, ids, strict=True)),
    )


def job_id(queue: str, name: str, plan_id: str, tick: float) -> str:
    """The id of the job of a tick: the same, whoever fires it, and however often."""
    text = f"{queue}\n{name}\n{plan_id}\n{_micros(tick)}"
    return str(uuid.UUID(bytes=hashlib.sha256(text.encode()).digest()[:16], version=5))


def tick_key(tick: float) -> str:
    """The key of a tick in the history: the later, the greater."""
    return f"{_micros(tick):020d}"


def entry_value(entry: Entry) -> bytes:
    """The entry as JSON."""
    return msgspec.json.encode(entry)


def tick_of(key: str, value: bytes, timezone: str) -> Tick:
    """The entry as people read it.

    Raises: ValueError where it is none.
    """
    entry = _ENTRY.decode(value)
    zone = zone_named(timezone)
    return Tick(
        at=_shown(int(key) / _MICROS, zone),
        outcome=entry.outcome,
        job_id=entry.job_id,
        until=None if entry.until is None else _shown(entry.until, zone),
    )


def encode_plan(plan: Plan) -> bytes:
    """The plan as JSON."""
    return msgspec.json.encode(plan)


def decode_plan(data: bytes) -> Plan:
    """The plan that encode_plan wrote, fit to be stepped on this machine.

    Cost: the file of its zone is read when that is first named.

    Raises: ConfigError where it is none, or its zone or expression is unknown here.
    """
    try:
        plan = _PLAN.decode(data)
    except (ValueError, RecursionError) as error:
        message = f"the schedule's document does not decode: {error}"
        raise ConfigError(message, field="schedule") from error
    zone_named(plan.timezone)
    if plan.cron is not None:
        _cron(plan.cron)
    return plan


def schedule_of(name: str, plan: Plan) -> Schedule:
    """The plan as people read it, its instants in its own zone."""
    zone = zone_named(plan.timezone)

    def shown(at: float | None) -> datetime | None:
        return None if at is None else _shown(at, zone)

    once = f"Once, at {shown(plan.at)}"
    return Schedule(
        name=name,
        job_name=plan.job,
        cron=plan.cron,
        description=once if plan.cron is None else _cron(plan.cron).describe(),
        timezone=plan.timezone,
        payload=msgspec.json.decode(plan.payload),
        next_run=shown(plan.next_run),
        last_run=shown(plan.last_run),
        runs=plan.runs,
        max_runs=plan.max_runs,
        paused=plan.paused,
        allow_concurrent=plan.allow_concurrent,
        misfire=plan.misfire,
        start_date=shown(plan.start_date),
        end_date=shown(plan.end_date),
    )


def _due(plan: Plan, first: float, now: float) -> tuple[list[float], float | None]:
    """The ticks from `first` to `now`, oldest first.

    Where they are too many: the last ones, and the last of those that are left out. Walked
    from the end, since a year of minutes may be behind.
    """
    if plan.cron is None:
        return [first], None
    cron = _cron(plan.cron)
    last = now if plan.end_date is None else min(now, plan.end_date)
    ticks: list[float] = []
    before = _utc(math.floor(last) + 1)
    while True:
        try:
            tick = cron.previous(before, plan.timezone).timestamp()
        except CronError:
            break
        if tick <= first:
            break
        if len(ticks) == KEPT_TICKS - 1:
            return ticks[::-1], tick
        ticks.append(tick)
        before = _utc(tick)
    return [first, *ticks[::-1]], None


def _same_instants(old: Plan, new: Plan) -> bool:
    if old.cron is None or new.cron is None:
        return old.cron is None and new.cron is None and old.at == new.at
    return old.timezone == new.timezone and _cron(old.cron) == _cron(new.cron)


def _micros(tick: float) -> int:
    return max(0, round(tick * _MICROS))


def _utc(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


def _shown(at: float, zone: tzinfo) -> datetime:
    return datetime.fromtimestamp(at, zone)


@lru_cache(maxsize=1_024)
def _cron(text: str) -> CronExpression:
    from jobmill.cron import CronExpression

    return CronExpression(text)


_PLAN: Final = msgspec.json.Decoder(Plan)
_ENTRY: Final = msgspec.json.Decoder(Entry)
