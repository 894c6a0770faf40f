from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobmill import Scheduler, create_queue, define_job
from jobmill.context import JobContext
from jobmill.registry import isolated
from jobmill.testing import drain
from tests.cli.kit import APP, Cli


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    """The command in a folder with one program, app.py."""
    (tmp_path / "app.py").write_text(APP)
    command = Cli(tmp_path)
    yield command
    command.end()


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """The command in a folder whose jobs.db has jobs of each status; only to be read.

    They ended whenever a test of this process first asked for it, perhaps many minutes ago.
    """
    return _filled(tmp_path_factory.mktemp("filled"))


@pytest.fixture
def just_filled(tmp_path: Path) -> Cli:
    """The same, whose jobs have ended a moment ago."""
    return _filled(tmp_path)


def _filled(folder: Path) -> Cli:
    (folder / "app.py").write_text(APP)
    with isolated():
        asyncio.run(_fill(folder / "jobs.db"))
    return Cli(folder, JOBMILL_URL="sqlite:///jobs.db")


async def _fill(path: Path) -> None:
    async def done(ctx: JobContext[str]) -> str:
        ctx.log("on my way", to=ctx.payload)
        await ctx.update_progress(50, "half of it")
        return f"Hello, {ctx.payload}!"

    async def bad(ctx: JobContext[None]) -> None:
        message = "a \x1b[31mred\x1b[0m error\nof two lines"
        raise ValueError(message)

    greet = define_job(name="greet", handler=done)
    fail = define_job(name="fail", handler=bad, retries=0)
    async with create_queue(f"sqlite:///{path}") as queue:
        for name in ("Ada", "Grace"):
            await queue.enqueue(greet, name, job_id=f"done-{name}", metadata={"from": "tests"})
        await queue.enqueue(fail, job_id="bad")
        await drain(queue)
        await queue.enqueue(greet, "later", delay=3_600, job_id="late")
        await queue.enqueue(greet, "now", job_id="due")
        await queue.cancel((await queue.enqueue(greet, "never", job_id="cancelled")).id, "no need")
        await Scheduler(queue, timezone="America/New_York").schedule(
            "morning", "0 8 * * *", greet, "world"
        )
    async with create_queue(f"sqlite:///{path}", name="other") as queue:
        await queue.enqueue(greet, "elsewhere", job_id="elsewhere")
        await queue.pause()
