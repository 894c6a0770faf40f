"""One browser for each process of tests, and one dashboard for each store and module.

A test that has the fixture `win` runs in the browser's thread, and fails where anything was wrong
on its pages: an error on the console, a dialog, a request to another host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import expect

from jobmill import Queue
from jobmill.policy import Policy
from jobmill.store import NewJob
from tests.api.conftest import STORES, OpenQueue, memory
from tests.browser.chromium import PATIENCE, Chromium, Window, program, window
from tests.browser.seeding import Seeded, seed
from tests.browser.serving import Site, served
from tests.servers import missing

expect.set_options(timeout=PATIENCE)


async def add(queue: Queue, name: str, identifier: str) -> None:
    """Add a job of a name that nobody here has defined."""
    new = NewJob(id=identifier, name=name, payload=b"null", policy=Policy())
    await queue.ask(lambda store: store.add([new]))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run the tests of pages where the browser is."""
    if "win" not in pyfuncitem.fixturenames:
        return None
    given: dict[str, Any] = pyfuncitem.funcargs
    chromium: Chromium = given["chromium"]
    names = pyfuncitem._fixtureinfo.argnames
    chromium.call(pyfuncitem.obj, **{name: given[name] for name in names})
    return True


@pytest.fixture(scope="session")
def chromium() -> Iterator[Chromium]:
    path = program()
    if path is None:
        missing("chromium is not installed; apt-get install chromium")
        return
    browser = Chromium()
    browser.start(path)
    yield browser
    browser.stop()


class Shop(Site):
    """A seeded dashboard. `seeded`: the ids of the jobs of its first queue."""

    seeded: Seeded


def shop(open_queue: Callable[..., Queue], **options: Any) -> Iterator[Shop]:
    """A dashboard of a queue in which something of each kind is, and of one that is empty."""
    found: list[Seeded] = []

    async def make() -> list[Queue]:
        queue, other = open_queue(name="default"), open_queue(name="mail")
        found.append(await seed(queue))
        return [queue, other]

    with served(make, **options) as site:
        made = Shop.__new__(Shop)
        made.__dict__.update(site.__dict__)
        made.seeded = found[0]
        yield made


@pytest.fixture(scope="module", params=STORES)
def any_shop(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, chromium: Chromium
) -> Iterator[Shop]:
    """The dashboard on each of the stores."""
    opener: OpenQueue = request.param(request, tmp_path_factory.mktemp("shop"))
    yield from shop(opener)


@pytest.fixture(scope="module")
def memory_shop(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, chromium: Chromium
) -> Iterator[Shop]:
    """The dashboard on the store in memory."""
    yield from shop(memory(request, tmp_path_factory.mktemp("shop")))


@pytest.fixture
def win(request: pytest.FixtureRequest, chromium: Chromium) -> Iterator[Window]:
    """A window on the dashboard of the test; what was wrong in it fails the test."""
    fixture = "any_shop" if "any_shop" in request.fixturenames else "memory_shop"
    site: Site = request.getfixturevalue(fixture)
    marker = request.node.get_closest_marker("window")
    options: dict[str, Any] = dict(marker.kwargs) if marker else {}
    opened = window(chromium, site.base, **options)
    made = chromium.call(opened.__enter__)
    yield made
    chromium.call(opened.__exit__, None, None, None)
    assert not made.wrong, "\n".join(made.wrong)
