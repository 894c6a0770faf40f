"""Gathers the pages, prints the reference, and lets Zensical build the site from both."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from pages.reference import reference
from pages.tree import ROOT, gather

BUILD = ROOT / "build"


def main() -> int:
    """Build the site into build/site; a warning, such as a dead link, fails it."""
    source = BUILD / "pages"
    gather(source)
    for name, text in reference().items():
        path = source / "docs" / "reference" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    zensical = Path(sys.executable).with_name("zensical")
    built = subprocess.run([zensical, "build", "--clean", "--strict"], cwd=source, check=False)
    if built.returncode == 0:
        shutil.rmtree(BUILD / "site", ignore_errors=True)
        (source / "site").rename(BUILD / "site")
        print(f"the site is in {(BUILD / 'site').relative_to(ROOT)}/index.html")
    return built.returncode


if __name__ == "__main__":
    sys.exit(main())
