from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from importlib.resources import files

import pytest

from jobmill.version import VERSION

HEAVY = {
    "asyncio",
    "asyncpg",
    "cyclopts",
    "hiredis",
    "jinja2",
    "json",
    "logging",
    "msgspec",
    "multiprocessing",
    "prometheus_client",
    "psycopg",
    "pydantic",
    "redis",
    "rich",
    "sqlite3",
    "starlette",
    "uvicorn",
    "uvloop",
}


def modules_after(statement: str) -> set[str]:
    """The names of all modules that are loaded once a fresh Python has run the statement."""
    told = subprocess.run(
        [sys.executable, "-c", f"import sys; {statement}; print(*sys.modules)"],
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    )
    return set(told.stdout.split())


def test_importing_jobmill_loads_nothing_heavy() -> None:
    loaded = modules_after("import jobmill")
    assert "jobmill" in loaded
    assert loaded & HEAVY == set()


def test_what_only_schedules_need_is_loaded_at_its_first_use() -> None:
    engine = {"jobmill.cron", "jobmill.cronrule", "jobmill.walltime", "zoneinfo"}
    assert modules_after("import jobmill") & engine == set()
    first_use = "import jobmill; jobmill.CronExpression('* * * * *')"
    assert modules_after(first_use) & engine == engine - {"zoneinfo"}


@pytest.mark.parametrize("name", ["asyncio", "msgspec", "multiprocessing", "pydantic", "sqlite3"])
def test_a_heavy_import_would_be_seen(name: str) -> None:
    assert name in modules_after(f"import {name}") & HEAVY


def test_the_package_says_that_it_is_typed() -> None:
    assert files("jobmill").joinpath("py.typed").is_file()


def test_the_package_says_which_release_it_is() -> None:
    assert metadata.version("jobmill") == VERSION
