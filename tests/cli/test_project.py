"""What `jobmill init` writes is whole, and works as it is."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.cli.kit import Cli, ask, eventually

pytestmark = [pytest.mark.timeout(300), pytest.mark.blocks_loop]

PASSED = re.compile(r"^(\d+) passed", re.MULTILINE)


def files(folder: Path) -> dict[str, str]:
    """What is there, without what running it leaves behind."""
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and path.parent.name != "__pycache__"
    }


def test_its_tests_pass_and_a_worker_does_its_jobs(cli: Cli) -> None:
    cli("init", "shop").ok()
    shop = Cli(cli.folder / "shop")
    tests = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio"],
        cwd=shop.folder,
        capture_output=True,
        check=False,
        text=True,
        timeout=240,
    )
    found = PASSED.search(tests.stdout)
    assert tests.returncode == 0, tests.stdout + tests.stderr
    assert found is not None
    assert int(found[1]) == sum(
        text.count("def test_") for name, text in files(shop.folder).items() if "/test_" in name
    )

    worker = shop.start("worker", "app.jobs:queue")
    payload = '{"to": "ada@example.com", "name": "Ada"}'
    words = ("enqueue", "welcome", payload, "--app", "app.jobs:queue", "--wait")
    assert shop(*words).ok().out == '"Hello, Ada!"\n'
    assert ask(shop, lambda queue: queue.stats()).completed == 1
    listed = ("schedules", "list", "--app", "app.jobs:queue", "-q")
    eventually(lambda: shop(*listed).ok().out == "digest\n", "the schedule", worker)
    shop.end()


@pytest.mark.parametrize(
    ("store", "server", "extra"),
    [("sqlite", None, "fast"), ("redis", "redis", "redis"), ("postgresql", "postgres", "postgres")],
)
def test_each_store_has_its_server(cli: Cli, store: str, server: str | None, extra: str) -> None:
    cli("init", "shop", "--store", store).ok()
    there = files(cli.folder / "shop")
    assert not [name for name, text in there.items() if "{{" in text or "}}" in text]
    project = tomllib.loads(there["pyproject.toml"])["project"]
    assert project["name"] == "shop"
    assert any(extra in each for each in project["dependencies"] if each.startswith("jobmill["))

    services = yaml.safe_load(there["compose.yaml"])["services"]
    assert set(services) == {"web", "worker"} | ({server} if server else set())
    for each in ("web", "worker"):
        assert services[each]["environment"]["JOBMILL_URL"].startswith(f"{store}://")
        assert list(services[each].get("depends_on", [])) == ([server] if server else [])
    assert services["worker"]["command"][:3] == ["jobmill", "worker", "app.jobs:queue"]
    settings = dict(
        line.split("=", 1) for line in there[".env.example"].splitlines() if line[0] != "#"
    )
    assert settings["JOBMILL_URL"].startswith(f"{store}://")
    assert set(re.findall(r"\$\{(\w+)", there["compose.yaml"])) == set(settings) - {"JOBMILL_URL"}

    ruff = [sys.executable, "-m", "ruff"]
    for words in (("check", "--select=E4,E7,E9,F,I,UP,B"), ("format", "--check")):
        checked = subprocess.run(
            [*ruff, *words, "--isolated", "--no-cache", "--line-length=100", "."],
            cwd=cli.folder / "shop",
            capture_output=True,
            check=False,
            text=True,
            timeout=60,
        )
        assert checked.returncode == 0, checked.stdout


def test_nothing_is_overwritten(cli: Cli) -> None:
    (cli.folder / "shop").mkdir()
    own = cli.folder / "shop" / "compose.yaml"
    own.write_text("mine")
    for words in ((), ("--dry-run",)):
        refused = cli("init", "shop", *words)
        assert (refused.code, refused.out, refused.err.count("\n")) == (5, "", 1)
        assert "compose.yaml is there already, and nothing was written" in refused.err
    assert files(cli.folder / "shop") == {"compose.yaml": "mine"}
    (cli.folder / "shop" / "README.md").write_text("mine too")
    assert "README.md and 1 more are there already" in cli("init", "shop").err
    (cli.folder / "shop" / "README.md").unlink()
    own.unlink()
    own.symlink_to("nowhere")
    assert cli("init", "shop").code == 5


def test_a_dry_run_writes_nothing_and_a_run_that_fails_neither(cli: Cli) -> None:
    would = cli("init", "shop", "--dry-run", "-q").ok().out.split()
    assert not (cli.folder / "shop").exists()
    (cli.folder / "shop").mkdir()
    (cli.folder / "shop" / "tests").write_text("in the way")
    failed = cli("init", "shop")
    assert (failed.code, failed.out, failed.err.count("\n")) == (1, "", 1)
    assert "nothing was written" in failed.err
    assert files(cli.folder / "shop") == {"tests": "in the way"}
    (cli.folder / "shop" / "tests").unlink()
    cli("init", "shop").ok()
    assert sorted(files(cli.folder / "shop")) == sorted(would)


def test_a_name_comes_out_of_any_folder(cli: Cli) -> None:
    for folder, name in (
        ("My Shop!", "my-shop"),
        ("2nd", "app-2nd"),
        ("été", "t"),
        ("日本", "app"),
    ):
        cli("init", folder).ok()
        project = tomllib.loads((cli.folder / folder / "pyproject.toml").read_text())["project"]
        assert project["name"] == name
