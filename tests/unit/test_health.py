"""From what is found to a verdict."""

from __future__ import annotations

from typing import Any

import pytest

from jobmill.errors import ConfigError
from jobmill.health import Findings, Thresholds, judged, shown, unreachable
from jobmill.roster import Entry, Roster, encode_entry, roster_of
from jobmill.store import Counts, Doc

NOW = 10_000.0
LIMITS = Thresholds(
    degraded_error_rate=0.1, unhealthy_error_rate=0.25, min_runs=20, max_wait=60.0, lease=30.0
)


def a_roster(*silent: float, **fields: Any) -> Roster:
    """Workers that beat every 10 s, each with its seconds of silence."""
    told: dict[str, Any] = {
        "host": "h",
        "pid": 1,
        "version": "0",
        "queues": ("q",),
        "slots": 1,
        "every": 10.0,
    }
    entry = Entry(**{**told, **fields})
    return roster_of(
        [
            Doc(key=f"w{index}", value=encode_entry(entry), version=1, at=NOW - seconds)
            for index, seconds in enumerate(silent)
        ],
        NOW,
    )


def found(
    roster: Roster | None = None,
    *,
    due: int = 0,
    waited: float = 0.0,
    processing: int = 0,
    **fields: Any,
) -> Findings:
    states = {"pending": due, "processing": processing}
    there: Any = {state: number for state, number in states.items() if number}
    counts = Counts(
        states=there,
        by_name={"a": there} if there else {},
        due=due,
        oldest_due=NOW - waited if due else None,
        now=NOW,
    )
    return Findings(
        counts=counts,
        roster=a_roster(1.0) if roster is None else roster,
        **{"failed": 0, "attempts": 0, "lapsed": 0, **fields},
    )


def test_one_waiting_job_is_no_illness() -> None:
    for roster in (a_roster(1.0), a_roster()):
        health = judged(found(roster, due=1, waited=5.0), LIMITS)
        assert (health.status, health.queue_depth, health.issues) == ("healthy", 1, [])


def test_jobs_that_waited_for_three_heartbeats_and_no_worker() -> None:
    dead = a_roster(31.0)
    for roster, waited, status in (
        (dead, 29.0, "healthy"),
        (dead, 30.0, "unhealthy"),
        (a_roster(), 30.0, "unhealthy"),
        (a_roster(29.0), 30.0, "healthy"),
        (a_roster(29.0, 31.0), 30.0, "healthy"),
        (a_roster(1.0, state="stuck"), 30.0, "unhealthy"),
        (a_roster(1.0, blocked=20.0), 30.0, "healthy"),
    ):
        health = judged(found(roster, due=3, waited=waited), LIMITS)
        assert health.status == status, (roster, waited)
        if status == "unhealthy":
            assert "3 jobs are due, for up to 30 s, and no worker" in health.issues


def test_claimed_jobs_whose_workers_are_gone() -> None:
    health = judged(found(a_roster(40.0), processing=2), LIMITS)
    assert health.status == "unhealthy"
    assert "2 jobs are claimed, and the workers are gone" in health.issues
    assert judged(found(a_roster(1.0), processing=2), LIMITS).status == "healthy"


def test_a_job_that_waited_for_a_minute_though_workers_beat() -> None:
    assert judged(found(due=1, waited=60.0), LIMITS).status == "healthy"
    health = judged(found(due=1, waited=61.0), LIMITS)
    assert (health.status, health.oldest_wait) == ("degraded", 61.0)


@pytest.mark.parametrize(
    ("failed", "attempts", "status"),
    [
        (19, 19, "healthy"),
        (1, 20, "healthy"),
        (2, 20, "degraded"),
        (4, 20, "degraded"),
        (5, 20, "unhealthy"),
        (100, 400, "unhealthy"),
        (39, 400, "healthy"),
    ],
)
def test_the_error_rate(failed: int, attempts: int, status: str) -> None:
    health = judged(found(failed=failed, attempts=attempts), LIMITS)
    assert health.status == status
    assert health.error_rate == failed / attempts
    assert len(health.issues) == (status != "healthy")


def test_what_is_no_illness_shows_in_issues_all_the_same() -> None:
    health = judged(found(lapsed=1), LIMITS)
    assert (health.status, health.issues) == (
        "healthy",
        ["1 lease lapsed in the last 5 minutes: workers died"],
    )
    health = judged(found(a_roster(1.0, 50.0)), LIMITS)
    assert (health.status, health.issues) == (
        "healthy",
        ["silent for three heartbeats or more: w1"],
    )
    blocked = a_roster(1.0, blocked=20.0, blocked_by="the job crunch 0190")
    assert judged(found(blocked), LIMITS).issues == [
        "the job crunch 0190 blocks the event loop of w0, for 20 s"
    ]
    assert "the queue is paused" in judged(found(due=1, paused=True), LIMITS).issues


def test_jobs_that_no_worker_knows_or_takes() -> None:
    unknown = a_roster(1.0, unknown={"a": 2, "gone": 1})
    assert judged(found(unknown, due=1), LIMITS).issues == [
        "no job of the name a is known to a worker; it is put off"
    ]
    assert judged(found(unknown), LIMITS).issues == []
    others = a_roster(1.0, names=("b",))
    assert judged(found(others, due=1), LIMITS).issues == ["no worker takes jobs of the name a"]
    assert judged(found(a_roster(1.0, names=("a",)), due=1), LIMITS).issues == []


def test_what_the_workers_have_is_added_up() -> None:
    health = judged(found(a_roster(1.0, 5.0, 99.0, memory=1_000)), LIMITS)
    assert (health.active_workers, health.memory_usage) == (2, 2_000)
    assert health.last_heartbeat is not None
    assert health.last_heartbeat.timestamp() == NOW - 1.0
    assert judged(found(a_roster()), LIMITS).last_heartbeat is None


def test_an_issue_is_one_line_of_printable_text() -> None:
    assert shown("a\x1b[31m\n\u202eb") == "a?[31m??b"
    assert len(shown("x" * 1_000)) < 200
    health = unreachable("refused\x07", NOW)
    assert (health.status, health.issues) == (
        "unhealthy",
        ["the store cannot be reached: refused?"],
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("degraded_error_rate", 1.5),
        ("unhealthy_error_rate", "much"),
        ("min_runs", 0),
        ("max_wait", 0),
    ],
)
def test_a_wrong_threshold_is_refused_by_its_name(field: str, value: object) -> None:
    fields: dict[str, Any] = {
        "degraded_error_rate": 0.1,
        "unhealthy_error_rate": 0.25,
        "min_runs": 20,
        "max_wait": 60.0,
        "lease": 30.0,
    }
    with pytest.raises(ConfigError) as caught:
        Thresholds(**{**fields, field: value})
    assert caught.value.field == field
