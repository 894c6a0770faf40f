"""`jobmill doctor`: what is not as it should be with a queue, and what to do about it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, Literal

from msgspec.structs import replace

from jobmill.cli.asking import Asked, ask
from jobmill.cli.ending import Exit
from jobmill.cli.output import Column, Form, plain, print_json, print_lines, table, write
from jobmill.cli.text import span
from jobmill.health import HealthCode, SystemHealth
from jobmill.monitor import Monitor
from jobmill.queue import Queue
from jobmill.registry import registered
from jobmill.schedule import Schedule
from jobmill.scheduler import Scheduler
from jobmill.states import UNFINISHED
from jobmill.store import Counts, Examined, Finding, Store

_CLOCKS_DIFFER: Final = 5.0
_CLOCK_ASKED: Final = 5
_OVERDUE: Final = 60.0
_OF_QUEUES: Final = frozenset({"queue", "schedules", "jobs"})
"""What a finding is about that concerns one queue; all else concerns the store."""
_STYLES: Final[Mapping[str, str]] = {"ok": "green", "note": "yellow", "bad": "red"}
_START: Final = "start a worker: jobmill worker APP"

BAD: Final[frozenset[HealthCode]] = frozenset(
    {"unreachable", "no_worker", "workers_gone", "many_failed"}
)
"""Issues of a queue that make it ill, each by itself."""
ADVICE: Final[Mapping[HealthCode, str]] = {
    "unreachable": "see whether the store runs, and whether this machine may connect to it",
    "no_worker": _START,
    "workers_gone": f"{_START}; it takes over what they had claimed",
    "long_wait": "add workers, or let one do more at once: --processes, --concurrency",
    "some_failed": "see why: jobmill jobs list --status failed",
    "many_failed": "see why: jobmill jobs list --status failed; then jobmill jobs retry --all",
    "paused": "jobmill queues resume",
    "lapsed": "see the logs of the workers: killed, out of memory, or cut off from the store",
    "stuck": "restart that worker; its log names the handler that blocks its event loop",
    "silent": "see what became of them; their jobs are taken over, and they are forgotten soon",
    "blocked": "let that handler await, or make it a plain def, which runs in a thread",
    "unknown_job": "deploy the release that defines it, or: jobmill jobs delete --job NAME",
    "untaken_job": "start a worker without --jobs, or with that name among them",
}
"""What to do about each issue of a queue."""

_COLUMNS: Final[tuple[Column[Finding], ...]] = (
    Column("level", lambda found: found.level, lambda found: _STYLES[found.level]),
    Column("about", lambda found: found.about),
    Column("found", lambda found: found.text),
    Column("what to do", lambda found: found.advice),
)


def doctor(
    *,
    asked: Asked = Asked(),  # noqa: B008  it is frozen
    form: Form = Form(),  # noqa: B008  it is frozen
) -> int:
    """Look at a store, its workers and its schedules; exit code 6 where something is bad.

    Of Redis: its version, what it keeps on disk, whether it may throw jobs away, its memory and
    its replicas. Of PostgreSQL: its version, the schema, synchronous_commit, autovacuum, and
    transactions that pin dead rows. Of SQLite: its journal, its durability and its disk. Of
    each: the clock, dead workers, jobs that nobody knows, schedules that nobody ticks.

    With --app, also whether that program defines the jobs that wait; where it has several queues
    and no --queue names one, it looks at all.
    """
    queues = asked.all_made()
    found = [
        each
        for number, queue in enumerate(queues)
        for each in _found_of(
            queue,
            # What is to be said of a store is said once.
            told=queue.store.place in {other.store.place for other in queues[:number]},
            named=len(queues) > 1,
            knows=asked.app is not None,
        )
    ]
    healthy = all(each.level != "bad" for each in found)
    if form.json:
        print_json({"healthy": healthy, "findings": plain(found)})
    elif form.jsonl:
        print_lines(plain(each) for each in found)
    elif form.quiet:
        write("".join(f"{each.about}.{each.code}\n" for each in found if each.level != "ok"))
    else:
        table(found, _COLUMNS)
    return Exit.DONE if healthy else Exit.UNHEALTHY


def _found_of(queue: Queue, *, told: bool, named: bool, knows: bool) -> list[Finding]:
    """What there is to say of one queue, and of its store where that was not `told` before."""

    async def findings(queue: Queue) -> list[Finding]:
        return [found async for found in _look(queue, knows=knows)]

    found = ask(queue, findings)
    return [
        replace(each, text=f"{queue.name}: {each.text.removeprefix(f'{queue.name}: ')}")
        if named and each.about in _OF_QUEUES
        else each
        for each in found
        if each.about in _OF_QUEUES or not told
    ]


async def _look(queue: Queue, *, knows: bool) -> AsyncIterator[Finding]:
    yield Finding(code="reachable", level="ok", text=f"{queue.store.place} answers")
    for found in await queue.ask(_examined):
        yield found
    counts, offset, took = await _asked_for_its_clock(queue)
    yield _clock(offset, took)
    monitor = Monitor(queue)
    alive = len((await monitor.get_workers()).alive)
    health = await monitor.get_system_health()
    for found in _issues(health):
        yield found
    schedules = await Scheduler(queue).get_scheduled_jobs()
    for found in _schedules(schedules, counts.now, alive):
        yield found
    if await queue.is_paused():
        text = f"the queue {queue.name} is paused"
        yield _found("queue", "paused", "note", text, ADVICE["paused"])
    if not health.issues:
        text = f"{queue.name}: {counts.due:,} due; workers: {alive}"
        yield _found("queue", "well", "ok", text)
    if knows:
        yield _known(counts)


async def _examined(store: Store) -> list[Finding]:
    return await store.examine() if isinstance(store, Examined) else []


def _found(
    about: str, code: str, level: Literal["ok", "note", "bad"], text: str, advice: str = ""
) -> Finding:
    return Finding(about=about, code=code, level=level, text=text, advice=advice)


async def _asked_for_its_clock(queue: Queue) -> tuple[Counts, float, float]:
    """The counts, how far the store's clock is ahead, and how long the quickest answer took."""
    best: tuple[Counts, float, float] | None = None
    for _ in range(_CLOCK_ASKED):
        at, began = time.time(), time.monotonic()
        counts = await queue.ask(lambda store: store.counts())
        took = time.monotonic() - began
        if best is None or took < best[2]:
            best = counts, counts.now - (at + took / 2), took
    assert best is not None  # noqa: S101  it was asked
    return best


def _clock(offset: float, took: float) -> Finding:
    answers = f"an answer takes {span(took)}"
    if abs(offset) <= _CLOCKS_DIFFER:
        text = f"this machine's and the store's differ by {span(abs(offset))}; {answers}"
        return _found("clock", "offset", "ok", text)
    way = "ahead of" if offset > 0 else "behind"
    text = f"the store's clock is {span(abs(offset))} {way} this machine's; {answers}"
    advice = "jobs run by the store's clock; let both machines ask an NTP server"
    return _found("clock", "offset", "note", text, advice)


def _issues(health: SystemHealth) -> list[Finding]:
    return [
        _found("queue", code, "bad" if code in BAD else "note", issue, ADVICE[code])
        for code, issue in zip(health.codes, health.issues, strict=True)
        # The doctor tells of a pause whether or not something waits.
        if code != "paused"
    ]


def _schedules(schedules: Sequence[Schedule], now: float, alive: int) -> list[Finding]:
    """Whether somebody ticks them."""
    ticking = [(each.name, each.next_run) for each in schedules if each.next_run is not None]
    if not schedules:
        return []
    if ticking and not alive:
        wait = "1 schedule waits" if len(ticking) == 1 else f"{len(ticking)} schedules wait"
        text = f"{wait} for the next tick, and no worker is there"
        return [_found("schedules", "no_worker", "bad", text, _START)]
    at = datetime.fromtimestamp(now, UTC)
    late = [
        f"{name} by {span(seconds)}"
        for name, due in ticking
        if (seconds := (at - due).total_seconds()) > _OVERDUE
    ]
    if late:
        advice = "start a worker that ticks: jobmill worker APP, without --no-scheduler"
        text = f"nobody ticks {', '.join(late)}"
        return [_found("schedules", "overdue", "bad", text, advice)]
    return [_found("schedules", "ticking", "ok", f"{len(ticking)} of {len(schedules)} tick")]


def _known(counts: Counts) -> Finding:
    """Whether the program defines the jobs that have not ended."""
    waiting = {name for name, states in counts.by_name.items() if any(map(states.get, UNFINISHED))}
    unknown = sorted(waiting - set(registered()))
    if not unknown:
        return _found("jobs", "known", "ok", "the app defines every job that waits")
    text = f"the app does not define {', '.join(unknown)}"
    return _found("jobs", "unknown", "bad", text, ADVICE["unknown_job"])
