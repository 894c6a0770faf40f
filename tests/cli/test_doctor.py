"""The doctor says what is wrong with a queue, and what to do about each of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest

from jobmill.cli.doctor import ADVICE, BAD, _clock, _issues, _schedules
from jobmill.health import HealthCode, SystemHealth
from jobmill.schedule import Schedule
from jobmill.stores.redis.provision import running
from tests.cli.kit import Cli, free_port
from tests.servers import need_a_server

pytestmark = [pytest.mark.timeout(180), pytest.mark.blocks_loop]
CODES: tuple[HealthCode, ...] = get_args(HealthCode)


def test_there_is_advice_for_every_issue() -> None:
    assert set(ADVICE) == set(CODES)
    assert set(CODES) > BAD
    words = "words that no code depends on"
    health = SystemHealth(
        status="unhealthy",
        checked_at=datetime.now(UTC),
        issues=[words] * len(CODES),
        codes=list(CODES),
    )
    told = {each.code: each for each in _issues(health)}
    assert set(told) == set(CODES) - {"paused"}, "of a pause the doctor tells by itself"
    for code, each in told.items():
        assert (each.text, each.advice) == (words, ADVICE[each.code])  # type: ignore[index]
        assert (each.level == "bad") == (code in BAD)


def test_a_clock_that_is_wrong_is_told() -> None:
    assert _clock(0.3, 0.01).level == "ok"
    ahead, behind = _clock(600.0, 0.01), _clock(-600.0, 0.01)
    assert (ahead.level, behind.level) == ("note", "note")
    assert "10 min ahead of" in ahead.text
    assert "10 min behind" in behind.text
    assert "NTP" in ahead.advice


def schedule(name: str, next_run: datetime | None) -> Schedule:
    given: dict[str, Any] = {
        "cron": "* * * * *",
        "description": "",
        "timezone": "UTC",
        "payload": None,
        "last_run": None,
        "runs": 0,
        "max_runs": None,
        "paused": next_run is None,
        "allow_concurrent": True,
        "misfire": "run_once",
        "start_date": None,
        "end_date": None,
    }
    return Schedule(name=name, job_name="j", next_run=next_run, **given)


def test_schedules_without_whoever_ticks_them_are_told() -> None:
    now = datetime.now(UTC)
    at = now.timestamp()
    soon, late = schedule("soon", now + timedelta(minutes=1)), now - timedelta(minutes=5)
    assert _schedules([], at, 0) == []
    (alone,) = _schedules([soon], at, 0)
    assert (alone.code, alone.level) == ("no_worker", "bad")
    (well,) = _schedules([soon, schedule("off", None)], at, 1)
    assert (well.level, well.text) == ("ok", "1 of 2 tick")
    (overdue,) = _schedules([soon, schedule("late", late)], at, 1)
    assert (overdue.code, overdue.level) == ("overdue", "bad")
    assert "nobody ticks late by 5 min" in overdue.text


@pytest.mark.store("redis")
def test_a_store_is_asked_how_it_is(cli: Cli) -> None:
    need_a_server()
    with running({"appendonly": "yes"}) as server:
        store = ("--store", str(server.address))
        well = cli("doctor", *store).ok()
        for part in ("answers", "Redis", "a second at most", "noeviction", "in use"):
            assert part in well.out
        findings = cli("doctor", *store, "--json").ok().document["findings"]
        assert {"reachable", "version", "persistence", "eviction", "memory", "offset"} <= {
            each["code"] for each in findings
        }
    with running() as server:
        sick = cli("doctor", "--store", str(server.address), "-q")
        assert (sick.code, sick.out) == (6, "store.persistence\n")
    gone = cli("doctor", "--store", f"redis://127.0.0.1:{free_port()}")
    assert (gone.code, gone.err.count("\n")) == (4, 1)
