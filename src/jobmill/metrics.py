"""What the buckets of a queue add up to: totals, rates, percentiles, and a history."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final

from jobmill.tally import HISTOGRAM_BOUNDS, Bucket, Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class JobMetrics:
    """What ended in a stretch of time, over the whole fleet, whichever process asks.

    `total_jobs` ended: `successful_jobs`, `failed_jobs` and `cancelled_jobs`. `error_rate` is
    the share that failed of those that succeeded or failed. `throughput` is the jobs that ended
    a minute, lately. `retried` counts attempts that were put off to be tried again, `lapsed` runs
    whose worker died. `by_job` has the same for each job name.

    Units: seconds. Durations are those of attempts that succeeded or failed, waits those from
    the instant at which a job was due to its start. Averages are exact. Percentiles come out of
    counts in bars from 1 ms on that are twice as wide each, and are interpolated within one: at
    worst half, or twice, what they should be; below 1 ms, at worst 1 ms off. Where nothing was
    counted all are 0.
    """

    since: datetime
    until: datetime
    total_jobs: int = 0
    successful_jobs: int = 0
    failed_jobs: int = 0
    cancelled_jobs: int = 0
    retried: int = 0
    lapsed: int = 0
    throughput: float = 0.0
    error_rate: float = 0.0
    average_duration: float = 0.0
    p50_duration: float = 0.0
    p95_duration: float = 0.0
    p99_duration: float = 0.0
    average_wait: float = 0.0
    p50_wait: float = 0.0
    p95_wait: float = 0.0
    p99_wait: float = 0.0
    by_job: Mapping[str, JobMetrics] = field(default_factory=dict[str, "JobMetrics"])


def quantile(histogram: Sequence[int], share: float) -> float:
    """The value below which `share` of what a histogram counted lies, interpolated in its bar.

    What is above the last bound counts as that bound. 0 where nothing was counted.
    """
    total = sum(histogram)
    if not total:
        return 0.0
    rank = share * total
    below = 0
    for index, count in enumerate(histogram):
        if count and below + count >= rank:
            if index >= len(HISTOGRAM_BOUNDS):
                break
            upper = HISTOGRAM_BOUNDS[index]
            lower = HISTOGRAM_BOUNDS[index - 1] if index else 0.0
            return lower + (upper - lower) * max(0.0, rank - below) / count
        below += count
    return HISTOGRAM_BOUNDS[-1]


class _Sums:
    """What some buckets add up to, altogether and by job."""

    def __init__(self) -> None:
        self.all = Tally(0.0, "")
        self.by_job: dict[str, Tally] = {}
        self.lately = 0
        self.lately_by_job: dict[str, int] = {}

    def add(self, bucket: Bucket, *, lately: bool) -> None:
        """Count all that the bucket counted."""
        name = bucket.job_name
        if name not in self.by_job:
            self.by_job[name] = Tally(0.0, name)
        self.all.add(bucket)
        self.by_job[name].add(bucket)
        if lately:
            ended = _ended(bucket)
            self.lately += ended
            self.lately_by_job[name] = self.lately_by_job.get(name, 0) + ended


def measured(
    buckets: Iterable[Bucket], since: float, until: float, *, rate_since: float | None = None
) -> JobMetrics:
    """What the buckets add up to.

    `throughput` is taken from the instant `rate_since` on, where it is given, and from `since`
    otherwise.
    """
    rate_from = since if rate_since is None else max(since, rate_since)
    sums = _Sums()
    for bucket in buckets:
        sums.add(bucket, lately=bucket.minute >= rate_from)
    minutes = max(until - rate_from, 1.0) / 60.0
    span = datetime.fromtimestamp(since, UTC), datetime.fromtimestamp(until, UTC)
    by_job = {
        name: _metrics(sums.by_job[name].bucket(), span, sums.lately_by_job.get(name, 0) / minutes)
        for name in sorted(sums.by_job)
    }
    return _metrics(sums.all.bucket(), span, sums.lately / minutes, MappingProxyType(by_job))


def history(buckets: Iterable[Bucket], interval: float, until: float) -> list[JobMetrics]:
    """One point for each interval, the oldest first; the last one goes on until now.

    It begins with the first interval in which something was counted, and leaves none out.
    """
    by_start: dict[float, list[Bucket]] = {}
    for bucket in buckets:
        by_start.setdefault(bucket.minute // interval * interval, []).append(bucket)
    if not by_start:
        return []
    points: list[JobMetrics] = []
    start = min(by_start)
    while start <= until:
        points.append(measured(by_start.get(start, ()), start, min(start + interval, until)))
        start += interval
    return points


def attempts_of(buckets: Iterable[Bucket]) -> tuple[int, int]:
    """How many attempts failed, and how many succeeded or failed.

    A job that failed without a run counts as an attempt that failed.
    """
    failed = good = 0
    for bucket in buckets:
        failed += bucket.failed + bucket.retried
        good += bucket.completed
    return failed, failed + good


class Minutes:
    """Buckets of a queue as they were read last, so that a minute that is over is read once."""

    def __init__(self) -> None:
        self._by_minute: dict[float, list[Bucket]] = {}
        self._from = float("inf")
        self._seen = float("-inf")

    def stale_from(self, since: float) -> float:
        """The instant from which the buckets have to be read again, to know them from `since` on.

        A minute may still get what was under way when it ended, for a minute at most.
        """
        return since if since < self._from else max(since, self._seen - 120.0)

    def learn(self, buckets: Iterable[Bucket], stale_from: float, since: float, now: float) -> None:
        """Take what was read from `stale_from` on, and forget what is older than `since`."""
        first = stale_from // 60 * 60
        kept = since // 60 * 60
        for minute in [each for each in self._by_minute if each >= first or each < kept]:
            del self._by_minute[minute]
        for bucket in buckets:
            self._by_minute.setdefault(bucket.minute, []).append(bucket)
        self._from, self._seen = since, now

    def since(self, since: float) -> list[Bucket]:
        """The buckets from the minute of an instant on, in order."""
        first = since // 60 * 60
        return [
            bucket
            for minute in sorted(self._by_minute)
            if minute >= first
            for bucket in self._by_minute[minute]
        ]


class Totals:
    """What was counted since the first look, by job name; it only ever grows.

    `names` are those that are counted by themselves: what is under another name, which nobody
    here has defined, counts as OTHER.
    """

    OTHER: Final = "other"

    def __init__(self) -> None:
        self._by_name: dict[str, Tally] = {}
        self._last: dict[tuple[float, str], Bucket] = {}
        self._now: float | None = None

    def stale_from(self, now: float) -> float:
        """The instant from which the buckets have to be read for the next look."""
        return (now if self._now is None else self._now) - 120.0

    def learn(self, buckets: Iterable[Bucket], now: float, names: Collection[str]) -> None:
        """Count what the buckets have more than at the last look.

        Of looks at once, that of an older `now` is ignored where it is answered later: the next
        look has all that it had.
        """
        first = self._now is None
        if self._now is not None and now < self._now:
            return
        over = self.stale_from(now) // 60 * 60
        recent = (now - 120.0) // 60 * 60
        # What this look does not have, one that began sooner, and read later, may have counted.
        last = {key: bucket for key, bucket in self._last.items() if key[0] >= recent}
        for bucket in buckets:
            if bucket.minute < over:
                # This look began before one that has counted it for the last time.
                continue
            key = bucket.minute, bucket.job_name
            before = self._last.get(key)
            if before is not None and _size(bucket) < _size(before):
                # Of two looks at once, the one that began later was answered sooner.
                last[key] = before
                continue
            last[key] = bucket
            if first or bucket == before:
                continue
            name = bucket.job_name if bucket.job_name in names else self.OTHER
            tally = self._by_name.setdefault(name, Tally(0.0, name))
            tally.add(_more(bucket, before))
        self._last, self._now = last, now

    def buckets(self) -> list[Bucket]:
        """What was counted, one bucket for each name, by name."""
        return [self._by_name[name].bucket() for name in sorted(self._by_name)]


_COUNTED: Final = (
    *("started", "completed", "failed", "retried", "cancelled", "lapsed", "run_sum", "wait_sum"),
)


def _size(bucket: Bucket) -> int:
    return bucket.started + bucket.retried + bucket.lapsed + _ended(bucket)


def _more(bucket: Bucket, before: Bucket | None) -> Bucket:
    if before is None:
        return bucket
    counts = {name: getattr(bucket, name) - getattr(before, name) for name in _COUNTED}
    return Bucket(
        minute=bucket.minute,
        job_name=bucket.job_name,
        run_histogram=_less(bucket.run_histogram, before.run_histogram),
        wait_histogram=_less(bucket.wait_histogram, before.wait_histogram),
        **counts,
    )


def _less(bars: tuple[int, ...], others: tuple[int, ...]) -> tuple[int, ...]:
    if not bars or not others:
        return bars
    return tuple([bar - other for bar, other in zip(bars, others, strict=True)])


def _ended(bucket: Bucket) -> int:
    return bucket.completed + bucket.failed + bucket.cancelled


def _metrics(
    sums: Bucket,
    span: tuple[datetime, datetime],
    throughput: float,
    by_job: Mapping[str, JobMetrics] = MappingProxyType({}),
) -> JobMetrics:
    judged = sums.completed + sums.failed
    runs, waits = sum(sums.run_histogram), sum(sums.wait_histogram)
    return JobMetrics(
        since=span[0],
        until=span[1],
        total_jobs=_ended(sums),
        successful_jobs=sums.completed,
        failed_jobs=sums.failed,
        cancelled_jobs=sums.cancelled,
        retried=sums.retried,
        lapsed=sums.lapsed,
        throughput=throughput,
        error_rate=sums.failed / judged if judged else 0.0,
        average_duration=sums.run_sum / runs if runs else 0.0,
        p50_duration=quantile(sums.run_histogram, 0.50),
        p95_duration=quantile(sums.run_histogram, 0.95),
        p99_duration=quantile(sums.run_histogram, 0.99),
        average_wait=sums.wait_sum / waits if waits else 0.0,
        p50_wait=quantile(sums.wait_histogram, 0.50),
        p95_wait=quantile(sums.wait_histogram, 0.95),
        p99_wait=quantile(sums.wait_histogram, 0.99),
        by_job=by_job,
    )
