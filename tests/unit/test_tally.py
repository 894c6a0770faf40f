"""What was settled is counted once, into the right bars."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from jobmill.states import Event, Move, State
from jobmill.tally import HISTOGRAM_BOUNDS, Bucket, Tally, bar_of, minute_of

_NO_BARS = (0,) * (len(HISTOGRAM_BOUNDS) + 1)


@pytest.mark.parametrize(
    ("seconds", "bar"),
    [(0.0, 0), (0.001, 0), (0.0010001, 1), (0.002, 1), (0.0021, 2), (1e9, len(HISTOGRAM_BOUNDS))],
)
def test_a_bound_is_the_last_time_of_its_bar(seconds: float, bar: int) -> None:
    assert bar_of(seconds) == bar


@given(st.floats(0, 1e9))
def test_every_time_has_a_bar(seconds: float) -> None:
    bar = bar_of(seconds)
    assert bar == 0 or seconds > HISTOGRAM_BOUNDS[bar - 1]
    assert bar == len(HISTOGRAM_BOUNDS) or seconds <= HISTOGRAM_BOUNDS[bar]


def test_a_minute_is_its_first_instant() -> None:
    assert [minute_of(at) for at in (0.0, 59.9, 60.0, 61.0)] == [0.0, 0.0, 60.0, 60.0]


def counted(event: Event, after: State, **fields: Any) -> Bucket:
    tally = Tally(0.0, "a")
    move = Move(event=event, job_id="j", token="t", **fields)
    tally.count(move, after, due=1.0, started=3.0, now=8.0)
    return tally.bucket()


def test_a_success_counts_its_times() -> None:
    bucket = counted("succeed", "completed")
    assert (bucket.started, bucket.completed, bucket.run_sum, bucket.wait_sum) == (1, 1, 5.0, 2.0)
    assert (sum(bucket.run_histogram), sum(bucket.wait_histogram)) == (1, 1)
    assert (bucket.run_histogram[bar_of(5.0)], bucket.wait_histogram[bar_of(2.0)]) == (1, 1)


def test_a_worker_that_died_leaves_no_run_time() -> None:
    for bucket in (counted("lapse", "pending"), counted("fail", "failed", lapsed=True)):
        assert (bucket.started, bucket.lapsed, bucket.run_sum) == (1, 1, 0.0)
        assert bucket.run_histogram == ()


def test_a_handler_that_was_not_reached_started_nothing() -> None:
    assert counted("snooze", "delayed", untried=True) == Bucket(minute=0.0, job_name="a")


def test_a_retry_that_was_cancelled_is_no_retry() -> None:
    bucket = counted("retry", "cancelled")
    assert (bucket.retried, bucket.cancelled, bucket.run_sum) == (0, 1, 5.0)


def test_a_clock_that_was_set_back_counts_no_negative_time() -> None:
    tally = Tally(0.0, "a")
    tally.count(Move(event="succeed", job_id="j"), "completed", due=9.0, started=5.0, now=1.0)
    bucket = tally.bucket()
    assert (bucket.run_sum, bucket.wait_sum) == (0.0, 0.0)


def test_buckets_add_up() -> None:
    total = Tally(0.0, "a")
    one, two = counted("succeed", "completed"), counted("retry", "delayed")
    for bucket in (one, Bucket(minute=0.0, job_name="a"), two):
        total.add(bucket)
    added = total.bucket()
    assert (added.started, added.completed, added.retried) == (2, 1, 1)
    assert (added.run_sum, added.wait_sum) == (10.0, 4.0)
    assert sum(added.run_histogram) == sum(added.wait_histogram) == 2
    assert len(added.run_histogram) == len(_NO_BARS)
