"""Log records say which job they are about, and nothing of what it was given."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from jobmill import InMemoryQueue, JobContext, JobHooks, Queue, create_logging_middleware
from jobmill.logs import FIELDS, JobFilter
from jobmill.registry import isolated
from jobmill.states import Move
from jobmill.store import Query
from tests.api.running.conftest import MakeQueue
from tests.api.running.kit import define, ended, until

app = logging.getLogger("an.application")


class Records(logging.Handler):
    """Keeps what is logged, as a handler with the filter gets it."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[logging.LogRecord] = []
        self.addFilter(JobFilter())

    def emit(self, record: logging.LogRecord) -> None:
        self.all.append(record)

    def of(self, text: str) -> logging.LogRecord:
        (record,) = [each for each in self.all if text in each.getMessage()]
        return record


def fields(record: logging.LogRecord) -> dict[str, Any]:
    return {name: getattr(record, name) for name in FIELDS}


@pytest.fixture
def records() -> Iterator[Records]:
    kept = Records()
    root = logging.getLogger()
    before, root.level = root.level, logging.INFO
    root.addHandler(kept)
    yield kept
    root.removeHandler(kept)
    root.setLevel(before)


async def test_what_a_handler_logs_says_which_job_it_is(queue: Queue, records: Records) -> None:
    async def coroutine(ctx: JobContext[str]) -> None:
        app.warning("in the coroutine of %s", ctx.attempt)
        await asyncio.gather(deeper(), asyncio.to_thread(app.warning, "in a thread of its own"))

    async def deeper() -> None:
        app.warning("in a deeper coroutine")

    def plain(ctx: JobContext[str]) -> None:
        app.warning("in the thread of a plain function")

    queue.process()
    for handler, texts in (
        (coroutine, ("in the coroutine of 1", "in a deeper coroutine", "in a thread of its own")),
        (plain, ("in the thread of a plain function",)),
    ):
        job = define(handler)
        handle = await queue.enqueue(job, "a secret payload")
        assert (await ended(queue, handle)).status == "completed"
        for text in texts:
            assert fields(records.of(text)) == {
                "job_id": handle.id,
                "job_name": job.name,
                "attempt": 1,
                "queue": queue.name,
            }
    app.warning("outside of all jobs")
    assert fields(records.of("outside")) == dict.fromkeys(FIELDS, "-")
    assert "secret" not in "".join(record.getMessage() for record in records.all)


async def test_what_jobmill_logs_of_a_job_says_which_it_is(
    make_queue: MakeQueue, records: Records
) -> None:
    def fails(*_: Any) -> None:
        raise ValueError("a hook that fails")

    async def nothing(ctx: JobContext[str]) -> None: ...

    queue = make_queue(middleware=create_logging_middleware())
    queue.process()
    job = define(nothing, hooks=JobHooks(after_run=fails))
    handle = await queue.enqueue(job, "a secret payload")
    await ended(queue, handle)
    with isolated():
        unknown = await queue.enqueue(define(nothing, name="logs.unknown"), "a secret payload")
    await until(lambda: [each for each in records.all if "is put off" in each.getMessage()])
    expected = {"job_id": handle.id, "job_name": job.name, "attempt": 1, "queue": queue.name}
    for text in ("job started", "job completed", "the hook after_run"):
        told = [each for each in records.all if text in each.getMessage()]
        assert [fields(each) for each in told] == [expected]
    put_off = next(each for each in records.all if "is put off" in each.getMessage())
    assert fields(put_off) == {
        "job_id": unknown.id,
        "job_name": "logs.unknown",
        "attempt": 1,
        "queue": queue.name,
    }
    ours = [each for each in records.all if each.name.startswith("jobmill")]
    assert {each.name for each in ours} == {"jobmill.job", "jobmill.worker"}
    assert not [each for each in ours if "secret" in str(vars(each))]


async def test_a_settle_that_comes_too_late_says_which_job_it_is(
    queue: Queue, records: Records
) -> None:
    go = asyncio.Event()

    async def wait(ctx: JobContext[None]) -> None:
        await go.wait()

    job = define(wait)
    handle = await queue.enqueue(job)
    queue.process()
    info = await until(lambda: _processing(queue, handle.id))
    # Another has ended it, and it was deleted.
    store = queue.store.handle()
    await store.open()
    (record,) = await store.get([handle.id])
    assert record is not None
    assert record.token is not None
    moved = await store.move([Move(event="fail", job_id=handle.id, token=record.token)])
    assert moved[0].status == "applied"
    assert await store.drop(Query(), ids=[handle.id], limit=1) == 1
    await store.close()
    go.set()
    told = await until(
        lambda: [each for each in records.all if "came too late" in each.getMessage()]
    )
    assert (told[0].job_id, told[0].queue) == (handle.id, queue.name)
    assert info.name == job.name


async def _processing(queue: Queue, job_id: str) -> Any:
    info = await queue.get_job(job_id)
    return info if info is not None and info.status == "processing" else None


@pytest.mark.blocks_loop
async def test_a_blocked_loop_says_which_job_blocks_it(records: Records) -> None:
    free = threading.Event()

    def watch() -> None:
        free.wait(60.0)

    async def block(ctx: JobContext[None]) -> None:
        watch()

    class Frees(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            if "blocked the event loop" in record.getMessage():
                free.set()
            return True

    records.addFilter(Frees())
    async with InMemoryQueue(lease=0.3) as queue:
        queue.process()
        job = define(block)
        handle = await queue.enqueue(job)
        await ended(queue, handle)
        assert fields(records.of("blocked the event loop")) == {
            "job_id": handle.id,
            "job_name": job.name,
            "attempt": 1,
            "queue": queue.name,
        }


_CHILD = """
import asyncio, logging, sys
from jobmill import InMemoryQueue, job
from jobmill.logs import JobFilter

handler = logging.StreamHandler()
handler.addFilter(JobFilter())
logging.basicConfig(
    format="%(message)s job_id=%(job_id)s name=%(job_name)s attempt=%(attempt)s queue=%(queue)s",
    handlers=[handler],
)

@job(executor="process", name="logs.child")
def crunch() -> None:
    logging.getLogger("app").warning("in the child")

async def main() -> None:
    async with InMemoryQueue() as queue:
        handle = await queue.enqueue(crunch)
        queue.process()
        await handle.result(30)
        print(handle.id)

if __name__ == "__main__":
    asyncio.run(main())
"""


def test_a_child_process_that_adds_the_filter_says_it_too(tmp_path: Any) -> None:
    script = tmp_path / "app.py"
    script.write_text(_CHILD)
    ran = subprocess.run(
        [sys.executable, str(script)], capture_output=True, check=True, text=True, timeout=100
    )
    job_id = ran.stdout.strip()
    line = f"in the child job_id={job_id} name=logs.child attempt=1 queue=default"
    assert line in ran.stderr.splitlines()


def test_a_record_that_has_its_job_keeps_it() -> None:
    record = logging.makeLogRecord({"job_id": "0190"})
    assert JobFilter(missing=None).filter(record)
    assert fields(record) == {"job_id": "0190", "job_name": None, "attempt": None, "queue": None}
