"""What `events`, `errors` and `metrics` promise."""

from __future__ import annotations

import pytest

from jobmill.states import Event
from jobmill.store import HISTOGRAM_BOUNDS, Bucket, Store
from jobmill.tally import bar_of
from jobmill.testing.contract.case import (
    T0,
    StoreCase,
    a_job,
    claim,
    in_state,
    move,
    on_a_store,
    running,
    some_jobs,
)

_NO_BARS = (0,) * (len(HISTOGRAM_BOUNDS) + 1)


def _counts(bucket: Bucket) -> dict[str, int]:
    names = ("started", "completed", "failed", "retried", "cancelled", "lapsed")
    return {name: count for name in names if (count := getattr(bucket, name))}


def _bars(histogram: tuple[int, ...]) -> dict[int, int]:
    return {index: count for index, count in enumerate(histogram or _NO_BARS) if count}


async def _buckets(store: Store, since: float = T0) -> list[Bucket]:
    """The buckets in which something was counted; whether others are there is left open."""
    return [bucket for bucket in await store.metrics(since) if _counts(bucket)]


class FigureContract(StoreCase):
    """What is counted is moved together with the outcome."""

    # ------------------------------------------------------------------ events

    @on_a_store
    async def test_ends_and_retries_are_told_in_order(self, store: Store) -> None:
        await in_state(store, "completed", "c")
        await in_state(store, "failed", "f", name="b")
        await running(store, "r")
        await move(store, "retry", "r", "t-r", delay=5.0, now=T0 + 1)
        await move(store, "cancel", "r", now=T0 + 2)
        events = await store.events(0, 10)
        assert [(event.job_id, event.job_name, event.kind, event.at) for event in events] == [
            ("c", "a", "completed", T0),
            ("f", "b", "failed", T0),
            ("r", "a", "retried", T0 + 1),
            ("r", "a", "cancelled", T0 + 2),
        ]
        seqs = [event.seq for event in events]
        assert seqs == sorted(set(seqs))
        assert seqs[0] > 0

    @pytest.mark.parametrize("event", ["snooze", "release", "lapse"])
    @on_a_store
    async def test_nothing_else_is_told(self, store: Store, event: Event) -> None:
        await running(store)
        await move(store, event, token="t1", delay=5.0)
        await move(store, "hasten")
        await claim(store, "t2")
        await move(store, "cancel")
        assert await store.events(0, 10) == []

    @pytest.mark.parametrize("event", ["retry", "snooze", "release", "lapse"])
    @on_a_store
    async def test_an_asked_job_that_is_put_off_is_told_as_cancelled(
        self, store: Store, event: Event
    ) -> None:
        await running(store)
        await move(store, "cancel")
        await move(store, event, token="t1")
        assert [told.kind for told in await store.events(0, 10)] == ["cancelled"]

    @on_a_store
    async def test_events_go_on_after_an_entry(self, store: Store) -> None:
        await store.add(some_jobs(5), now=T0)
        for job in some_jobs(5):
            await move(store, "cancel", job.id)
        first = await store.events(0, 2)
        assert [event.job_id for event in first] == ["j1", "j2"]
        then = await store.events(first[-1].seq, 2)
        assert [event.job_id for event in then] == ["j3", "j4"]
        last = await store.events(then[-1].seq, 2)
        assert [event.job_id for event in last] == ["j5"]
        assert await store.events(last[-1].seq, 2) == []
        assert await store.events(None, 9) == last

    @on_a_store
    async def test_a_new_listener_to_a_silent_queue_gets_nothing(self, store: Store) -> None:
        assert await store.events(None, 10) == []
        assert await store.events(0, 10) == []

    # ------------------------------------------------------------------ errors

    @on_a_store
    async def test_errors_are_grouped_by_fingerprint(self, store: Store) -> None:
        await running(store)
        await move(store, "retry", token="t1", error=b"1", fingerprint="f", now=T0 + 1)
        await claim(store, "t2", now=T0 + 1)
        await move(store, "fail", token="t2", error=b"2", fingerprint="g", now=T0 + 2)
        await running(store, "j2", name="b", now=T0 + 2)
        await move(store, "fail", "j2", "t-j2", error=b"3", fingerprint="f", now=T0 + 3)
        groups = await store.errors(10)
        assert [(group.fingerprint, group.count) for group in groups] == [("f", 2), ("g", 1)]
        last = groups[0]
        assert (last.first_seen, last.last_seen) == (T0 + 1, T0 + 3)
        assert (last.last_job_id, last.job_name, last.last_error) == ("j2", "b", b"3")
        assert [group.fingerprint for group in await store.errors(1)] == ["f"]

    @on_a_store
    async def test_an_error_without_fingerprint_is_in_no_group(self, store: Store) -> None:
        await running(store)
        await move(store, "fail", token="t1", error=b"1")
        assert await store.errors(10) == []

    # ------------------------------------------------------------------ metrics

    @on_a_store
    async def test_a_success_is_counted_with_its_times(self, store: Store) -> None:
        await store.add([a_job()], now=T0)
        await claim(store, now=T0 + 2)
        await move(store, "succeed", token="t1", now=T0 + 7)
        (bucket,) = await _buckets(store)
        assert (bucket.minute, bucket.job_name) == (T0, "a")
        assert _counts(bucket) == {"started": 1, "completed": 1}
        assert (bucket.wait_sum, bucket.run_sum) == (2.0, 5.0)
        assert _bars(bucket.wait_histogram) == {bar_of(2.0): 1}
        assert _bars(bucket.run_histogram) == {bar_of(5.0): 1}

    @pytest.mark.parametrize(
        ("event", "counted", "timed"),
        [
            ("succeed", {"started": 1, "completed": 1}, True),
            ("retry", {"started": 1, "retried": 1}, True),
            ("fail", {"started": 1, "failed": 1}, True),
            ("snooze", {"started": 1}, False),
            ("release", {"started": 1}, False),
            ("abort", {"started": 1, "cancelled": 1}, False),
            ("lapse", {"started": 1, "lapsed": 1}, False),
        ],
    )
    @on_a_store
    async def test_each_settle_is_counted(
        self, store: Store, event: Event, counted: dict[str, int], timed: bool
    ) -> None:
        await running(store)
        await move(store, event, token="t1", delay=9.0, now=T0 + 3)
        (bucket,) = await _buckets(store)
        assert _counts(bucket) == counted
        assert bucket.run_sum == (3.0 if timed else 0.0)
        assert _bars(bucket.run_histogram) == ({bar_of(3.0): 1} if timed else {})
        assert _bars(bucket.wait_histogram) == {bar_of(0.0): 1}

    @on_a_store
    async def test_a_lapsed_failure_is_counted_as_both(self, store: Store) -> None:
        await running(store)
        await move(store, "fail", token="t1", lapsed=True, now=T0 + 3)
        (bucket,) = await _buckets(store)
        assert _counts(bucket) == {"started": 1, "failed": 1, "lapsed": 1}
        assert bucket.run_sum == 0.0

    @on_a_store
    async def test_an_asked_retry_is_counted_as_cancelled(self, store: Store) -> None:
        await running(store)
        await move(store, "cancel", now=T0 + 1)
        await move(store, "retry", token="t1", now=T0 + 3)
        (bucket,) = await _buckets(store)
        assert _counts(bucket) == {"started": 1, "cancelled": 1}

    @on_a_store
    async def test_a_cancel_without_a_run_is_no_start(self, store: Store) -> None:
        await in_state(store, "delayed")
        await move(store, "cancel")
        (bucket,) = await _buckets(store)
        assert _counts(bucket) == {"cancelled": 1}

    @on_a_store
    async def test_what_did_not_reach_its_handler_is_no_start(self, store: Store) -> None:
        await running(store)
        await move(store, "snooze", token="t1", untried=True)
        await claim(store, "t2")
        await move(store, "release", token="t2", untried=True)
        assert await _buckets(store) == []

    @on_a_store
    async def test_the_wait_counts_from_the_instant_it_came_due(self, store: Store) -> None:
        await running(store)
        await move(store, "retry", token="t1", delay=10.0)
        await claim(store, "t2", now=T0 + 14)
        await move(store, "succeed", token="t2", now=T0 + 15)
        (bucket,) = await _buckets(store)
        assert (bucket.wait_sum, bucket.run_sum) == (4.0, 1.0)

    @on_a_store
    async def test_long_and_short_times_have_bars(self, store: Store) -> None:
        for id_, seconds in (("j1", 0.0), ("j2", HISTOGRAM_BOUNDS[3]), ("j3", 1e6)):
            await running(store, id_)
            token = "t1" if id_ == "j1" else f"t-{id_}"
            await move(store, "succeed", id_, token, now=T0 + seconds)
        found = [bucket.run_histogram for bucket in await _buckets(store)]
        bars = [sum(bar) for bar in zip(*[bar or _NO_BARS for bar in found], strict=True)]
        assert len(bars) == len(HISTOGRAM_BOUNDS) + 1
        assert (bars[0], sum(bars[:6]), bars[-1], sum(bars)) == (1, 2, 1, 3)

    @on_a_store
    async def test_buckets_are_by_minute_and_name(self, store: Store) -> None:
        for minute, name in ((0, "b"), (0, "a"), (2, "a"), (0, "a")):
            id_ = f"{minute}{name}{len(await store.events(0, 99))}"
            await running(store, id_, name=name, now=T0 + 60 * minute)
            await move(store, "succeed", id_, f"t-{id_}", now=T0 + 60 * minute + 59)
        buckets = await _buckets(store)
        assert [(each.minute, each.job_name, each.completed) for each in buckets] == [
            (T0, "a", 2),
            (T0, "b", 1),
            (T0 + 120, "a", 1),
        ]
        assert [each.minute for each in await _buckets(store, T0 + 59)] == [T0, T0, T0 + 120]
        assert [each.minute for each in await _buckets(store, T0 + 60)] == [T0 + 120]
        assert await _buckets(store, T0 + 180) == []
