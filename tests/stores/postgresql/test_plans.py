"""Every statement of a hot verb is led by an index, whatever stands behind it."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import pytest

from jobmill.states import Move, Note, State
from jobmill.store import Lease, Query, Window
from jobmill.stores.postgresql import Address, PostgresStore, programs
from jobmill.testing.contract.case import T0, a_job, a_want, claim, some_jobs
from tests.conftest import SOAK
from tests.servers import cleared

pytestmark = [pytest.mark.store("postgresql"), pytest.mark.timeout(1_800)]

SMALL: Final = 20_000
BACKLOG: Final = 1_000_000 if SOAK else SMALL
BATCH: Final = 100
MANY: Final = 5 * BATCH
"""More rows than a verb that handles BATCH jobs has any reason to look at."""

# Of each thousand: 899 pending in ten lanes, 50 delayed, 1 running, 50 ended.
_FILL: Final = """\
INSERT INTO jobmill.jobs (
    queue, id, name, state, priority, run_at, enqueued_at, lease_until, worker, token, started_at,
    ended_at, expires_at, unique_key, policy, payload, keep_result, keep_failed
)
SELECT
    'default', 'old' || n, 'n' || n % 10, s.state, n % 3, n, n,
    CASE s.state WHEN 'processing' THEN 1e10 END, 'w', 't', 1,
    CASE s.state WHEN 'completed' THEN 1 END, CASE s.state WHEN 'completed' THEN 1e10 END,
    'k' || n, '{}', '{}', 1, 1
FROM generate_series(1, $1::integer) AS n CROSS JOIN LATERAL (
    SELECT CASE WHEN n % 1000 < 899 THEN 'pending' WHEN n % 1000 < 949 THEN 'delayed'
        WHEN n % 1000 < 950 THEN 'processing' ELSE 'completed' END AS state
) AS s"""
_LATER: Final = "UPDATE jobmill.jobs SET run_at = 1e10 WHERE state = 'delayed'"


@pytest.fixture
async def store(
    request: pytest.FixtureRequest, postgres_address: Address
) -> AsyncIterator[PostgresStore]:
    """A store with a backlog, which has seen its tables empty, or has statistics of them."""
    opened = PostgresStore(await cleared(postgres_address))
    await opened.open()
    assert opened._connection is not None
    opened._teller = None  # so that all calls go over the one connection that tells its plans
    plain = opened._connection._pool._idle[0]
    await plain.execute("VACUUM ANALYZE jobmill.jobs")
    empty = request.param in {"planned while empty", "vacuumed while empty"}
    if empty:
        await use_once(opened)
        await use_all(opened)
        await cleared(postgres_address)
    if request.param == "vacuumed while empty":
        await believed_empty(plain)
    await plain.execute(_FILL, SMALL if request.param == "small" else BACKLOG)
    await plain.execute(_LATER)
    if not empty:
        await plain.execute("VACUUM ANALYZE jobmill.jobs")
    yield opened
    await opened.close()
    await cleared(postgres_address)


async def believed_empty(plain: Any) -> None:
    """Have the planner believe that tables with many pages hold nothing, whatever comes."""
    names = (
        "jobs",
        "job_errors",
        "job_lines",
        "events",
        "rate_starts",
        "rate_slots",
        "rate_counts",
    )
    tables = [f"jobmill.{name}" for name in names]
    async with asyncio.timeout(30):
        while True:
            await plain.execute(f"VACUUM {', '.join(tables)}")
            left = (
                "SELECT count(*) FROM pg_class WHERE oid = ANY ($1::regclass[]) AND reltuples <> 0"
            )
            # A vacuum passes over what the snapshot of another keeps.
            if not await plain.fetchval(left, tables):
                return


async def use_once(store: PostgresStore) -> None:
    """The same with one job in an empty table, where every index looks as good as another."""
    await store.add([a_job("j1"), a_job("u1", unique_key="u")])
    await store.claim(a_want("t1", limit=1))
    await store.renew([Lease("j1", "t1")], 30.0)
    await store.move([Move(event="succeed", job_id="j1", token="t1")])
    await store.claim(a_want("t2", limit=1), [Move(event="hasten", job_id="u1")])
    await store.claim(a_want("t3", limit=1, names=("a", "n1")))
    await store.events(0, 10)
    await store.prune(BATCH)


async def use_all(store: PostgresStore) -> None:
    """Every hot verb, so that its statements are planned."""
    await store.add(some_jobs(3 * BATCH, unique_key=None))
    await store.add([a_job("j1"), a_job("u1", unique_key="u"), a_job("u2", unique_key="u")])
    got = (await store.claim(a_want("t1", limit=BATCH))).claims
    assert len(got) == BATCH
    notes = {each.id: Note(lines=((1, b"1"), (2, b"2"))) for each in got}
    await store.renew([Lease(each.id, "t1") for each in got], 30.0, notes)
    moves = [Move(event="succeed", job_id=each.id, token="t1") for each in got]
    again = await store.claim(a_want("t2", limit=BATCH), moves)
    assert {moved.status for moved in again.moved} == {"applied"}
    moves = [
        Move(event="retry", job_id=each.id, token="t2", error=b"1", fingerprint="f")
        for each in again.claims
    ]
    await store.move(moves)
    await store.claim(a_want("t3", limit=BATCH, names=("a", "n1")))
    await store.claim(a_want("t3", limit=BATCH, repeat=True))
    await store.write("pauses", "job:n2", b"1")
    await store.claim(a_want("t4", limit=1))
    await store.write("pauses", "job:n2", None)
    await store.reserve("k", "j1", "t1", [Window(1, 1.0)])
    await store.events(0, 10)
    await store.prune(BATCH)


class Plans:
    """The plans of jobmill's statements that a connection runs, those inside functions too."""

    def __init__(self) -> None:
        self.all: list[dict[str, Any]] = []

    def hear(self, connection: Any, message: Any) -> None:
        _, found, text = message.message.partition("plan:\n")
        plan = json.loads(text) if found else None
        if plan and "jobmill" in plan["Query Text"]:  # the driver asks catalogs
            self.all.append(plan)

    def nodes(self) -> Iterator[tuple[dict[str, Any], str]]:
        def below(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
            yield node
            for each in node.get("Plans", ()):
                yield from below(each)

        for plan in self.all:
            for node in below(plan["Plan"]):
                yield node, plan["Query Text"]


@pytest.fixture
async def plans(store: PostgresStore) -> Plans:
    heard = Plans()
    assert store._connection is not None
    for plain in store._connection._pool._idle:
        await plain.execute(
            "LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0;"
            "SET auto_explain.log_nested_statements = on; SET auto_explain.log_analyze = on;"
            "SET auto_explain.log_timing = off; SET auto_explain.log_format = json;"
            "SET auto_explain.log_level = notice; SET client_min_messages = notice"
        )
        plain.add_log_listener(heard.hear)
    return heard


def astray(plans: Plans) -> tuple[int, list[str]]:
    """How many nodes read jobs or sorted, and which of them looked at more than they should."""
    read = 0
    wrong: list[str] = []
    for node, text in plans.nodes():
        looked = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node[
            "Actual Loops"
        ]
        table = node.get("Relation Name")
        # The clock is one row.
        scans = table not in {None, "clock"} and node["Node Type"].endswith("Scan")
        if scans and not {"Index Cond", "TID Cond"} & node.keys():
            wrong.append(f"{node['Node Type']} on {table} is led by nothing: {text}")
        if not (table == "jobs" or "Sort" in node["Node Type"]):
            continue
        read += 1
        limit = MANY
        if "j.token = p_token" in text or "GROUP BY" in text:
            limit = MANY + BACKLOG // 1_000  # all that runs
        if "unnest(p_open)" in text:
            limit = 12 * BATCH  # of each lane as many as are wanted
        if looked > limit:
            wrong.append(f"{node['Node Type']} on {table or '-'} looked at {looked} rows: {text}")
    return read, wrong


@pytest.mark.parametrize(
    "store", ["analyzed", "planned while empty", "vacuumed while empty"], indirect=True
)
async def test_hot_verbs_look_at_no_more_than_they_handle(
    store: PostgresStore, plans: Plans
) -> None:
    await use_all(store)
    read, wrong = astray(plans)
    assert wrong == []
    assert read > 15


@pytest.mark.parametrize("index", ["jobs_ready", "jobs_lane", "jobs_delayed", "jobs_expiry"])
@pytest.mark.parametrize("store", ["small"], indirect=True)  # a large one would take too long
async def test_without_its_index_a_verb_would_look_at_more(
    store: PostgresStore, plans: Plans, index: str
) -> None:
    """What the test above sees, it sees."""
    assert store._connection is not None
    plain = store._connection._pool._idle[0]
    definition = await plain.fetchval("SELECT pg_get_indexdef($1::regclass)", f"jobmill.{index}")
    await plain.execute(f"DROP INDEX jobmill.{index}")
    try:
        await use_all(store)
    finally:
        await plain.execute(definition)
    assert astray(plans)[1] != []


@pytest.mark.parametrize(
    "store", ["analyzed", "planned while empty", "vacuumed while empty"], indirect=True
)
@pytest.mark.parametrize("where", ["newest", "further down"])
async def test_lists_are_led_by_an_index(store: PostgresStore, plans: Plans, where: str) -> None:
    cursor = None
    if where == "further down":
        assert store._connection is not None
        plain = store._connection._pool._idle[0]
        cursor = await plain.fetchval("SELECT ((min(seq) + max(seq)) / 2)::text FROM jobmill.jobs")
        plans.all.clear()
    found = 0
    for query in (
        Query(),
        Query(states=("completed",)),
        Query(states=("completed", "failed", "cancelled")),
        Query(states=("pending",)),
        Query(states=("pending", "delayed"), name="n7"),
        Query(states=("processing",)),
        Query(states=("processing", "failed")),
        Query(unique_key="k7"),
        Query(unique_key="k7", states=("delayed", "pending")),
        Query(fingerprint="f"),
    ):
        page = await store.find(query, limit=50, cursor=cursor)
        found += len(page.records)
    assert len(await store.get([f"old{n}" for n in range(1, 51)])) == 50
    assert found > 200
    read = 0
    for node, text in plans.nodes():
        looked = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node[
            "Actual Loops"
        ]
        if node.get("Relation Name") == "jobs":
            read += 1
            # What waits is looked for among the newest first; of what runs all is looked at.
            most = max(programs._GLANCE, MANY, BACKLOG // 1_000)
            assert looked <= most, f"{node['Node Type']} looked at {looked} rows in: {text}"
    assert read > 20


@pytest.mark.parametrize(
    "store", ["analyzed", "planned while empty", "vacuumed while empty"], indirect=True
)
async def test_a_purge_is_led_by_an_index(store: PostgresStore, plans: Plans) -> None:
    ended: tuple[State, ...] = ("completed", "failed", "cancelled")
    gone = 0
    for query in (
        Query(states=("completed",)),
        Query(states=ended),
        Query(states=ended, name="n7"),
        Query(states=("failed",)),
        Query(),
        Query(name="n7"),
        Query(states=("pending", "completed")),
        Query(unique_key="k990", states=ended),
        Query(fingerprint="f"),
        Query(states=("processing",)),
    ):
        gone += await store.drop(query, limit=20)
    assert gone == 20 * 6 + 1
    ids = [f"old{n}" for n in range(2_001, 2_021)]
    assert await store.drop(Query(), ids=ids * 2, limit=30) == 20
    read, wrong = astray(plans)
    assert wrong == []
    assert read > 20


@pytest.mark.parametrize("store", ["small"], indirect=True)
async def test_what_waits_behind_many_ends_is_removed_in_order(store: PostgresStore) -> None:
    assert store._connection is not None
    plain = store._connection._pool._idle[0]
    await plain.execute(
        "UPDATE jobmill.jobs SET state = 'completed', ended_at = 1, expires_at = 1e10,"
        " lease_until = NULL, token = NULL WHERE substr(id, 4)::integer <= 3000"
    )
    await plain.execute("UPDATE jobmill.jobs SET suspect = TRUE WHERE id = 'old3004'")
    for query, limit, gone in (
        (Query(states=("pending", "failed")), 3, ("old3001", "old3002", "old3003")),
        (Query(states=("pending",)), 2, ("old3004", "old3005")),
        (Query(states=("pending",), name="n7"), 1, ("old3007",)),
        (Query(states=("delayed",)), 1, ("old3899",)),
        (Query(states=("delayed", "failed"), name="n1"), 1, ("old3901",)),
    ):
        assert await store.drop(query, limit=limit) == limit
        assert await store.get(gone) == [None] * limit


_STARTS: Final = """\
INSERT INTO jobmill.rate_starts (queue, key, job_id, token, at, until)
SELECT 'default', $1, 'j' || n, 't', $2::float8 + 60.0 * n / $3, $2::float8 + 60.0 * n / $3 + 60
FROM generate_series(1, $3::integer) AS n"""
_SLOTS: Final = """\
INSERT INTO jobmill.rate_slots (queue, key, job_id, at, until)
SELECT r.queue, r.key, r.job_id || 's', r.at + 60.04, r.at + 120.04 FROM jobmill.rate_starts AS r
WHERE r.key = $1 AND r.at < $2::float8 + 30"""


@pytest.mark.parametrize(
    "store", ["analyzed", "planned while empty", "vacuumed while empty"], indirect=True
)
async def test_a_start_under_a_rate_limit_does_not_look_at_all_others(
    store: PostgresStore, plans: Plans
) -> None:
    assert store._connection is not None
    plain = store._connection._pool._idle[0]

    async def cost(limit: int) -> float:
        key = f"of {limit}"
        await plain.execute(_STARTS, key, T0, limit)
        await plain.execute(_SLOTS, key, T0)
        plans.all.clear()
        windows = [Window(limit, 60.0)]
        assert await store.reserve(key, "late", "t", windows, now=T0 + 60) > 30
        assert await store.reserve(key, "late", "t", windows, now=T0 + 60) > 30
        assert await store.reserve(key, "j1s", "t", windows, now=T0 + 60.05 + 60 / limit) == 0
        assert await store.reserve(key, "j1s", "t", windows, now=T0 + 60.05 + 60 / limit) == 0
        assert await store.reserve(key, "j1s", "t", [], now=T0 + 60.05 + 60 / limit) == 0
        looked = [
            (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
            for node, _ in plans.nodes()
            if node.get("Relation Name", "").startswith("rate_")
        ]
        assert len(looked) > 50
        return float(sum(looked))

    few, many = await cost(100), await cost(20_000)
    # The counts of a minute's seconds, those of a second's parts, and a part: not two hundredfold.
    assert many < 3 * few + 200, (few, many)


@pytest.mark.parametrize("store", ["small"], indirect=True)
async def test_the_counts_of_a_rate_limit_are_those_of_its_rows(store: PostgresStore) -> None:
    assert store._connection is not None
    plain = store._connection._pool._idle[0]
    dice = random.Random(1)
    now = T0
    for n in range(400):
        now += dice.choice([0.0, 0.001, 0.02, 0.3])
        windows = [] if n % 9 == 0 else [Window(20, 2.0), Window(50, 9.0)]
        job = dice.randrange(n + 1)
        await store.reserve(dice.choice("kl"), f"j{job}", f"t{job % 3}", windows, now=now)
    counts = "SELECT c.key, c.level, c.part, c.starts, c.slots FROM jobmill.rate_counts AS c"
    before = sorted(map(tuple, await plain.fetch(counts)))
    assert len(before) > 50
    # As a migration counts what was there before it.
    _, _, count = programs.migration("jobmill", 4).rpartition("INSERT INTO")
    await plain.execute(f"DELETE FROM jobmill.rate_counts; INSERT INTO {count}")
    assert sorted(map(tuple, await plain.fetch(counts))) == before
    await store.prune(10, now=now + 100)
    assert await plain.fetch(counts) == []


@pytest.mark.parametrize("store", ["analyzed"], indirect=True)
async def test_the_order_is_that_of_the_contract_with_a_backlog(store: PostgresStore) -> None:
    got = (await claim(store, limit=5)).claims
    assert [(each.priority, each.run_at) for each in got] == [
        *((0, 3.0), (0, 6.0), (0, 9.0), (0, 12.0), (0, 15.0))
    ]
