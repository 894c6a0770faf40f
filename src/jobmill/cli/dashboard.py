"""`jobmill dashboard`: serves the dashboard of some queues."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from jobmill.cli.asking import TRIAL, beside
from jobmill.cli.ending import Ended, Exit, say, while_opening
from jobmill.cli.loading import load
from jobmill.cli.logs import LogLevel, start_log
from jobmill.cli.output import write
from jobmill.cli.web import PORT, bound_or_ended, check_base, check_port, need_it, served, url_of
from jobmill.factory import ENVIRONMENT_URL, create_queue
from jobmill.queue import Queue
from jobmill.store import Features

if TYPE_CHECKING:
    from starlette.applications import Starlette


def dashboard(
    *apps: Annotated[
        str,
        Parameter(name="APP", help="Programs whose queues to show: module, module:queue, file.py."),
    ],
    store: Annotated[
        tuple[str, ...],
        Parameter(
            negative="",
            help=f"URL of a store, all of whose queues to show; else {ENVIRONMENT_URL}.",
        ),
    ] = (),
    host: Annotated[str, Parameter(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, Parameter(help="The port to listen on; 0 for a free one.")] = PORT,
    base_path: Annotated[
        str, Parameter(help="The path under which it is asked for, as behind a proxy: /jobmill.")
    ] = "",
    users: Annotated[
        Path | None, Parameter(help="File of users, who have to log in; --add-user writes it.")
    ] = None,
    secret_file: Annotated[
        Path | None,
        Parameter(help="File that signs sessions, made where it is not there; else they end here."),
    ] = None,
    allowed_host: Annotated[
        tuple[str, ...],
        Parameter(negative="", help="Names by which it is asked, beside localhost and addresses."),
    ] = (),
    read_only: Annotated[
        bool, Parameter(negative="", show_default=False, help="Let nobody change anything.")
    ] = False,
    add_user: Annotated[
        str | None,
        Parameter(help="Write this user into the file --users, asking for a password, and end."),
    ] = None,
    role: Annotated[
        Literal["viewer", "operator"], Parameter(help="What that user may: look, or also act.")
    ] = "operator",
    log_level: Annotated[LogLevel, Parameter(help="The least that is logged.")] = "info",
) -> int:
    """Serve the dashboard of queues, until stopped.

    Without --users it listens on loopback only.
    """
    need_it()
    check_port(port)
    base = check_base(base_path)
    if add_user is not None:
        return _add_user(users, add_user, role)
    from jobmill.dashboard import create_app
    from jobmill.dashboard.hosts import is_loopback

    if users is None and not is_loopback(host):
        raise Ended(
            Exit.USAGE,
            f"--host {host}: others could reach it, so it needs a login: make one by jobmill "
            "dashboard --users users.txt --add-user NAME, then say --users users.txt",
        )
    queues = _queues(apps, store)
    app = create_app(
        queues,
        users=users,
        secret_file=secret_file,
        allowed_hosts=allowed_host,
        read_only=read_only,
        discover=not apps,
    )
    start_log("text", log_level)
    try:
        asyncio.run(_serve(app, host, port, base))
    finally:
        asyncio.run(_close(queues))
    return Exit.DONE


async def _serve(app: Starlette, host: str, port: int, base: str) -> None:
    listening = bound_or_ended(host, port)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        # Where the loop hears no signals, Ctrl-C still ends it.
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(name, stopped.set)
    async with served(app, listening, base):
        say(f"the dashboard is at {url_of(listening)}{base}; Ctrl-C ends it")
        await stopped.wait()


async def _close(queues: Sequence[Queue]) -> None:
    for queue in queues:
        await queue.close()


def _queues(apps: Sequence[str], stores: Sequence[str]) -> list[Queue]:
    """The queues of the words.

    Raises: Ended and ConfigError where they name none.
    """
    if apps and stores:
        raise Ended(Exit.USAGE, "--store: APP says which queues already; leave one of them out")
    queues: list[Queue] = []
    for word in apps:
        program = load(word)
        found = [each.queue for each in program.queues if each.queue not in queues]
        queues += found or [create_queue(os.environ.get(ENVIRONMENT_URL) or TRIAL)]
    if not apps:
        urls = stores or tuple(filter(None, [os.environ.get(ENVIRONMENT_URL)]))
        if not urls:
            raise Ended(
                Exit.USAGE,
                "which queues? Say an APP, as in jobmill dashboard app.py, or --store URL, or set "
                f"{ENVIRONMENT_URL}",
            )
        for url in urls:
            queues += asyncio.run(_all_of(url))
    for queue in queues:
        if Features.SHARED not in queue.store.features:
            raise Ended(
                Exit.USAGE,
                f"{queue.store.place}: a queue in memory lives in the program that made it; mount "
                "the dashboard there, by jobmill.dashboard.create_app",
            )
    return queues


async def _all_of(url: str) -> list[Queue]:
    """A queue object for each queue of the store; one called default where it has none."""
    from jobmill.dashboard.board import MOST

    first = create_queue(url)
    path = getattr(first.store, "path", None)
    if path is not None and not path.exists():
        raise Ended(
            Exit.UNREACHABLE,
            f"cannot connect to {first.store.place}: there is no such file; enqueue to it, or run "
            "a worker, and it is made",
        )
    try:
        with while_opening(first.store.place):
            names = await first.ask(lambda store: store.queues())
    finally:
        await first.close()
    return [beside(first, name) for name in names[:MOST]] or [first]


def _add_user(users: Path | None, name: str, role: Literal["viewer", "operator"]) -> int:
    from jobmill.dashboard.users import add_user

    if users is None:
        raise Ended(Exit.USAGE, "--add-user: say also --users FILE, the file to write to")
    if sys.stdin.isatty():
        password = getpass.getpass(f"Password of {name}: ")
        if getpass.getpass("Again: ") != password:
            raise Ended(Exit.FAILED, "those were two different passwords; nothing is written")
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    replaced = add_user(users, name, password, role)
    write(f"{name}, {role}, {'is changed' if replaced else 'is written'} in {users}\n")
    return Exit.DONE
