"""Each line that a job logs says which job it is from, also lines of libraries that know nothing.

python structlog_lines.py
"""

import asyncio

import structlog

from jobmill import create_queue, job
from jobmill.contrib.structlog import bind

structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.processors.KeyValueRenderer(sort_keys=True),
    ]
)
log = structlog.get_logger()
queue = create_queue("memory://")
bind(queue)


@job(name="upload")
def upload(file: str) -> None:
    log.info("uploading", file=file)


async def main() -> None:
    log.info("enqueueing")
    async with queue:
        queue.process()
        handle = await queue.enqueue(upload.call("report.pdf"), job_id="one")
        await handle.result()
    log.info("done")


if __name__ == "__main__":
    asyncio.run(main())
