"""What fails for good is reported to Sentry, with the job it failed in.

Here events are printed and not sent. python sentry_errors.py
"""

import asyncio
from typing import Any

import sentry_sdk

from jobmill import JobFailed, create_queue, job
from jobmill.contrib.sentry import capture

queue = create_queue("memory://")
capture(queue)


@job(name="charge", retries=1, retry_delay=0)
def charge(customer: str) -> None:
    raise ValueError(f"the card of {customer} has expired")


def show(event: Any, _hint: Any) -> None:
    """Print the event; giving nothing back, it keeps it from being sent."""
    print(event["exception"]["values"][-1]["value"])
    print(event["tags"]["job.name"], "attempt", event["tags"]["job.attempt"])


async def main() -> None:
    sentry_sdk.init(dsn="http://key@localhost/1", before_send=show)
    async with queue:
        queue.process()
        handle = await queue.enqueue(charge.call("ada"))
        try:
            await handle.result()
        except JobFailed as failed:
            print("failed:", failed)


if __name__ == "__main__":
    asyncio.run(main())
