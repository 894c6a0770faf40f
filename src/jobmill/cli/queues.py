"""`jobmill queues …`: asks for the queues of a store, and steers them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Annotated, Final

from cyclopts import Parameter

from jobmill.cli.asking import Asked, ask
from jobmill.cli.bulk import Sure
from jobmill.cli.command import part
from jobmill.cli.ending import Exit
from jobmill.cli.output import Column, Form, plain, print_json, show, write
from jobmill.cli.text import ago, one_line
from jobmill.queue import Queue
from jobmill.states import State
from jobmill.store import Counts

app: Final = part("queues", "List, count, pause, resume, clear queues.")

JobName = Annotated[str | None, Parameter(name="--job", help="Only jobs of this name.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """How many jobs there are, of a queue or of a name in it."""

    name: str
    pending: int
    delayed: int
    processing: int
    completed: int
    failed: int
    cancelled: int
    paused: bool
    oldest_due: datetime | None = None


_COUNTS: Final[tuple[Column[Row], ...]] = (
    Column("pending", lambda row: f"{row.pending:,}", right=True),
    Column("delayed", lambda row: f"{row.delayed:,}", right=True),
    Column("processing", lambda row: f"{row.processing:,}", right=True),
    Column("completed", lambda row: f"{row.completed:,}", right=True),
    Column("failed", lambda row: f"{row.failed:,}", right=True),
    Column("cancelled", lambda row: f"{row.cancelled:,}", right=True),
)
_PAUSED: Final[Column[Row]] = Column("paused", lambda row: "yes" if row.paused else "", "yellow")
_OLDEST: Final[Column[Row]] = Column("oldest due", lambda row: ago(row.oldest_due))


@app.command(name="list")
def list_queues(
    *,
    asked: Asked = Asked(),  # noqa: B008  it is frozen
    form: Form = Form(),  # noqa: B008  it is frozen
) -> None:
    """List the queues of the store that have jobs, with how many."""

    async def rows(queue: Queue) -> list[Row]:
        found: list[Row] = []
        for name in await queue.ask(lambda store: store.queues()):
            store = queue.store.handle(name)
            await store.open()
            try:
                docs = await store.read("pauses")
                paused = any(doc.key == "*" for doc in docs)
                found.append(_row(name, await store.counts(), paused=paused))
            finally:
                await store.close()
        return found

    columns = (Column[Row]("queue", _name), *_COUNTS, _OLDEST, _PAUSED)
    none = "no queue of this store has a job"
    found = ask(asked.made(any_of_store=True), rows)
    show(form, "queues", found, columns, key=_name, none=none)


@app.command
def stats(
    *,
    asked: Asked = Asked(),  # noqa: B008  it is frozen
    form: Form = Form(),  # noqa: B008  it is frozen
) -> None:
    """Count the jobs of one queue, by name and status."""

    async def rows(queue: Queue) -> tuple[list[Row], bool]:
        counts = await queue.ask(lambda store: store.counts())
        whole = await queue.is_paused()
        some = [
            _states(name, states, paused=await queue.is_paused(name))
            for name, states in sorted(counts.by_name.items())
        ]
        return [*some, _row("all", counts, paused=whole)], whole

    found, paused = ask(asked, rows)
    *names, total = found
    columns = (Column[Row]("job", _name), *_COUNTS, _OLDEST, _PAUSED)
    if form.json or form.jsonl or form.quiet:
        more = {"total": plain(total), "paused": paused}
        show(form, "jobs", names, columns, key=_name, none="", more=more)
    else:
        show(form, "jobs", found, columns, key=_name, none="")


@app.command
def pause(
    *,
    job: JobName = None,
    asked: Asked = Asked(),  # noqa: B008  it is frozen
    form: Form = Form(),  # noqa: B008  it is frozen
) -> None:
    """Let no worker claim from the queue; what runs goes on."""
    name = ask(asked, lambda queue: _paused(queue, job, paused=True))
    _report(form, name, job, paused=True)


@app.command
def resume(
    *,
    job: JobName = None,
    asked: Asked = Asked(),  # noqa: B008  it is frozen
    form: Form = Form(),  # noqa: B008  it is frozen
) -> None:
    """Undo a pause."""
    name = ask(asked, lambda queue: _paused(queue, job, paused=False))
    _report(form, name, job, paused=False)


@app.command
def clear(
    *,
    asked: Asked = Asked(),  # noqa: B008  it is frozen
    sure: Sure = Sure(),  # noqa: B008  it is frozen
    form: Form = Form(),  # noqa: B008  it is frozen
) -> int:
    """Remove every job of the queue that is not running."""

    async def drop(queue: Queue) -> tuple[int, bool] | None:
        counts = await queue.stats()
        number = counts.total - counts.processing
        if sure.dry_run:
            return number, False
        jobs = "1 job" if number == 1 else f"{number:,} jobs"
        what = f"remove {jobs} of the queue {queue.name} in {queue.store.place}"
        if number and not sure.of(what):
            return None
        return await queue.clear(), True

    answer = ask(asked, drop)
    if answer is None:
        return Exit.FAILED
    count, done = answer
    if form.json or form.jsonl:
        print_json({"count": count, "dry_run": not done})
    elif form.quiet:
        write(f"{count}\n")
    else:
        jobs = "1 job" if count == 1 else f"{count:,} jobs"
        write(f"{jobs} removed\n" if done else f"{jobs} would be removed\n")
    return Exit.DONE


async def _paused(queue: Queue, job: str | None, *, paused: bool) -> str:
    await (queue.pause(job) if paused else queue.resume(job))
    return queue.name


def _report(form: Form, queue: str, job: str | None, *, paused: bool) -> None:
    if form.json or form.jsonl:
        print_json({"queue": queue, "job": job, "paused": paused})
    elif form.quiet:
        write(f"{queue}\n")
    else:
        what = queue if job is None else f"{job} of {queue}"
        write(f"{one_line(what)}: {'paused' if paused else 'goes on'}\n")


def _row(name: str, counts: Counts, *, paused: bool) -> Row:
    due = counts.oldest_due
    oldest = None if due is None else datetime.fromtimestamp(due, UTC)
    return replace(_states(name, counts.states, paused=paused), oldest_due=oldest)


def _states(name: str, states: Mapping[State, int], *, paused: bool) -> Row:
    return Row(
        name=name,
        pending=states.get("pending", 0),
        delayed=states.get("delayed", 0),
        processing=states.get("processing", 0),
        completed=states.get("completed", 0),
        failed=states.get("failed", 0),
        cancelled=states.get("cancelled", 0),
        paused=paused,
    )


def _name(row: Row) -> str:
    return row.name
