"""Every statement of a hot verb is led by an index, whatever stands behind it."""

from __future__ import annotations

import asyncio
import random
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobmill.policy import Policy
from jobmill.states import after_success
from jobmill.store import NewJob, Query, Want, Window
from jobmill.stores.sqlite import SQLiteStore
from jobmill.stores.sqlite.connection import connect
from jobmill.stores.sqlite.statements import many, migrations, statements
from jobmill.testing.contract.case import T0

pytestmark = pytest.mark.store("sqlite")

LED_BY = {
    ("claim", "next_due"): "jobmill_jobs_delayed",
    ("claim", "mature"): "jobmill_jobs_delayed",
    ("claim", "lapsed"): "jobmill_jobs_lease",
    ("claim", "ready"): "jobmill_jobs_ready",
    ("claim", "lane"): "jobmill_jobs_lane",
    ("claim", "names"): "jobmill_jobs_lane",
    ("claim", "asked"): "jobmill_jobs_asked",
    ("claim", "collect"): "jobmill_jobs_lease",
    ("add", "there"): "jobmill_jobs_id",
    ("add", "holder"): "jobmill_jobs_key",
    ("move", "jobs"): "jobmill_jobs_id",
    ("renew", "running"): "jobmill_jobs_id",
    ("find", "by_id"): "jobmill_jobs_id",
    ("drop", "these"): "jobmill_jobs_id",
    ("prune", "expired"): "jobmill_jobs_expiry",
    ("counts", "ripe"): "jobmill_jobs_delayed",
    ("counts", "oldest"): "jobmill_jobs_ready",
    ("counts", "oldest_of_name"): "jobmill_jobs_lane",
    ("docs", "error_groups"): "jobmill_error_groups_seen",
    ("reserve", "starts"): "jobmill_rate_starts_at",
    ("reserve", "slots"): "jobmill_rate_slots_at",
    ("reserve", "forget_starts"): "jobmill_rate_starts_until",
    ("reserve", "forget_slots"): "jobmill_rate_slots_until",
}
ORDERED = ("next_due", "lapsed", "ready", "lane", "expired", "error_groups", "starts", "slots")
BY_PRIMARY_KEY = {
    "claim": ("take_over", "hand_out", "pauses"),
    "move": ("settle", "change", "start_over", "ask", "progress", "last_line", "error", "line"),
    "renew": ("hold",),
    "find": ("by_seq", "errors", "lines"),
    "drop": ("jobs", "errors", "lines"),
    "docs": ("read", "version", "put", "remove", "keep", "last_event", "events", "metrics"),
    "prune": ("events", "metrics"),
    "figures": ("bucket",),
    "reserve": ("started", "own_slot", "seconds", "parts", "give_back"),
}


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    opened = connect(tmp_path / "jobs.db", "normal", create=True, patience=1.0).connection
    yield opened
    opened.close()


def plan(connection: sqlite3.Connection, sql: str) -> list[str]:
    text = many(sql, 4)[0]
    values: Any = dict.fromkeys(re.findall(r":(\w+)", text)) or (None,) * _marks(text)
    return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {text}", values)]


def _marks(text: str) -> int:
    numbered = {int(n) for n in re.findall(r"\?(\d+)", text)}
    return max(numbered) if numbered else text.count("?")


@pytest.mark.parametrize(("verb", "name"), LED_BY, ids=str)
def test_is_led_by_its_index(connection: sqlite3.Connection, verb: str, name: str) -> None:
    steps = plan(connection, statements(verb)[name])
    assert any(f"INDEX {LED_BY[verb, name]} (" in step for step in steps), steps
    tables = [step for step in steps if "jobmill_" in step]
    assert all(step.startswith("SEARCH") for step in tables), steps


@pytest.mark.parametrize("name", ORDERED)
def test_needs_no_sorting(connection: sqlite3.Connection, name: str) -> None:
    (verb,) = {verb for verb, each in LED_BY if each == name}
    steps = plan(connection, statements(verb)[name])
    assert not any("B-TREE" in step for step in steps), steps


@pytest.mark.parametrize("name", ["oldest", "oldest_of_name"])
def test_steps_from_priority_to_priority(connection: sqlite3.Connection, name: str) -> None:
    # Over all that stands between: to walk it, at each step, took minutes for 100,000 priorities.
    steps = plan(connection, statements("counts")[name])
    assert any("AND suspect=? AND priority>?)" in step for step in steps), steps


@pytest.mark.parametrize(
    ("verb", "name"),
    [(verb, name) for verb, names in BY_PRIMARY_KEY.items() for name in names],
    ids=str,
)
def test_is_led_by_a_primary_key(connection: sqlite3.Connection, verb: str, name: str) -> None:
    steps = plan(connection, statements(verb)[name])
    tables = [step for step in steps if "jobmill_" in step]
    assert all("SEARCH" in step and "PRIMARY KEY" in step for step in tables), steps


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("all", "jobmill_jobs_newest"),
        ("of_state", "jobmill_jobs_state"),
        ("of_name", "jobmill_jobs_name"),
        ("of_unique_key", "jobmill_jobs_unique"),
        ("of_fingerprint", "jobmill_jobs_fingerprint"),
    ],
)
@pytest.mark.parametrize(
    "rest", ["AND seq < :before ORDER BY seq DESC", "AND state <> 'processing' ORDER BY seq"]
)
def test_a_list_is_read_from_its_index(
    connection: sqlite3.Connection, name: str, index: str, rest: str
) -> None:
    steps = plan(connection, f"SELECT seq {statements('which')[name]} {rest} LIMIT :limit")
    assert f"INDEX {index} (" in steps[0], steps
    assert not any("B-TREE" in step or "SCAN main" in step for step in steps), steps


async def _filled(path: Path) -> SQLiteStore:
    store = SQLiteStore(path, synchronous="normal")
    await store.open()
    for start in range(0, 100_000, 10_000):
        jobs = [
            NewJob(
                id=f"j{n}",
                name="paused" if n % 4 else f"n{n % 7}",
                payload=b"{}",
                policy=Policy(),
                delay=1e6 if n % 3 == 0 else None,
            )
            for n in range(start, start + 10_000)
        ]
        await store.add(jobs)
    await store.write("pauses", "job:paused", b"{}")
    return store


@pytest.mark.timeout(120)
async def test_verbs_do_not_walk_a_backlog_of_100_000(tmp_path: Path) -> None:
    """Counted in steps of SQLite's machine, so that the speed of this one does not matter."""
    store = await _filled(tmp_path / "jobs.db")
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    connection = store._database.writer._connected.connection  # type: ignore[union-attr]
    connection.set_progress_handler(count, 100)
    claimed = await store.claim(Want(worker="w", token="t1", limit=10, lease=30.0))
    assert len(claimed.claims) == 10
    assert {claim.name for claim in claimed.claims}.isdisjoint({"paused"})
    want = Want(worker="w", token="t2", limit=10, lease=30.0, names=("n1", "none"))
    moves = [after_success(claim, b"1") for claim in claimed.claims]
    assert len((await store.claim(want, moves)).claims) == 10
    await store.prune(100)
    await store.drop(Query(states=("completed",)), limit=5)
    # 100 steps each: a walk over the backlog would take a million.
    assert steps < 500, steps
    connection.set_progress_handler(None, 0)
    await store.counts()
    reader = store._database._reader.connection  # type: ignore[union-attr]
    steps = 0
    reader.set_progress_handler(count, 100)
    counts = await store.counts()
    assert sum(counts.states.values()) == 99_995
    assert steps < 10_000, steps
    reader.set_progress_handler(None, 0)
    await store.close()


async def test_a_start_under_a_rate_limit_does_not_walk_over_all_others(tmp_path: Path) -> None:
    async def cost(limit: int) -> int:
        store = SQLiteStore(tmp_path / f"{limit}.db", synchronous="normal")
        await store.open()
        connection = store._database.writer._connected.connection  # type: ignore[union-attr]
        windows = [Window(limit, 60.0)]
        await store.reserve("k", "first", "t", windows, now=T0)
        # So many starts in the minute before, and half as many slots in the next.
        rows = [(f"j{n}", T0 + 60 * n / limit) for n in range(1, limit)]
        connection.executemany(
            "INSERT INTO jobmill_rate_starts VALUES ('default', 'k', ?1, 't', ?2, ?2 + 60)", rows
        )
        connection.executemany(
            "INSERT INTO jobmill_rate_slots VALUES ('default', 'k', ?1, ?2 + 60.04, ?2 + 120.04)",
            rows[: limit // 2],
        )
        steps = 0

        def count() -> int:
            nonlocal steps
            steps += 1
            return 0

        connection.set_progress_handler(count, 10)
        assert await store.reserve("k", "late", "t", windows, now=T0 + 59.999) > 30
        assert await store.reserve("k", "j1", "u", windows, now=T0 + 60.05 + 60 / limit) == 0
        connection.set_progress_handler(None, 0)
        await store.close()
        return steps

    few, many = await cost(100), await cost(20_000)
    # The counts of a minute's seconds, those of a second's parts, and a part: not two hundredfold.
    assert many < 5 * few, (few, many)


async def test_lanes_are_merged_without_a_statement_for_each(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "jobs.db", synchronous="normal")
    await store.open()
    dice = random.Random(1)
    jobs = [
        NewJob(
            id=f"j{n}",
            name=f"n{dice.randrange(500)}" if n % 2 else "many",
            payload=b"{}",
            policy=Policy(),
            priority=dice.randrange(3),
        )
        for n in range(1_000)
    ]
    await store.add(jobs)
    await store.write("pauses", "job:none", b"{}")
    order = [job.id for job in sorted(jobs, key=lambda job: job.priority)]
    compiled = 0

    def see(*_: object) -> int:
        nonlocal compiled
        compiled += 1
        return sqlite3.SQLITE_OK

    connection = store._database.writer._connected.connection  # type: ignore[union-attr]
    connection.set_authorizer(see)
    for number in range(4):
        compiled = 0
        want = Want(worker="w", token=f"t{number}", limit=100, lease=30.0)
        claimed = [claim.id for claim in (await store.claim(want)).claims]
        assert claimed == order[:100]
        del order[:100]
    # The clock, now and then.
    assert compiled < 50
    await store.close()


async def test_starts_and_slots_from_before_they_were_counted_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"

    def make() -> None:
        connection = sqlite3.connect(path)
        for statement in migrations()[0]:
            connection.execute(statement)
        connection.execute("UPDATE jobmill_meta SET schema = 1")
        connection.execute(
            "INSERT INTO jobmill_rate_starts VALUES ('default', 'k', 'j1', 't1', ?1, ?1 + 10)",
            (T0,),
        )
        connection.execute(
            "INSERT INTO jobmill_rate_slots VALUES ('default', 'k', 'j2', ?1 + 10, ?1 + 20)", (T0,)
        )
        connection.commit()
        connection.close()

    await asyncio.to_thread(make)
    store = SQLiteStore(path, synchronous="normal")
    await store.open()
    wait = await store.reserve("k", "j3", "t3", [Window(1, 10.0)], now=T0 + 5)
    assert wait == pytest.approx(15.04)
    assert await store.reserve("k", "j2", "t2", [Window(1, 10.0)], now=T0 + 10) == 0
    await store.close()


async def test_the_counts_of_a_rate_limit_are_those_of_its_rows(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "jobs.db", synchronous="normal")
    await store.open()
    connection = store._database.writer._connected.connection  # type: ignore[union-attr]
    dice = random.Random(1)
    now = T0
    for n in range(400):
        now += dice.choice([0.0, 0.001, 0.02, 0.3])
        windows = [] if n % 9 == 0 else [Window(20, 2.0), Window(50, 9.0)]
        job = dice.randrange(n + 1)
        await store.reserve(dice.choice("kl"), f"j{job}", f"t{job % 3}", windows, now=now)

    def differences() -> list[Any]:
        rows = """\
            SELECT key, level, CAST(at * CASE level WHEN 0 THEN 64 ELSE 1 END AS INTEGER) AS part,
                sum(start), sum(1 - start)
            FROM (
                SELECT key, at, 1 AS start FROM jobmill_rate_starts
                UNION ALL SELECT key, at, 0 FROM jobmill_rate_slots
            ) CROSS JOIN (SELECT 0 AS level UNION SELECT 1) GROUP BY key, level, part"""
        counts = "SELECT key, level, part, starts, slots FROM jobmill_rate_counts"
        return connection.execute(
            f"SELECT * FROM ({rows} EXCEPT {counts}) "
            f"UNION ALL SELECT * FROM ({counts} EXCEPT {rows})"
        ).fetchall()

    assert connection.execute("SELECT count(*) FROM jobmill_rate_counts").fetchone()[0] > 50
    assert differences() == []
    await store.prune(10, now=now + 100)
    assert connection.execute("SELECT count(*) FROM jobmill_rate_counts").fetchone() == (0,)
    await store.close()
