"""A program that enqueues, in a process of its own: `python -m tests.faults.producer_app JSON`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import msgspec

from jobmill import StoreUnavailable, create_queue
from jobmill.options import EnqueueOptions
from tests.faults.jobs import Work, work
from tests.faults.worker_app import prepare


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What one producer is told. `answers`: the file for what enqueue answered."""

    url: str
    answers: str
    count: int = 1
    together: int = 1
    """Calls of enqueue in one turn of the loop."""
    ballast: int = 0
    unique_key: str | None = None
    job_id: str | None = None
    delay: float | None = None
    start: str = ""
    """A file for whose coming it waits, so that many begin at once."""
    stop: str = ""
    """A file at whose coming it ends."""
    pause: float = 0.0
    """Seconds between two turns."""
    dies: bool = False
    """Whether it is killed after its last answer."""


class Answer(msgspec.Struct, frozen=True):
    """What a call of enqueue gave: an id, or an error with the ids that may be sent again."""

    pid: int
    id: str = ""
    deduplicated: bool = False
    error: str = ""
    job_ids: tuple[str, ...] = ()


def tell(path: str, answer: Answer) -> None:
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(file, msgspec.json.encode(answer) + b"\n")
    finally:
        os.close(file)


def read_answers(path: Path) -> list[Answer]:
    """What was answered; a line that is being written is left out."""
    text = path.read_bytes() if path.exists() else b""
    return [msgspec.json.decode(line, type=Answer) for line in text.split(b"\n")[:-1]]


async def produce(settings: Settings) -> None:
    queue = create_queue(settings.url)
    options: EnqueueOptions = {"unique_key": settings.unique_key}
    if settings.job_id is not None:
        options["job_id"] = settings.job_id
    if settings.delay is not None:
        options["delay"] = settings.delay
    payload = Work(ballast="x" * settings.ballast)

    async def one() -> None:
        try:
            handle = await queue.enqueue(work, payload, **options)
        except StoreUnavailable as error:
            text = f"StoreUnavailable: {error}"
            tell(settings.answers, Answer(os.getpid(), error=text, job_ids=tuple(error.job_ids)))
        else:
            tell(settings.answers, Answer(os.getpid(), handle.id, handle.deduplicated))

    async with queue:
        while settings.start and not Path(settings.start).exists():  # noqa: ASYNC240
            time.sleep(0.001)  # noqa: ASYNC251  all begin at once, as nearly as it goes
        for _ in range(0, settings.count, settings.together):
            if settings.stop and Path(settings.stop).exists():  # noqa: ASYNC240
                break
            await asyncio.sleep(settings.pause)
            await asyncio.gather(*(one() for _ in range(settings.together)))
        if settings.dies:
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    prepare()
    asyncio.run(produce(msgspec.json.decode(sys.argv[1], type=Settings)))


if __name__ == "__main__":
    main()
