"""Whether a queue is well, and what ails it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Literal, TypeAlias

from jobmill.options import check_duration, check_share, check_whole
from jobmill.roster import Roster, WorkerInfo
from jobmill.states import UNFINISHED, State
from jobmill.store import Counts

HealthStatus: TypeAlias = Literal["healthy", "degraded", "unhealthy"]
HealthCode: TypeAlias = Literal[
    "unreachable",
    "no_worker",
    "workers_gone",
    "long_wait",
    "some_failed",
    "many_failed",
    "paused",
    "lapsed",
    "stuck",
    "silent",
    "blocked",
    "unknown_job",
    "untaken_job",
]
"""What an issue is about, for programs; the words of issues may change."""

_NAMED: Final = 5
"""How many workers or jobs an issue names, at most, where there are many."""
_MANY: Final = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemHealth:
    """How a queue is, over the whole fleet; `issues` say in words what is not as it should be.

    `codes` has the code of each issue, in their order.

    `queue_depth` jobs are due and wait, the oldest of them for `oldest_wait` seconds.
    `active_workers` beat. `error_rate` is the share of attempts that failed, of the last five
    minutes. `memory_usage` is what the active workers have together, in bytes, without their
    child processes. `last_heartbeat` is the last sign of life of any worker. Where the store
    cannot be reached it is unhealthy, and all that is not known is 0 or None.
    """

    status: HealthStatus
    queue_depth: int = 0
    oldest_wait: float = 0.0
    active_workers: int = 0
    error_rate: float = 0.0
    memory_usage: int = 0
    last_heartbeat: datetime | None = None
    checked_at: datetime
    issues: list[str] = field(default_factory=list[str])
    codes: list[HealthCode] = field(default_factory=list[HealthCode])


class Thresholds:
    """From where on a queue is not well. Each wrong value is a ConfigError that names it."""

    def __init__(
        self,
        *,
        degraded_error_rate: float,
        unhealthy_error_rate: float,
        min_runs: int,
        max_wait: float,
        lease: float,
    ) -> None:
        self.degraded_error_rate: float = check_share("degraded_error_rate", degraded_error_rate)
        self.unhealthy_error_rate: float = check_share("unhealthy_error_rate", unhealthy_error_rate)
        self.min_runs: int = check_whole("min_runs", min_runs, 1)
        self.max_wait: float = check_duration("max_wait", max_wait, positive=True)
        self.lease = lease


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What a verdict is made of.

    `failed` of `attempts` attempts failed, and `lapsed` runs lost their worker, lately.
    """

    counts: Counts
    roster: Roster
    failed: int
    attempts: int
    lapsed: int
    paused: bool = False


def unreachable(reason: str, at: float) -> SystemHealth:
    """The verdict on a queue whose store does not answer."""
    return SystemHealth(
        status="unhealthy",
        checked_at=datetime.fromtimestamp(at, UTC),
        issues=[f"the store cannot be reached: {shown(reason)}"],
        codes=["unreachable"],
    )


def judged(found: Findings, limits: Thresholds) -> SystemHealth:
    """The verdict on what was found."""
    counts, roster = found.counts, found.roster
    verdict = _Verdict()
    wait = 0.0 if counts.oldest_due is None else max(0.0, counts.now - counts.oldest_due)
    rate = found.failed / found.attempts if found.attempts else 0.0
    running = counts.states.get("processing", 0)
    if not roster.alive:
        if counts.due and wait >= limits.lease:
            due = f"{_jobs(counts.due)} due, for up to {wait:.0f} s, and no worker"
            verdict.unhealthy("no_worker", due)
        if running:
            verdict.unhealthy("workers_gone", f"{_jobs(running)} claimed, and the workers are gone")
    if wait > limits.max_wait:
        text = f"the oldest job that is due has waited for {wait:.0f} s"
        verdict.degraded("long_wait", text)
    if found.attempts >= limits.min_runs and rate >= limits.degraded_error_rate:
        text = f"{found.failed} of {found.attempts} attempts of the last 5 minutes failed"
        if rate >= limits.unhealthy_error_rate:
            verdict.unhealthy("many_failed", text)
        else:
            verdict.degraded("some_failed", text)
    if found.paused and counts.due:
        verdict.note("paused", "the queue is paused")
    if found.lapsed:
        runs = "1 lease" if found.lapsed == 1 else f"{found.lapsed} leases"
        verdict.note("lapsed", f"{runs} lapsed in the last 5 minutes: workers died")
    _look_at(roster, verdict)
    _look_for_names(counts, roster, verdict)
    beats = [worker.last_beat for worker in roster.workers]
    return SystemHealth(
        status=verdict.status,
        queue_depth=counts.due,
        oldest_wait=wait,
        active_workers=len(roster.alive),
        error_rate=rate,
        memory_usage=sum(worker.entry.memory or 0 for worker in roster.alive),
        last_heartbeat=max(beats, default=None),
        checked_at=datetime.fromtimestamp(counts.now, UTC),
        issues=verdict.issues,
        codes=verdict.codes,
    )


def shown(text: str) -> str:
    """The text in one line, without control characters, and not too long: it may be anybody's."""
    plain = "".join(letter if letter.isprintable() else "?" for letter in text)
    return plain if len(plain) <= 2 * _MANY else plain[: 2 * _MANY] + "..."


class _Verdict:
    def __init__(self) -> None:
        self.status: HealthStatus = "healthy"
        self.issues: list[str] = []
        self.codes: list[HealthCode] = []

    def note(self, code: HealthCode, issue: str) -> None:
        self.issues.append(issue)
        self.codes.append(code)

    def degraded(self, code: HealthCode, issue: str) -> None:
        self.note(code, issue)
        if self.status == "healthy":
            self.status = "degraded"

    def unhealthy(self, code: HealthCode, issue: str) -> None:
        self.note(code, issue)
        self.status = "unhealthy"


def _look_at(roster: Roster, verdict: _Verdict) -> None:
    """What the workers say of themselves."""
    stuck = [each for each in roster.workers if each.alive and each.entry.state == "stuck"]
    dead = [each for each in roster.workers if not each.alive]
    if stuck:
        verdict.note("stuck", f"stuck, and its leases given up: {_ids(stuck)}")
    if dead:
        verdict.note("silent", f"silent for three heartbeats or more: {_ids(dead)}")
    for worker in [each for each in roster.alive if each.entry.blocked is not None][:_NAMED]:
        by = shown(worker.entry.blocked_by or "a callback")
        seconds = worker.entry.blocked or 0.0
        text = f"{by} blocks the event loop of {shown(worker.id)}, for {seconds:.0f} s"
        verdict.note("blocked", text)


def _look_for_names(counts: Counts, roster: Roster, verdict: _Verdict) -> None:
    """Jobs that wait for a worker that knows them."""
    waiting = {name: _unfinished(states) for name, states in counts.by_name.items()}
    unknown = sorted({name for each in roster.alive for name in each.entry.unknown})
    for name in [each for each in unknown if waiting.get(each)][:_NAMED]:
        text = f"no job of the name {shown(name)} is known to a worker; it is put off"
        verdict.note("unknown_job", text)
    if not roster.alive or any(each.entry.names is None for each in roster.alive):
        return
    taken = {name for each in roster.alive for name in each.entry.names or ()}
    left = sorted(name for name, number in waiting.items() if number and name not in taken)
    for name in left[:_NAMED]:
        verdict.note("untaken_job", f"no worker takes jobs of the name {shown(name)}")


def _unfinished(states: Mapping[State, int]) -> int:
    return sum(number for state, number in states.items() if state in UNFINISHED)


def _ids(workers: Sequence[WorkerInfo]) -> str:
    more = ", ..." if len(workers) > _NAMED else ""
    return ", ".join(shown(each.id) for each in workers[:_NAMED]) + more


def _jobs(number: int) -> str:
    return "1 job is" if number == 1 else f"{number} jobs are"
