"""Takes the screens of README and docs, of a seeded store: `make screens`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from jobmill import InMemoryQueue, Queue
from tests.browser.chromium import NARROW, Chromium, Scheme, Window, program, window
from tests.browser.seeding import Seeded, seed
from tests.browser.serving import served

FOLDER = Path(__file__).parents[2] / "docs" / "screens"
DESK = {"width": 1280, "height": 1010}


def take(win: Window, path: str, name: str) -> None:
    """Write the picture of a page, once it is drawn."""
    page = win.open(path)
    page.wait_for_function(
        "() => [...document.querySelectorAll('[data-chart]')].every((each) => each.firstChild)"
    )
    page.wait_for_selector("[data-how=stream]")
    page.screenshot(path=FOLDER / f"{name}.png", animations="disabled")


def main() -> int:
    """Take all screens."""
    path = program()
    if path is None:
        sys.stderr.write("chromium is not installed; apt-get install chromium\n")
        return 1
    found: list[Seeded] = []

    async def make() -> list[Queue]:
        queue = InMemoryQueue(name="default")
        found.append(await seed(queue, hour=24))
        return [queue]

    chromium = Chromium()
    FOLDER.mkdir(exist_ok=True)
    with served(make) as site:
        chromium.start(path)
        pictures: list[tuple[str, str, Scheme, Any]] = [
            ("/", "overview", "light", DESK),
            ("/jobs?state=failed", "jobs", "dark", DESK),
            (f"/jobs/{found[0].failed}", "job", "light", DESK),
            ("/schedules/daily_digest", "schedule", "light", DESK),
            ("/", "phone", "dark", NARROW),
        ]

        def shoot() -> None:
            for place, name, scheme, size in pictures:
                with window(chromium, site.base, viewport=size, color_scheme=scheme) as win:
                    take(win, place, name)

        chromium.call(shoot)
        chromium.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
