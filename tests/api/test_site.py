"""The documentation site has every page, and its reference every public name."""

from __future__ import annotations

import re
from pathlib import Path

import jobmill
from pages.reference import reference
from pages.tree import COMING, DOCS, OUTSIDE, ROOT, entries, gather


def test_every_page_is_in_the_navigation_and_every_entry_is_a_page() -> None:
    listed = entries((ROOT / "zensical.toml").read_text())
    assert len(listed) == len(set(listed))
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    decisions = {page for page in pages if re.match(r"adr/\d", page)}  # their own page lists them
    printed = {f"reference/{name}" for name in reference()}
    assert pages - decisions - set(listed) == set()
    assert set(listed) - pages - printed - set(OUTSIDE.values()) <= COMING


def test_the_reference_has_every_public_name() -> None:
    text = "\n".join(reference().values())
    headings = set(re.findall(r"^## (\w+)$", text, re.MULTILINE))
    assert set(jobmill.__all__) - headings == set()


def test_links_out_of_the_pages_lead_into_the_site(tmp_path: Path) -> None:
    gather(tmp_path / "pages")
    docs = tmp_path / "pages" / "docs"
    assert "](contributing.md#layers)" in (docs / "internals.md").read_text()
    assert "](examples/store/one_file.md)" in (docs / "writing-a-store.md").read_text()
    assert "](../examples/web/fastapi_app.md)" in (docs / "how-to" / "progress.md").read_text()
    assert "](docs/" not in (docs / "contributing.md").read_text()
    coming = [name for name in COMING if not (DOCS / name).exists()]
    navigation = entries((tmp_path / "pages" / "zensical.toml").read_text())
    assert not set(coming) & set(navigation)
