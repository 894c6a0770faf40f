"""The rule of schedules: misfires, limits, windows and pauses, against another way to say it."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st

from jobmill.policy import Policy
from jobmill.schedule import (
    CAUGHT_UP,
    KEPT_TICKS,
    Entry,
    Plan,
    created,
    decode_plan,
    encode_plan,
    job_id,
    paused,
    replaced,
    resumed,
    step,
    tick_key,
    tick_of,
    upcoming,
)

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC).timestamp()


def a_plan(**fields: Any) -> Plan:
    some = {"id": "1", "job": "j", "payload": msgspec.Raw(b"{}"), "policy": Policy()}
    return Plan(**{**some, "cron": "* * * * *", **fields})


def outcomes(plan: Plan, now: float, *, busy: bool = False) -> dict[float, str]:
    todo = step(plan, now, queue="q", name="n", blocker="b" if busy else None)
    if todo is None:
        return {}
    entries = {
        int(key) / 1e6: msgspec.json.decode(value, type=Entry) for key, value in todo.entries
    }
    fired = [at for at, entry in entries.items() if entry.outcome == "fired"]
    assert [at for at, _ in todo.fires] == fired
    assert [made for _, made in todo.fires] == [entries[at].job_id for at in fired]
    assert todo.plan.runs == plan.runs + len(fired)
    assert todo.plan.last_run == (fired[-1] if fired else plan.last_run)
    return {at: entry.outcome for at, entry in entries.items()}


def after(plan: Plan, now: float, *, busy: bool = False) -> Plan:
    todo = step(plan, now, queue="q", name="n", blocker="b" if busy else None)
    assert todo is not None
    return todo.plan


# -------------------------------------------------------------------- misfires


def test_nothing_is_due_before_its_time() -> None:
    plan = a_plan(next_run=NOON)
    assert step(plan, NOON - 0.001, queue="q", name="n") is None
    assert outcomes(plan, NOON) == {NOON: "fired"}
    assert after(plan, NOON).next_run == NOON + 60
    assert step(a_plan(), NOON, queue="q", name="n") is None


def test_run_once_fires_the_last_however_late() -> None:
    plan = a_plan(next_run=NOON)
    now = NOON + 179.9
    assert outcomes(plan, now) == {NOON: "missed", NOON + 60: "missed", NOON + 120: "fired"}
    assert outcomes(a_plan(cron="0 12 * * *", next_run=NOON), NOON + 80_000) == {NOON: "fired"}


@pytest.mark.parametrize(("late", "outcome"), [(30.0, "fired"), (30.1, "missed")])
def test_skip_fires_the_last_within_its_grace_of_thirty_seconds(late: float, outcome: str) -> None:
    plan = a_plan(next_run=NOON, misfire="skip")
    assert outcomes(plan, NOON + 60 + late) == {NOON: "missed", NOON + 60: outcome}
    assert after(plan, NOON + 60 + late).next_run == NOON + 120
    own = a_plan(next_run=NOON, misfire="skip", misfire_grace=5.0)
    assert outcomes(own, NOON + 5.0) == {NOON: "fired"}
    assert outcomes(own, NOON + 5.1) == {NOON: "missed"}


def test_catch_up_fires_each_in_order_and_a_hundred_at_most() -> None:
    plan = a_plan(next_run=NOON, misfire="catch_up")
    told = outcomes(plan, NOON + 149 * 60)
    assert list(told.values()) == ["missed"] * 50 + ["fired"] * CAUGHT_UP
    assert list(told) == [NOON + 60 * n for n in range(150)]
    assert after(plan, NOON + 149 * 60).next_run == NOON + 150 * 60


@pytest.mark.parametrize("misfire", ["run_once", "catch_up", "skip"])
def test_a_year_of_missed_seconds_takes_a_thousand_entries(misfire: str) -> None:
    plan = a_plan(cron="* * * * * *", next_run=NOON, misfire=misfire)
    now = NOON + 365 * 86_400.0
    todo = step(plan, now, queue="q", name="n")
    assert todo is not None
    assert len(todo.entries) == KEPT_TICKS
    assert [key for key, _ in todo.entries] == sorted(key for key, _ in todo.entries)
    oldest = tick_of(*todo.entries[0], "UTC")
    assert oldest.outcome == "missed"
    assert oldest.at.timestamp() == NOON
    assert oldest.until is not None
    # Without a gap: it goes on right after the many.
    assert tick_of(*todo.entries[1], "UTC").at.timestamp() == oldest.until.timestamp() + 1
    assert tick_of(*todo.entries[-1], "UTC").at.timestamp() == now
    assert len(todo.fires) == (CAUGHT_UP if misfire == "catch_up" else 1)


def test_a_fraction_of_a_second_belongs_to_the_first_tick_of_run_on_start() -> None:
    plan = created(a_plan(cron="0 0 * * *"), NOON + 0.25, at_once=True)
    assert plan.next_run == NOON + 0.25
    assert outcomes(plan, NOON + 1) == {NOON + 0.25: "fired"}
    assert after(plan, NOON + 1).next_run == NOON + 12 * 3600


# -------------------------------------------------------------------- limits


def test_after_the_last_run_there_is_no_next() -> None:
    plan = a_plan(next_run=NOON, max_runs=3, runs=1, misfire="catch_up")
    told = outcomes(plan, NOON + 600)
    assert told == {NOON: "fired", NOON + 60: "fired"}
    assert after(plan, NOON + 600).next_run is None
    assert after(plan, NOON + 600).runs == 3


def test_end_date_is_the_last_allowed_instant_and_a_tick_before_it_may_run_late() -> None:
    plan = a_plan(next_run=NOON, end_date=NOON + 60)
    assert outcomes(plan, NOON + 600) == {NOON: "missed", NOON + 60: "fired"}
    assert after(plan, NOON).next_run == NOON + 60
    assert after(plan, NOON + 60).next_run is None
    assert created(a_plan(end_date=NOON), NOON, at_once=False).next_run is None
    assert created(a_plan(end_date=NOON), NOON + 1, at_once=True).next_run is None


def test_start_date_is_the_first_allowed_instant_and_no_misfire() -> None:
    assert created(a_plan(start_date=NOON), NOON - 500, at_once=False).next_run == NOON
    assert created(a_plan(start_date=NOON + 0.5), NOON - 500, at_once=False).next_run == NOON + 60
    assert created(a_plan(start_date=NOON), NOON + 500, at_once=False).next_run == NOON + 540
    assert created(a_plan(start_date=NOON + 5), NOON, at_once=True).next_run == NOON + 5


def test_what_would_overlap_is_skipped() -> None:
    plan = a_plan(next_run=NOON, allow_concurrent=False)
    assert outcomes(plan, NOON, busy=True) == {NOON: "skipped"}
    assert after(plan, NOON, busy=True).runs == 0
    late = a_plan(next_run=NOON, allow_concurrent=False, misfire="catch_up")
    assert outcomes(late, NOON + 60) == {NOON: "fired", NOON + 60: "skipped"}
    assert outcomes(late, NOON + 60, busy=True) == {NOON: "skipped", NOON + 60: "skipped"}


@pytest.mark.parametrize("single", [{"allow_concurrent": False}, {"unique_key": "k"}])
def test_a_skipped_tick_names_the_job_that_is_in_its_way(single: dict[str, Any]) -> None:
    plan = a_plan(next_run=NOON, misfire="catch_up", max_runs=9, **single)
    todo = step(plan, NOON + 60, queue="q", name="n")
    assert todo is not None
    ((_, fired),) = todo.fires
    told = [tick_of(*entry, "UTC") for entry in todo.entries]
    assert [(tick.outcome, tick.job_id) for tick in told] == [("fired", fired), ("skipped", fired)]
    assert (todo.plan.runs, todo.plan.last_job_id) == (1, fired)
    todo = step(plan, NOON + 60, queue="q", name="n", blocker="other")
    assert todo is not None
    told = [tick_of(*entry, "UTC") for entry in todo.entries]
    assert [(tick.outcome, tick.job_id) for tick in told] == [("skipped", "other")] * 2
    assert (todo.plan.runs, todo.fires) == (0, ())
    assert todo.plan.next_run == NOON + 120


def test_one_that_runs_once_has_one_tick() -> None:
    once = created(a_plan(cron=None, at=NOON), NOON + 9_999, at_once=False)
    assert once.next_run == NOON
    assert outcomes(once, NOON + 9_999) == {NOON: "fired"}
    fired = after(once, NOON + 9_999)
    assert fired.next_run is None
    assert replaced(fired, a_plan(cron=None, at=NOON), NOON + 9_999).next_run is None
    other = replaced(fired, a_plan(cron=None, at=NOON + 60), NOON + 9_999)
    assert outcomes(other, NOON + 9_999) == {NOON + 60: "fired"}


# -------------------------------------------------------------------- changes


def test_a_pause_has_no_next_tick_and_a_resume_makes_none_up() -> None:
    plan = a_plan(next_run=NOON, last_run=NOON - 60)
    asleep = paused(plan)
    assert asleep.next_run is None
    assert step(asleep, NOON + 600, queue="q", name="n") is None
    assert resumed(asleep, NOON + 30).next_run == NOON + 60
    once = paused(created(a_plan(cron=None, at=NOON), NOON, at_once=False))
    assert resumed(once, NOON - 1).next_run == NOON
    assert resumed(once, NOON + 1).next_run is None


def test_a_replacement_keeps_a_missed_tick_of_the_same_instants() -> None:
    old = a_plan(cron="0 12 * * *", next_run=NOON, runs=4, last_run=NOON - 86_400, id="old")
    same = replaced(old, a_plan(cron="00 12 * * *", id="new"), NOON + 500)
    assert (same.id, same.runs, same.next_run) == ("old", 4, NOON)
    other = replaced(old, a_plan(cron="0 13 * * *"), NOON + 500)
    assert (other.runs, other.next_run) == (4, NOON + 3600)
    zoned = replaced(old, a_plan(cron="0 12 * * *", timezone="Europe/Berlin"), NOON + 500)
    assert zoned.next_run == NOON + 23 * 3600
    assert replaced(paused(old), a_plan(cron="0 12 * * *"), NOON).next_run is None
    assert replaced(paused(old), a_plan(cron="0 12 * * *"), NOON).paused
    ended = replaced(old, a_plan(cron="0 12 * * *", max_runs=4), NOON)
    assert ended.next_run is None
    more = replaced(ended, a_plan(cron="0 12 * * *", max_runs=5), NOON)
    assert more.next_run == NOON + 86_400
    assert replaced(old, a_plan(cron="0 12 * * *", end_date=NOON - 1), NOON).next_run is None
    later = replaced(old, a_plan(cron="0 12 * * *", start_date=NOON + 1), NOON)
    assert later.next_run == NOON + 86_400


def test_a_replacement_that_starts_sooner_swallows_no_tick() -> None:
    old = created(a_plan(start_date=NOON + 600), NOON, at_once=False)
    assert old.next_run == NOON + 600
    assert replaced(old, a_plan(), NOON).next_run == NOON + 60
    assert replaced(old, a_plan(start_date=NOON + 300), NOON).next_run == NOON + 300
    assert replaced(old, a_plan(start_date=NOON + 600), NOON).next_run == NOON + 600
    # A first tick that no cron names stays where it is.
    first = created(a_plan(start_date=NOON + 90), NOON, at_once=True)
    assert replaced(first, a_plan(start_date=NOON + 90), NOON).next_run == NOON + 90


def test_a_clock_that_is_behind_plans_nothing_that_has_fired() -> None:
    old = a_plan(last_run=NOON, next_run=NOON + 60)
    assert replaced(old, a_plan(cron="*/1 * * * *", timezone="Asia/Tokyo"), NOON - 500).next_run
    assert resumed(paused(old), NOON - 500).next_run == NOON + 60


def test_a_plan_comes_back_from_its_json() -> None:
    plan = a_plan(next_run=NOON, misfire="catch_up", end_date=NOON + 5, max_runs=9)
    again = decode_plan(encode_plan(plan))
    assert encode_plan(again) == encode_plan(plan)
    assert bytes(again.payload) == b"{}"


def test_the_id_of_a_tick_is_its_own() -> None:
    told = {
        job_id(queue, name, plan, at)
        for queue in "ab"
        for name in "ab"
        for plan in "ab"
        for at in (NOON, NOON + 1, NOON + 1e-6)
    }
    assert len(told) == 24
    assert job_id("a", "b", "c", NOON) == job_id("a", "b", "c", NOON)


def test_keys_sort_as_time_does() -> None:
    ats = [0.0, 1.5, 9.0, 10.0, NOON, NOON + 1e-6, 2.5e11]
    assert [tick_key(at) for at in ats] == sorted(tick_key(at) for at in ats)


# -------------------------------------------------------------------- another way to say it


@given(
    step_of=st.sampled_from([1, 5, 7, 60, 600]),
    due=st.integers(0, 400),
    late=st.floats(0, 0.999),
    misfire=st.sampled_from(["run_once", "skip", "catch_up"]),
    grace=st.sampled_from([0.0, 1.0, 30.0, 1_000.0]),
    max_runs=st.none() | st.integers(1, 150),
    runs=st.integers(0, 150),
    end=st.none() | st.integers(0, 5_000),
    concurrent=st.booleans(),
    busy=st.booleans(),
)
def test_the_rule_holds_against_an_oracle_that_walks_forwards(
    *,
    step_of: int,
    due: int,
    late: float,
    misfire: Any,
    grace: float,
    max_runs: int | None,
    runs: int,
    end: int | None,
    concurrent: bool,
    busy: bool,
) -> None:
    if max_runs is not None:
        runs %= max_runs
    cron = {1: "* * * * * *", 5: "*/5 * * * * *", 7: "*/7 * * * * *"}.get(step_of)
    cron = cron or {60: "* * * * *", 600: "*/10 * * * *"}[step_of]
    plan = a_plan(
        cron=cron,
        next_run=NOON,
        misfire=misfire,
        misfire_grace=grace,
        max_runs=max_runs,
        runs=runs,
        end_date=None if end is None else NOON + end,
        allow_concurrent=concurrent,
    )
    # All ticks that there are, by arithmetic: at 7 seconds, each minute starts anew.
    every = [
        NOON + second
        for second in range(due * step_of + 2 * step_of + 61)
        if (second % 60 % 7 == 0 if step_of == 7 else second % step_of == 0)
        and (end is None or second <= end)
    ]
    now = (every[due] if due < len(every) else NOON + due * step_of) + late
    ticks = [at for at in every if at <= now]

    told: dict[float, str] = {}
    running = busy
    left = math.inf if max_runs is None else max_runs - runs
    for place, at in enumerate(ticks):
        behind = len(ticks) - 1 - place
        match misfire:
            case "run_once":
                fires = behind == 0
            case "skip":
                fires = behind == 0 and now - at <= grace
            case _:
                fires = behind < 100
        if left == 0:
            break
        if not fires:
            told[at] = "missed"
        elif running and not concurrent:
            told[at] = "skipped"
        else:
            told[at] = "fired"
            running = True
            left -= 1
    assert outcomes(plan, now, busy=busy) == told
    coming = [at for at in every if at > now]
    following = after(plan, now, busy=busy).next_run
    if left == 0 or (end is not None and not coming):
        assert following is None
    else:
        assert following == coming[0]


@given(at=st.floats(NOON - 1e6, NOON + 1e6))
def test_what_comes_next_is_later(at: float) -> None:
    found = upcoming(a_plan(cron="*/3 * * * * *"), at)
    assert found is not None
    assert at < found <= at + 3
