"""Every command as people start it: in a process, piped with `--json`, and on a terminal."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import pytest

from jobmill.cli.command import command_line
from jobmill.cli.commands import GROUPS
from tests.cli import schemas
from tests.cli.kit import Cli

pytestmark = pytest.mark.timeout(180)


class Case(NamedTuple):
    """A command: its JSON, what it shows on a terminal, what is typed there, and how it ends."""

    words: str
    schema: dict[str, Any] | None
    shown: str
    types: str = ""
    code: int = 0


CASES = [
    Case('enqueue greet {"name":"Ada"} --app app.py', schemas.ENQUEUED, r"^[0-9a-f-]{36}\n"),
    Case("jobs list", schemas.JOBS, r"due +greet"),
    Case("jobs show bad", schemas.JOB, "ValueError"),
    Case("jobs logs done-Ada", schemas.LOGS, "on my way"),
    Case("jobs wait done-Ada", schemas.JOB, '"Hello, Ada!"'),
    Case("jobs retry bad", schemas.CHANGED, "1 job: retry done"),
    Case("jobs cancel late", schemas.CHANGED, "1 job: cancel done"),
    Case("jobs delete bad", schemas.CHANGED, "1 job: delete done"),
    Case("jobs run-now late", schemas.CHANGED, "1 job: run-now done"),
    Case("queues list", schemas.QUEUES, "other"),
    Case("queues stats", schemas.STATS, "greet"),
    Case("queues pause", schemas.PAUSED, "default: paused"),
    Case("queues resume", schemas.PAUSED, "default: goes on"),
    Case("queues clear", schemas.COUNTED, "6 jobs removed", "y\n"),
    Case("schedules list", schemas.SCHEDULES, "At 08:00"),
    Case("schedules next", schemas.TICKS, "08:00:00"),
    Case("schedules pause morning", schemas.CHANGED, "morning: pause done"),
    Case("schedules resume morning", schemas.CHANGED, "morning: resume done"),
    Case("schedules trigger morning", schemas.TRIGGERED, r"^[0-9a-f-]{36}\n"),
    Case("schedules remove morning", schemas.CHANGED, "morning: remove done", "y\n"),
    Case("schedules sync --app app.py", schemas.SYNCED, "morning: written"),
    Case("workers", schemas.WORKERS, "no worker is there"),
    Case("doctor", schemas.DOCTOR, "no worker is there", code=6),
    Case("init shop", schemas.PROJECT, r"shop/app/jobs.py: written"),
    Case("migrate status", schemas.MIGRATED, "whenever it is opened"),
    Case("migrate up", schemas.MIGRATED, "whenever it is opened"),
    Case("migrate sql", None, "there is nothing to do"),
    Case("bench --jobs 200 --concurrency 20", schemas.FIGURES, "drained"),
    Case("completion bash", None, "run-now"),
]
ELSEWHERE = {
    "dashboard": "here, and tests/dashboard/test_command",
    "demo": "test_trying",
    "run": "test_trying",
    "worker": "test_worker",
    "top": "test_asking",
}
by_case = pytest.mark.parametrize("case", CASES, ids=[case.words.split(" {")[0] for case in CASES])


@pytest.fixture
def own(filled: Cli, tmp_path: Path) -> Cli:
    """The command in a copy of the filled folder, to do there what it likes."""
    shutil.copytree(filled.folder, tmp_path, dirs_exist_ok=True)
    return Cli(tmp_path, JOBMILL_URL="sqlite:///jobs.db")


def leaves() -> Iterator[str]:
    """Every command that can be typed, with its group's word before it."""
    for group in GROUPS:
        for command in group.commands:
            part = command_line()[command.name]
            under = [name for name in part if not name.startswith("-")]
            yield from (f"{command.name} {name}" for name in under)
            if not under:
                yield command.name


def test_no_command_is_left_out() -> None:
    def named(words: str) -> str:
        first, second, *_ = *words.split(" "), ""
        return f"{first} {second}" if first in grouped else first

    grouped = {leaf.split(" ")[0] for leaf in leaves() if " " in leaf}
    assert sorted([*map(named, (case.words for case in CASES)), *ELSEWHERE]) == sorted(leaves())


@by_case
def test_piped_it_prints_one_json_document(own: Cli, case: Case) -> None:
    sure = ("--yes",) if case.types else ()
    form = () if case.schema is None else ("--json",)
    ran = own.process(*case.words.split(" "), *form, *sure)
    assert ran.code == case.code, ran.err
    if case.schema is not None:
        jsonschema.Draft202012Validator(case.schema).validate(ran.document)
        assert ran.err == "" or case.words.startswith("bench")
    elif case.words.startswith("completion"):
        checked = subprocess.run(["bash", "-n"], input=ran.out.encode(), check=False, timeout=50)
        assert checked.returncode == 0


@by_case
def test_on_a_terminal_it_is_for_people(own: Cli, case: Case) -> None:
    shown = own.on_terminal(*case.words.split(" "), types=case.types)
    assert shown.code == case.code, shown.out
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown.out)
    assert re.search(case.shown, plain), plain
    if not case.words.startswith("bench"):
        assert "\x1b" not in plain, "only styles, none of them out of a job"
    assert "\x1b[31mred" not in shown.out


def test_the_dashboard_on_a_terminal_ends_by_ctrl_c(own: Cli) -> None:
    shown = own.on_terminal("dashboard", "--port", "0", interrupts=b"Ctrl-C ends it")
    assert shown.code == 0
    assert "the dashboard is at http://127.0.0.1:" in shown.out
