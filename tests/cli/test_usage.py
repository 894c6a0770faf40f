"""Wrong words: exit code 2 and one line that names them; and stores that cannot be reached."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobmill.cli.commands import GROUPS, page
from tests.cli.kit import APP, Cli, free_port

# A command has its loop for itself: there is nothing that it could hold up.
pytestmark = [pytest.mark.timeout(180), pytest.mark.blocks_loop]

WRONG = [
    ("jbs", 'Unknown command "jbs"'),
    ("jobs lst", 'Did you mean "list"?'),
    ("jobs list --limit many", "--limit"),
    ("jobs list --limit -1", "--limit: -1"),
    ("jobs list --status done", "--status"),
    ("jobs list --nope", "--nope"),
    ("jobs list more", "more"),
    ("jobs list", "--store"),
    ("jobs list --json --quiet --store sqlite:///x.db", "--json, --jsonl and --quiet"),
    ("jobs list --store nope://x", "nope:// names no store"),
    ("jobs list --store x", "sqlite:///jobs.db"),
    ("jobs list --store memory://", "no other can ask it"),
    ("jobs list --store redis://me:secret@localhost/x", "the database is a number"),
    ("jobs show", "ID"),
    ("jobs retry --store sqlite:///x.db", "say which jobs to retry"),
    ("jobs retry x --all --store sqlite:///x.db", "not both"),
    ("schedules pause --store sqlite:///x.db", "NAME"),
    ("enqueue greet", "--app"),
    ("enqueue gr/eet {} --store sqlite:///x.db", "gr/eet"),
    ("enqueue greet {} --app nothing", "there is no module 'nothing'"),
    ("enqueue greet {} --app nothing.py", "there is no file nothing.py"),
    ("enqueue greet [ --app app.py", "JSON"),
    ("enqueue greet {} --app app.py", "$"),
    ('enqueue greet {"name":1} --app app.py', "$.name"),
    ("enqueue greet --app app.py --delay soon", "--delay"),
    (
        "enqueue greet --app several.py",
        "several.py:one, several.py:two; or by its name: --queue one",
    ),
    ("worker", "APP"),
    ("worker no-module", "names no module"),
    ("worker app:nothing", "there is no 'nothing'; its queues are queue"),
    ("worker app:greet", "it is a FunctionJob, not a queue"),
    ("worker bare.py", "it has no queue"),
    ("worker broken.py", "broken.py, line 2"),
    ("worker wrong.py", "wrong.py"),
    ("worker lacking.py", "it imports 'not_installed', which is not installed"),
    ("worker app --processes 0", "--processes: 0"),
    ("worker app --shutdown-timeout -1", "--shutdown-timeout"),
    ("worker app --health-port web", "--health-port: 'web'"),
    ("worker app --reload --burst", "exclude each other"),
    ("worker app --store sqlite:///x.db", "--store"),
    ("worker app --processes 2 --queue a/b", "queue"),
    ("dashboard --port 65536 --store sqlite:///x.db", "--port: 65536"),
    ("run app.py --port -1", "--port: -1"),
    ("demo --dashboard --port 99999", "--port: 99999"),
    ("completion tcsh", "SHELL"),
    ("init app.py", "app.py is a file"),
    ("init shop --store mongo", "--store"),
    ("top --interval 0 --store sqlite:///x.db", "--interval"),
    ("bench --jobs 0 --store sqlite:///x.db", "--jobs: 0"),
]
"""What is typed, and what the one line has to name."""

PROGRAMS = {
    "several.py": (
        "from jobmill import create_queue, job\n"
        "one, two = create_queue(name='one'), create_queue(name='two')\n"
        "@job\ndef greet() -> None: ...\n"
    ),
    "bare.py": "x = 1\n",
    "broken.py": "def f():\n    raise ValueError('no way')\nf()\n",
    "wrong.py": "def f(:\n",
    "lacking.py": "import not_installed\n",
}

ASKING = [
    "jobs list",
    "jobs show x",
    "jobs logs x",
    "jobs wait x",
    "jobs retry x",
    "jobs retry --all -y",
    "jobs cancel x",
    "jobs delete x",
    "jobs run-now x",
    "queues list",
    "queues stats",
    "queues pause",
    "queues resume",
    "queues clear -y",
    "schedules list",
    "schedules next",
    "schedules pause x",
    "schedules resume x",
    "schedules trigger x",
    "schedules remove x -y",
    "workers",
    "doctor",
    "top",
    "bench",
    "migrate up",
    "dashboard --port 0",
]
WITH_APP = ['enqueue divide {"by":1}', "schedules sync -y"]


LOADED = """
import sys
sys.argv = ["jobmill"]
from jobmill.cli import main
main()
print(*sys.modules)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wrong")
    for name, text in {**PROGRAMS, "app.py": APP}.items():
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(("words", "named"), WRONG, ids=[words for words, _ in WRONG])
def test_a_wrong_word_is_named_in_one_line(folder: Path, words: str, named: str) -> None:
    cli = Cli(folder)
    # What a process of a worker says is not heard here.
    ran = (cli.process if "--processes 2" in words else cli)(*words.split(" "))
    last = ran.err.splitlines()[-1]
    assert (ran.code, ran.out) == (2, "")
    assert named in last
    assert last.startswith("jobmill: ")
    assert ran.err.count("\n") == 1
    assert "secret" not in ran.err


def test_what_is_about_a_store_asks_for_no_queue_of_it(tmp_path: Path) -> None:
    program = (
        "from jobmill import create_queue\n"
        "one = create_queue('sqlite:///a.db', name='one')\n"
        "two = create_queue('sqlite:///{}.db', name='two')\n"
    )
    (tmp_path / "both.py").write_text(program.format("a"))
    (tmp_path / "apart.py").write_text(program.format("b"))
    cli = Cli(tmp_path)
    cli("migrate", "up", "--app", "both.py").ok()
    assert "a.db" in cli("migrate", "status", "--app", "both.py").ok().out
    for name in ("one", "two"):
        cli("enqueue", "greet", "--store", "sqlite:///a.db", "--queue", name).ok()
    assert cli("queues", "list", "-q", "--app", "both.py").ok().out == "one\ntwo\n"
    ran = cli("queues", "list", "--app", "apart.py")
    assert ran.code == 2
    assert "apart.py:one, apart.py:two" in ran.err


@pytest.mark.parametrize("words", ASKING + WITH_APP)
def test_a_store_that_is_down_is_one_line(folder: Path, words: str) -> None:
    url = f"redis://me:secret@127.0.0.1:{free_port()}"
    where = ("--app", "app.py") if words in WITH_APP else ("--store", url)
    ran = Cli(folder, APP_STORE=url)(*words.split(" "), *where)
    assert (ran.code, ran.out, ran.err.count("\n")) == (4, "", 1)
    assert ran.err.startswith("jobmill: cannot connect")
    assert "see whether it runs" in ran.err
    assert "secret" not in ran.err


def test_the_same_of_files(folder: Path) -> None:
    cli = Cli(folder)
    ran = cli("jobs", "list", "--store", "sqlite:///none.db")
    assert (ran.code, ran.err.count("\n")) == (4, 1)
    assert "there is no such file" in ran.err
    assert not (folder / "none.db").exists(), "asking makes no file"
    (folder / "text.db").write_text("this is no database, and long enough to be seen as none")
    ran = cli("jobs", "list", "--store", "sqlite:///text.db")
    assert (ran.code, ran.err.count("\n")) == (4, 1)


def test_every_command_is_asked_when_the_store_is_down() -> None:
    """Nobody adds a command that asks a store, and forgets the test above."""
    tested = {words.split(" ")[0] for words in ASKING + WITH_APP}
    runs_itself = {"demo", "run", "worker", "completion", "init"}
    assert {each.name for group in GROUPS for each in group.commands} == tested | runs_itself


def test_the_first_page_names_every_command(folder: Path) -> None:
    cli = Cli(folder)
    ran = cli.process("--help").ok()
    assert ran.out == cli().ok().out == cli("-h").ok().out == page()
    for group in GROUPS:
        for command in group.commands:
            assert f"  {command.name} " in ran.out
            assert command.summary in ran.out
    assert "--burst" in cli("worker", "--help").ok().out
    assert "run-now" in cli("jobs", "--help").ok().out
    assert cli.on_terminal("--help").ok().out == ran.out


def test_it_says_its_version(folder: Path) -> None:
    assert Cli(folder)("--version").ok().out == "0.1.0\n"


def test_the_command_is_installed() -> None:
    command = Path(sys.executable).with_name("jobmill")
    ran = subprocess.run([command, "--version"], capture_output=True, check=True, timeout=50)
    assert ran.stdout == b"0.1.0\n"


def test_completions_are_printed(folder: Path) -> None:
    cli = Cli(folder)
    script = cli("completion", "bash").ok().out
    checked = subprocess.run(["bash", "-n"], input=script.encode(), check=False, timeout=50)
    assert checked.returncode == 0
    assert "run-now" in script


@pytest.mark.alone
def test_the_first_page_is_there_at_once(folder: Path) -> None:
    """Within 150 ms on an idle machine; here as a multiple of what Python itself takes."""

    def quickest(*words: str) -> float:
        times: list[float] = []
        for _ in range(7):
            began = time.perf_counter()
            subprocess.run([sys.executable, *words], capture_output=True, check=True, timeout=50)
            times.append(time.perf_counter() - began)
        return min(times)

    bare = quickest("-c", "import asyncio, dataclasses, inspect")
    assert quickest("-m", "jobmill", "--help") < 4 * bare


def test_the_first_page_loads_nothing_heavy() -> None:
    told = subprocess.run(
        [sys.executable, "-c", LOADED],
        capture_output=True,
        check=True,
        text=True,
        timeout=50,
    )
    loaded = set(told.stdout.split())
    assert "jobmill.cli.commands" in loaded
    assert loaded & {"cyclopts", "rich", "jobmill.queue", "jobmill.worker", "sqlite3"} == set()
