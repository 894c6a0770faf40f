"""Figures of queues for Prometheus (extra `prometheus`).

    from prometheus_client import REGISTRY
    from jobmill.contrib.prometheus import QueueCollector

    REGISTRY.register(QueueCollector([mail, reports]))

They are the fleet's, whichever process is scraped: scrape one, not each. Counters begin at 0 when
the collector first looks, and go back to that when its process starts again, as Prometheus
expects of a counter.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Final, cast

from prometheus_client import generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector, CollectorRegistry

from jobmill.errors import ConfigError, StoreError
from jobmill.metrics import Totals
from jobmill.queue import Queue
from jobmill.registry import registered
from jobmill.roster import Roster, read_roster
from jobmill.store import HISTOGRAM_BOUNDS, Bucket, Counts, Store

__all__ = ["QueueCollector"]

_OUTCOMES: Final = ("completed", "failed", "cancelled")
_BOUNDS: Final = tuple([repr(round(bound, 3)) for bound in HISTOGRAM_BOUNDS])


class _Families:
    """The metrics of one scrape, without samples at first."""

    def __init__(self) -> None:
        job = ("queue", "job_name")
        queue = ("queue",)
        self.ended = CounterMetricFamily(
            "jobmill_jobs_ended", "Jobs that ended, by outcome.", labels=(*job, "outcome")
        )
        self.started = CounterMetricFamily(
            "jobmill_runs_started", "Runs that were settled.", labels=job
        )
        self.retried = CounterMetricFamily(
            "jobmill_attempts_retried", "Attempts that failed and are tried again.", labels=job
        )
        self.lapsed = CounterMetricFamily(
            "jobmill_leases_lapsed", "Runs whose worker died.", labels=job
        )
        self.duration = HistogramMetricFamily(
            "jobmill_run_duration_seconds",
            "How long attempts took that succeeded or failed.",
            labels=job,
        )
        self.wait = HistogramMetricFamily(
            "jobmill_wait_duration_seconds",
            "How long jobs that were due waited for their start.",
            labels=job,
        )
        self.jobs = GaugeMetricFamily(
            "jobmill_jobs", "Records that are there now, by state.", labels=(*job, "state")
        )
        self.due = GaugeMetricFamily(
            "jobmill_queue_depth", "Jobs that are due and wait.", labels=queue
        )
        self.oldest = GaugeMetricFamily(
            "jobmill_oldest_due_seconds",
            "How long the oldest job that is due has waited.",
            labels=queue,
        )
        self.workers = GaugeMetricFamily("jobmill_workers", "Workers that beat.", labels=queue)
        self.blocked = GaugeMetricFamily(
            "jobmill_workers_blocked", "Workers whose event loop is blocked.", labels=queue
        )
        self.slots = GaugeMetricFamily(
            "jobmill_worker_slots", "Jobs that the workers can run at once.", labels=queue
        )
        self.busy = GaugeMetricFamily(
            "jobmill_worker_slots_busy", "Jobs that the workers run now.", labels=queue
        )
        self.memory = GaugeMetricFamily(
            "jobmill_worker_memory_bytes", "Memory of the workers' processes.", labels=queue
        )
        self.up = GaugeMetricFamily(
            "jobmill_store_up", "Whether the store could be asked: 1 or 0.", labels=queue
        )

    def all(self) -> list[Metric]:
        """Each metric, in a fixed order."""
        return cast("list[Metric]", list(vars(self).values()))

    def count(self, queue: str, bucket: Bucket) -> None:
        """Say what was counted under one job name."""
        labels = (queue, bucket.job_name)
        for outcome in _OUTCOMES:
            self.ended.add_metric((*labels, outcome), getattr(bucket, outcome))
        self.started.add_metric(labels, bucket.started)
        self.retried.add_metric(labels, bucket.retried)
        self.lapsed.add_metric(labels, bucket.lapsed)
        self.duration.add_metric(labels, _bars(bucket.run_histogram), bucket.run_sum)
        self.wait.add_metric(labels, _bars(bucket.wait_histogram), bucket.wait_sum)

    def show(self, queue: str, counts: Counts, roster: Roster, names: frozenset[str]) -> None:
        """Say what there is now."""
        states: dict[tuple[str, str], int] = {}
        for name, numbers in counts.by_name.items():
            shown = name if name in names else Totals.OTHER
            for state, number in numbers.items():
                states[shown, state] = states.get((shown, state), 0) + number
        for labels in sorted(states):
            self.jobs.add_metric((queue, *labels), states[labels])
        oldest = counts.now if counts.oldest_due is None else counts.oldest_due
        alive = [worker.entry for worker in roster.alive]
        for gauge, value in (
            (self.due, counts.due),
            (self.oldest, max(0.0, counts.now - oldest)),
            (self.workers, len(alive)),
            (self.blocked, sum(entry.blocked is not None for entry in alive)),
            (self.slots, sum(entry.slots for entry in alive)),
            (self.busy, sum(entry.busy for entry in alive)),
            (self.memory, sum(entry.memory or 0 for entry in alive)),
            (self.up, 1),
        ):
            gauge.add_metric((queue,), value)


class _Watched:
    """One queue, and what was counted in it since the first look."""

    def __init__(self, label: str, queue: Queue) -> None:
        self.label = label
        self.queue = queue
        self.totals = Totals()


class QueueCollector(Collector):
    """Gives Prometheus the figures of queues, over the whole fleet.

    Labels are the names of queues, or those that they were included under, of states, and of jobs:
    those that this process has defined, and `names`. Any other job counts as "other", so that no
    producer can make labels without end. A store that cannot be reached is `jobmill_store_up` 0,
    and nothing else of it is told.

    Cost: three statements a scrape for each queue.
    """

    def __init__(self, queues: Queue | Sequence[Queue], *, names: Iterable[str] = ()) -> None:
        some = [queues] if isinstance(queues, Queue) else list(queues)
        for each in cast("list[object]", some):
            if not isinstance(each, Queue):
                message = f"queues: {each!r} is no queue; give a Queue or a list of them"
                raise ConfigError(message, field="queues")
        self._watched = [_Watched(queue.name, queue) for queue in some]
        self._names = frozenset(names)
        self._lock = threading.Lock()

    def include(self, label: str, queue: Queue) -> None:
        """Tell of this queue, too, under the label, unless one is told of under it already."""
        if all(watched.label != label for watched in self._watched):
            self._watched.append(_Watched(label, queue))

    def describe(self) -> list[Metric]:
        """What is told, without any value; it asks no store."""
        return _Families().all()

    def collect(self) -> Iterator[Metric]:
        """What is told now, from a thread; it waits for the stores.

        In a program with an event loop, `exposition` does not block it.
        """
        families = _Families()
        for watched in self._watched:
            try:
                found = watched.queue.ask_sync(partial(_look, watched.totals))
            except (StoreError, ConfigError):
                found = None
            self._tell(families, watched, found)
        yield from families.all()

    async def exposition(self) -> bytes:
        """What is told now, in Prometheus's text format (`CONTENT_TYPE_LATEST`)."""
        families = _Families()
        for watched in self._watched:
            try:
                found = await watched.queue.ask(partial(_look, watched.totals))
            except (StoreError, ConfigError):
                found = None
            self._tell(families, watched, found)
        return generate_latest(cast("CollectorRegistry", _Ready(families.all())))

    def _tell(self, families: _Families, watched: _Watched, found: _Found | None) -> None:
        queue = watched.label
        if found is None:
            families.up.add_metric((queue,), 0)
            return
        counts, roster, buckets = found
        names = self._names | registered().keys()
        with self._lock:
            watched.totals.learn(buckets, counts.now, names)
            totals = watched.totals.buckets()
        for bucket in totals:
            families.count(queue, bucket)
        families.show(queue, counts, roster, frozenset(names))


class _Ready:
    """What is rendered as if it were a registry."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> list[Metric]:
        return self._metrics


_Found = tuple[Counts, Roster, list[Bucket]]


async def _look(totals: Totals, store: Store) -> _Found:
    """All that a scrape tells."""
    counts = await store.counts()
    roster = await read_roster(store, counts.now)
    return counts, roster, await store.metrics(totals.stale_from(counts.now))


def _bars(histogram: tuple[int, ...]) -> list[tuple[str, float]]:
    """The bars as Prometheus has them: each with all that is below."""
    counts = histogram or (0,) * (len(HISTOGRAM_BOUNDS) + 1)
    total = 0
    bars: list[tuple[str, float]] = []
    for bound, count in zip((*_BOUNDS, "+Inf"), counts, strict=True):
        total += count
        bars.append((bound, total))
    return bars
