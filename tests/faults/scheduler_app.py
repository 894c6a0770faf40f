"""A worker with schedules, in a process of its own: `python -m tests.faults.scheduler_app JSON`."""

from __future__ import annotations

import asyncio
import logging
import sys
from datetime import UTC, datetime

import msgspec

from jobmill import Queue, Scheduler, Worker, create_queue, current_context, job
from jobmill.schedule import Misfire
from tests.faults.witness import say
from tests.faults.worker_app import prepare


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What one process is told: the schedule that all of them declare."""

    url: str
    start: float
    end: float
    max_runs: int | None = None
    misfire: Misfire = "catch_up"
    lease: float = 5.0
    """Long enough that a slow machine loses none."""


@job(name="faults.tick")
async def tick() -> None:
    ctx = current_context()
    say("start", ctx.job_id, ctx.attempt)


def declared(queue: Queue, settings: Settings) -> Scheduler:
    """The scheduler as each process of a program has it."""
    scheduler = Scheduler(queue=queue)
    scheduler.cron(
        "* * * * * *",
        name="each",
        start_date=datetime.fromtimestamp(settings.start, UTC),
        end_date=datetime.fromtimestamp(settings.end, UTC),
        max_runs=settings.max_runs,
        misfire=settings.misfire,
    )(tick)
    return scheduler


async def serve(settings: Settings) -> None:
    queue = create_queue(settings.url, lease=settings.lease, poll_interval=0.2)
    async with declared(queue, settings):
        say("ready")
        await Worker(queue).run()


def main() -> None:
    prepare()
    logging.basicConfig(level=logging.INFO, format="%(name)s %(levelname)s %(message)s")
    asyncio.run(serve(msgspec.json.decode(sys.argv[1], type=Settings)))


if __name__ == "__main__":
    main()
