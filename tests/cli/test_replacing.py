"""A supervisor replaces processes one at a time, and the new one works before the old one stops.

It keeps on where a process cannot be started, and ends where another one would be of no use.

Its processes here are no workers, but a script that keeps the line and writes down what it hears.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from jobmill.cli import supervisor as supervising
from jobmill.cli.child import Child
from jobmill.cli.ending import Exit
from jobmill.cli.supervisor import Changes, Supervisor
from jobmill.cli.working import How
from tests.waiting import eventually

PROCESS = """
import os, sys, time

folder = sys.argv[1]
orders, news, first = map(int, os.environ["JOBMILL_SUPERVISOR"].split(","))


def tell(word):
    with open(f"{folder}/events", "a") as events:
        events.write(f"{os.getpid()} {word}\\n")


def there(name):
    return os.path.exists(f"{folder}/{name}")


tell("loaded")
os.write(news, b"loaded \\n")
while there("slow"):
    time.sleep(0.01)
if there("broken"):
    with open(f"{folder}/broken") as code:
        sys.exit(int(code.read()))
tell("ready")
os.write(news, b"ready \\n")
if there("away"):
    os.write(news, b"away \\n")
    tell("away")
heard = b""
while b"stop" not in heard:
    heard = os.read(orders, 100) or b"stop"
tell("stop")
"""
PATIENCE = 50.0


class Seen:
    """What the processes of one supervisor have done."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.killed = 0

    def events(self) -> list[str]:
        path = self.folder / "events"
        return path.read_text().splitlines() if path.exists() else []

    def pids(self, word: str) -> list[int]:
        return [int(event.split()[0]) for event in self.events() if event.endswith(word)]

    def count(self, word: str) -> int:
        return sum(event.endswith(word) for event in self.events())

    async def has(self, word: str, number: int) -> None:
        await eventually(lambda: self.count(word) >= number, within=PATIENCE)

    def working(self) -> list[int]:
        """How many worked after each event, from the moment when both did."""
        counts: list[int] = []
        now = 0
        for event in self.events():
            now += event.endswith("ready")
            now -= event.endswith("stop")
            counts.append(now)
        return counts[counts.index(2) :]


def started(
    folder: Path, how: How | None = None, changes: Changes | None = None
) -> tuple[Supervisor, asyncio.Task[Exit]]:
    script = folder / "process.py"
    script.write_text(PROCESS)
    words = [sys.executable, str(script), str(folder)]
    supervisor = Supervisor(how or How(processes=2), words, changes)
    return supervisor, asyncio.create_task(supervisor.run())


class NoChanges(Changes):
    """Files that nobody touches."""

    def __init__(self) -> None:
        pass

    async def come(self, stop: asyncio.Event) -> AsyncGenerator[str]:
        await stop.wait()
        if not stop.is_set():
            yield ""


@asynccontextmanager
async def supervised(folder: Path) -> AsyncGenerator[tuple[Supervisor, Seen]]:
    supervisor, running = started(folder)
    seen = Seen(folder)
    try:
        await seen.has("ready", 2)
        yield supervisor, seen
    finally:
        supervisor.stop()
        assert await asyncio.wait_for(running, PATIENCE) == 0
    assert seen.count("stop") + seen.killed == seen.count("ready")


@pytest.mark.timeout(180)
async def test_the_new_one_works_before_the_old_one_stops(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with supervised(tmp_path) as (supervisor, seen):
        (tmp_path / "slow").touch()
        supervisor._hang_up()
        await seen.has("loaded", 3)
        assert seen.count("stop") == 0
        assert caplog.text.count("replacing process") == 1, "one at a time"
        (tmp_path / "slow").unlink()
        await seen.has("stop", 2)
        assert seen.count("ready") == 4
        assert min(seen.working()) == 2
        assert caplog.text.count("replacing process") == 2


@pytest.mark.timeout(180)
async def test_the_old_ones_stay_where_new_ones_do_not_come(tmp_path: Path) -> None:
    async with supervised(tmp_path) as (supervisor, seen):
        (tmp_path / "broken").write_text("1")
        supervisor._hang_up()
        await seen.has("loaded", 3)
        assert seen.count("stop") == 0
        # How many of the second's place have come and gone by now, nobody knows.
        assert set(seen.working()) == {2}


@pytest.mark.timeout(180)
async def test_one_that_stays_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervising, "_MAX_PAUSE", 1_000.0)
    async with supervised(tmp_path) as (supervisor, seen):
        (tmp_path / "broken").write_text("1")
        supervisor._hang_up()
        await eventually(lambda: caplog.text.count("stays") == 2, within=PATIENCE)
        assert seen.count("stop") == 0


@pytest.mark.timeout(180)
async def test_it_is_ready_while_one_of_them_reaches_its_store(tmp_path: Path) -> None:
    async with supervised(tmp_path) as (supervisor, seen):
        (tmp_path / "away").touch()
        supervisor._hang_up()
        await seen.has("stop", 1)
        # It writes that down after it has said so.
        await seen.has("away", 1)
        await seen.has("stop", 2)
        await eventually(lambda: not supervisor._is_ready(), within=PATIENCE)
        (tmp_path / "away").unlink()
        supervisor._hang_up()
        await eventually(supervisor._is_ready, within=PATIENCE)


@pytest.mark.timeout(180)
async def test_of_one_that_took_the_place_of_another_the_own_end_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Child, "age", property(lambda child: 99.0 if child.pid in old else 0.0))
    async with supervised(tmp_path) as (supervisor, seen):
        old = seen.pids("ready")
        supervisor._hang_up()
        await seen.has("stop", 2)
        new = seen.pids("ready")[-1]
        os.kill(new, signal.SIGKILL)
        seen.killed += 1
        await seen.has("ready", 5)
    assert f"process {new} was ended by SIGKILL; starting another in 0.2 s" in caplog.text


@pytest.mark.timeout(180)
async def test_a_store_that_no_process_can_use_ends_it(tmp_path: Path) -> None:
    (tmp_path / "broken").write_text("4")
    _, running = started(tmp_path)
    assert await asyncio.wait_for(running, PATIENCE) == Exit.UNREACHABLE
    assert Seen(tmp_path).count("ready") == 0


@pytest.mark.timeout(180)
async def test_with_reload_such_a_store_is_not_waited_for_by_a_change_of_a_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    how, broken = How(reload=True), tmp_path / "broken"
    broken.write_text("4")
    _, running = started(tmp_path, how, NoChanges())
    assert await asyncio.wait_for(running, PATIENCE) == Exit.UNREACHABLE
    broken.unlink()

    supervisor, running = started(tmp_path, how, NoChanges())
    seen = Seen(tmp_path)
    await seen.has("ready", 1)
    broken.write_text("4")
    supervisor._changed.set()
    # Two that end so, the second with no change before it.
    await seen.has("loaded", 4)
    assert caplog.text.count("ended with exit code 4; starting another") >= 1
    broken.unlink()
    await seen.has("ready", 2)
    supervisor.stop()
    assert await asyncio.wait_for(running, PATIENCE) == Exit.DONE


@pytest.mark.timeout(180)
async def test_a_store_that_a_process_could_use_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with supervised(tmp_path) as (_, seen):
        (tmp_path / "broken").write_text("4")
        os.kill(seen.pids("ready")[0], signal.SIGKILL)
        seen.killed += 1
        await seen.has("loaded", 4)
        (tmp_path / "broken").unlink()
        await seen.has("ready", 3)
    assert "ended with exit code 4; starting another" in caplog.text


class Spawns:
    """The machine starts processes, except for some that it refuses."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.refusals: list[Exception] = []
        self._start = asyncio.create_subprocess_exec
        monkeypatch.setattr(asyncio, "create_subprocess_exec", self)

    async def __call__(self, *words: str, **options: Any) -> asyncio.subprocess.Process:
        if self.refusals:
            raise self.refusals.pop(0)
        return await self._start(*words, **options)


def full() -> OSError:
    return OSError(errno.EAGAIN, "Resource temporarily unavailable")


def open_files() -> list[Path]:
    return sorted(Path("/proc/self/fd").iterdir())


async def test_a_process_that_cannot_be_started_leaves_no_files_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spawns = Spawns(monkeypatch)
    spawns.refusals = [full()]
    before = set(open_files())
    with pytest.raises(OSError, match="unavailable"):
        await Child.start([sys.executable], first=True, heard=lambda _: None)
    # Files of tests before this one may be closed meanwhile.
    assert set(open_files()) <= before


@pytest.mark.timeout(180)
async def test_it_tries_again_where_no_process_can_be_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervising, "_MAX_PAUSE", 0.05)
    spawns = Spawns(monkeypatch)
    spawns.refusals = [full(), full(), full()]
    async with supervised(tmp_path) as (supervisor, seen):
        assert caplog.text.count("no process can be started") == 3
        spawns.refusals = [full(), full()]
        supervisor._hang_up()
        await seen.has("stop", 2)
        assert caplog.text.count("stays") == 2
        assert seen.count("ready") == 4
        assert min(seen.working()) == 2


@pytest.mark.timeout(180)
async def test_a_defect_leaves_no_process_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawns = Spawns(monkeypatch)
    supervisor, running = started(tmp_path)
    seen = Seen(tmp_path)
    await seen.has("ready", 2)
    spawns.refusals = [ZeroDivisionError()]
    supervisor._hang_up()
    with pytest.raises(ExceptionGroup) as caught:
        await asyncio.wait_for(running, PATIENCE)
    assert caught.group_contains(ZeroDivisionError)
    assert seen.count("stop") == 2
