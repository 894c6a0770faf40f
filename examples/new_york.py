"""A schedule at half past one in New York, over the night in which its clocks go back.

    python examples/new_york.py

Time is virtual: the night passes at once. On 1 November 2026 half past one comes twice, and the
schedule fires at the first of them, and next a night later, after 25 hours. A second schedule,
every half hour, follows real time: it fires at both. The example checks what it shows.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime, timedelta

from jobmill import InMemoryQueue, JobContext, Scheduler, Timezones, define_job
from jobmill.seams import Seams
from jobmill.testing import SimClock, SimLoop

START = datetime(2026, 11, 1, 4, 0, tzinfo=UTC)
HOURS = 3  # until after the second half past one


async def report(ctx: JobContext[None]) -> None:
    """The handler: here the schedule's history tells all there is to see."""


nightly = define_job(name="nightly", handler=report)
half_hourly = define_job(name="half_hourly", handler=report)


async def main(clock: SimClock) -> None:
    queue = InMemoryQueue(poll_interval=60, seams=Seams(clock=clock, threads=False))
    scheduler = Scheduler(queue=queue, timezone=Timezones.NEW_YORK)
    written = await scheduler.schedule("nightly", "30 1 * * *", nightly)
    await scheduler.schedule("half-hourly", "*/30 * * * *", half_hourly)
    print(f"nightly: {written.description}, first at {written.next_run}")

    queue.process()  # a worker ticks the schedules of its queue
    await asyncio.sleep(HOURS * 3_600 + 60)  # time enough for the last tick's job
    await queue.shutdown()

    fired = [tick.at for tick in await scheduler.history("nightly")]
    for at in fired:
        print(f"nightly ran at {at.isoformat()}, {at.astimezone(UTC):%d %b %H:%M} UTC")
    due = await scheduler.get_next_run_time("nightly") or START
    print(f"nightly is next due at {due.isoformat()}, {due.astimezone(UTC):%d %b %H:%M} UTC")
    ticks = [tick.at for tick in await scheduler.history("half-hourly", limit=1_000)]
    night = [at.isoformat() for at in reversed(ticks) if f"{at:%d %H:%M}" == "01 01:30"]
    print(f"half-hourly ran at {' and '.join(night)}")

    once = [f"{at:%d %H:%M}" for at in fired] == ["01 01:30"]
    check(once, "half past one came twice, it ran once")
    hours = due.astimezone(UTC) - fired[0].astimezone(UTC)
    check(hours == timedelta(hours=25), "from it to that of the next night it is an hour more")
    check(len(night) == 2, "what follows real time fires at both half past ones")
    stats = await queue.stats()
    check(len(ticks) == HOURS * 2, "and at each other half hour that really passed")
    check(stats.completed == stats.total > 0, "their jobs ran")


def check(it_is_so: bool, what: str) -> None:
    if not it_is_so:
        sys.exit(f"NOT AS IT SHOULD BE: {what}")
    print(f"ok: {what}")


if __name__ == "__main__":
    sim_clock = SimClock(wall=START.timestamp())
    with asyncio.Runner(loop_factory=lambda: SimLoop(sim_clock)) as runner:
        runner.run(main(sim_clock))
