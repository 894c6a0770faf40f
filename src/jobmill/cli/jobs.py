"""`jobmill jobs …`: asks for jobs, and steers them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Final

import msgspec
from cyclopts import Parameter

from jobmill.cli.asking import Asked, ask
from jobmill.cli.bulk import Bulk, many
from jobmill.cli.command import part
from jobmill.cli.ending import Ended, Exit, say
from jobmill.cli.ends import tell_end
from jobmill.cli.output import (
    STATUS_STYLES,
    Column,
    Form,
    plain,
    print_json,
    print_lines,
    show,
    write,
)
from jobmill.cli.text import ago, clean, one_line, span, stamp
from jobmill.queue import Queue
from jobmill.records import JobInfo, JobPage, JobStatus

app: Final = part("jobs", "List, show, wait for, retry, cancel, delete jobs.")

_PAGE: Final = 1_000

Id = Annotated[str, Parameter(name="ID", help="The job's id.")]
Ids = Annotated[str, Parameter(name="ID", help="Ids of jobs; - reads them from stdin.")]

_COLUMNS: Final[tuple[Column[JobInfo], ...]] = (
    Column("id", lambda info: info.id),
    Column("job", lambda info: info.name),
    Column("status", lambda info: info.status, lambda info: STATUS_STYLES[info.status]),
    Column("attempt", lambda info: f"{info.attempts}/{info.max_attempts}", right=True),
    Column("enqueued", lambda info: ago(info.enqueued_at)),
    Column("took", lambda info: "" if info.duration is None else span(info.duration), right=True),
    Column("error", lambda info: _error(info), "red", gives=True),  # noqa: PLW0108  it is below
)


@app.command(name="list")
def list_jobs(
    *,
    asked: Asked = Asked(),  # noqa: B008  it is frozen
    status: Annotated[JobStatus | None, Parameter(help="Only these.")] = None,
    job: Annotated[str | None, Parameter(help="Only jobs of this name.")] = None,
    limit: Annotated[int, Parameter(help="So many at most; 0 for all.")] = 50,
    cursor: Annotated[str | None, Parameter(help="Go on where a list ended.")] = None,
    form: Form = Form(),  # noqa: B008  it is frozen
) -> None:
    """List jobs, newest first."""
    if limit < 0:
        raise Ended(Exit.USAGE, f"--limit: {limit} will not do; give 0 or more")

    async def find(queue: Queue) -> JobPage:
        found: list[JobInfo] = []
        after = cursor
        while True:
            most = min(_PAGE, limit - len(found)) if limit else _PAGE
            page = await queue.list_jobs(status=status, job_name=job, limit=most, cursor=after)
            found += page.jobs
            after = page.next_cursor
            if after is None or (limit and len(found) >= limit):
                return JobPage(found, after)

    page = ask(asked, find)
    more = {"next_cursor": page.next_cursor}
    show(form, "jobs", page.jobs, _COLUMNS, key=_id, none="no such jobs", more=more)
    if page.next_cursor is not None and not (form.json or form.jsonl or form.quiet):
        say(f"there are more; go on with --cursor {page.next_cursor}, or take --limit 0")


@app.command(name="show")
def show_job(
    id: Id,  # noqa: A002  the public name
    *,
    asked: Asked = Asked(),  # noqa: B008  it is frozen
    form: Form = Form(),  # noqa: B008  it is frozen
) -> None:
    """Show all that is known of a job."""
    info = ask(asked, partial(_known, id))
    if form.json or form.jsonl:
        (print_lines([plain(info)]) if form.jsonl else print_json(plain(info)))
    elif form.quiet:
        write(f"{one_line(info.id)}\n")
    else:
        write(_told(info))


@app.command
def logs(
    id: Id,  # noqa: A002  the public name
    *,
    asked: Asked = Asked(),  # noqa: B008  it is frozen
    form: Form = Form(),  # noqa: B008  it is frozen
) -> None:
    """Print what a job logged: its last 100 lines."""
    info = ask(asked, partial(_known, id))
    if form.json:
        print_json({"id": info.id, "logs": plain(info.logs)})
    elif form.jsonl:
        print_lines(plain(line) for line in info.logs)
    else:
        write("".join(f"{_line(line)}\n" for line in info.logs))


@app.command
def wait(
    id: Id,  # noqa: A002  the public name
    *,
    asked: Asked = Asked(),  # noqa: B008  it is frozen
    timeout: Annotated[float | None, Parameter(help="Seconds, at most.")] = None,
    form: Form = Form(),  # noqa: B008  it is frozen
) -> int:
    """Wait for a job's end, and print its result; exit code 1 where it did not complete."""
    return ask(asked, lambda queue: tell_end(queue, id, timeout, form))


@app.command
def retry(
    *ids: Ids,
    asked: Asked = Asked(),  # noqa: B008  it is frozen
    bulk: Bulk = Bulk(),  # noqa: B008  it is frozen
    form: Form = Form(),  # noqa: B008  it is frozen
) -> int:
    """Start ended jobs over; their errors stay. In bulk: those that failed, if not said else."""
    return many(
        "retry",
        ids,
        asked,
        bulk,
        form,
        one=lambda queue, job: queue.retry(job),
        all_of=lambda queue: queue.retry_many(status=bulk.status, job_name=bulk.job),
        states=("failed",),
        why_not="has not ended, or is not there",
    )


@app.command
def cancel(
    *ids: Ids,
    reason: Annotated[str, Parameter(help="Why; it is kept with the job.")] = "",
    asked: Asked = Asked(),  # noqa: B008  it is frozen
    bulk: Bulk = Bulk(),  # noqa: B008  it is frozen
    form: Form = Form(),  # noqa: B008  it is frozen
) -> int:
    """Cancel jobs: they never run again, and are told so where they run."""
    return many(
        "cancel",
        ids,
        asked,
        bulk,
        form,
        one=lambda queue, job: queue.cancel(job, reason),
        all_of=lambda queue: queue.cancel_many(
            status=bulk.status, job_name=bulk.job, reason=reason
        ),
        states=("pending", "delayed", "processing"),
        why_not="has ended, or is not there",
    )


@app.command
def delete(
    *ids: Ids,
    asked: Asked = Asked(),  # noqa: B008  it is frozen
    bulk: Bulk = Bulk(),  # noqa: B008  it is frozen
    form: Form = Form(),  # noqa: B008  it is frozen
) -> int:
    """Remove jobs for good, except what is running."""
    return many(
        "delete",
        ids,
        asked,
        bulk,
        form,
        one=lambda queue, job: queue.delete(job),
        all_of=lambda queue: queue.delete_many(status=bulk.status, job_name=bulk.job),
        states=("pending", "delayed", "completed", "failed", "cancelled"),
        why_not="is running, or is not there",
    )


@app.command(name="run-now")
def run_now(
    *ids: Ids,
    asked: Asked = Asked(),  # noqa: B008  it is frozen
    form: Form = Form(),  # noqa: B008  it is frozen
) -> int:
    """Make delayed jobs due now."""
    return many(
        "run-now",
        ids,
        asked,
        Bulk(),
        form,
        one=lambda queue, job: queue.run_now(job),
        why_not="is not delayed, or is not there",
    )


async def _known(id: str, queue: Queue) -> JobInfo:  # noqa: A002  the public name
    info = await queue.get_job(id)
    if info is None:
        raise Ended(Exit.NOT_FOUND, f"there is no job {id} in the queue {queue.name}")
    return info


def _id(info: JobInfo) -> str:
    return info.id


def _error(info: JobInfo) -> str:
    return f"{info.error.type}: {info.error.message}" if info.error else ""


def _told(info: JobInfo) -> str:
    """All of the job, for people."""
    taken = "" if info.duration is None else f", after {span(info.duration)}"
    progress = None
    if info.progress is not None:
        progress = f"{info.progress:g} %{f', {info.progress_note}' if info.progress_note else ''}"
    raw = None if info.raw_payload is None else f"(no JSON) {info.raw_payload.hex()}"
    pairs = (
        ("id", info.id),
        ("job", info.name),
        ("queue", info.queue),
        ("status", info.status),
        ("attempts", f"{info.attempts} of {info.max_attempts}"),
        ("lapses", info.lapses or None),
        ("priority", info.priority or None),
        ("unique key", info.unique_key),
        ("enqueued", stamp(info.enqueued_at)),
        ("due", stamp(info.run_at) if info.run_at != info.enqueued_at else None),
        ("started", stamp(info.started_at) or None),
        ("ended", f"{stamp(info.completed_at)}{taken}" if info.completed_at else None),
        ("worker", info.worker),
        ("progress", progress),
        *((f"metadata {key}", value) for key, value in info.metadata.items()),
        ("payload", raw or _json(info.payload)),
        ("result", _json(info.result) if info.status == "completed" else None),
    )
    lines = [f"{head:<11} {one_line(str(text))}" for head, text in pairs if text is not None]
    for error in info.errors:
        lines += ["", f"attempt {error.attempt} at {stamp(error.at)}:"]
        lines.append(clean(error.traceback.rstrip() or f"{error.type}: {error.message}"))
    if info.logs:
        lines += ["", "log:", *map(_line, info.logs)]
    return "\n".join([*lines, ""])


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _line(line: Mapping[str, Any]) -> str:
    rest = {key: each for key, each in line.items() if key not in ("at", "message")}
    fields = "".join(f" {key}={_json(each)}" for key, each in rest.items())
    return one_line(f"{stamp(line.get('at'))} {line.get('message', '')}{fields}")
