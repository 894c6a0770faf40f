"""The pages as the site has them: those of docs/, and what they link to outside of it."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
DOCS: Final = ROOT / "docs"

OUTSIDE: Final = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
"""Pages that are kept at the top of the repository."""
COMING: Final = frozenset({"dashboard.md", "guarantees.md", "benchmarks.md"})
"""Pages that the navigation has a place for, and that may be missing."""
EXAMPLES: Final = "examples"

_LINK: Final = re.compile(r"(?<=\]\()([^)#:\s]+)((?:#[^)]*)?\))")
_ENTRY: Final = re.compile(r'"([\w/.-]+\.md)"')


def gather(to: Path) -> None:
    """Lay out what Zensical reads: its configuration, and a folder of pages."""
    shutil.rmtree(to, ignore_errors=True)
    pages = to / "docs"
    shutil.copytree(DOCS, pages)
    for name, page in OUTSIDE.items():
        shutil.copy(ROOT / name, pages / page)
    for path in sorted((ROOT / EXAMPLES).rglob("*.py")):
        _show(path, pages / path.relative_to(ROOT).with_suffix(".md"))
    origins = {page: ROOT / name for name, page in OUTSIDE.items()}
    for path in pages.rglob("*.md"):
        inside = path.relative_to(pages)
        origin = origins.get(inside.as_posix(), DOCS / inside)
        if origin.exists():
            path.write_text(_led(path.read_text(), origin, inside))
    (to / "zensical.toml").write_text(_without_the_missing((ROOT / "zensical.toml").read_text()))


def entries(configuration: str) -> list[str]:
    """The pages of the navigation, in order."""
    navigation = configuration.partition("nav = [")[2].partition("\n]\n")[0]
    return _ENTRY.findall(navigation)


def _show(path: Path, page: Path) -> None:
    """Make a page of an example's source."""
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(f"# {path.relative_to(ROOT)}\n\n```python\n{path.read_text()}```\n")


def _led(text: str, origin: Path, inside: Path) -> str:
    """The page with its links out of docs/ leading to where the site has those files."""

    def lead(found: re.Match[str]) -> str:
        target = (origin.parent / found[1]).resolve()
        try:
            place = target.relative_to(ROOT)
        except ValueError:
            return found[0]
        if place.is_relative_to("docs"):
            place = place.relative_to("docs")
        elif place.is_relative_to(EXAMPLES):
            place = place.with_suffix(".md") if place.suffix else Path("examples.md")
        else:
            place = Path(OUTSIDE.get(place.as_posix(), place.as_posix()))
        return f"{Path(os.path.relpath(place, inside.parent)).as_posix()}{found[2]}"

    return _LINK.sub(lead, text)


def _without_the_missing(configuration: str) -> str:
    """Leave out of the navigation what is still to come."""
    gone = {name for name in COMING if not (DOCS / name).exists()}
    lines = configuration.splitlines(keepends=True)
    return "".join(
        line for line in lines if not ((found := _ENTRY.search(line)) and found[1] in gone)
    )
