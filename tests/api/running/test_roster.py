"""Each worker says that it is there, how it is, and what it runs."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest

from jobmill import JobContext, Queue, StoreUnavailable, Worker, presence
from jobmill.presence import Presence, Profile
from jobmill.registry import isolated
from jobmill.roster import WORKERS, Roster, WorkerInfo, read_roster
from jobmill.slots import Slots
from jobmill.store import Doc
from jobmill.stores.memory import MemoryStore
from jobmill.testing.loop import SimClock
from jobmill.version import VERSION
from tests.api.running.conftest import MakeQueue
from tests.api.running.kit import Flaky, define, ended, flaky, until
from tests.waiting import PATIENCE


async def roster_of(queue: Queue) -> Roster:
    return await roster_at(queue, (await queue.ask(lambda store: store.counts())).now)


async def roster_at(queue: Queue, now: float) -> Roster:
    return await queue.ask(lambda store: read_roster(store, now))


async def write(queue: Queue, key: str, value: bytes, at: float | None = None) -> None:
    await queue.ask(lambda store: store.write(WORKERS, key, value, now=at))


async def the_worker(queue: Queue) -> WorkerInfo | None:
    workers = (await roster_of(queue)).workers
    return workers[0] if workers else None


async def test_a_worker_is_on_the_roster_from_its_start_to_its_stop(make_queue: MakeQueue) -> None:
    queue = make_queue(concurrency=3)
    assert (await roster_of(queue)).workers == ()
    worker = queue.process()
    shown = await until(lambda: the_worker(queue))
    assert shown.id == worker.id
    assert shown.alive
    entry = shown.entry
    assert (entry.pid, entry.version, entry.queues) == (os.getpid(), VERSION, (queue.name,))
    assert (entry.slots, entry.every, entry.state) == (3, 10.0, "running")
    assert (entry.busy, entry.running, entry.unknown) == (0, (), {})
    assert entry.memory is None or entry.memory > 1 << 20
    await worker.stop()
    assert (await roster_of(queue)).workers == ()


async def test_the_roster_says_what_runs(make_queue: MakeQueue) -> None:
    queue = make_queue(lease=0.6)
    go = asyncio.Event()

    async def wait(ctx: JobContext[None]) -> None:
        await go.wait()

    waits = define(wait)
    handle = await queue.enqueue(waits)
    queue.process()

    async def shown() -> WorkerInfo | None:
        worker = await the_worker(queue)
        return worker if worker is not None and worker.entry.running else None

    entry = (await until(shown)).entry
    (run,) = entry.running
    assert (run.id, run.name, run.attempt, entry.busy) == (handle.id, waits.name, 1, 1)
    started = (await handle.info()).started_at
    assert started is not None
    assert run.since == pytest.approx(started.timestamp(), abs=0.001)
    go.set()
    await ended(queue, handle)

    async def idle() -> bool:
        worker = await the_worker(queue)
        return worker is not None and not worker.entry.running

    await until(idle)


async def test_a_worker_is_on_the_roster_of_each_of_its_queues(make_queue: MakeQueue) -> None:
    queues = [make_queue("a"), make_queue("b")]
    worker = Worker(queues, concurrency=7, jobs=["x"])
    running = asyncio.create_task(worker.run())
    for queue in queues:
        shown = await until(partial(the_worker, queue))
        assert shown.id == worker.id
        assert (shown.entry.queues, shown.entry.slots) == (("a", "b"), 7)
        assert shown.entry.names == ("x",)
    await worker.stop()
    await running
    for queue in queues:
        assert (await roster_of(queue)).workers == ()


@pytest.mark.blocks_loop
async def test_a_blocked_loop_beats_on_and_is_shown_as_blocked(
    make_queue: MakeQueue, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    queue = make_queue(lease=0.4)
    free = threading.Event()

    async def block(ctx: JobContext[None]) -> None:
        free.wait(60.0)

    blocks = define(block)
    handle = await queue.enqueue(blocks)
    seen: list[WorkerInfo] = []

    def watch() -> None:
        async def look() -> None:
            other = Queue(queue.store.handle())
            deadline = time.monotonic() + 15.0
            while not seen and time.monotonic() < deadline:
                shown = await the_worker(other)
                # Long after its first lease.
                if shown is not None and shown.alive and (shown.entry.blocked or 0.0) > 1.0:
                    seen.append(shown)
                await asyncio.sleep(0.02)
            await other.close()

        asyncio.run(look())
        free.set()

    watching = threading.Thread(target=watch)
    watching.start()
    queue.process()
    info = await ended(queue, handle)
    await asyncio.to_thread(watching.join)
    assert (info.status, info.attempts) == ("completed", 1)
    (shown,) = seen
    assert handle.id in (shown.entry.blocked_by or "")
    assert [run.id for run in shown.entry.running] == [handle.id]

    async def well() -> bool:
        worker = await the_worker(queue)
        return worker is not None and worker.entry.blocked is None

    await until(well)


async def test_a_worker_that_is_silent_for_three_beats_is_dead(make_queue: MakeQueue) -> None:
    # So long that it beats once while it is looked at.
    queue = make_queue(lease=3_000.0)
    worker = queue.process()
    shown = await until(lambda: the_worker(queue))
    (doc,) = await queue.ask(lambda store: store.read(WORKERS))
    for silent, alive in ((2_999.0, True), (3_001.0, False)):
        there = await roster_at(queue, doc.at + silent)
        assert [each.alive for each in there.workers] == [alive]
        assert len(there.alive) == alive
    assert shown.last_beat.timestamp() == pytest.approx(doc.at, abs=0.001)
    await worker.stop()


async def test_the_long_dead_are_taken_off_by_who_starts(
    make_queue: MakeQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = make_queue(lease=0.6)
    now = (await queue.ask(lambda store: store.counts())).now
    ago = {"long": presence.FORGOTTEN_AFTER + 5.0, "just": presence.FORGOTTEN_AFTER - 60.0}
    for name, seconds in ago.items():
        value = b'{"host":"h","pid":1,"version":"0","queues":["q"],"slots":1,"every":1.0}'
        await write(queue, name, value, now - seconds)
    queue.process()

    async def swept() -> bool:
        return {each.id for each in (await roster_of(queue)).workers} & {"long"} == set()

    await until(swept)
    there = (await roster_of(queue)).workers
    assert {each.id: each.alive for each in there}.pop("just") is False


async def test_what_is_no_entry_is_left_out(make_queue: MakeQueue) -> None:
    queue = make_queue()
    for value in (b"", b"[]", b'{"host": 1}', b"\xff"):
        await write(queue, "w", value)
        assert (await roster_of(queue)).workers == ()


async def test_jobs_that_a_worker_does_not_know_are_on_the_roster(make_queue: MakeQueue) -> None:
    queue = make_queue(lease=0.6)

    async def nothing(ctx: JobContext[None]) -> None: ...

    with isolated():
        await queue.enqueue(define(nothing, name="of.another.release"))
    queue.process()

    async def told() -> Any:
        worker = await the_worker(queue)
        return worker is not None and worker.entry.unknown

    assert await until(told) == {"of.another.release": 1}


async def test_a_roster_that_cannot_be_told_costs_no_lease_and_no_stop(
    make_queue: MakeQueue,
) -> None:
    queue, faults = flaky(make_queue(lease=0.6))
    faults.away = {"write"}
    go = asyncio.Event()

    async def wait(ctx: JobContext[None]) -> None:
        await go.wait()

    handle = await queue.enqueue(define(wait))
    queue.process()
    await until(lambda: faults.count("renew") >= 4)
    go.set()
    assert (await ended(queue, handle)).lapses == 0
    assert isinstance(queue.store, Flaky)
    async with asyncio.timeout(PATIENCE):
        await queue.shutdown()


async def test_one_write_a_beat(make_queue: MakeQueue) -> None:
    queue, faults = flaky(make_queue(lease=1.2))
    queue.process()
    await until(lambda: faults.count("write") >= 4)
    reads = [args for verb, args in faults.calls if verb == "read" and args[0] == WORKERS]
    assert len(reads) <= 1
    await queue.shutdown()


LOST = "has lost data: it does not know of this worker any more"


class Unanswered(MemoryStore):
    """Does a write and does not answer, while it is told so."""

    silent = False

    async def write(self, *args: Any, **options: Any) -> int | None:
        version: int | None = await super().write(*args, **options)
        if self.silent:
            raise StoreUnavailable("no answer")
        return version


class Beating:
    """A worker's place on a roster, that beats when it is told to."""

    def __init__(self) -> None:
        self.store = Unanswered()
        self.clock = SimClock()
        profile = Profile("me", queues=["q"], slots=Slots(1), names=None, boot=self.clock.boot)
        self._presence = Presence(self.store, profile, lease=3.0, runs={}, unknown={})

    async def beat(self) -> None:
        self.clock.freeze(1.0)
        await self._presence.beat(blocked=None, blocked_by=None, stuck=False)

    async def lose(self) -> None:
        """As who empties the store."""
        await self.store.write(WORKERS, "me", None)

    async def put_back(self, back_to: Sequence[Doc]) -> None:
        """As who puts a backup back; its numbers go on, as those of a server that lives."""
        (doc,) = back_to
        await self.store.write(WORKERS, "me", doc.value)


@pytest.mark.parametrize("loss", ["emptied", "put back"])
async def test_an_idle_worker_says_once_that_its_store_lost_data(
    caplog: pytest.LogCaptureFixture, loss: str
) -> None:
    one = Beating()
    await one.beat()
    before = await one.store.read(WORKERS)
    await one.beat()
    assert LOST not in caplog.text
    await (one.lose() if loss == "emptied" else one.put_back(before))
    for _ in range(3):
        await one.beat()
    assert caplog.text.count(LOST) == 1
    assert len(await one.store.read(WORKERS)) == 1


async def test_a_beat_without_an_answer_is_no_loss(caplog: pytest.LogCaptureFixture) -> None:
    one = Beating()
    for silent in (False, True, True, False, False):
        one.store.silent = silent
        await one.beat()
    assert LOST not in caplog.text
    # And where the store was emptied after all, that is told.
    one.store.silent = True
    await one.beat()
    one.store.silent = False
    await one.lose()
    await one.beat()
    assert caplog.text.count(LOST) == 1


async def test_a_worker_that_stood_still_so_long_that_it_was_taken_off_is_no_loss(
    caplog: pytest.LogCaptureFixture,
) -> None:
    one = Beating()
    await one.beat()
    one.clock.freeze(presence.FORGOTTEN_AFTER)
    await one.lose()
    for _ in range(2):
        await one.beat()
    assert LOST not in caplog.text
