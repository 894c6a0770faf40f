"""Listens to a queue, in a process of its own: `python -m tests.faults.monitor_app JSON`."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys

import msgspec

from jobmill import JobError, JobInfo, Monitor, create_queue
from tests.faults.witness import say
from tests.faults.worker_app import prepare


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What one monitor process is told."""

    url: str
    name: str


async def listen(settings: Settings) -> None:
    """Tell the witness of each event until told to stop."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    queue = create_queue(settings.url, poll_interval=0.05)
    monitor = Monitor(queue, name=settings.name)

    @monitor.on("job_completed")
    async def completed(job: JobInfo) -> None:
        say("heard", job.id, job.attempts, "completed")

    @monitor.on("job_cancelled")
    async def cancelled(job: JobInfo) -> None:
        say("heard", job.id, job.attempts, "cancelled")

    @monitor.on("job_failed")
    def failed(job: JobInfo, error: JobError) -> None:
        say("heard", job.id, error.attempt, "failed")

    @monitor.on("job_retried")
    def retried(job: JobInfo, error: JobError) -> None:
        say("heard", job.id, error.attempt, "retried")

    async with queue, monitor:
        say("ready")
        await stop.wait()


def main() -> None:
    prepare()
    logging.basicConfig(level=logging.INFO, format="%(name)s %(levelname)s %(message)s")
    asyncio.run(listen(msgspec.json.decode(sys.argv[1], type=Settings)))


if __name__ == "__main__":
    main()
