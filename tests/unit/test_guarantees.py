"""The page of guarantees says what came of a run, and nothing better."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests import guarantees
from tests.fault_rows import PROCESSES, Row
from tests.guarantees import Told, check, page, unknown

TEST = "tests/faults/test_stop.py::test_a_second_signal_hands_back_and_goes"
OTHER = "tests/faults/test_stop.py::test_a_stop_during_start_up_is_heard"


def told(test: str = TEST, store: str = "redis", **counts: int) -> Told:
    return Told(test, store, "2026-11-28", "Redis 7", measured=["took 2 s"], **counts)


@pytest.fixture(autouse=True)
def _rows(monkeypatch: pytest.MonkeyPatch) -> None:
    row = Row("a fault", PROCESSES, "all is well", (TEST, OTHER), {"redis": "but not always"})
    monkeypatch.setattr(guarantees, "ROWS", (row,))


def cells(*run: Told) -> list[str]:
    """Of memory, SQLite, Redis and PostgreSQL."""
    (line,) = [line for line in page(run).splitlines() if line.startswith("| [1]")]
    return [cell.strip() for cell in line.split("|")[3:-1]]


def test_a_row_counts_what_passed_on_each_store() -> None:
    run = [told(passed=2), told(OTHER, passed=1), told(OTHER, "sqlite", passed=1)]
    assert cells(*run) == ["-", "1", "3*", "**not run**"]
    text = page(run)
    assert f"- `{OTHER}`: SQLite 1 passed, Redis 1 passed" in text
    assert "  - Redis: took 2 s" in text
    assert "- * Redis: but not always" in text


def test_a_row_one_test_of_which_did_not_run_says_so() -> None:
    assert cells(told(passed=2)) == ["-", "**not run**", "2 **not run***", "**not run**"]
    assert cells() == ["-", "**not run**", "**not run***", "**not run**"]
    assert f"- `{OTHER}`: **not run**" in page([])


def test_a_test_that_was_skipped_did_not_run() -> None:
    run = [told(passed=2), told(OTHER, skipped=1)]
    assert cells(*run)[2] == "2 **not run***"
    assert "Redis 0 passed, **1 not run**" in page(run)


def test_a_test_that_failed_is_no_guarantee() -> None:
    run = [told(passed=2), told(OTHER, passed=3, failed=1)]
    assert cells(*run)[2] == "**failed***"


def test_a_test_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert unknown() == []
    row = Row("a fault", PROCESSES, "all is well", (f"{TEST}_and_more", "tests/faults/none.py"))
    monkeypatch.setattr(guarantees, "ROWS", (row,))
    assert unknown() == list(row.tests)


def test_a_page_that_was_written_by_hand_is_found_out(tmp_path: Path) -> None:
    run, printed = tmp_path / "run.jsonl", tmp_path / "page.md"
    run.write_bytes(msgspec.json.encode(told(passed=1)) + b"\n")
    printed.write_text(page(guarantees.read(run)))
    assert check(printed, run) == []
    printed.write_text(printed.read_text().replace("**not run**", "7"))
    assert check(printed, run) == ["page.md is not what `print run.jsonl` prints"]
    run.write_bytes(msgspec.json.encode(told(failed=1)) + b"\n")
    assert f"{TEST} failed on redis in run.jsonl" in check(printed, run)
