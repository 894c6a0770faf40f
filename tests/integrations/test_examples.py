"""Each integration's example runs, and shows what its reader is told to expect."""

from __future__ import annotations

import asyncio
import contextlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import sentry_sdk
from structlog.contextvars import get_contextvars

from jobmill import Cancel, Fail, InMemoryQueue, JobCancelled, JobFailed, Queue, job
from jobmill.contrib.sentry import capture
from jobmill.contrib.structlog import bind
from jobmill.registry import isolated
from jobmill.stores import postgresql
from jobmill.testing import drain
from tests.servers import emptied_postgres

pytestmark = pytest.mark.timeout(150)
EXAMPLES = Path(__file__).parents[2] / "examples" / "web"


UPLOADING = (
    "attempt=1 event='uploading' file='report.pdf' job_id='one' job_name='upload' queue='default'"
)


def output(name: str, tmp_path: Path, *arguments: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / name, *arguments],
        capture_output=True,
        check=False,
        cwd=tmp_path,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_every_example_is_tested() -> None:
    tested = set(re.findall(r'"(\w+\.py)"', Path(__file__).read_text()))
    assert {path.name for path in EXAMPLES.glob("*.py")} == tested


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fastapi_app.py", "without a name: 422\ncompleted 50.0 Welcome, Ada!\n"),
        (
            "starlette_app.py",
            "{'greeting': 'Hello, Ada!'}\n{'error': '$: Expected `str`, got `int`'}\n",
        ),
        ("litestar_app.py", "cat.png at 64 pixels\n"),
        (
            "flask_app.py",
            "before: pending\nafter: {'result': 'report 7, 70 pages', 'status': 'completed'}\n",
        ),
        ("plain_script.py", "2 jobs ran\ninbox is clean\ndrafts is clean\n"),
    ],
)
def test_an_app_enqueues_and_shows_what_became_of_it(
    name: str, expected: str, tmp_path: Path
) -> None:
    assert output(name, tmp_path) == expected


@pytest.mark.store("postgresql")
def test_an_order_and_its_job_appear_together(
    tmp_path: Path, postgres_address: postgresql.Address
) -> None:
    address = emptied_postgres(postgres_address)
    login = address.username if not address.password else f"{address.username}:{address.password}"
    url = f"postgresql://{login}@{address.host}:{address.port}/{address.database}"
    told = output("sqlalchemy_tx.py", tmp_path, url)
    assert told == "Ada -> pending\nNobody -> no job\n1 job ran\n"


def test_sentry_hears_of_the_last_attempt(tmp_path: Path) -> None:
    told = output("sentry_errors.py", tmp_path)
    assert told.startswith("the card of ada has expired\ncharge attempt 2\nfailed: the job ")
    assert told.count("expired") == 2


def test_a_line_says_which_job_it_is_from(tmp_path: Path) -> None:
    assert output("structlog_lines.py", tmp_path).splitlines() == [
        "event='enqueueing'",
        UPLOADING,
        "event='done'",
    ]


async def reported(queue: Queue, **options: Any) -> list[Any]:
    """What Sentry is told while the queue is worked off."""
    events: list[Any] = []
    capture(queue, **options)
    with isolated():

        @job(name="wrong", retries=1, retry_delay=0, jitter=0)
        async def wrong() -> None:
            raise ValueError

        @job(name="no_use", retries=5)
        async def no_use() -> None:
            raise Fail("no use")

        @job(name="wish", retries=5)
        async def wish() -> None:
            raise Cancel("not any more")

        @job(name="late", timeout=0.05, retries=0)
        async def late() -> None:
            await asyncio.Event().wait()

        @job(name="unsayable", retries=5)
        async def unsayable() -> object:
            return object()

        sentry_sdk.init(
            dsn="http://key@localhost/1",
            before_send=lambda event, _: events.append(event),
            default_integrations=False,
        )
        try:
            jobs = (wrong, no_use, wish, late, unsayable)
            handles = [await queue.enqueue(each.call()) for each in jobs]
            queue.process()
            for handle in handles:
                with contextlib.suppress(JobFailed, JobCancelled):
                    await handle.result(timeout=30)
        finally:
            sentry_sdk.get_global_scope().set_client(None)
    return events


def seen(events: list[Any]) -> set[tuple[str, int, str]]:
    return {
        (
            each["tags"]["job.name"],
            each["tags"]["job.attempt"],
            each["exception"]["values"][-1]["type"],
        )
        for each in events
    }


@pytest.mark.store("memory")
async def test_sentry_is_told_what_fails_and_not_what_is_wished_or_retried() -> None:
    async with InMemoryQueue() as queue:
        events = await reported(queue)
    assert seen(events) == {
        ("wrong", 2, "ValueError"),
        ("no_use", 1, "Fail"),
        ("late", 1, "JobTimeout"),
        ("unsayable", 1, "PayloadError"),
    }
    assert len(events) == 4
    assert all(event["transaction"] == event["tags"]["job.name"] for event in events)
    assert all("payload" not in event["contexts"]["job"] for event in events)


@pytest.mark.store("memory")
async def test_sentry_is_told_each_attempt_where_that_is_asked_for() -> None:
    async with InMemoryQueue() as queue:
        events = await reported(queue, every_attempt=True)
    assert ("wrong", 1, "ValueError") in seen(events)


@pytest.mark.store("memory")
async def test_sentry_sees_no_argument_in_frames_that_are_not_its_own() -> None:
    events: list[Any] = []
    password = uuid4().hex
    with isolated():

        @job(name="sign_in", retries=0)
        def sign_in(password: str, /) -> None:
            raise ValueError

        sentry_sdk.init(
            dsn="http://key@localhost/1",
            before_send=lambda event, _: events.append(event),
            default_integrations=False,
        )
        try:
            async with InMemoryQueue() as queue:
                capture(queue)
                await queue.enqueue(sign_in.call(password))
                await drain(queue)
        finally:
            sentry_sdk.get_global_scope().set_client(None)
    (event,) = events
    frames = event["exception"]["values"][-1]["stacktrace"]["frames"]
    assert frames[-1]["function"] == "sign_in"
    assert "password" in frames[-1]["vars"], "Sentry takes locals, and scrubs them by their names"
    assert password not in str(event)


@pytest.mark.store("memory")
async def test_the_job_is_bound_in_threads_too_and_nowhere_after() -> None:
    bound: list[dict[str, Any]] = []
    with isolated():

        @job(name="look")
        def look() -> None:
            bound.append(dict(get_contextvars()))

        async with InMemoryQueue() as queue:
            bind(queue)
            await queue.enqueue(look.call(), job_id="one")
            await drain(queue)
    assert bound == [{"job_id": "one", "job_name": "look", "queue": "default", "attempt": 1}]
    assert get_contextvars() == {}
