"""What buckets add up to."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, strategies as st

from jobmill.metrics import Minutes, Totals, history, measured, quantile
from jobmill.states import Event, Move
from jobmill.tally import HISTOGRAM_BOUNDS, Bucket, Tally, bar_of

AFTER = {"succeed": "completed", "fail": "failed", "retry": "delayed", "abort": "cancelled"}


def histogram_of(times: list[float]) -> tuple[int, ...]:
    bars = [0] * (len(HISTOGRAM_BOUNDS) + 1)
    for seconds in times:
        bars[bar_of(seconds)] += 1
    return tuple(bars)


def a_bucket(minute: float, name: str = "a", *runs: tuple[Event, float, float]) -> Bucket:
    """What runs add up to, each an event, a wait and a duration."""
    tally = Tally(minute, name)
    for event, wait, took in runs:
        move = Move(event=event, job_id="j", token="t")
        started = minute + wait
        after: object = AFTER[event]
        tally.count(move, after, due=minute, started=started, now=started + took)  # type: ignore[arg-type]
    return tally.bucket()


@given(
    st.lists(st.floats(0.0, HISTOGRAM_BOUNDS[-1]), min_size=1, max_size=60),
    st.sampled_from([0.5, 0.95, 0.99]),
)
def test_a_percentile_is_at_worst_half_or_twice_what_it_should_be(
    times: list[float], share: float
) -> None:
    found = quantile(histogram_of(times), share)
    ordered = sorted(times)
    rank = share * len(ordered)
    # Where the rank falls between two values, either is right.
    exact = [ordered[min(len(ordered) - 1, max(0, int(rank) - 1))]]
    exact.append(ordered[min(len(ordered) - 1, int(rank))])
    low, high = min(exact), max(exact)
    assert low / 2 - 0.001 <= found <= max(0.001, high * 2) + 1e-9


def test_percentiles_of_known_times() -> None:
    times = [0.001 * n for n in range(1, 1_001)]
    random.Random(1).shuffle(times)
    bars = histogram_of(times)
    assert quantile(bars, 0.5) == pytest.approx(0.5, rel=0.05)
    assert quantile(bars, 0.95) == pytest.approx(0.95, rel=0.10)
    assert quantile((), 0.5) == 0.0
    assert quantile((0,) * len(bars), 0.5) == 0.0
    assert quantile(histogram_of([1e9]), 0.5) == HISTOGRAM_BOUNDS[-1]


def test_what_ended_is_added_up_altogether_and_by_job() -> None:
    buckets = [
        a_bucket(0.0, "a", ("succeed", 1.0, 2.0), ("succeed", 3.0, 4.0), ("retry", 0.0, 6.0)),
        a_bucket(0.0, "b", ("fail", 0.0, 8.0)),
        a_bucket(60.0, "a", ("abort", 0.0, 1.0), ("succeed", 0.0, 0.0)),
    ]
    found = measured(buckets, 0.0, 90.0, rate_since=60.0)
    assert (found.total_jobs, found.successful_jobs, found.failed_jobs) == (5, 3, 1)
    assert (found.cancelled_jobs, found.retried, found.lapsed) == (1, 1, 0)
    assert found.error_rate == 0.25
    assert found.average_duration == pytest.approx(20.0 / 5)
    assert found.average_wait == pytest.approx(4.0 / 6)
    assert found.throughput == pytest.approx(2 / 0.5)
    assert list(found.by_job) == ["a", "b"]
    assert (found.by_job["a"].total_jobs, found.by_job["b"].total_jobs) == (4, 1)
    assert found.by_job["b"].error_rate == 1.0
    assert (found.since.timestamp(), found.until.timestamp()) == (0.0, 90.0)


def test_nothing_adds_up_to_nothing() -> None:
    found = measured([], 0.0, 60.0)
    assert (found.total_jobs, found.error_rate, found.throughput, found.p99_wait) == (0, 0, 0, 0)
    assert found.by_job == {}
    assert history([], 60.0, 1e9) == []


def test_the_history_has_a_point_for_each_interval() -> None:
    buckets = [a_bucket(minute, "a", ("succeed", 0.0, 1.0)) for minute in (120.0, 180.0, 480.0)]
    points = history(buckets, 120.0, 500.0)
    assert [point.since.timestamp() for point in points] == [120.0, 240.0, 360.0, 480.0]
    assert [point.total_jobs for point in points] == [2, 0, 0, 1]
    assert points[0].throughput == 1.0
    assert points[-1].until.timestamp() == 500.0


class Kept:
    """A store's buckets, of which the current minute grows."""

    def __init__(self) -> None:
        self.buckets: dict[tuple[float, str], Bucket] = {}

    def count(self, at: float, name: str) -> None:
        minute = at // 60 * 60
        tally = Tally(minute, name)
        if (before := self.buckets.get((minute, name))) is not None:
            tally.add(before)
        tally.add(a_bucket(minute, name, ("succeed", 0.0, 1.0)))
        self.buckets[minute, name] = tally.bucket()

    def metrics(self, since: float) -> list[Bucket]:
        first = since // 60 * 60
        return [self.buckets[key] for key in sorted(self.buckets) if key[0] >= first]


@given(st.lists(st.tuples(st.floats(0.0, 200.0), st.sampled_from("abc"), st.booleans())))
def test_what_is_kept_of_minutes_is_what_the_store_would_say(
    steps: list[tuple[float, str, bool]],
) -> None:
    kept, minutes, now = Kept(), Minutes(), 10_000.0
    for later, name, look in steps:
        now += later
        kept.count(now, name)
        if look:
            since = now - 600.0
            stale = minutes.stale_from(since)
            minutes.learn(kept.metrics(stale), stale, since, now)
            assert minutes.since(since) == kept.metrics(since)


def test_minutes_that_are_over_are_read_once() -> None:
    minutes = Minutes()
    assert minutes.stale_from(0.0) == 0.0
    minutes.learn([], 0.0, 0.0, 6_000.0)
    assert minutes.stale_from(60.0) == 5_880.0
    assert minutes.stale_from(-60.0) == -60.0


@given(st.lists(st.tuples(st.floats(0.0, 200.0), st.sampled_from("abc"), st.booleans())))
def test_totals_count_each_job_once_from_the_first_look_on(
    steps: list[tuple[float, str, bool]],
) -> None:
    kept, totals, now = Kept(), Totals(), 10_000.0
    kept.count(now, "a")  # before the first look
    totals.learn(kept.metrics(totals.stale_from(now)), now, {"a", "b"})
    assert totals.buckets() == []
    expected: dict[str, int] = {}
    seen: dict[str, int] = {}
    for later, name, look in steps:
        now += later
        kept.count(now, name)
        shown = name if name in "ab" else "other"
        expected[shown] = expected.get(shown, 0) + 1
        if look:
            totals.learn(kept.metrics(totals.stale_from(now)), now, {"a", "b"})
            seen = {bucket.job_name: bucket.completed for bucket in totals.buckets()}
            assert seen == expected
            runs = {each.job_name: sum(each.run_histogram) for each in totals.buckets()}
            assert runs == expected


def test_an_older_answer_that_comes_later_doubles_nothing() -> None:
    kept, totals = Kept(), Totals()
    totals.learn([], 6_000.0, {"a"})
    older = kept.metrics(5_880.0)
    kept.count(6_010.0, "a")
    totals.learn(kept.metrics(5_880.0), 6_010.0, {"a"})
    totals.learn(older, 6_005.0, {"a"})
    totals.learn(kept.metrics(totals.stale_from(6_020.0)), 6_020.0, {"a"})
    assert [bucket.completed for bucket in totals.buckets()] == [1]


class Look:
    """A scrape under way: it is told the time, then it reads, then it is learnt."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.found: list[Bucket] | None = None


@pytest.mark.parametrize("later", [7.0, 45.0, 130.0])
def test_looks_at_once_count_each_job_once(later: float) -> None:
    for seed in range(400):
        dice = random.Random(seed)
        kept, totals, now = Kept(), Totals(), 10_000.0
        totals.learn([], now, {"a"})
        looks: list[Look] = []
        counted = 0
        for step in ("count", *dice.choices(["count", "ask", "read", "learn"], k=40)):
            if step == "count":
                now += dice.uniform(0.0, later)
                kept.count(now, "a")
                counted += 1
            elif step == "ask":
                looks.append(Look(now))
            elif step == "read":
                unread = [look for look in looks if look.found is None]
                for look in dice.sample(unread, (len(unread) + 1) // 2):
                    look.found = kept.metrics(totals.stale_from(look.now))
            elif ready := [look for look in looks if look.found is not None]:
                look = dice.choice(ready)
                looks.remove(look)
                totals.learn(look.found or [], look.now, {"a"})
                shown = sum(each.completed for each in totals.buckets())
                assert shown <= counted, seed
        totals.learn(kept.metrics(totals.stale_from(now)), now, {"a"})
        assert [each.completed for each in totals.buckets()] == [counted], seed
