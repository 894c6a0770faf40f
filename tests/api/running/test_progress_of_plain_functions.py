"""A plain `def` tells its progress, as an `async def` does."""

from __future__ import annotations

from typing import Any

import pytest

from jobmill import JobContext, JobHooks, Queue, define_job
from jobmill.registry import isolated
from tests.waiting import eventually


async def test_a_plain_def_tells_its_progress(queue: Queue) -> None:
    heard: list[float] = []

    def hear(ctx: JobContext[Any], value: float) -> None:
        heard.append(value)

    with isolated():
        job = define_job(
            half_and_all,
            name="half_and_all",
            hooks=JobHooks(on_progress=hear),
        )
        queue.process()
        handle = await queue.enqueue(job, None)
        await handle.result(timeout=30)
        info = await handle.info()
    assert (info.progress, info.progress_note) == (100.0, "all")
    assert heard == [50.0, 100.0]


def half_and_all(ctx: JobContext[None]) -> None:
    ctx.update_progress(50)
    ctx.update_progress(100, "all")


async def test_a_worker_that_cannot_begin_says_so(
    tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    from jobmill import SQLiteQueue, StoreError

    (tmp_path / "no.db").write_text("this is no database, and long enough to be seen as none")
    queue = SQLiteQueue(tmp_path / "no.db")
    queue.process()
    with pytest.raises((StoreError, ValueError)):
        await queue.stats()
    with pytest.raises((StoreError, ValueError)):
        await queue.shutdown()
    await eventually(lambda: "the worker ended" in caplog.text)
