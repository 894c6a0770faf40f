"""Debian's Chromium, driven by Playwright from a thread of its own.

Playwright's plain API keeps an event loop running in its thread; beside the tests that have loops
of their own it would be in their way. So all that touches a page runs in that one thread.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

T = TypeVar("T")
Scheme = Literal["light", "dark"]

WIDE = {"width": 1440, "height": 900}
NARROW = {"width": 390, "height": 844}
PATIENCE = 60_000.0
"""Milliseconds that something may take to show: a machine may be slow."""
AXE = Path(__file__).parent / "axe" / "axe.min.js"


def program() -> str | None:
    """Where the browser is; None where it is not installed."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


class Chromium:
    """A browser in its thread. `call` runs something there."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="chromium")
        self._playwright: Any = None
        self.browser: Browser | None = None

    def call(self, work: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """What the work gives, done in the browser's thread."""
        return self._thread.submit(work, *args, **kwargs).result()

    def start(self, path: str) -> None:
        """Start it."""

        def begin() -> None:
            self._playwright = sync_playwright().start()
            self.browser = self._playwright.chromium.launch(
                executable_path=path, args=["--no-sandbox"], timeout=PATIENCE
            )

        self.call(begin)

    def stop(self) -> None:
        """Stop it, and its thread."""

        def end() -> None:
            if self.browser is not None:
                self.browser.close()
            self._playwright.stop()

        self.call(end)
        self._thread.shutdown()


class Window:
    """One browser context: whatever is wrong on its pages is noted, and fails the test."""

    def __init__(self, context: BrowserContext, base: str) -> None:
        self.context = context
        self.base = base
        self.wrong: list[str] = []
        self.allowed: set[int] = set()
        """Statuses of answers that the test expects, though they are errors."""
        context.set_default_timeout(PATIENCE)
        context.on("page", self._watch)
        self.page = context.new_page()

    def _watch(self, page: Page) -> None:
        page.on("console", lambda said: self._said(said.type, said.text, said.location))
        page.on("pageerror", lambda error: self.wrong.append(f"{page.url}: {error}"))
        page.on("dialog", self._dialog)
        page.on("request", lambda request: self._asked(request.url))

    def _said(self, kind: str, text: str, where: Any) -> None:
        if kind not in {"error", "warning"}:
            return
        if any(f"status of {status}" in text for status in self.allowed):
            return
        self.wrong.append(f"console: {kind}: {text} ({where.get('url')})")

    def _dialog(self, dialog: Any) -> None:
        self.wrong.append(f"a dialog: {dialog.message}")
        dialog.dismiss()

    def _asked(self, url: str) -> None:
        origin = "/".join(self.base.split("/")[:3])
        if not url.startswith((f"{origin}/", "data:", "about:")):
            self.wrong.append(f"a request to another host: {url}")

    def open(self, path: str) -> Page:
        """The page of a path of the dashboard."""
        self.page.goto(self.base + path, wait_until="load")
        return self.page

    def look(self, scheme: Scheme, size: Any) -> None:
        """Show it in these colours, at this size."""
        self.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        self.page.set_viewport_size(size)

    def faults(self) -> list[str]:
        """What axe-core finds that is serious or worse.

        It is put in past the page's policy, which would not let it in.
        """
        if not self.page.evaluate("() => 'axe' in window"):
            self.page.evaluate(AXE.read_text())
        options = {"resultTypes": ["violations"], "preload": False}
        found = self.page.evaluate(
            "async (options) => (await axe.run(document, options)).violations", options
        )
        return [
            f"{each['id']} ({each['impact']}): {json.dumps(node['target'])} "
            f"{node['failureSummary']}"
            for each in found
            if each["impact"] in {"serious", "critical"}
            for node in each["nodes"][:3]
        ]

    def overflow(self) -> list[str]:
        """What is wider than the window, so that the page scrolls sideways."""
        found: list[str] = self.page.evaluate(
            """() => document.documentElement.scrollWidth <= innerWidth ? [] :
            [...document.querySelectorAll('body *')]
              .filter((each) => each.getBoundingClientRect().right > innerWidth + 1)
              .slice(0, 5).map((each) => each.outerHTML.slice(0, 120))"""
        )
        return found


@contextmanager
def window(chromium: Chromium, base: str, **options: Any) -> Iterator[Window]:
    """A new context; in the browser's thread."""
    assert chromium.browser is not None
    context = chromium.browser.new_context(
        **{"viewport": WIDE, "color_scheme": "light", "reduced_motion": "reduce", **options}
    )
    try:
        yield Window(context, base)
    finally:
        context.close()
