"""`jobmill run`: a worker for a file that is being written."""

from __future__ import annotations

import logging
import os
from functools import partial
from importlib.util import find_spec
from typing import Annotated, Final

from cyclopts import Parameter

from jobmill.cli.asking import TRIAL
from jobmill.cli.line import Line
from jobmill.cli.logs import LogLevel, start_log
from jobmill.cli.serving import Serving, run_serving
from jobmill.cli.web import PORT, check_port, is_installed, serve_beside
from jobmill.cli.working import How, leave_on_signals, prepared

log: Final = logging.getLogger("jobmill.dashboard")

_HOST: Final = "127.0.0.1"


def run(
    app: Annotated[str, Parameter(help="A program with jobs: a file, module or module:queue.")],
    *,
    queue: Annotated[str | None, Parameter(help="Name of the queue; else the app's.")] = None,
    concurrency: Annotated[
        int | None, Parameter(help="Jobs that run at once; else the queue's.")
    ] = None,
    reload: Annotated[bool, Parameter(help="Start anew when a Python file changes.")] = True,
    dashboard: Annotated[
        bool, Parameter(help="Show the queues in a browser, where that is installed.")
    ] = True,
    port: Annotated[int, Parameter(help="The port of the dashboard.")] = PORT,
    log_level: Annotated[LogLevel, Parameter(help="The least that is logged.")] = "info",
) -> int:
    """Run the jobs and schedules of a file, with a dashboard, and start anew when it changes.

    Where the app has no queue of its own, its jobs are kept in the file jobs.db.
    """
    check_port(port)
    watches = reload and find_spec("watchfiles") is not None and os.name != "nt"
    how = How(
        store=None,
        queue=() if queue is None else (queue,),
        concurrency=concurrency,
        reload=watches,
        log_level=log_level,
        log_jobs=True,
        shutdown_timeout=5.0,
    )
    line = Line.inherited()
    if line is None and watches:
        from jobmill.cli.supervisor import supervise

        return supervise([app], how)
    leave_on_signals()
    start_log("text", log_level)
    more: list[tuple[str, str]] = []
    if reload and not watches:
        more.append(("reload", 'only with pip install "jobmill[reload]"'))
    shows = dashboard and is_installed()
    if shows and port:
        more.append(("dashboard", f"http://{_HOST}:{port}"))
    if dashboard and not shows:
        more.append(("dashboard", 'only with pip install "jobmill[dashboard]"'))
    serving = prepared([app], how, line, trial=TRIAL, more=more)
    if shows:
        serving.beside = partial(_show, serving, port)
    return run_serving(serving)


async def _show(serving: Serving, port: int) -> None:
    try:
        from jobmill.dashboard import create_app

        await serve_beside(create_app(serving.queues), _HOST, port)
    except Exception:
        # Jobs go on without it.
        log.exception("the dashboard failed")
