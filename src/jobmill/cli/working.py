"""`jobmill worker`: runs the jobs of queues, in this process or in several."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final, NoReturn

from cyclopts import Parameter

from jobmill.cli.asking import beside
from jobmill.cli.ending import Ended, Exit
from jobmill.cli.line import Line
from jobmill.cli.loading import Program, job_named, load
from jobmill.cli.logs import LogFormat, LogLevel, log_jobs, start_log
from jobmill.cli.probes import address_of
from jobmill.cli.screen import first_screen
from jobmill.cli.serving import Serving, run_serving, told_early
from jobmill.factory import ENVIRONMENT_URL, create_queue
from jobmill.queue import Queue
from jobmill.worker import Worker

Flag: Final[Parameter] = Parameter(negative="", show_default=False)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class How:
    """The words after `jobmill worker APP …`."""

    store: Annotated[
        str | None,
        Parameter(help=f"URL of the store, for an app without a queue; else {ENVIRONMENT_URL}."),
    ] = None
    queue: Annotated[
        tuple[str, ...], Parameter(negative="", help="Queues to serve, by name; else the app's.")
    ] = ()
    jobs: Annotated[
        tuple[str, ...],
        Parameter(negative="", consume_multiple=True, help="Run these jobs only, by name."),
    ] = ()
    concurrency: Annotated[
        int | None, Parameter(help="Jobs that run at once in a process; else the queue's.")
    ] = None
    processes: Annotated[int, Parameter(help="Processes that work, each on its own.")] = 1
    reload: Annotated[bool, Flag, Parameter(help="Start anew when a file of the app changes.")] = (
        False
    )
    burst: Annotated[bool, Flag, Parameter(help="End when nothing is due any more.")] = False
    max_jobs: Annotated[
        int | None, Parameter(help="End, or with --processes start anew, after so many jobs.")
    ] = None
    max_memory: Annotated[
        int | None, Parameter(help="The same, when it has more than so many MB of memory.")
    ] = None
    shutdown_timeout: Annotated[
        float, Parameter(help="Seconds that running jobs have to end when the worker stops.")
    ] = 30.0
    scheduler: Annotated[
        bool, Parameter(name="--scheduler", help="Tick the schedules of the queues.")
    ] = True
    log_format: Annotated[LogFormat, Parameter(help="Lines for people, or for programs.")] = "text"
    log_level: Annotated[LogLevel, Parameter(help="The least that is logged.")] = "info"
    log_jobs: Annotated[
        bool | None,
        Parameter(show_default=False, help="Log each job that completes; else on a terminal only."),
    ] = None
    health_port: Annotated[
        str | None,
        Parameter(help="Answer /healthz and /readyz on this port, or HOST:PORT."),
    ] = None

    def __post_init__(self) -> None:
        for word, value in (
            ("--processes", self.processes),
            ("--concurrency", self.concurrency),
            ("--max-jobs", self.max_jobs),
            ("--max-memory", self.max_memory),
        ):
            if value is not None and value < 1:
                raise Ended(Exit.USAGE, f"{word}: {value} will not do; give 1 or more")
        if not 0 <= self.shutdown_timeout < float("inf"):
            message = f"--shutdown-timeout: {self.shutdown_timeout:g} will not do; give seconds"
            raise Ended(Exit.USAGE, message)
        if self.reload and self.burst:
            raise Ended(Exit.USAGE, "--reload and --burst exclude each other; say one")
        if self.reload and self.processes > 1:
            raise Ended(Exit.USAGE, "--reload is for one process; leave --processes out")
        if self.health_port is not None:
            address_of(self.health_port)


def worker(
    *apps: Annotated[
        str,
        Parameter(name="APP", help="Programs with jobs: module, module:queue, path/to/file.py."),
    ],
    how: How = How(),
) -> int:
    """Run the jobs of queues until stopped.

    The first SIGTERM or Ctrl-C lets running jobs end, the second hands them back and goes.
    With --processes, SIGHUP starts each process anew, one after the other.
    """
    if not apps:
        raise Ended(Exit.USAGE, "APP: say whose jobs to run, as in jobmill worker app.py")
    line = Line.inherited()
    if line is None and (how.processes > 1 or how.reload):
        from jobmill.cli.supervisor import supervise

        return supervise(apps, how)
    leave_on_signals()
    start_log(how.log_format, how.log_level, pids=how.processes > 1)
    return run_serving(prepared(apps, how, line))


def prepared(
    apps: Sequence[str],
    how: How,
    line: Line | None = None,
    *,
    trial: str | None = None,
    more: Sequence[tuple[str, str]] = (),
) -> Serving:
    """What serves the apps, which are loaded; `line`: to the supervisor, where there is one.

    `trial` is the store of an app that has no queue; `more` is said on the first screen.

    Raises: Ended where a word leads to nothing that can be served.
    """
    programs = [load(app) for app in apps]
    queues = queues_of(programs, how, trial)
    if how.log_jobs is None:
        completed = sys.stderr.isatty() and how.log_format == "text"
    else:
        completed = how.log_jobs
    for queue in queues:
        queue.middleware = (log_jobs(completed=completed), *queue.middleware)
    worker = Worker(
        queues,
        concurrency=how.concurrency,
        jobs=[job_named(name) for name in how.jobs] or None,
        schedules=how.scheduler,
        # A supervisor replaces it first, so that never all of them have spent theirs.
        max_jobs=how.max_jobs if line is None else None,
    )
    if line is None or line.first:
        first_screen(worker, queues, form=how.log_format, processes=how.processes, more=more)
    schedulers = [each for program in programs for each in program.schedulers.values()]
    return Serving(
        queues=queues,
        worker=worker,
        schedulers=[each for each in schedulers if each.queue in queues] if how.scheduler else (),
        shutdown_timeout=how.shutdown_timeout,
        burst=how.burst,
        max_jobs=how.max_jobs,
        max_memory=how.max_memory,
        health=None if line or how.health_port is None else address_of(how.health_port),
        line=line,
    )


def queues_of(programs: Sequence[Program], how: How, trial: str | None = None) -> list[Queue]:
    """The queues that are to be served; `trial` is the store where nothing else says one."""
    queues: list[Queue] = []
    for program in programs:
        queues += [each.queue for each in program.queues if each.queue not in queues]
    words = " ".join(program.word for program in programs)
    if not queues:
        url = how.store or os.environ.get(ENVIRONMENT_URL) or trial
        if not url:
            message = (
                f'{words}: it has no queue; add queue = create_queue("sqlite:///jobs.db") to it, '
                f"or say --store URL, or set {ENVIRONMENT_URL}"
            )
            raise Ended(Exit.USAGE, message)
        return [create_queue(url, name=name) for name in dict.fromkeys(how.queue) or (None,)]
    if how.store is not None:
        message = f"--store: {words} has a queue of its own, with its store; leave --store out"
        raise Ended(Exit.USAGE, message)
    if not how.queue:
        return queues
    by_name = {queue.name: queue for queue in reversed(queues)}
    return [by_name.get(name) or beside(queues[0], name) for name in dict.fromkeys(how.queue)]


def leave_on_signals() -> None:
    """Until a worker hears the signals itself, there is nothing to be ended in order."""
    told_early.clear()

    def leave(*_: object) -> NoReturn:
        # Python swallows what is raised in some places, such as the end of an import.
        told_early.set()
        sys.exit(Exit.DONE)

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
