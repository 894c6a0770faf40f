"""The page of guarantees: which fault was brought about on which store, and what came of it.

`python -m tests.guarantees print RUN` prints it from what tests have told: `make guarantees` runs
them. `python -m tests.guarantees names` names these tests, and `check PAGE RUN` says where page,
run and tests do not agree.
"""

from __future__ import annotations

import ast
import os
import platform
import re
import sqlite3
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
import pytest

from jobmill.stores.postgresql.provision import binaries
from jobmill.stores.redis.provision import binary
from jobmill.version import VERSION
from tests.fault_rows import ALL, ROWS, Row

ROOT: Final = Path(__file__).parents[1]
RUN: Final = "JOBMILL_GUARANTEES"
"""The environment variable that names the file for what the tests tell."""
COMMAND: Final = "make guarantees"
_TOLD: Final = 4
"""Lines of what a test measured that are kept, on each store."""
_TITLES: Final = {
    "memory": "memory",
    "sqlite": "SQLite",
    "redis": "Redis",
    "postgresql": "PostgreSQL",
}


class Told(msgspec.Struct):
    """What came of one test on one store, over all its parameters."""

    test: str
    store: str
    date: str
    versions: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    measured: list[str] = []


def tests_of(row: Row) -> set[str]:
    return set(row.tests)


def named() -> list[str]:
    """All tests that the rows name, each once, in their order."""
    return list(dict.fromkeys(test for row in ROWS for test in row.tests))


class Recorder:
    """A plugin of pytest: writes down what came of the tests that the rows name."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._told: dict[tuple[str, str], Told] = {}
        self._named = set(named())

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        base = report.nodeid.partition("[")[0]
        tests = self._named & {base, base.partition("::")[0]}
        if not tests or (report.when != "call" and report.outcome == "passed"):
            return
        stores = [str(value) for key, value in report.user_properties if key == "store"]
        for test in tests:
            for store in stores or ["any"]:
                self._take(test, store, report)

    def _take(self, test: str, store: str, report: pytest.TestReport) -> None:
        today = datetime.now(UTC).date().isoformat()
        told = self._told.setdefault(
            (test, store), Told(test, store, today, versions_with(store), measured=[])
        )
        match report.outcome:
            case "passed":
                told.passed += 1
            case "failed":
                told.failed += 1
            case "skipped":
                told.skipped += 1
        # What such a test prints is what it measured; the logs of its processes follow a line.
        printed, _, _ = report.capstdout.partition("---")
        told.measured += [line.strip() for line in printed.splitlines() if line.strip()][:1]
        del told.measured[_TOLD:]

    def pytest_sessionfinish(self) -> None:
        with self._file.open("ab") as file:
            for told in self._told.values():
                file.write(msgspec.json.encode(told) + b"\n")


def versions_with(store: str) -> str:
    """What a test on that store ran with."""
    words = [f"jobmill {VERSION}", f"Python {platform.python_version()}"]
    folder = binaries()
    server = {"redis": binary(), "postgresql": folder and str(folder / "postgres")}.get(store)
    if store == "sqlite":
        words.append(f"SQLite {sqlite3.sqlite_version}")
    elif server is not None:
        told = subprocess.run([server, "--version"], capture_output=True, text=True, check=True)
        found = re.search(r"\d+\.\d+(\.\d+)?", told.stdout)
        assert found is not None
        words.append(f"{_TITLES[store]} {found[0]}")
    return ", ".join([*words, f"{platform.system()} {platform.machine()}", f"{os.cpu_count()} CPU"])


def read(file: Path) -> list[Told]:
    """What the tests have told."""
    lines = file.read_bytes().splitlines()
    return [msgspec.json.decode(line, type=Told) for line in lines]


def page(told: Sequence[Told]) -> str:
    """The page, of what the tests have told."""
    return "\n".join(_lines(told)) + "\n"


def _lines(told: Sequence[Told]) -> Iterator[str]:
    by_row = [[one for one in told if one.test in tests_of(row)] for row in ROWS]
    yield "# What was tried, and what held"
    yield ""
    yield f"Printed by `{COMMAND}` from a run of the tests that it names, and from nothing else."
    yield "The promises themselves are on [their page](promises.md), with the invariants by which"
    yield "whole runs are judged, and with what a store cannot promise. Some tests have a longer"
    yield "form, which `make soak` runs: outages of a minute, 500,000 dead rows, 5,000 seeds on"
    yield "each store."
    yield ""
    yield "A number counts the runs that passed; **failed** and **not run** say so; a dash stands"
    yield "where the fault cannot befall the store. A star leads to what is not promised there."
    yield ""
    yield "| | fault | " + " | ".join(_TITLES[store] for store in ALL) + " |"
    yield "|---|---|" + "---|" * len(ALL)
    for number, (row, found) in enumerate(zip(ROWS, by_row, strict=True), 1):
        cells = " | ".join(_cell(row, found, store) for store in ALL)
        yield f"| [{number}](#fault-{number}) | {row.fault} | {cells} |"
    yield ""
    yield from _runs(told)
    for number, (row, found) in enumerate(zip(ROWS, by_row, strict=True), 1):
        yield from _section(number, row, found)


def _cell(row: Row, found: Iterable[Told], store: str) -> str:
    if store not in row.stores:
        return "-"
    here = [one for one in found if one.store in {store, "any"}]
    star = "*" if store in row.but else ""
    if any(one.failed for one in here):
        return f"**failed**{star}"
    missing = _not_run(row, found, store)
    passed = sum(one.passed for one in here)
    if missing or not passed:
        return f"{passed or ''} **not run**{star}".strip()
    return f"{passed}{star}"


def _not_run(row: Row, found: Iterable[Told], store: str) -> list[str]:
    """The row's tests that did not run, or were skipped, on this or on any store."""
    ran: defaultdict[str, set[str]] = defaultdict(set)
    for one in found:
        if one.passed + one.failed and not one.skipped:
            ran[one.test].add(one.store)
    # A test of some stores is missing where it ran on none.
    return [test for test in row.tests if not ran[test]]


def _runs(told: Sequence[Told]) -> Iterator[str]:
    for store in (*ALL, "any"):
        runs = sorted({(one.date, one.versions) for one in told if one.store == store})
        title = _TITLES.get(store, "no store")
        for date, versions in runs:
            yield f"- {title}: {date}, {versions}"
    yield ""


def _section(number: int, row: Row, found: Sequence[Told]) -> Iterator[str]:
    yield f"## Fault {number}"
    yield ""
    yield f"{_capital(row.fault)}: {row.holds}."
    yield ""
    for test in row.tests:
        here = [one for one in found if one.test == test]
        ran = ", ".join(
            f"{_TITLES.get(one.store, 'no store')} {_count(one)}"
            for store in (*ALL, "any")
            for one in here
            if one.store == store
        )
        yield f"- `{test}`: {ran or '**not run**'}"
        for one in here:
            for line in one.measured:
                yield f"  - {_TITLES.get(one.store, 'no store')}: {_plain(line)}"
    for store, text in row.but.items():
        yield f"- * {_TITLES[store]}: {text}"
    yield ""


def _count(one: Told) -> str:
    words = [f"{one.passed} passed"]
    words += [f"**{one.failed} failed**"] if one.failed else []
    words += [f"**{one.skipped} not run**"] if one.skipped else []
    return ", ".join(words)


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _plain(line: str) -> str:
    return line.replace("|", "\\|").replace("<", "&lt;")


def unknown() -> list[str]:
    """The named tests that there are not."""
    return [test for test in named() if not _is_there(test)]


def _is_there(test: str) -> bool:
    file, _, name = test.partition("::")
    if not (ROOT / file).is_file():
        return False
    tree = ast.parse((ROOT / file).read_text())
    functions = {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    return name in functions if name else any(each.startswith("test_") for each in functions)


def check(printed: Path, run: Path) -> list[str]:
    """What is wrong with the page, or with the rows."""
    wrong = [f"there is no test {test}" for test in unknown()]
    if printed.read_text() != page(read(run)):
        wrong.append(f"{printed.name} is not what `print {run.name}` prints")
    wrong += [f"{one.test} failed on {one.store} in {run.name}" for one in read(run) if one.failed]
    return wrong


def main(words: Sequence[str]) -> int:
    verbs: dict[str, Callable[..., object]] = {
        "names": lambda: print(" ".join(named())),
        "print": lambda run: sys.stdout.write(page(read(Path(run)))),
        "check": lambda printed, run: "\n".join(check(Path(printed), Path(run))),
    }
    verb, *rest = words
    told = verbs[verb](*rest)
    if verb == "check" and told:
        sys.stderr.write(f"{told}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
