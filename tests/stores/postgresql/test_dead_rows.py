"""Claims stay quick while an old snapshot keeps very many dead rows."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest

from jobmill.states import Move
from jobmill.store import Want
from jobmill.stores.postgresql import Address, PostgresStore
from jobmill.stores.postgresql.driver import connect
from jobmill.testing.contract.case import a_job, a_want, ids
from tests.conftest import SOAK
from tests.servers import cleared

pytestmark = [pytest.mark.store("postgresql"), pytest.mark.timeout(900)]

# Due, claimed and ended, of three priorities: each left an entry that leads to nothing at the head
# of three indexes.
_FILL: Final = """\
INSERT INTO jobmill.jobs (
    queue, id, name, state, priority, run_at, enqueued_at, policy, payload, keep_result, keep_failed
)
SELECT 'default', 'old' || n, 'a', 'delayed', n % 3, 1e9, 1, '{}', '1', 1e6, 1e6
FROM generate_series(1, $1::integer) AS n"""
_STEPS: Final = (
    "UPDATE jobmill.jobs SET state = 'pending'",
    "UPDATE jobmill.jobs SET state = 'processing', token = 't', lease_until = 1e9, started_at = 1",
    (
        "UPDATE jobmill.jobs SET state = 'completed', lease_until = NULL, ended_at = 1, "
        "expires_at = 1e10"
    ),
)


@pytest.fixture
async def store(postgres_address: Address) -> AsyncIterator[PostgresStore]:
    opened = PostgresStore(await cleared(postgres_address))
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
async def pinned(store: PostgresStore, postgres_address: Address) -> AsyncIterator[Any]:
    """Leave so many dead rows, and keep them."""
    old = await connect(**postgres_address.options(), ssl=False)
    plain = await connect(**postgres_address.options(), ssl=False)
    snapshot = old.transaction(isolation="repeatable_read")
    await snapshot.start()
    assert await old.fetchval("SELECT count(*) FROM jobmill.jobs") == 0

    async def leave(rows: int) -> None:
        await plain.execute(_FILL, rows)
        for step in _STEPS:
            await plain.execute(step)

    yield leave
    await snapshot.rollback()
    await old.close()
    await plain.close()
    await cleared(postgres_address)


async def times_of_claims(store: PostgresStore, turns: int, prefix: str) -> list[float]:
    """Seconds that each claim took, in rising order, of ten jobs that were just added."""
    took: list[float] = []
    moves: list[Move] = []
    for turn in range(turns):
        names = [f"{prefix}{turn}.{n}" for n in range(10)]
        await store.add([a_job(name, priority=n % 3) for n, name in enumerate(names)])
        want = Want(worker="w", token=f"{prefix}{turn}", limit=10, lease=30.0)
        began = time.perf_counter()
        got = await store.claim(want, moves)
        took.append(time.perf_counter() - began)
        assert [each.priority for each in got.claims] == [0] * 4 + [1] * 3 + [2] * 3
        assert sorted(ids(got.claims)) == sorted(names)
        moves = [Move(event="succeed", job_id=each.id, token=each.token) for each in got.claims]
    await store.move(moves)
    return sorted(took)


@pytest.mark.alone
async def test_claims_are_quick_beside_dead_rows_that_an_old_snapshot_keeps(
    store: PostgresStore, pinned: Any
) -> None:
    """20 ms; in the quick form, where the machine may be busy, or as quick as without them."""
    usual = await times_of_claims(store, 300, "usual")
    await pinned(500_000 if SOAK else 100_000)
    took = await times_of_claims(store, 3_000 if SOAK else 600, "beside")
    p99, usual_p99 = (times[int(len(times) * 0.99)] for times in (took, usual))
    print(
        f"claims beside dead rows: p50 {took[len(took) // 2]:.4f} s, p99 {p99:.4f} s; "
        f"without: p50 {usual[len(usual) // 2]:.4f} s, p99 {usual_p99:.4f} s"
    )
    assert p99 < (0.020 if SOAK else max(0.020, 1.5 * usual_p99))


async def test_what_comes_back_is_found_behind_dead_rows(store: PostgresStore, pinned: Any) -> None:
    """Jobs put off, delayed, lapsed, and of a priority that nobody had: none is passed over."""
    await pinned(8_000)
    await store.add([a_job("early", priority=2), a_job("later", priority=2, delay=0.3)])
    await store.add([a_job("lapses", priority=1)])
    # It passes over the dead, and has them surveyed.
    (lapses,) = (await store.claim(a_want("t0", limit=1, lease=0.5))).claims
    assert lapses.id == "lapses"
    (early,) = (await store.claim(a_want("t1", limit=1))).claims
    assert early.id == "early"
    await store.move([Move(event="retry", job_id="early", token="t1", delay=0.1)])
    await store.add([a_job("urgent", priority=-7)])
    found: dict[str, str] = {}
    deadline = time.monotonic() + 40
    turn = 1
    while len(found) < 4:
        assert time.monotonic() < deadline, found
        turn += 1
        got = await store.claim(a_want(f"t{turn}", limit=1))
        found |= {each.id: "claimed" for each in got.claims}
        found |= {each.id: "lapsed" for each in got.lapsed}
    assert found == {
        "early": "claimed",
        "later": "claimed",
        "urgent": "claimed",
        "lapses": "lapsed",
    }
    assert next(iter(found)) == "urgent"
    surveyor = store._surveyor
    assert surveyor is not None
    assert surveyor._task is not None, "no claim asked for a survey"


async def test_claims_of_given_instants_are_not_led_by_what_the_servers_clock_said(
    store: PostgresStore, pinned: Any
) -> None:
    await pinned(8_000)
    now = 1_700_000_000.0
    assert not (await store.claim(a_want("t1", limit=1), now=now)).claims
    surveyor = store._surveyor
    assert surveyor is not None
    assert surveyor._task is None
    # One of the server's own time is surveyed.
    await store.claim(a_want("t2", limit=1))
    assert surveyor._task is not None
