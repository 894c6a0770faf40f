"""With a million jobs in a server every page answers in 300 ms. In soak only; alone.

The short form, which counts what a page asks of its store, is in test_pages.py.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import AsyncIterator

import pytest

from jobmill import Queue
from jobmill.dashboard import create_app
from jobmill.policy import Policy
from jobmill.states import Move
from jobmill.store import NewJob, Want
from tests.api.conftest import STORES, MakeQueue
from tests.conftest import SOAK
from tests.dashboard.kit import HTML, asking

pytestmark = [
    pytest.mark.alone,
    pytest.mark.timeout(3_600),
    pytest.mark.skipif(not SOAK, reason="it takes minutes: make soak"),
]

JOBS = 1_000_000
BUDGET = 0.3
PATHS = (
    *("/", "/jobs", "/jobs/j0000007", "/queues", "/queues/default", "/schedules", "/workers"),
    *("/jobs?state=pending", "/jobs?state=delayed", "/jobs?state=processing"),
    *("/jobs?state=completed", "/jobs?state=failed", "/jobs?state=cancelled"),
    *("/jobs?q=job:rare", "/jobs?q=unique:k100", "/jobs?q=error:boom&state=failed"),
    *("/errors", "/audit", "/api/overview", "/api/jobs", "/scale/default"),
)


@pytest.fixture(params=[each for each in STORES if each.id in {"redis", "postgresql"}])
def open_queue(request: pytest.FixtureRequest) -> object:
    return request.param(request, None)


@pytest.fixture
async def full(make_queue: MakeQueue) -> AsyncIterator[Queue]:
    """Of a million jobs nine tenths have ended, a few of them badly; some run, the rest waits."""
    queue = make_queue()
    store = queue.store.handle()
    await store.open()
    error = b'{"type":"ValueError","message":"boom","attempt":1}'
    for start in range(0, JOBS, 1_000):
        await store.add(
            [
                NewJob(
                    id=f"j{number:07d}",
                    name=f"n{number % 10}" if number % 50_000 else "rare",
                    payload=b'{"to":"x"}',
                    policy=Policy(max_attempts=1),
                    unique_key=f"k{number}" if number % 100 == 0 else None,
                )
                for number in range(start, start + 1_000)
            ],
            wake=False,
        )
    for turn in range(JOBS * 9 // 10 // 500):
        token = f"t{turn}"
        want = Want(worker="w", token=token, limit=500, lease=6_000.0, room="busy")
        claims = (await store.claim(want)).claims
        await store.move(
            [
                Move(event="fail", job_id=each.id, token=token, error=error, fingerprint="f")
                if place < 2
                else Move(event="succeed", job_id=each.id, token=token, result=b"1")
                for place, each in enumerate(claims)
            ]
        )
    await store.claim(Want(worker="w", token="t", limit=40, lease=6_000.0, room="busy"))
    yield queue
    await store.close()


async def test_every_page_answers_in_300_ms(full: Queue) -> None:
    app = create_app(full)
    took: dict[str, float] = {}
    async with asking(app) as asker:
        for path in PATHS:
            times: list[float] = []
            for _ in range(7):
                # As if nobody had looked for long.
                app.state.desk.surveyor.forget("default")
                began = time.perf_counter()
                answer = await asker.get(path, headers=HTML)
                times.append(time.perf_counter() - began)
                assert answer.status_code == 200, path
            took[path] = statistics.median(times)
    print("\n".join(f"{seconds * 1_000:6.0f} ms {path}" for path, seconds in took.items()))
    slow = {path: seconds for path, seconds in took.items() if seconds > BUDGET}
    assert not slow
