"""What a newcomer types first: `jobmill demo`, `jobmill run`, and a job that is done."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from tests.cli.kit import Cli, alive, ask, enqueue, eventually

# A command has its loop for itself: there is nothing that it could hold up.
pytestmark = pytest.mark.blocks_loop

HELLO = """\
from jobmill import job


@job
def hello(name: str) -> str:
    return f"Hello, {name}!"
"""


def test_one_file_and_two_commands_get_a_job_done(cli: Cli) -> None:
    assert HELLO.count("\n") <= 7
    (cli.folder / "hello.py").write_text(HELLO)
    running = cli.start("run", "hello.py")
    done = cli("enqueue", "hello", '{"name": "Ada"}', "--app", "hello.py", "--wait")
    assert done.ok().out == '"Hello, Ada!"\n'
    running.says("hello.hello")
    (worker,) = running.children()
    (cli.folder / "hello.py").write_text(HELLO.replace("Hello", "Good day"))
    running.says("has changed: starting anew")
    eventually(lambda: not alive(worker), "the end of the first", running)
    done = cli("enqueue", "hello", '{"name": "Ada"}', "--app", "hello.py", "--wait")
    assert done.ok().out == '"Good day, Ada!"\n'
    running.send(signal.SIGINT)
    assert running.ends() == 0
    assert cli("jobs", "list", "--app", "hello.py", "-q").ok().out.count("\n") == 2


@pytest.mark.parametrize("word", ["nope.py", "nope", "folder/nope.py", "nope:queue"])
@pytest.mark.parametrize("command", [("run",), ("worker", "--reload")])
def test_a_program_that_is_not_there_is_not_waited_for(
    cli: Cli, command: tuple[str, ...], word: str
) -> None:
    ran = cli(*command, word)
    assert (ran.code, ran.err.count("\n")) == (2, 1), ran.err
    assert f"{word}: there is no " in ran.err


def test_run_on_a_terminal_without_reload(cli: Cli) -> None:
    shown = cli.on_terminal("run", "app.py", "--no-reload", interrupts=b"app.greet")
    assert shown.code == 0
    assert "default in sqlite:///" in shown.out


def test_run_ends_with_its_terminal(cli: Cli) -> None:
    shown = cli.on_terminal("run", "app.py", hangs_up=b"app.greet")
    assert shown.code == 0


@pytest.mark.parametrize("terminal", [False, True])
def test_the_demo_shows_a_result_a_retry_a_failure_and_ticks(cli: Cli, terminal: bool) -> None:
    ran = (cli.on_terminal if terminal else cli.process)("demo").ok()
    for part in (
        "demo.greet gave 'Hello, Ada!'",
        "demo.fetch: ConnectionError: no answer from Lisbon; it is tried again",
        "demo.fetch, attempt 2 of 3",
        "demo.divide: ZeroDivisionError: division by zero\n",
        "demo.report, every second",
        "jobmill run app.py",
    ):
        assert part in ran.out
    assert ran.out.count("demo.report gave 'all is well'") >= 2
    assert not (cli.folder / "jobs.db").exists()


@pytest.mark.alone
def test_a_worker_is_quick_to_its_first_result(cli: Cli) -> None:
    """Within 0.6 s on an idle machine; here as a multiple of what Python itself takes to start."""

    def quickest(*words: str, prepare: bool = False) -> float:
        times: list[float] = []
        for _ in range(5):
            if prepare:
                enqueue(cli, "greet", '{"name": "Ada"}')
            began = time.perf_counter()
            subprocess.run(
                [sys.executable, *words],
                capture_output=True,
                check=True,
                timeout=50,
                cwd=cli.folder,
            )
            times.append(time.perf_counter() - began)
        return min(times)

    bare = quickest("-c", "import asyncio, cyclopts, dataclasses, inspect, sqlite3, uvloop")
    worked = quickest("-m", "jobmill", "worker", "app.py", "--max-jobs", "1", prepare=True)
    assert ask(cli, lambda queue: queue.stats()).completed == 5
    assert worked < 5 * bare
