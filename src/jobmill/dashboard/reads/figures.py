"""How much there is to do, how fast it is done, and how well: of each queue, and of all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from jobmill.dashboard.board import Board, Watched
from jobmill.dashboard.views import (
    Figures,
    Issue,
    JobName,
    Load,
    Overview,
    Point,
    QueueView,
    Workforce,
)
from jobmill.errors import ConfigError, StoreError
from jobmill.health import (
    Findings,
    HealthStatus,
    SystemHealth,
    Thresholds,
    judged,
    unreachable,
)
from jobmill.metrics import JobMetrics, Minutes, attempts_of, measured
from jobmill.roster import Roster, read_roster
from jobmill.states import STATES
from jobmill.store import Bucket, Counts, Doc, Store

WINDOWS: Final[Mapping[float, float]] = {3_600.0: 60.0, 21_600.0: 300.0, 86_400.0: 900.0}
"""How far figures go back, and the steps of their charts."""
HOUR: Final = 3_600.0
_LATELY: Final = 300.0
_STATUSES: Final[Sequence[HealthStatus]] = ("healthy", "degraded", "unhealthy")
_STALE_FOR: Final = 4.0
"""What was surveyed is shown again for so many times as long as it took: a store that needs long
to count is not asked by each page anew."""


class Survey:
    """What was found of one queue at one moment."""

    def __init__(
        self, counts: Counts, roster: Roster, buckets: list[Bucket], pauses: list[Doc]
    ) -> None:
        self.counts = counts
        self.roster = roster
        self.buckets = buckets
        self.pauses: frozenset[str] = frozenset(doc.key for doc in pauses)


class Surveyor:
    """Surveys queues, each at most once at a time."""

    def __init__(self) -> None:
        self._under_way: dict[tuple[str, float], asyncio.Task[Survey]] = {}
        self._known: dict[tuple[str, float], tuple[float, Survey]] = {}

    def forget(self, label: str) -> None:
        """Look at this queue anew: it was changed."""
        for key in [key for key in self._known if key[0] == label]:
            del self._known[key]
        # Nor is what looks now believed: it may have begun before the change.
        for key in [key for key in self._under_way if key[0] == label]:
            del self._under_way[key]

    async def of(self, watched: Watched, window: float) -> Survey:
        """What is found of the queue. Cost: four statements.

        Raises: StoreError.
        """
        key = watched.label, window
        until, survey = self._known.get(key, (0.0, None))
        if survey is not None and time.monotonic() < until:
            return survey
        task = self._under_way.get(key)
        if task is None:
            task = asyncio.ensure_future(self._look(watched, window))
            self._under_way[key] = task
            task.add_done_callback(lambda done: self._ended(key, done))
        return await asyncio.shield(task)

    async def _look(self, watched: Watched, window: float) -> Survey:
        began = time.monotonic()
        minutes = watched.minutes.setdefault(window, Minutes())

        async def look(store: Store) -> Survey:
            counts = await store.counts()
            roster = await read_roster(store, counts.now)
            since = counts.now - window
            stale_from = minutes.stale_from(since)
            minutes.learn(await store.metrics(stale_from), stale_from, since, counts.now)
            return Survey(counts, roster, minutes.since(since), await store.read("pauses"))

        survey = await watched.ask(look)
        now = time.monotonic()
        key = watched.label, window
        if self._under_way.get(key) is asyncio.current_task():
            self._known[key] = now + _STALE_FOR * (now - began), survey
        return survey

    def _ended(self, key: tuple[str, float], task: asyncio.Task[Survey]) -> None:
        if self._under_way.get(key) is task:
            del self._under_way[key]
        if not task.cancelled():
            task.exception()


def _issues(label: str, health: SystemHealth) -> tuple[Issue, ...]:
    pairs = zip(health.codes, health.issues, strict=True)
    return tuple([Issue(queue=label, code=code, text=text) for code, text in pairs])


async def overview(board: Board, surveyor: Surveyor, window: float = HOUR) -> Overview:
    """All queues together, and each. Cost: four statements for each queue."""
    found = await asyncio.gather(*(_surveyed(each, surveyor, window) for each in board))
    views = [_queue_view(each, survey, error, window) for each, survey, error in found]
    worst = sorted(views, key=lambda view: -_STATUSES.index(view.status))
    surveys = [survey for _, survey, _ in found if survey is not None]
    now = max((survey.counts.now for survey in surveys), default=time.time())
    return Overview(
        at=datetime.fromtimestamp(now, UTC),
        window=window,
        step=WINDOWS[window],
        status=_STATUSES[max((_STATUSES.index(view.status) for view in views), default=0)],
        issues=tuple(issue for view in worst for issue in view.issues),
        load=_load(surveys, now, window),
        queues=tuple(views),
        left_out=board.left_out,
    )


async def queue_view(watched: Watched, surveyor: Surveyor, window: float = HOUR) -> QueueView:
    """One queue, with its jobs by name. Cost: four statements.

    Raises: StoreError.
    """
    survey = await surveyor.of(watched, window)
    return _queue_view(watched, survey, None, window, names=True)


async def _surveyed(
    watched: Watched, surveyor: Surveyor, window: float
) -> tuple[Watched, Survey | None, str | None]:
    try:
        return watched, await surveyor.of(watched, window), None
    except (StoreError, ConfigError) as error:
        return watched, None, str(error)


def _queue_view(
    watched: Watched,
    survey: Survey | None,
    error: str | None,
    window: float,
    *,
    names: bool = False,
) -> QueueView:
    queue = watched.queue
    if survey is None:
        return QueueView(
            label=watched.label,
            name=queue.name,
            kind=watched.kind,
            place=watched.place,
            error=error,
            status="unhealthy",
            issues=_issues(watched.label, unreachable(error or "", time.time())),
            load=Load(counts=dict.fromkeys(STATES, 0)),
        )
    now = survey.counts.now
    failed, attempts = attempts_of(each for each in survey.buckets if each.minute >= now - _LATELY)
    health = judged(
        Findings(
            counts=survey.counts,
            roster=survey.roster,
            failed=failed,
            attempts=attempts,
            lapsed=sum(each.lapsed for each in survey.buckets if each.minute >= now - _LATELY),
            paused="*" in survey.pauses,
        ),
        _limits(queue.lease),
    )
    return QueueView(
        label=watched.label,
        name=queue.name,
        kind=watched.kind,
        place=watched.place,
        paused="*" in survey.pauses,
        status=health.status,
        issues=_issues(watched.label, health),
        load=_load([survey], now, window),
        jobs=_names(survey, now, window) if names else (),
    )


def _limits(lease: float) -> Thresholds:
    return Thresholds(
        degraded_error_rate=0.1,
        unhealthy_error_rate=0.25,
        min_runs=20,
        max_wait=60.0,
        lease=lease,
    )


def _load(surveys: Sequence[Survey], now: float, window: float) -> Load:
    buckets = [bucket for survey in surveys for bucket in survey.buckets]
    counts = dict.fromkeys(STATES, 0)
    due = 0
    oldest = 0.0
    for survey in surveys:
        due += survey.counts.due
        for state, number in survey.counts.states.items():
            counts[state] += number
        if survey.counts.oldest_due is not None:
            oldest = max(oldest, survey.counts.now - survey.counts.oldest_due)
    figures = _figures(measured(buckets, now - window, now, rate_since=_lately(now)))
    alive = {worker.id: worker for survey in surveys for worker in survey.roster.alive}
    entries = [worker.entry for worker in alive.values()]
    return Load(
        counts=counts,
        total=sum(counts.values()),
        due=due,
        oldest_wait=oldest,
        drain=due / figures.throughput * 60 if figures.throughput else None if due else 0.0,
        workforce=Workforce(
            workers=len(entries),
            slots=sum(entry.slots for entry in entries),
            busy=sum(entry.busy for entry in entries),
        ),
        figures=figures,
        points=_points(buckets, now, window),
    )


def _lately(now: float) -> float:
    return (now - _LATELY) // 60 * 60


def _figures(metrics: JobMetrics) -> Figures:
    return Figures(
        completed=metrics.successful_jobs,
        failed=metrics.failed_jobs,
        cancelled=metrics.cancelled_jobs,
        retried=metrics.retried,
        lapsed=metrics.lapsed,
        throughput=metrics.throughput,
        error_rate=metrics.error_rate,
        p50_wait=metrics.p50_wait,
        p95_wait=metrics.p95_wait,
        p99_wait=metrics.p99_wait,
        p50_duration=metrics.p50_duration,
        p95_duration=metrics.p95_duration,
        p99_duration=metrics.p99_duration,
    )


def _points(buckets: Sequence[Bucket], now: float, window: float) -> tuple[Point, ...]:
    step = WINDOWS[window]
    by_start: dict[float, list[Bucket]] = {}
    for bucket in buckets:
        by_start.setdefault(bucket.minute // step * step, []).append(bucket)
    first = (now - window) // step * step
    points: list[Point] = []
    for number in range(round(window / step) + 1):
        start = first + number * step
        found = by_start.get(start)
        at = datetime.fromtimestamp(start, UTC)
        if found is None:
            points.append(Point(at=at))
            continue
        metrics = measured(found, start, start + step)
        points.append(
            Point(
                at=at,
                completed=metrics.successful_jobs,
                failed=metrics.failed_jobs,
                cancelled=metrics.cancelled_jobs,
                retried=metrics.retried,
                p50_wait=metrics.p50_wait,
                p95_wait=metrics.p95_wait,
            )
        )
    return tuple(points)


def _names(survey: Survey, now: float, window: float) -> tuple[JobName, ...]:
    metrics = measured(survey.buckets, now - window, now, rate_since=_lately(now)).by_job
    nothing = Figures()
    return tuple(
        JobName(
            name=name,
            paused=f"job:{name}" in survey.pauses,
            counts={state: survey.counts.by_name.get(name, {}).get(state, 0) for state in STATES},
            figures=_figures(metrics[name]) if name in metrics else nothing,
        )
        for name in sorted({*survey.counts.by_name, *metrics, *_paused_names(survey)})
    )


def _paused_names(survey: Survey) -> set[str]:
    return {key.removeprefix("job:") for key in survey.pauses if key.startswith("job:")}
