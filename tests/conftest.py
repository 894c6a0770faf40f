"""What holds for every test: blocking calls on the loop fail it, and the end says which stores ran.

A test says which store it runs on by the marker `store`, mostly through a fixture's parameter:
`pytest.param(open_sqlite, marks=pytest.mark.store("sqlite"))`.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import blockbuster.blockbuster
import pytest
from hypothesis import settings

import jobmill.stores
from jobmill.stores import postgresql
from jobmill.stores.redis import Address
from tests import guarantees, servers

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As a shell leaves it to what it starts in the background; children would inherit it, and
    # some are to be stopped by Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)

SOAK = os.environ.get("JOBMILL_SOAK") == "1"
STORES = frozenset(os.environ.get("JOBMILL_TEST_STORES", "").split())
"""The stores to be tested; all, where none is named."""

# A deadline would measure the machine. Soak looks for what a quick run cannot find.
settings.register_profile("quick", deadline=None, print_blob=True)
settings.register_profile("soak", deadline=None, print_blob=True, max_examples=5_000)
settings.load_profile("soak" if SOAK else "quick")


@pytest.fixture(autouse=True)
def no_blocking_on_the_loop(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """A blocking call by jobmill on an event loop fails the test, also where it is swallowed."""
    if request.node.get_closest_marker("blocks_loop"):
        yield
        return
    blocked: list[str] = []

    class BlockingError(blockbuster.blockbuster.BlockingError):
        def __init__(self, func: str) -> None:
            super().__init__(func)
            blocked.append(func)

    monkeypatch.setattr(blockbuster.blockbuster, "BlockingError", BlockingError)
    with blockbuster.blockbuster_ctx(scanned_modules=["jobmill"]) as guard:
        # What the tests' own log handlers do is no business of the loop's.
        for write in ("io.TextIOWrapper.write", "io.BufferedWriter.write"):
            guard.functions[write].can_block_in("logging/__init__.py", "emit")
        yield
    assert not blocked, f"jobmill blocked the event loop with {', '.join(blocked)}"


@pytest.fixture(scope="session")
def redis_address() -> Iterator[Address]:
    """A Redis server, from its first use to the end."""
    yield from servers.redis_address()


@pytest.fixture(scope="session")
def postgres_address() -> Iterator[postgresql.Address]:
    """A PostgreSQL database, from its first use to the end."""
    yield from servers.postgres_address()


@pytest.fixture
def unused_tcp_port() -> Iterator[int]:
    """A port where nobody listens, nor begins to: the system gives it to no other program."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def pytest_configure(config: pytest.Config) -> None:
    """Have it written down what came of the tests of faults, where a file is named for that."""
    file = os.environ.get(guarantees.RUN)
    if file and not hasattr(config, "workerinput"):
        config.pluginmanager.register(guarantees.Recorder(Path(file)))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests on other stores than those that JOBMILL_TEST_STORES names."""
    if not STORES:
        return
    out = [
        item
        for item in items
        if (on := {mark.args[0] for mark in item.iter_markers("store")}) and not on & STORES
    ]
    config.hook.pytest_deselected(items=out)
    left_out = set(out)
    items[:] = [item for item in items if item not in left_out]


def pytest_runtest_setup(item: pytest.Item) -> None:
    item.user_properties += [("store", mark.args[0]) for mark in item.iter_markers("store")]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    ran = {
        str(value)
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, [])
        if report.when == "call"
        for key, value in report.user_properties
        if key == "store"
    }
    folders = Path(jobmill.stores.__path__[0]).iterdir()
    there = {folder.name for folder in folders if (folder / "__init__.py").is_file()}
    terminalreporter.section("stores")
    terminalreporter.write_line(f"stores tested: {', '.join(sorted(ran)) or 'none'}")
    if there - ran:
        terminalreporter.write_line(f"stores not tested: {', '.join(sorted(there - ran))}")
