"""A script without an event loop puts jobs into a queue, and a second one works them off.

python plain_script.py
"""

import asyncio

from jobmill import Queue, create_queue, job
from jobmill.testing import drain


@job(name="clean")
def clean(folder: str) -> str:
    return f"{folder} is clean"


def main() -> None:
    queue = create_queue("sqlite:///jobs.db")
    handles = [queue.enqueue_sync(clean.call(folder)) for folder in ("inbox", "drafts")]
    # A worker does this: jobmill worker plain_script.py --store sqlite:///jobs.db
    asyncio.run(work(queue))
    print(*[asyncio.run(handle.result()) for handle in handles], sep="\n")


async def work(queue: Queue) -> None:
    print(await drain(queue), "jobs ran")
    await queue.close()


if __name__ == "__main__":
    main()
