"""`jobmill demo`: jobs at work in a file that is thrown away, with a word on each step."""

from __future__ import annotations

import asyncio
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter

from jobmill.cli.ending import Exit
from jobmill.cli.output import write
from jobmill.cli.text import span
from jobmill.cli.web import PORT, bound_or_ended, check_port, need_it, served, url_of
from jobmill.context import JobContext, current_context
from jobmill.errors import JobFailed
from jobmill.factory import SQLiteQueue
from jobmill.job import job
from jobmill.middleware import create_logging_middleware
from jobmill.queue import Queue
from jobmill.scheduler import Scheduler

_HOST: Final = "127.0.0.1"
_TICKS: Final = 2
_PATIENCE: Final = 30.0

_PROGRAM: Final = """\
Now yours. Save this as app.py:

    from jobmill import job


    @job
    def greet(name: str) -> str:
        return f"Hello, {name}!"

Then, in one terminal, and in another:

    jobmill run app.py
    jobmill enqueue greet '{"name": "Ada"}' --app app.py --wait
"""


@job(name="demo.greet")
def greet(name: str) -> str:
    """Say hello."""
    return f"Hello, {name}!"


@job(name="demo.fetch", retries=2, retry_delay=0.3, jitter=0)
def fetch(city: str) -> str:
    """Fail once, as the network does."""
    if current_context().attempt == 1:
        message = f"no answer from {city}"
        raise ConnectionError(message)
    return f"21 °C in {city}"


@job(name="demo.divide", retries=0)
def divide(by: int) -> float:
    """Fail for good."""
    return 1 / by


@job(name="demo.report")
def report() -> str:
    """Be scheduled."""
    return "all is well"


def demo(
    *,
    dashboard: Annotated[
        bool,
        Parameter(negative="", show_default=False, help="Show them in a browser, until Ctrl-C."),
    ] = False,
    port: Annotated[int, Parameter(help="The port of the dashboard; 0 for a free one.")] = PORT,
) -> int:
    """See jobs at work: one that succeeds, one that is tried again, one that fails, and a schedule.

    It takes a few seconds, in an SQLite file of its own that it removes.
    """
    if dashboard:
        need_it()
        check_port(port)
    with tempfile.TemporaryDirectory(prefix="jobmill-demo-") as folder:
        asyncio.run(_show(Path(folder) / "jobs.db", port if dashboard else None))
    write(_PROGRAM)
    return Exit.DONE


async def _show(path: Path, port: int | None) -> None:
    ticks = asyncio.Event()
    count = 0

    def started(ctx: JobContext[Any]) -> None:
        _say("start", f"{ctx.job_name}, attempt {ctx.attempt} of {ctx.max_attempts}")

    def completed(ctx: JobContext[Any], result: Any, seconds: float) -> None:
        nonlocal count
        _say("done", f"{ctx.job_name} gave {result!r} in {span(seconds)}")
        if ctx.job_name == report.name:
            count += 1
            if count >= _TICKS:
                ticks.set()

    def failed(ctx: JobContext[Any], error: BaseException, _: float) -> None:
        again = "" if ctx.attempt == ctx.max_attempts else "; it is tried again"
        _say("error", f"{ctx.job_name}: {type(error).__name__}: {error}{again}")

    telling = create_logging_middleware(started, completed, failed)
    async with SQLiteQueue(path, middleware=telling) as queue:
        _say("", f"a queue in {path}, and a worker for it", "")
        queue.process()
        for call in (greet.call("Ada"), fetch.call("Lisbon"), divide.call(0)):
            arguments = ", ".join(map(repr, call.payload.values()))
            _say("enqueue", f"{call.job.name}({arguments})")
            handle = await queue.enqueue(call)
            with suppress(JobFailed):
                await handle.result(_PATIENCE)
            info = await handle.info()
            _say(info.status, f"job {info.id}", "")
        scheduler = Scheduler(queue)
        plan = await scheduler.schedule("demo", "* * * * * *", report)
        _say("schedule", f"{report.name}, {plan.description.lower()}")
        await asyncio.wait_for(ticks.wait(), _PATIENCE)
        if port is not None:
            await _in_a_browser(queue, port)
        await scheduler.unschedule("demo")
        stats = await queue.stats()
        _say("", "", f"         {stats.completed} completed, {stats.failed} failed.", "")


async def _in_a_browser(queue: Queue, port: int) -> None:
    """Serve the dashboard until Ctrl-C."""
    from jobmill.dashboard import create_app

    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for each in (signal.SIGINT, signal.SIGTERM):
        # Where the loop hears no signals, Ctrl-C still ends it.
        with suppress(NotImplementedError):
            loop.add_signal_handler(each, stopped.set)
    listening = bound_or_ended(_HOST, port)
    async with served(create_app(queue), listening):
        _say("dashboard", f"{url_of(listening)}, until Ctrl-C")
        await stopped.wait()


def _say(what: str, *lines: str) -> None:
    head = f"{what:<11}" if what else ""
    first, *rest = lines
    write("\n".join([f"{head}{first}", *rest]) + "\n")
    sys.stdout.flush()
