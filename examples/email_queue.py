"""An e-mail queue on an SQLite file: real SMTP, a retry, and a second program that goes on.

    python examples/email_queue.py [FILE]

The first part enqueues five e-mails. Three are due; a worker sends them to a mail server that
this program starts by itself, and that refuses one of them at first. The two others have to
wait: the worker stops before they are due. The second part is a new process. All it has is
the file; it sees what was done, and sends what was left. Then it schedules a daily digest.
"""

from __future__ import annotations

import asyncio
import smtplib
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default as modern
from pathlib import Path
from string import Template
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope, Session

from jobmill import (
    JobContext,
    JobHandle,
    JobHooks,
    JobInfo,
    JobOptions,
    Queue,
    QueueStats,
    Scheduler,
    Timezones,
    create_queue,
    define_job,
)

# ----------------------------------------------------------------------------- the job


@dataclass(frozen=True, slots=True)
class Email:
    """What the job is given: it is checked when it is enqueued, and kept as JSON."""

    to: str
    subject: str
    body: str = ""
    template: str | None = None


TEMPLATES = {
    "welcome": Template("Dear $name,\n\nwelcome to the mill.\n"),
    "digest": Template("Dear $name,\n\nthis is what the mill did yesterday.\n"),
    "reminder": Template("Dear $name,\n\nyour trial ends tomorrow.\n"),
}


def render(email: Email) -> EmailMessage:
    message = EmailMessage()
    message["From"] = "mill@example.org"
    message["To"] = email.to
    message["Subject"] = email.subject
    name = email.to.partition("@")[0].capitalize()
    template = TEMPLATES[email.template] if email.template else Template(email.body)
    message.set_content(template.safe_substitute(name=name))
    return message


def send(message: EmailMessage, port: int) -> None:
    with smtplib.SMTP("127.0.0.1", port, timeout=5) as connection:
        connection.send_message(message)


async def deliver(ctx: JobContext[Email]) -> str:
    """The handler: what it returns is the job's result."""
    message = render(ctx.payload)
    await ctx.update_progress(50, "rendered")
    # smtplib blocks, so it gets a thread; the event loop goes on with the other e-mails.
    await asyncio.to_thread(send, message, ctx.state)
    ctx.log("sent", attempt=ctx.attempt)
    await ctx.update_progress(100)
    return f"delivered to {ctx.payload.to}"


def tell_error(ctx: JobContext[Email], error: BaseException) -> None:
    say(f"attempt {ctx.attempt} for {ctx.payload.to} failed: {error}; it will be tried again")


send_email = define_job(
    name="send_email",
    handler=deliver,
    options=JobOptions(timeout=10, retries=3, retry_delay=0.3),
    hooks=JobHooks(on_error=tell_error),
)

# ----------------------------------------------------------------------------- the mail server


class Inbox:
    """Keeps what arrives. Is too busy for grace the first time, as real servers sometimes are."""

    def __init__(self) -> None:
        self.arrived: list[EmailMessage] = []
        self.refused: set[str] = set()

    async def handle_RCPT(  # noqa: N802  aiosmtpd's name
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: Any
    ) -> str:
        """Take a recipient, or tell the sender to come back."""
        if address.startswith("grace@") and address not in self.refused:
            self.refused.add(address)
            return "451 too busy, come back later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(  # noqa: N802  aiosmtpd's name
        self, _server: SMTP, _session: Session, envelope: Envelope
    ) -> str:
        """Take an e-mail."""
        content = envelope.content
        assert isinstance(content, bytes)  # noqa: S101  aiosmtpd decodes only when asked to
        self.arrived.append(BytesParser(EmailMessage, policy=modern).parsebytes(content))
        return "250 OK"


inbox = Inbox()


@asynccontextmanager
async def mail_server(_queue: Queue) -> AsyncIterator[int]:
    """The queue's lifespan: open while a worker works; the port it gives is `ctx.state`."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(inbox, loop=loop), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


# ----------------------------------------------------------------------------- the first part

NOW = [
    Email("ada@example.com", "Welcome", template="welcome"),
    Email("grace@example.com", "Welcome", template="welcome"),
    Email("alan@example.com", "Your invoice", body="Dear $name,\n\nnothing to pay.\n"),
]
LATER = {
    "reminder-ada": Email("ada@example.com", "A reminder", template="reminder"),
    "news-alan": Email("alan@example.com", "News", body="Dear $name,\n\nno news is good news.\n"),
}


async def first_part(file: Path) -> None:
    headline(f"1. A queue in {file.name}, and a worker")
    queue = open_queue(file)
    handles = [await queue.enqueue(send_email, email) for email in NOW]
    say(f"enqueued {len(handles)} e-mails that are due, and one that is due in four seconds:")
    await queue.enqueue(send_email, LATER["reminder-ada"], delay=4, job_id="reminder-ada")
    say(counted(await queue.stats()))

    headline("2. The worker sends what is due")
    queue.process()
    for handle in handles:
        say(f"result: {await handle.result(timeout=10)}")
    await queue.shutdown()

    headline("3. The worker has stopped; one more e-mail is enqueued")
    await queue.enqueue(send_email, LATER["news-alan"], job_id="news-alan")
    stats = await queue.stats()
    say(counted(stats))
    info = await found(queue, handles[1])
    say(f"the job {info.id} of {info.payload['to']}:")
    say(f"  {info.status} after {info.attempts} attempts, progress {info.progress:.0f} %")
    say(f"  first error: {info.errors[0].type}: {info.errors[0].message}")
    say(f"  log: {', '.join(line['message'] for line in info.logs)}")
    await queue.close()

    show_inbox()
    check(len(inbox.arrived) == 3, "three e-mails arrived")
    check(info.status == "completed" and info.attempts == 2, "one of them at the second attempt")
    check((stats.completed, stats.pending + stats.delayed) == (3, 2), "two are still to be sent")


# ----------------------------------------------------------------------------- the second part


async def second_part(file: Path) -> None:
    headline("4. A new process opens the same file")
    queue = open_queue(file)
    say(counted(await queue.stats()))
    for info in (await queue.list_jobs(status="completed")).jobs:
        say(f"already done: {info.result}")

    # The same job under the same job_id is the same job: to ask again adds nothing.
    handles = [await queue.enqueue(send_email, LATER[name], job_id=name) for name in LATER]
    check(all(handle.deduplicated for handle in handles), "asking again has added nothing")

    headline("5. Its worker sends what was left")
    queue.process()
    for handle in handles:
        say(f"result: {await handle.result(timeout=10)}")
    stats = await queue.stats()
    say(counted(stats))
    await queue.shutdown()

    show_inbox()
    check(len(inbox.arrived) == 2, "the two that were left arrived, and nothing else")
    check(stats.completed == stats.total == 5, "all five jobs are completed")
    inbox.arrived.clear()
    await daily_digest(queue)


async def daily_digest(queue: Queue) -> None:
    headline("6. A digest every morning at eight in New York, and a first one now")
    scheduler = Scheduler(queue=queue, timezone=Timezones.NEW_YORK)
    # A program may say this at each of its starts: it is the same schedule, and starts once.
    digest = await scheduler.schedule(
        "daily_digest",
        "0 8 * * *",
        send_email,
        Email("ada@example.com", "Daily digest", template="digest"),
        run_on_start=True,
    )
    say(f"{digest.name}: {digest.description} in {digest.timezone}")
    queue.process()  # its worker ticks the schedules, too
    while not (ticks := await scheduler.history("daily_digest")):  # noqa: ASYNC110  some worker's
        await asyncio.sleep(0.05)
    check(len(ticks) == 1 and ticks[0].job_id is not None, "the first digest was due at once")
    ended = await queue.wait_for_end(str(ticks[0].job_id), timeout=10)
    check(ended is not None and ended[0].status == "completed", "it was sent")
    at = await scheduler.get_next_run_time("daily_digest")
    assert at is not None  # noqa: S101  for the type checker
    check((at.hour, at.minute) == (8, 0), f"the next one is due at {at:%H:%M} in New York")
    await queue.shutdown()
    show_inbox()
    check(len(inbox.arrived) == 1, "the digest arrived, once")


# ----------------------------------------------------------------------------- around it


def open_queue(file: Path) -> Queue:
    return create_queue(f"sqlite:///{file}", lifespan=mail_server)


async def found(queue: Queue, handle: JobHandle[str]) -> JobInfo:
    info = await queue.get_job(handle.id)
    check(info is not None, "a job is found by its id")
    assert info is not None  # noqa: S101  for the type checker
    return info


def counted(stats: QueueStats) -> str:
    return f"the queue: {stats.completed} completed, {stats.pending} due, {stats.delayed} waiting"


def show_inbox() -> None:
    say("what the mail server got from this process:")
    for message in inbox.arrived:
        text = " ".join(str(message.get_content()).split())
        say(f"  to {message['To']}: {message['Subject']!r}: {text}")


def headline(text: str) -> None:
    print(f"\n{text}", flush=True)


def say(text: str) -> None:
    print(f"   {text}", flush=True)


def check(it_is_so: bool, what: str) -> None:
    if not it_is_so:
        sys.exit(f"NOT AS IT SHOULD BE: {what}")
    say(f"ok: {what}")


def main(arguments: list[str]) -> None:
    second = "--second" in arguments
    files = [Path(each).absolute() for each in arguments if each != "--second"]
    if second:
        asyncio.run(second_part(files[0]))
        return
    with tempfile.TemporaryDirectory(prefix="jobmill-demo-") as directory:
        file = files[0] if files else Path(directory) / "emails.db"
        if file.exists():
            sys.exit(f"{file} is there already; give a path for a new file")
        asyncio.run(first_part(file))
        command = [sys.executable, __file__, "--second", str(file)]
        ended = subprocess.run(command, check=False)  # noqa: S603  this very program
        if ended.returncode:
            sys.exit(ended.returncode)
    headline("All were sent, each once, by two processes with one file between them.")


if __name__ == "__main__":
    main(sys.argv[1:])
