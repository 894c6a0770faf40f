from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

import jobmill

HERE = Path(__file__).parent / "typing"
SOURCE = Path(jobmill.__file__).parents[1]
GOOD, MISTAKES = HERE / "good.py", HERE / "mistakes.py"
MARK = re.compile(r"#\s*E: \S")

Faults = dict[Path, dict[int, str]]


def mypy(folder: Path) -> Faults:
    """The lines that mypy --strict faults."""
    told = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--config-file="),
            *("--output=json", "--no-incremental", "--cache-dir", os.devnull),
            *(str(GOOD), str(MISTAKES)),
        ],
        cwd=folder,
        env={**os.environ, "MYPYPATH": str(SOURCE)},
        capture_output=True,
        check=False,
        text=True,
        timeout=300,
    )
    assert told.returncode in (0, 1), told.stdout + told.stderr
    found = [json.loads(line) for line in told.stdout.splitlines() if line.startswith("{")]
    assert found, told.stdout + told.stderr
    return by_file(
        (Path(each["file"]), each["line"], each["message"])
        for each in found
        if each["severity"] == "error"
    )


def pyright(folder: Path) -> Faults:
    """The lines that pyright faults in its strict mode."""
    config = {
        "include": [os.path.relpath(HERE, folder)],
        "extraPaths": [str(SOURCE)],
        "typeCheckingMode": "strict",
    }
    (folder / "pyrightconfig.json").write_text(json.dumps(config))
    told = subprocess.run(
        [
            *(sys.executable, "-m", "pyright", "--outputjson"),
            *("--pythonpath", sys.executable, "-p", str(folder)),
        ],
        cwd=folder,
        env={**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"},
        capture_output=True,
        check=False,
        text=True,
        timeout=300,
    )
    assert told.returncode in (0, 1), told.stdout + told.stderr
    answer = json.loads(told.stdout)
    assert answer["summary"]["filesAnalyzed"] == len(list(HERE.glob("*.py"))), told.stdout
    return by_file(
        (Path(each["file"]), each["range"]["start"]["line"] + 1, each["message"])
        for each in answer["generalDiagnostics"]
        if each["severity"] == "error"
    )


def by_file(found: Iterable[tuple[Path, int, str]]) -> Faults:
    faults: Faults = {}
    for file, line, message in found:
        faults.setdefault(file.resolve(), {})[line] = message
    return faults


def marked(file: Path) -> set[int]:
    lines = file.read_text().splitlines()
    return {number for number, line in enumerate(lines, 1) if MARK.search(line)}


@pytest.fixture(scope="module", params=[mypy, pyright], ids=lambda checker: checker.__name__)
def faults(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Faults:
    check: Callable[[Path], Faults] = request.param
    return check(tmp_path_factory.mktemp("check"))


@pytest.mark.timeout(300)
def test_right_uses_have_no_fault(faults: Faults) -> None:
    assert faults.get(GOOD.resolve(), {}) == {}


@pytest.mark.timeout(300)
def test_each_mistake_is_found_and_nothing_else(faults: Faults) -> None:
    found, expected = faults.get(MISTAKES.resolve(), {}), marked(MISTAKES)
    assert len(expected) >= 12
    missed, surplus = expected - found.keys(), found.keys() - expected
    assert not missed, f"not found on lines {sorted(missed)}"
    assert not surplus, f"found also {[(line, found[line]) for line in sorted(surplus)]}"
