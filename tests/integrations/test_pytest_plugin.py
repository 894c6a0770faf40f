"""The plugin gives a queue to any test of a project that has jobmill installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import jobmill.testing
from tests.api.test_imports import modules_after

TESTS = """
import asyncio
from jobmill import job
from jobmill.testing import assert_enqueued, drain

def test_one(job_queue):
    @job(name="mine")
    def mine(number: int) -> int:
        return number

    async def go():
        await job_queue.enqueue(mine.call(1))
        assert (await assert_enqueued(job_queue, mine, payload={"number": 1})).status == "pending"
        assert await drain(job_queue) == 1
        assert (await assert_enqueued(job_queue, mine)).result == 1

    asyncio.run(go())

test_again = test_one

def test_empty(job_queue):
    assert asyncio.run(job_queue.stats()).total == 0
"""


@pytest.mark.timeout(150)
def test_the_fixture_is_there_for_every_test_and_empty_for_each(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(TESTS)
    words = ["-q", "-W", "error", "-p", "no:randomly", "-p", "no:cacheprovider", "-p", "no:asyncio"]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *words, "--rootdir", tmp_path, tmp_path],
        capture_output=True,
        check=False,
        cwd=tmp_path,
        env={key: value for key, value in os.environ.items() if not key.startswith("PYTEST")},
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "3 passed" in ran.stdout


def test_the_plugin_loads_no_queue_where_no_test_asks_for_one() -> None:
    loaded = modules_after("import jobmill.contrib.pytest")
    assert not loaded & {"jobmill.factory", "jobmill.testing", "jobmill.queue", "jobmill.worker"}


def test_the_kit_has_all_that_it_names() -> None:
    for name in jobmill.testing.__all__:
        assert getattr(jobmill.testing, name).__name__ == name


def test_the_kit_needs_neither_pytest_nor_hypothesis_for_what_has_no_need_of_them() -> None:
    assert not modules_after("import jobmill.testing") & {"pytest", "hypothesis"}
