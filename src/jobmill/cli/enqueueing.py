"""`jobmill enqueue`: puts a job into a queue, checked as the program itself would check it.

Without a program at hand it goes there by its name, and is said not to be checked.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from jobmill.cli.asking import Asked, ask
from jobmill.cli.command import STDIN
from jobmill.cli.ending import Ended, Exit, say
from jobmill.cli.ends import tell_end
from jobmill.cli.output import Form, show_one
from jobmill.context import JobContext
from jobmill.errors import PayloadError
from jobmill.job import Call, JobDefinition, JobHooks
from jobmill.options import EnqueueOptions, JobOptions
from jobmill.queue import Queue


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Wish:
    """How the job is to be put there."""

    delay: Annotated[float | None, Parameter(help="Seconds until it is due.")] = None
    run_at: Annotated[
        datetime | None, Parameter(help="The instant at which it is due, with its offset.")
    ] = None
    priority: Annotated[int | None, Parameter(help="The lower runs first.")] = None
    unique_key: Annotated[
        str | None, Parameter(help="While an unfinished job has this key, there is no second.")
    ] = None
    job_id: Annotated[
        str | None, Parameter(help="Its id, so that sending it again does no harm.")
    ] = None

    def options(self) -> EnqueueOptions:
        """The same as keywords of `Queue.enqueue`."""
        return EnqueueOptions(
            delay=self.delay,
            run_at=self.run_at,
            priority=self.priority,
            unique_key=self.unique_key,
            job_id=self.job_id,
        )


def enqueue(
    name: Annotated[
        str, Parameter(help="The job; with --app its last part will do: greet for app.greet.")
    ],
    payload: Annotated[
        str, Parameter(help="Its payload, or its arguments by name, as JSON; - reads stdin.")
    ] = "",
    *,
    asked: Asked = Asked(),  # noqa: B008  it is frozen
    wish: Wish = Wish(),
    wait: Annotated[
        bool, Parameter(negative="", show_default=False, help="Wait for its end; print its result.")
    ] = False,
    timeout: Annotated[float | None, Parameter(help="Seconds to --wait, at most.")] = None,
    form: Form = Form(),  # noqa: B008  it is frozen
) -> int:
    """Put a job into a queue, and print its id.

    --app says which program defines the job: that one checks its name and its payload. Without,
    as by --store and --queue, nothing checks them, and the job has the options that a job has by
    default: it says so, and a worker that does not know the name puts the job off.
    """
    from jobmill.cli.loading import job_named

    queue = asked.made()
    checked = asked.app is not None
    job = job_named(name) if checked else _unknown(name)
    call = _call(job, sys.stdin.read() if payload == STDIN else payload)

    async def put(queue: Queue) -> int:
        handle = await queue.enqueue(call, **wish.options())
        if not checked:
            say(
                f"nothing checked the name {name} and the payload; --app says which program "
                "defines the job, as in --app app.py"
            )
        if wait:
            return await tell_end(queue, handle.id, timeout, form)
        document = {"id": handle.id, "deduplicated": handle.deduplicated, "checked": checked}
        there = " (it was there before)" if handle.deduplicated else ""
        show_one(form, document, f"{handle.id}{there}", key=handle.id)
        return Exit.DONE

    return ask(queue, put, makes=True)


def _unknown(name: str) -> JobDefinition[Any, Any]:
    """The job of this name, of which nothing else is known; any JSON is a payload of it.

    Raises: DefinitionError where that can be no job's name.
    """

    def handler(_: JobContext[Any]) -> None:
        raise NotImplementedError

    return JobDefinition(name, handler, options=JobOptions(), hooks=JobHooks(), middleware=())


def _call(job: JobDefinition[Any, Any], text: str) -> Call[Any]:
    """The call with the payload that the JSON tells.

    Raises: Ended where it is no JSON, or does not fit the job.
    """
    if not text.strip():
        return Call(job, None)
    try:
        msgspec.json.decode(text)
    except ValueError as error:
        what = f'JSON: {error}; give it as one word, as in \'{{"name": "Ada"}}\''
        raise Ended(Exit.USAGE, what) from error
    try:
        return Call(job, job.decode_payload(text.encode()))
    except PayloadError as error:
        raise Ended(Exit.USAGE, f"JSON: it does not fit {job.name}: {error}") from error
