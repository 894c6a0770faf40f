"""Django's own tests of its tasks framework, against jobmill's backend.

    python -m tests.integrations.django_suite

They are taken from Django's source distribution, of the release that is installed, and run as they
are: only the path of the backend is changed in them. What cannot hold for a backend that keeps
its tasks outside of the process is named below, with its reason; a named test that passes
fails the run just as one that is not named and fails.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import unittest
from pathlib import Path
from typing import Any

import django

HERE = "tests.integrations.django_backends"
CHANGED = {
    "django.tasks.backends.dummy": HERE,
    "django.tasks.backends.immediate": HERE,
}

_DUMMY = "tasks.test_dummy_backend.DummyBackendTestCase"
_IMMEDIATE = "tasks.test_immediate_backend.ImmediateBackendTestCase"
_IN_MEMORY = "it writes into a result in the backend's memory and reads it back; ours is stored"
_HAS_RESULTS = "it asks for an error where a backend keeps no results; ours keeps them"
CANNOT_HOLD = {
    f"{_DUMMY}.test_refresh_result": _IN_MEMORY,
    f"{_DUMMY}.test_refresh_result_async": _IN_MEMORY,
    f"{_IMMEDIATE}.test_cannot_get_result": _HAS_RESULTS,
    f"{_IMMEDIATE}.test_cannot_refresh_result": _HAS_RESULTS,
    f"{_IMMEDIATE}.test_cannot_pass_run_after": "it refuses run_after; ours can wait",
}
AT_LEAST = 70
"""Tests that there are in Django 6.0: a suite that was not found must not pass."""


def fetched(folder: Path) -> Path:
    """The source distribution of the Django that is installed, unpacked."""
    wanted = f"django=={django.get_version()}"
    words = ["download", "--quiet", "--no-binary", "django", "--no-deps", "--dest", str(folder)]
    subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *words, wanted], check=True
    )
    (archive,) = folder.glob("[dD]jango-*.tar.gz")
    with tarfile.open(archive) as packed:
        members = [each for each in packed.getmembers() if "/tests/tasks/" in each.name]
        packed.extractall(folder, members=members, filter="data")
    (source,) = folder.glob("[dD]jango-*/tests/tasks")
    return source


def led_here(source: Path) -> None:
    """Change the backend's path in the tests, and nothing else."""
    for path in source.glob("*.py"):
        text = path.read_text()
        for old, new in CHANGED.items():
            text = text.replace(old, new)
        path.write_text(text)


def run(source: Path, store: Path) -> unittest.TestResult:
    """Run the tests; what became of each."""
    from django.conf import settings
    from django.test.runner import DiscoverRunner

    os.environ["JOBMILL_URL"] = f"sqlite:///{store}?synchronous=normal"
    sys.path.insert(0, str(source.parent))
    settings.configure(
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        INSTALLED_APPS=["jobmill.contrib.django"],
        USE_TZ=True,
    )
    django.setup()
    kept: list[unittest.TestResult] = []

    class Runner(DiscoverRunner):
        def suite_result(self, suite: Any, result: Any, **kwargs: Any) -> Any:
            kept.append(result)
            return super().suite_result(suite, result, **kwargs)

    Runner(verbosity=0, interactive=False).run_tests(["tasks"])
    return kept[0]


def verdict(result: unittest.TestResult) -> list[str]:
    """What is not as it should be; nothing where all is."""
    wrong: list[str] = []
    failed: set[str] = set()
    for test, _ in [*result.failures, *result.errors]:
        failed.add(getattr(test, "test_case", test).id())
    wrong += [f"fails: {name}" for name in sorted(failed - CANNOT_HOLD.keys())]
    wrong += [f"holds after all: {name}" for name in sorted(CANNOT_HOLD.keys() - failed)]
    if result.testsRun < AT_LEAST:
        wrong.append(f"only {result.testsRun} tests were found")
    if result.skipped:
        wrong.append(f"skipped: {result.skipped}")
    return wrong


def main() -> int:
    """Fetch, lead here, run, judge."""
    with tempfile.TemporaryDirectory() as folder:
        source = fetched(Path(folder))
        led_here(source)
        result = run(source, Path(folder, "jobs.db"))
        wrong = verdict(result)
        for test, traceback in [*result.failures, *result.errors] if wrong else ():
            print(test, traceback, sep="\n")
    for name, reason in CANNOT_HOLD.items():
        print(f"cannot hold: {name.removeprefix('tasks.')}: {reason}")
    held = result.testsRun - len(CANNOT_HOLD)
    print(f"Django {django.get_version()}: {held} of {result.testsRun} of its tests of tasks hold")
    for each in wrong:
        print(each)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
