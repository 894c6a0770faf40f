"""Text that would be a script, or turn the text around it, in every place that pages show."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from urllib.parse import quote

import msgspec
import pytest
from playwright.sync_api import expect

from jobmill import InMemoryQueue, Queue
from jobmill.plans import SCHEDULES
from jobmill.records import JobError
from jobmill.roster import WORKERS, Entry, Running, encode_entry
from jobmill.schedule import Plan, created, encode_plan
from jobmill.states import Failure, Note, after_failure, after_success
from jobmill.store import Lease, Store
from tests.browser.chromium import NARROW, Window
from tests.browser.seeding import LEASE, ONCE, POLICY, Seeder
from tests.browser.serving import Site, served

# A browser is many processes, which a busy machine may keep waiting.
pytestmark = [pytest.mark.store("memory"), pytest.mark.timeout(240)]

SCRIPT = "<script>window.hit=1</script>"
TURNS = "\u202e"
EVIL = (
    f'{SCRIPT}"\'><img src=x onerror="window.hit=1"> javascript:window.hit=1 {{{{7*7}}}} '
    f"\x1b[31m{TURNS}evil\u200b\x00</title></textarea></template>"
)
# No slash: it is a step of a path.
NAME = f'<script>window.hit=1"><img src=x onerror=window.hit=1>{TURNS}'


async def write(store: Store) -> None:
    now = (await store.counts()).now
    seeder = Seeder(store, now, "bad0")
    at = datetime.fromtimestamp(now, UTC)
    error = JobError(EVIL, EVIL, EVIL, f"Traceback\n{EVIL}\n", 1, at).to_json()
    more = {"unique_key": "k" + SCRIPT, "metadata": {NAME: NAME}, "policy": ONCE}

    failed = seeder.new("evil", {EVIL: [EVIL], "password": EVIL}, **more)
    claim = await seeder.run(failed, now - 50)
    why = Failure(error=error, fingerprint="evil")
    await seeder.move(after_failure(claim, why, retryable=False, delay=0.0), now - 49)

    done = seeder.new("evil", EVIL)
    claim = await seeder.run(done, now - 40)
    await seeder.move(after_success(claim, msgspec.json.encode({EVIL: EVIL})), now - 39)

    running = seeder.new("evil", None)
    claim = await seeder.run(running, now - 30)
    line = msgspec.json.encode({"message": EVIL, "at": now - 20, NAME: EVIL})
    note = Note(progress=50.0, progress_note=EVIL, lines=((1, line),))
    await store.renew([Lease(running.id, claim.token)], LEASE, {running.id: note}, now=now - 20)

    undecodable = seeder.new("evil", None)
    undecodable = msgspec.structs.replace(undecodable, payload=EVIL.encode())
    await store.add([undecodable], now=now - 10)

    # What no queue would enqueue: a producer of its own wrote it.
    await store.add([msgspec.structs.replace(seeder.new("evil", None), name=NAME)], now=now - 9)

    entry = Entry(
        host=EVIL, pid=1, version=NAME, queues=(NAME,), slots=2, every=600.0, busy=1,
        names=(NAME, EVIL), blocked=9.0, blocked_by=EVIL, unknown={NAME: 3, EVIL: 2},
        running=(Running(id=running.id, name=NAME, since=now - 5, aborted=EVIL),),
    )  # fmt: skip
    await store.write(WORKERS, NAME, encode_entry(entry))
    plan = Plan(
        id="p", job=NAME, payload=msgspec.Raw(msgspec.json.encode(EVIL)), policy=POLICY,
        cron="0 8 * * *",
    )  # fmt: skip
    good = encode_plan(created(plan, now, at_once=False))
    await store.write(SCHEDULES, f"good {NAME}", good, version=0)
    broken = encode_plan(msgspec.structs.replace(plan, cron=EVIL, timezone=EVIL))
    await store.write(SCHEDULES, f"broken {NAME}", broken, version=0)


@pytest.fixture(scope="module")
def memory_shop() -> Iterator[Site]:
    """A dashboard into which somebody has written what they could."""

    async def make() -> list[Queue]:
        queue = InMemoryQueue(name="default")
        await queue.ask(write)
        return [queue]

    with served(make) as site:
        yield site


def test_hostile_text_is_shown_as_text_and_does_nothing(win: Window, memory_shop: Site) -> None:
    page = win.open("/jobs")
    expect(page.locator("tbody tr")).to_have_count(5)
    links = page.locator("tbody a[data-open]").evaluate_all("all => all.map((a) => a.href)")
    jobs = [link.removeprefix(memory_shop.base) for link in links]
    page.goto(memory_shop.base + "/schedules")
    links = page.locator("tbody a[data-open]").evaluate_all("all => all.map((a) => a.href)")
    schedules = [link.removeprefix(memory_shop.base) for link in links]
    assert len(schedules) == 2
    asked = ("jobs?q", "jobs?state", "jobs?queue", "jobs?cursor", "errors?queue", "?window")
    searches = [f"/{each}={quote(text)}" for each in asked for text in (NAME, EVIL)]
    steps = ("jobs/", "queues/", "schedules/", "")
    searches += [f"/{each}{quote(NAME, safe='')}" for each in steps]
    searches += [f"/login?next={quote(NAME)}", "/login?next=javascript:window.hit=1"]
    win.allowed |= {400, 404}
    win.look("dark", NARROW)
    seen = 0
    for path in (
        *("/", "/jobs", "/errors", "/queues", "/queues/default", "/schedules", "/workers"),
        *("/audit", *jobs, *schedules, *searches),
    ):
        page = win.open(path)
        found = page.evaluate(
            """() => ({
                hit: 'hit' in window,
                images: document.images.length,
                scripts: [...document.scripts].filter((each) => !each.src).length,
                links: [...document.querySelectorAll('[href], [action], [formaction], [src]')]
                  .flatMap((each) => [each.href, each.action, each.formAction, each.src])
                  .filter((each) => typeof each === 'string' && each.startsWith('javascript')),
                handlers: [...document.querySelectorAll('*')]
                  // The chart sets its styles from a script of ours, as the policy allows.
                  .filter((each) => !each.closest('.chart'))
                  .flatMap((each) => [...each.attributes])
                  .filter((each) => each.name.startsWith('on') || each.name === 'style').length,
                text: document.documentElement.outerHTML,
            })"""
        )
        text = found.pop("text")
        assert found == {"hit": False, "images": 0, "scripts": 0, "links": [], "handlers": 0}, path
        assert TURNS not in text, path
        assert "\x1b" not in text, path
        assert not win.overflow(), path
        shown = page.locator("body").inner_text()
        seen += SCRIPT in shown or NAME.removesuffix(TURNS) in shown
    # It was there to be seen, and not left out.
    assert seen >= 12
