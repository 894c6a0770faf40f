"""What the pages show runs, prints what they say it prints, and links to what is there.

The Python blocks of a page run one after another, in one namespace, in a process and a
directory of their own. A block may `await`, as in `python -m asyncio`. A block of text right
after a block of Python is what that prints.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from jobmill.stores import postgresql
from tests.servers import emptied_postgres

pytestmark = pytest.mark.timeout(400)

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SERVED = "postgresql.md"
"""The page whose blocks work on a server."""
FOLLOWED = ROOT / "docs" / "tutorial.md"
"""Its blocks are files and commands: tests/integrations/test_following.py does what it says."""

_PYTHON = re.compile(
    r"^```python\n(.*?)^```\n(?:\n?```text\n(.*?)^```\n)?", re.DOTALL | re.MULTILINE
)
_FENCE = re.compile(r"^```(\w*)\n.*?^```\n", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")

RUN = """
import ast, asyncio, contextlib, inspect, io, json, sys

page, blocks = json.loads(sys.stdin.read())
names = {"__name__": "__main__", "__file__": page}
vars(sys.modules["__main__"]).update(names)
names = vars(sys.modules["__main__"])
loop = asyncio.new_event_loop()
for line, block, expected in blocks:
    text = "\\n" * line + block
    code = compile(text, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        if code.co_flags & inspect.CO_COROUTINE:
            loop.run_until_complete(eval(code, names))
        else:
            exec(code, names)
    if expected is not None and printed.getvalue() != expected:
        sys.exit(f"line {line} prints {printed.getvalue()!r}, not {expected!r}")
"""


def blocks_of(page: Path) -> list[tuple[int, str, str | None]]:
    text = page.read_text()
    return [
        (text[: found.start(1)].count("\n"), found[1], found[2]) for found in _PYTHON.finditer(text)
    ]


def on(address: postgresql.Address, block: str) -> str:
    """The block, on that server in the place of the one it names."""
    login = address.username if not address.password else f"{address.username}:{address.password}"
    return block.replace(
        "//localhost/app", f"//{login}@{address.host}:{address.port}/{address.database}"
    )


def runnable(page: Path, request: pytest.FixtureRequest) -> list[tuple[int, str, str | None]]:
    """The blocks of the page. One page finds an empty server."""
    blocks = blocks_of(page)
    if page.name != SERVED:
        return blocks
    address = emptied_postgres(request.getfixturevalue("postgres_address"))
    return [(line, on(address, block), expected) for line, block, expected in blocks]


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.store("postgresql")] if page.name == SERVED else [])
        for page in PAGES
        if "```" in page.read_text() and page != FOLLOWED
    ],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_the_python_of_a_page_runs(
    page: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    blocks = runnable(page, request)
    languages = _FENCE.findall(page.read_text())
    assert len(blocks) == languages.count("python")
    assert set(languages) <= {"python", "text", "sh", "sql"}
    ran = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning", "-c", RUN],
        input=json.dumps([page.name.replace(".md", ".py"), blocks]),
        capture_output=True,
        check=False,
        cwd=tmp_path,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_first_page_and_the_guide_show_programs() -> None:
    assert len(blocks_of(ROOT / "README.md")) >= 1
    assert len(blocks_of(ROOT / "docs" / "guide.md")) >= 10


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    dead = [to for to in _LINK.findall(page.read_text()) if not (page.parent / to).exists()]
    assert not dead


def test_a_block_that_prints_something_else_is_found(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", RUN],
        input=json.dumps(["page.py", [[3, "print(1)\n", "2\n"]]]),
        capture_output=True,
        check=False,
        cwd=tmp_path,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 1
    assert "line 3 prints '1\\n', not '2\\n'" in ran.stderr
