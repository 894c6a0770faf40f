"""`jobmill dashboard`: it serves, with a login where others could reach it, and stops in order."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobmill import create_queue
from jobmill.policy import Policy
from jobmill.store import NewJob
from tests.cli.kit import Cli, eventually

PASSWORD = "correct horse"


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    (tmp_path / "app.py").write_text("from jobmill import job\n\n@job\ndef greet() -> None: ...\n")
    command = Cli(tmp_path)
    yield command
    command.end()


async def _add(path: Path, name: str) -> None:
    async with create_queue(f"sqlite:///{path}", name=name) as queue:
        new = NewJob(id="j", name="j", payload=b"1", policy=Policy())
        await queue.ask(lambda store: store.add([new]))


def ask(url: str, **headers: str) -> tuple[int, str]:
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def url_in(log: str) -> str:
    found = re.search(r"the dashboard is at http://[0-9.]+:([0-9]+)", log)
    assert found is not None, log
    return f"http://127.0.0.1:{found[1]}"


def test_it_serves_all_queues_of_a_store(cli: Cli) -> None:
    for name in ("default", "mail"):
        asyncio.run(_add(cli.folder / "jobs.db", name))
    running = cli.start("dashboard", "--store", "sqlite:///jobs.db", "--port", "0", "--read-only")
    running.says("the dashboard is at ")
    url = url_in(running.log)
    status, text = ask(f"{url}/api/overview")
    assert status == 200
    queues = json.loads(text)["queues"]
    assert [each["label"] for each in queues] == ["default", "mail"]
    assert [each["load"]["due"] for each in queues] == [1, 1]
    assert ask(url, Host="evil.example")[0] == 421
    # An open stream does not hold up the end.
    with urllib.request.urlopen(f"{url}/events", timeout=30) as stream:
        assert stream.readline() == b"retry: 2000\n"
        running.send(signal.SIGTERM)
        assert running.ends() == 0


def test_where_others_could_reach_it_it_needs_a_login(cli: Cli) -> None:
    ran = cli("dashboard", "app.py", "--host", "0.0.0.0")
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert "needs a login" in ran.err
    add = ("dashboard", "--users", "users.txt", "--add-user")
    assert "password" in cli(*add, "ada", stdin="short\n").err
    assert cli(*add, "ada", stdin=f"{PASSWORD}\n").ok().out == (
        "ada, operator, is written in users.txt\n"
    )
    words = ("--users", "users.txt", "--secret-file", "secret", "--host", "0.0.0.0", "--port", "0")
    running = cli.start("dashboard", "app.py", *words)
    running.says("the dashboard is at ")
    url = url_in(running.log)
    assert ask(f"{url}/api/jobs")[0] == 401
    basic = base64.b64encode(f"ada:{PASSWORD}".encode()).decode()
    assert ask(f"{url}/api/jobs", Authorization=f"Basic {basic}")[0] == 200
    running.send(signal.SIGINT)
    assert running.ends() == 0
    assert PASSWORD not in running.log


def test_run_brings_it_along(cli: Cli) -> None:
    running = cli.start("run", "app.py", "--no-reload", "--port", "0")
    running.says("the dashboard is at ")
    url = url_in(running.log)

    def is_shown() -> bool:
        status, text = ask(f"{url}/api/workers")
        return status == 200 and [each["pid"] for each in json.loads(text)["workers"]] == [
            running.pid
        ]

    # It stands on the roster after its first beat, and the dashboard may be there before.
    eventually(is_shown, "the worker on the roster", running)
    # Another one finds the port taken, and works all the same.
    port = url.rpartition(":")[2]
    other = cli.start("run", "app.py", "--no-reload", "--port", port)
    other.says(f"no dashboard on 127.0.0.1:{port} yet")
    for each in (running, other):
        each.send(signal.SIGTERM)
        assert each.ends() == 0


def test_the_demo_can_be_looked_at(cli: Cli) -> None:
    running = cli.start("demo", "--dashboard", "--port", "0")
    running.says("until Ctrl-C")
    found = re.search(r"http://127\.0\.0\.1:[0-9]+", running.log)
    assert found is not None
    queue = json.loads(ask(f"{found[0]}/api/queues/default")[1])
    assert queue["load"]["counts"]["failed"] == 1
    running.send(signal.SIGINT)
    assert running.ends() == 0
