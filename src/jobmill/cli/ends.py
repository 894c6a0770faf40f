"""Waits for a job's end, and tells it."""

from __future__ import annotations

import msgspec

from jobmill.cli.ending import Ended, Exit
from jobmill.cli.output import Form, plain, show_one
from jobmill.queue import Queue


async def tell_end(queue: Queue, job_id: str, timeout: float | None, form: Form) -> Exit:
    """Print the result of the job when it has ended; the code says how.

    Raises: Ended where there is no such job, it failed or was cancelled, or the time is over.
    """
    ended = await queue.wait_for_end(job_id, timeout)
    if ended is None:
        raise Ended(Exit.NOT_FOUND, f"there is no job {job_id} in the queue {queue.name}")
    info, _ = ended
    if form.json or form.jsonl:
        show_one(form, plain(info), "", key=job_id)
        return Exit.DONE if info.status == "completed" else Exit.FAILED
    if info.status != "completed":
        what = f"{info.error.type}: {info.error.message}" if info.error else ""
        raise Ended(Exit.FAILED, f"the job {job_id} {_ended(info.status)}: {what}")
    show_one(form, {}, msgspec.json.encode(info.result).decode(), key=job_id)
    return Exit.DONE


def _ended(status: str) -> str:
    return "was cancelled" if status == "cancelled" else status
