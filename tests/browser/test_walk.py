"""Every page and every action, on every store: nothing is wrong, and everything is done."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from jobmill import JobInfo
from tests.browser.chromium import NARROW, WIDE, Scheme, Window
from tests.browser.conftest import Shop, add
from tests.conftest import SOAK
from tests.waiting import eventually_sync

# A browser is many processes, which a busy machine may keep waiting.
pytestmark = pytest.mark.timeout(240)

# Each size and each colour is looked at by all that axe knows; the rest, whose colours and sizes
# are the same, only where there is time.
LOOKS: tuple[tuple[Any, Scheme, bool], ...] = (
    (WIDE, "light", True),
    (WIDE, "dark", SOAK),
    (NARROW, "dark", True),
    (NARROW, "light", SOAK),
)


def pages(shop: Shop) -> dict[str, str]:
    """All pages, each by something that it shows."""
    ids = shop.seeded
    return {
        "/": "What fails",
        "/jobs": "import_products",
        "/jobs?state=failed": "SMTPServerDisconnected: Connection unexpectedly closed",
        "/jobs?state=completed&queue=mail": "No job is like that",
        f"/jobs/{ids.failed}": "Given up after 3 attempts",
        f"/jobs/{ids.processing}": "chapter 42 of 100",
        f"/jobs/{ids.completed}": "sent to ada@example.com",
        "/queues": "Drains in",
        "/queues/default": "build_report",
        "/schedules": "daily_digest",
        "/schedules/daily_digest": "clocks go",
        "/workers": "web-2:4712",
        "/errors": "CustomerGone",
        "/audit": "",
    }


def job(shop: Shop, identifier: str) -> JobInfo:
    info = shop.do(shop.queue.get_job(identifier))
    assert info is not None
    return info


def press(page: Page, name: str, within: str = "main") -> None:
    """Press a button; the page that follows has said what was done."""
    page.locator(within).get_by_role("button", name=name).first.click()


def flash(page: Page, text: str) -> None:
    expect(page.locator(".flash")).to_contain_text(text)


@pytest.mark.store("memory")
def test_every_page_is_sound_at_each_size_and_in_each_colour(
    win: Window, memory_shop: Shop
) -> None:
    wrong: list[str] = []
    for path, shown in pages(memory_shop).items():
        page = win.open(path)
        expect(page.locator("main")).to_contain_text(shown)
        for size, scheme, closely in LOOKS:
            win.look(scheme, size)
            where = f"{path} at {size['width']}, {scheme}"
            wrong += [f"{where}: {fault}" for fault in win.faults()] if closely else []
            wrong += [f"{where}: too wide: {each}" for each in win.overflow()]
    assert not wrong, "\n".join(wrong)


def test_every_page_is_shown_and_every_action_is_done(win: Window, any_shop: Shop) -> None:
    shop, ids = any_shop, any_shop.seeded
    for path, shown in pages(shop).items():
        expect(win.open(path).locator("main")).to_contain_text(shown)

    page = win.open(f"/jobs/{ids.failed}")
    press(page, "Retry")
    flash(page, "1 job started over")
    assert job(shop, ids.failed).status == "pending"
    press(page, "Cancel")
    flash(page, "1 job cancelled")
    assert job(shop, ids.failed).status == "cancelled"
    press(page, "Delete")
    flash(page, "1 job deleted")
    assert shop.do(shop.queue.get_job(ids.failed)) is None

    page = win.open(f"/jobs/{ids.delayed}")
    press(page, "Run now")
    flash(page, "1 job made due now")
    assert job(shop, ids.delayed).status == "pending"

    page = win.open("/queues/default")
    press(page, "Pause")
    flash(page, "default is paused")
    assert shop.do(shop.queue.is_paused())
    press(page, "Resume")
    flash(page, "default goes on")
    assert not shop.do(shop.queue.is_paused())
    press(page, "Pause: build_report")
    flash(page, "default: build_report is paused")
    press(page, "Resume: build_report")
    flash(page, "goes on")

    page = win.open("/schedules/daily_digest")
    press(page, "Pause")
    flash(page, "daily_digest is paused")
    press(page, "Resume")
    flash(page, "daily_digest ticks again")
    press(page, "Run now")
    flash(page, "was added")
    page.get_by_role("table").last.get_by_role("link").first.click()
    expect(page.locator("h1")).to_have_text("send_digest")

    page = win.open("/errors")
    press(page, "Retry all: CustomerGone in build_report")
    expect(page.locator("main h2")).to_have_text("Retry 1 job?")
    press(page, "Retry 1 job")
    flash(page, "1 job started over")

    page = win.open("/jobs?state=pending&q=job%3Aimport_products")
    expect(page.locator("tbody tr")).to_have_count(6)
    page.locator("tbody [data-pick]").first.check()
    press(page, "Cancel")
    flash(page, "1 job cancelled")
    page.get_by_label("all that match").check()
    press(page, "Delete")
    expect(page.locator("main h2")).to_have_text("Delete 5 jobs?")
    press(page, "Delete 5 jobs")
    flash(page, "5 jobs deleted")
    expect(page.locator("main")).to_contain_text("No job is like that")

    told = win.open("/audit").locator("tbody")
    for action in ("retry", "cancel", "delete", "run_now", "pause", "resume", "trigger"):
        expect(told).to_contain_text(action)


def test_pages_follow_what_happens_by_a_stream(win: Window, any_shop: Shop) -> None:
    page = win.open("/queues/mail")
    expect(page.locator("[data-live]")).to_have_attribute("data-how", "stream")
    mail = any_shop.queues[1]
    expect(page.locator("main")).to_contain_text("No job has come yet")
    page.evaluate("window.here = true")
    any_shop.do(add(mail, "greet_somebody", "greeting-1"))
    expect(page.locator("main")).to_contain_text("greet_somebody")
    # The page is the same; it was not loaded again.
    assert page.evaluate("window.here") is True
    any_shop.do(mail.clear())
    eventually_sync(lambda: not any_shop.do(mail.stats()).total, 30)
