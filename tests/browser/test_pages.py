"""What pages do beyond being shown: without scripts, by keys, live, under a path, for a viewer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from jobmill import InMemoryQueue, Queue, StoreUnavailable
from jobmill.dashboard.users import hash_password
from tests.browser.chromium import NARROW, Chromium, Window, window
from tests.browser.conftest import Shop, add
from tests.browser.serving import Site, served

# A browser is many processes, which a busy machine may keep waiting.
pytestmark = [pytest.mark.store("memory"), pytest.mark.timeout(240)]


@pytest.mark.window(java_script_enabled=False)
def test_without_scripts_pages_are_read_searched_and_acted_on(
    win: Window, memory_shop: Shop
) -> None:
    page = win.open("/")
    expect(page.locator("main")).to_contain_text("What fails")
    expect(page.locator("[data-live]")).to_be_hidden()
    page.get_by_text("As a table").click()
    expect(page.get_by_role("cell", name="1", exact=True).first).to_be_visible()
    page.get_by_role("link", name="Jobs", exact=True).click()
    page.locator("#search").fill("job:build_report")
    page.get_by_role("button", name="Search").click()
    expect(page.locator("tbody tr")).to_have_count(1)
    assert "q=job%3Abuild_report" in page.url
    page.get_by_role("checkbox", name="Select build_report").check()
    page.get_by_role("button", name="Retry").click()
    expect(page.locator(".flash")).to_contain_text("1 job started over")
    page.get_by_label("all that match").check()
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("main h2")).to_have_text("Cancel 1 job?")
    page.get_by_role("link", name="Do nothing").click()
    expect(page.locator("tbody tr")).to_have_count(1)
    page.get_by_label("Queue", exact=True).select_option("mail")
    page.get_by_role("button", name="Show").click()
    expect(page.locator("main")).to_contain_text("No job is like that")


def hears_keys(page: Page) -> None:
    """Return when the script of the page has run, which is after the page is shown."""
    expect(page.locator("[data-live]")).to_have_attribute("data-how", re.compile("."))


def test_keys_lead_everywhere(win: Window, memory_shop: Shop) -> None:
    page = win.open("/")
    hears_keys(page)
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.keyboard.press("g")
    page.keyboard.press("b")
    expect(page.locator("h1")).to_have_text("Jobs")
    hears_keys(page)
    page.keyboard.press("/")
    expect(page.locator("#search")).to_be_focused()
    page.keyboard.type("job:import_products")
    page.keyboard.press("Enter")
    expect(page.locator("tbody tr")).to_have_count(6)
    hears_keys(page)
    for key in ("j", "j", "k", "x"):
        page.keyboard.press(key)
    expect(page.locator("[data-picked]")).to_have_text("1 selected:")
    expect(page.locator("tbody tr").first.locator("[data-pick]")).to_be_checked()
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("import_products")
    hears_keys(page)
    page.keyboard.press("t")
    expect(page.locator("html")).to_have_attribute("data-theme", "light")
    page.keyboard.press("t")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.reload()
    hears_keys(page)
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == dark
    page.keyboard.press("p")
    expect(page.locator("[data-live]")).to_have_attribute("data-how", "paused")


def test_what_is_selected_stays_selected_while_rows_come(win: Window, memory_shop: Shop) -> None:
    page = win.open("/jobs?q=job%3Aimport_products")
    expect(page.locator("tbody tr")).to_have_count(6)
    chosen = page.locator("tbody tr").nth(2)
    name = chosen.get_attribute("id")
    chosen.locator("[data-pick]").check()
    memory_shop.do(add(memory_shop.queue, "import_products", "above-1"))
    expect(page.locator("tbody tr")).to_have_count(7)
    checked = page.locator("tbody tr:has([data-pick]:checked)")
    expect(checked).to_have_count(1)
    expect(checked).to_have_attribute("id", name or "")
    expect(page.locator("[data-picked]")).to_have_text("1 selected:")
    page.get_by_label("all that match").check()
    memory_shop.do(memory_shop.queue.delete("above-1"))
    expect(page.locator("tbody tr")).to_have_count(6)
    expect(page.get_by_label("all that match")).to_be_checked()
    expect(page.get_by_role("button", name="Cancel")).to_be_enabled()


def test_what_has_the_focus_keeps_it_while_the_page_moves(win: Window, memory_shop: Shop) -> None:
    memory_shop.do(add(memory_shop.queue, "greet_somebody", "moving-1"))
    page = win.open("/jobs/moving-1")
    button = page.get_by_role("button", name="Cancel", exact=True)
    button.focus()
    page.evaluate("document.getElementById('live').dataset.before = ''")
    memory_shop.do(add(memory_shop.queue, "greet_somebody", "moving-2"))
    # Morphing takes away what the server has not said: so it is seen to have been done.
    expect(page.locator("main[data-before]")).to_have_count(0)
    expect(button).to_be_focused()
    for each in ("moving-1", "moving-2"):
        memory_shop.do(memory_shop.queue.delete(each))


def test_where_there_is_no_stream_pages_are_polled(win: Window, memory_shop: Shop) -> None:
    def refuse(route: Route) -> None:
        route.fulfill(status=503, body="Too many listen; poll.")

    win.allowed.add(503)
    win.page.route("**/events", refuse)
    win.page.clock.install()
    page = win.open("/queues/mail")
    expect(page.locator("[data-live]")).to_have_attribute("data-how", "poll")
    memory_shop.do(add(memory_shop.queues[1], "greet_somebody", "polled-1"))
    page.clock.run_for(6_000)
    expect(page.locator("main")).to_contain_text("greet_somebody")
    memory_shop.do(memory_shop.queues[1].delete("polled-1"))


def test_what_is_told_of_a_page_stands_until_the_next(win: Window, memory_shop: Shop) -> None:
    page = win.open("/queues/default")
    page.locator("main").get_by_role("button", name="Pause: poison").click()
    expect(page.locator(".flash")).to_contain_text("poison is paused")
    page.evaluate("window.here = true")
    memory_shop.do(add(memory_shop.queue, "greet_somebody", "told-1"))
    expect(page.locator("main")).to_contain_text("greet_somebody")
    expect(page.locator(".flash")).to_contain_text("poison is paused")
    page.locator("main").get_by_role("button", name="Resume: poison").click()
    expect(page.locator(".flash")).to_contain_text("goes on")
    memory_shop.do(memory_shop.queue.delete("told-1"))


def test_a_command_is_copied(win: Window, memory_shop: Shop) -> None:
    win.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = win.open(f"/jobs/{memory_shop.seeded.completed}")
    button = page.get_by_role("button", name="Copy: show")
    # It says so for two seconds, in which this process may not get its turn.
    button.evaluate(
        """button => {
            window.told = [];
            const look = () => window.told.push(button.textContent.trim());
            const all = { childList: true, characterData: true, subtree: true };
            new MutationObserver(look).observe(button, all);
        }"""
    )
    button.click()
    expect(page.locator("#said")).to_have_text("Copied")
    assert "Copied" in page.evaluate("window.told")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith(f"jobmill jobs show {memory_shop.seeded.completed}")


def test_what_looks_secret_is_on_no_page(win: Window, memory_shop: Shop) -> None:
    page = win.open(f"/jobs/{memory_shop.seeded.failed}")
    expect(page.get_by_label("Payload").last).to_contain_text("grace@example.com")
    assert "hunter2" not in page.content()


def test_a_page_of_what_is_gone_says_so(win: Window, memory_shop: Shop) -> None:
    win.allowed.add(404)
    memory_shop.do(add(memory_shop.queue, "greet_somebody", "gone-1"))
    page = win.open("/jobs/gone-1")
    expect(page.locator("[data-live]")).to_have_attribute("data-how", "stream")
    memory_shop.do(memory_shop.queue.delete("gone-1"))
    expect(page.locator("h1")).to_have_text("There is nothing here")


def test_a_page_goes_on_by_itself_once_its_store_answers(
    win: Window, memory_shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(verb: object) -> None:
        message = "nobody listens there"
        raise StoreUnavailable(message)

    win.allowed.add(503)
    page = win.open("/schedules?queue=default")
    expect(page.locator("main")).to_contain_text("daily_digest")
    with monkeypatch.context() as patch:
        patch.setattr(memory_shop.queue, "ask", refuse)
        expect(page.locator("main")).to_contain_text("nobody listens there")
        expect(page.locator("[data-live]")).to_have_attribute("data-how", "lost")
        page.reload()
        expect(page.locator("h1")).to_have_text("The store does not answer")
        assert not win.faults()
    expect(page.locator("h1")).to_have_text("Schedules")
    expect(page.locator("main")).to_contain_text("daily_digest")


def test_a_page_that_is_not_there_says_so_and_leads_back(win: Window, memory_shop: Shop) -> None:
    win.allowed.add(404)
    page = win.open("/jobs/nothing-here")
    expect(page.locator("h1")).to_have_text("There is nothing here")
    assert not win.faults()
    page.get_by_role("link", name="To the overview").click()
    expect(page.locator("h1")).to_have_text("Overview")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A dashboard with a login, under a path of another application."""
    users = tmp_path_factory.mktemp("house") / "users"
    lines = [
        f"{name}:{role}:{hash_password(f'{name} knows')}"
        for name, role in (("vera", "viewer"), ("otto", "operator"))
    ]
    Path(users).write_text("\n".join(lines) + "\n")

    async def make() -> list[Queue]:
        queue = InMemoryQueue(name="default")
        await add(queue, "greet_somebody", "first-1")
        return [queue]

    with served(make, mount="/ops/jobs", users=str(users)) as site:
        yield site


def test_who_logs_in_does_what_their_role_allows(house: Site, chromium: Chromium) -> None:
    def enter(name: str, *, wrongly: bool = False) -> Window:
        win = window(chromium, house.base, viewport=NARROW)
        made = win.__enter__()
        opened.append((win, made))
        page = made.open("/jobs/first-1")
        if wrongly:
            made.allowed.add(401)
            page.get_by_label("Name").fill(name)
            page.get_by_label("Password").fill("no idea")
            page.get_by_role("button", name="Log in").click()
            expect(page.get_by_role("alert")).to_contain_text("wrong")
            assert not made.faults()
        page.get_by_label("Name").fill(name)
        page.get_by_label("Password").fill(f"{name} knows")
        page.get_by_role("button", name="Log in").click()
        # Where they wanted to go in the first place.
        expect(page.locator("h1")).to_have_text("greet_somebody")
        assert page.url.startswith(f"{house.base}/jobs/first-1")
        return made

    def visit() -> None:
        viewer = enter("vera", wrongly=True)
        expect(viewer.page.locator("main form")).to_have_count(0)
        viewer.open("/jobs")
        expect(viewer.page.locator("tbody tr")).to_have_count(1)
        expect(viewer.page.locator("input[type=checkbox]")).to_have_count(0)
        operator = enter("otto")
        operator.page.get_by_role("button", name="Cancel", exact=True).click()
        expect(operator.page.locator(".flash")).to_contain_text("1 job cancelled")
        operator.open("/audit")
        expect(operator.page.locator("tbody")).to_contain_text("otto")
        operator.page.get_by_role("link", name="Schedules").click()
        expect(operator.page.locator("h1")).to_have_text("Schedules")
        operator.page.locator(".foot").get_by_role("button", name="Log out").click()
        operator.open("/workers")
        expect(operator.page.locator("h1")).to_have_text("Log in")
        for _, made in opened:
            assert not made.wrong, made.wrong

    opened: list[tuple[object, Window]] = []
    try:
        chromium.call(visit)
    finally:
        for win, _ in opened:
            chromium.call(win.__exit__, None, None, None)  # type: ignore[attr-defined]
