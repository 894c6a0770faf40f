"""All commands, by group, and the page that lists them."""

from __future__ import annotations

from typing import Final, NamedTuple


class Command(NamedTuple):
    """A command, or a group of some: its name, what it does, and where its cyclopts part is."""

    name: str
    summary: str
    part: str


class Group(NamedTuple):
    """Commands that are shown together."""

    title: str
    commands: tuple[Command, ...]


GROUPS: Final = (
    Group(
        "Run",
        (
            Command("demo", "See jobs at work, with nothing to write.", "demo:demo"),
            Command("run", "Run a file of jobs while you write it.", "trying:run"),
            Command("worker", "Run the jobs of queues.", "working:worker"),
            Command(
                "dashboard", "Show queues in a browser, and steer them.", "dashboard:dashboard"
            ),
        ),
    ),
    Group(
        "Jobs",
        (
            Command("enqueue", "Put a job into a queue.", "enqueueing:enqueue"),
            Command("jobs", "List, show, wait for, retry, cancel, delete jobs.", "jobs:app"),
        ),
    ),
    Group(
        "Queues and schedules",
        (
            Command("queues", "List, count, pause, resume, clear queues.", "queues:app"),
            Command(
                "schedules",
                "List, pause, resume, trigger, remove, sync schedules.",
                "schedules:app",
            ),
        ),
    ),
    Group(
        "Operations",
        (
            Command("workers", "List the workers of a queue.", "workers:workers"),
            Command("top", "Watch a queue live.", "top:top"),
            Command("doctor", "Say what is wrong, and what to do about it.", "doctor:doctor"),
            Command("init", "Write a project that works, to start from.", "project:init"),
            Command("migrate", "Bring a store's schema up to date.", "migrate:app"),
            Command("bench", "Measure a store.", "benching:bench"),
            Command("completion", "Print the completions for a shell.", "completion:completion"),
        ),
    ),
)

_HEAD: Final = """\
Usage: jobmill COMMAND

Background jobs: put into a queue by your program, run by a worker.
"""
_FOOT: Final = """
  --version    Say which release this is.
  --help, -h   Say how to use it; also after each command.

A first worker:  jobmill demo
"""


def page() -> str:
    """What `jobmill --help` prints."""
    parts = [_HEAD]
    for group in GROUPS:
        lines = [f"  {each.name:<12} {each.summary}" for each in group.commands]
        parts.append("\n".join(["", f"{group.title}:", *lines, ""]))
    return "".join([*parts, _FOOT])
