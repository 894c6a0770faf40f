"""What guards every test is itself tested: a run of tests that each break a rule."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]

BREAKERS = """
import asyncio, contextlib, pathlib, time, warnings
import jobmill, pytest
from hypothesis import given, strategies

# Code that stands in for jobmill's own: the guard goes by the file that a frame says it is from.
ours = {"time": time}
source = "async def block(): time.sleep(0)"
exec(compile(source, str(pathlib.Path(jobmill.__file__).with_name("of_ours.py")), "exec"), ours)

async def test_blocking_is_caught():
    await ours["block"]()

async def test_swallowed_blocking_is_caught():
    with contextlib.suppress(Exception):
        await ours["block"]()

@pytest.mark.blocks_loop
async def test_blocking_on_purpose_is_let_through():
    await ours["block"]()

async def test_a_users_own_blocking_is_let_through():
    time.sleep(0)

def test_a_warning_is_caught():
    warnings.warn("old")

async def test_a_coroutine_never_awaited_is_caught():
    asyncio.sleep(0)

@pytest.mark.timeout(0.2)
def test_a_hang_is_caught():
    while True:
        pass

@pytest.mark.xfail
def test_an_unexpected_pass_is_caught():
    pass

@given(strategies.integers())
def test_hypothesis_works_with_the_guards(n):
    pass

@pytest.mark.store("memory")
def test_on_memory():
    pass

@pytest.mark.parametrize("store", [pytest.param(0, marks=pytest.mark.store("carrier_pigeon"))])
def test_on_another(store):
    pass

@pytest.mark.store("stone_tablet")
def test_skipped():
    pytest.skip("no stone")
"""


def test_the_guards_catch_what_they_are_there_for(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text((TESTS / "conftest.py").read_text())
    (tmp_path / "test_breakers.py").write_text(BREAKERS)
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-rA", "--color=no", "-p", "no:cacheprovider"),
            *("-c", TESTS.parent / "pyproject.toml", "--rootdir", tmp_path, tmp_path),
        ],
        capture_output=True,
        check=False,
        cwd=tmp_path,
        env=os.environ
        | {
            "HYPOTHESIS_STORAGE_DIRECTORY": str(tmp_path),
            "JOBMILL_SOAK": "",
            "JOBMILL_TEST_STORES": "",
        },
        text=True,
        timeout=100,
    )
    told = re.findall(r"^(PASSED|FAILED|ERROR) .*::test_(\w+)", ran.stdout, re.MULTILINE)
    caught = {name for outcome, name in told if outcome != "PASSED"}
    assert caught == {
        "blocking_is_caught",
        "swallowed_blocking_is_caught",
        "a_warning_is_caught",
        "a_coroutine_never_awaited_is_caught",
        "a_hang_is_caught",
        "an_unexpected_pass_is_caught",
    }, ran.stdout + ran.stderr
    assert {name for _, name in told} - caught == {
        "blocking_on_purpose_is_let_through",
        "a_users_own_blocking_is_let_through",
        "hypothesis_works_with_the_guards",
        "on_memory",
        "on_another",
    }, ran.stdout + ran.stderr
    assert "stores tested: carrier_pigeon, memory\n" in ran.stdout
