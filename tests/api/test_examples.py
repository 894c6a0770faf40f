"""Each example runs, in a directory of its own, and says what its reader is told to expect."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(400)

EXAMPLES = Path(__file__).parents[2] / "examples"


def output(name: str, tmp_path: Path, *arguments: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / name, *arguments],
        capture_output=True,
        check=False,
        cwd=tmp_path,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert not ran.stderr
    return ran.stdout


def test_every_example_is_tested() -> None:
    tested = set(re.findall(r'output\("(\w+\.py)"', Path(__file__).read_text()))
    assert {path.name for path in EXAMPLES.glob("*.py")} == tested


def test_the_quickstart_is_short_and_gives_its_result(tmp_path: Path) -> None:
    assert output("quickstart.py", tmp_path) == "5\n"
    _docstring, code = (EXAMPLES / "quickstart.py").read_text().split('."""', 1)
    lines = [line for line in code.splitlines() if line.strip()]
    assert len(lines) <= 12


def test_the_rate_limit_spreads_the_starts(tmp_path: Path) -> None:
    told = output("rate_limit.py", tmp_path)
    seconds = [float(each) for each in re.findall(r"started after (\S+) s", told)]
    assert len(seconds) == 6
    seconds.sort()
    assert all(later - sooner >= 0.9 for sooner, later in zip(seconds, seconds[2:], strict=False))


def test_cpu_bound_work_runs_in_children_and_is_killed_by_its_timeout(tmp_path: Path) -> None:
    assert output("cpu_bound.py", tmp_path).splitlines() == [
        "5133 primes below 50,000, counted in another process",
        "JobTimeout ended the endless one: the attempt ran longer than 1 s",
    ]


def test_the_night_in_new_york_fires_once_where_its_clocks_go_back(tmp_path: Path) -> None:
    told = output("new_york.py", tmp_path)
    assert "nightly ran at 2026-11-01T01:30:00-04:00, 01 Nov 05:30 UTC\n" in told
    assert "nightly is next due at 2026-11-02T01:30:00-05:00, 02 Nov 06:30 UTC\n" in told
    assert told.count("nightly ran") == 1
    assert "2026-11-01T01:30:00-04:00 and 2026-11-01T01:30:00-05:00" in told
    assert told.count("ok: ") == 5


@pytest.mark.parametrize("given", [(), ("emails.db",)])
def test_the_email_queue_retries_and_goes_on_in_a_second_process(
    tmp_path: Path, given: tuple[str, ...]
) -> None:
    told = output("email_queue.py", tmp_path, *given)
    assert "attempt 1 for grace@example.com failed" in told
    assert "completed after 2 attempts" in told
    assert "already done: delivered to grace@example.com" in told
    assert told.count("to ada@example.com: 'A reminder': Dear Ada") == 1
    assert told.count("to alan@example.com: 'News': Dear Alan") == 1
    assert told.count("'Welcome': Dear") == 2
    assert told.count("   ok: ") == 11
    assert told.count("to ada@example.com: 'Daily digest': Dear Ada") == 1
    assert "the next one is due at 08:00 in New York" in told
    assert told.endswith("each once, by two processes with one file between them.\n")
    assert (tmp_path / "emails.db").exists() == bool(given)


def test_the_email_queue_fails_where_it_is_not_as_it_should_be(tmp_path: Path) -> None:
    (tmp_path / "emails.db").touch()
    ran = subprocess.run(
        [sys.executable, EXAMPLES / "email_queue.py", "emails.db"],
        capture_output=True,
        check=False,
        cwd=tmp_path,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 1
    assert "is there already" in ran.stderr
