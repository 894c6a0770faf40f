"""Connections that go bad between processes and a server: half-open, reset, slow."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from random import Random

import pytest

from jobmill import JobHandle, Queue, StoreUnavailable, create_queue
from jobmill.testing.proxy import Direction, Proxy
from tests.faults.checked import assert_invariants
from tests.faults.jobs import Work, work
from tests.faults.places import SERVERS, ServerPlace
from tests.faults.processes import Process, Processes, comes_true, eventually
from tests.faults.witness import Witness
from tests.stalls import Stalls

SOAK = os.environ.get("JOBMILL_SOAK") == "1"
RESUMED_WITHIN = 15.0
CALL_WITHIN = 20.0
RESETS = 50
"""At so many places of a call, about; in soak at every byte."""
LONG = 30.0
"""A lease that no fault here outlasts: what runs twice was robbed, or lost by its worker."""


@pytest.fixture(params=SERVERS)
def place(request: pytest.FixtureRequest) -> Iterator[ServerPlace]:
    with request.param.made() as made:
        yield made


@pytest.fixture
async def proxy(place: ServerPlace) -> AsyncIterator[Proxy]:
    async with Proxy("127.0.0.1", place.port, random=Random(1)) as made:
        yield made


@pytest.fixture
async def beyond(place: ServerPlace, proxy: Proxy) -> AsyncIterator[Queue]:
    """The queue of `place`, seen through the proxy."""
    queue = create_queue(place.url_at(proxy.port), poll_interval=0.2)
    yield queue
    proxy.mend()
    await queue.close()


async def _worker(
    place: ServerPlace,
    processes: Processes,
    queue: Queue,
    proxy: Proxy,
    *,
    lease: float = LONG,
    poll_interval: float = 0.2,
) -> Process:
    """A worker behind the proxy, at work."""
    url = place.url_at(proxy.port)
    worker = processes.worker(lease=lease, url=url, poll_interval=poll_interval)
    assert await (await queue.enqueue(work, Work())).result(timeout=40) == worker.pid
    return worker


async def _completed_once(
    queue: Queue, witness: Witness, handles: list[JobHandle[int]], within: float = 40.0
) -> None:
    async def all_completed() -> bool:
        stats = await queue.stats()
        return stats.completed == stats.total

    await comes_true(all_completed, "all completed", within=within)
    for each in handles:
        info = await each.info()
        assert (info.status, info.attempts, info.lapses) == ("completed", 1, 0)
        assert len(witness.of("start", job=each.id)) == 1


async def test_workers_and_producers_resume_after_their_connections_went_half_open(
    queue: Queue,
    beyond: Queue,
    place: ServerPlace,
    processes: Processes,
    witness: Witness,
    proxy: Proxy,
) -> None:
    # It polls too seldom to notice anything by that.
    worker = await _worker(place, processes, queue, proxy, poll_interval=LONG)
    running = await queue.enqueue(work, Work(seconds=3.0))
    await eventually(lambda: witness.of("start", job=running.id), "the start")
    # When its result is there, no call of this queue is under way, nor any wake-up.
    await (await beyond.enqueue(work, Work())).result(timeout=40)

    proxy.forget()
    began = time.monotonic()
    async with Stalls() as stalls:
        cut_off = asyncio.create_task(beyond.enqueue(work, Work(), job_id="the-one"))
        handles = [await queue.enqueue(work, Work()) for _ in range(10)]
        for each in handles:
            assert await each.result(timeout=40) == worker.pid
        await running.result(timeout=40)
        seconds = time.monotonic() - began
    print(f"resumed after {seconds:.2f} s")
    assert seconds < RESUMED_WITHIN + stalls.since(began)

    with pytest.raises(StoreUnavailable):
        await cut_off
    handles.append(await beyond.enqueue(work, Work(), job_id="the-one"))
    await handles[-1].result(timeout=40)
    await _completed_once(queue, witness, [running, *handles])


async def test_every_call_is_bounded_while_all_is_swallowed_and_the_worker_resumes(
    queue: Queue,
    beyond: Queue,
    place: ServerPlace,
    processes: Processes,
    witness: Witness,
    proxy: Proxy,
) -> None:
    worker = await _worker(place, processes, queue, proxy)
    running = await queue.enqueue(work, Work(seconds=1.0))
    await eventually(lambda: witness.of("start", job=running.id), "the start")
    await beyond.enqueue(work, Work())
    proxy.swallow()
    began = time.monotonic()
    handles = [await queue.enqueue(work, Work()) for _ in range(10)]
    calls = [beyond.enqueue(work, Work()), beyond.stats(), beyond.cancel("none"), beyond.pause()]
    for each in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(each, StoreUnavailable)
    assert time.monotonic() - began < CALL_WITHIN
    await eventually(lambda: "cannot be reached" in worker.log, "the outage noticed")

    proxy.mend()
    began = time.monotonic()
    async with Stalls() as stalls:
        for each in handles:
            assert await each.result(timeout=40) == worker.pid
        await running.result(timeout=40)
        seconds = time.monotonic() - began
    print(f"resumed after {seconds:.2f} s")
    await _completed_once(queue, witness, [running, *handles])
    assert seconds < RESUMED_WITHIN + stalls.since(began)


async def _sent_until_taken(queue: Queue, job_id: str) -> int:
    """Send one job until it is answered; how many tries that took."""
    for n in range(1, 20):
        try:
            handle = await queue.enqueue(work, Work(), job_id=job_id)
        except StoreUnavailable as error:
            named = list(error.job_ids)
        else:
            assert handle.id == job_id
            return n
        assert named == [job_id]
    pytest.fail(f"{job_id} was never taken")


@pytest.mark.parametrize("direction", ["to_server", "to_client"])
async def test_a_reset_at_any_byte_of_an_enqueue_makes_one_job(
    queue: Queue, beyond: Queue, proxy: Proxy, direction: Direction
) -> None:
    await beyond.enqueue(work, Work(), job_id="first")
    before = proxy.passed[direction]
    await beyond.enqueue(work, Work(), job_id="measured")
    usual = proxy.passed[direction] - before
    # Since each call follows a reset, its connection's beginning is among the bytes.
    offsets = range(0, usual + 100, 1 if SOAK else max(1, usual // RESETS))
    tries = 0
    for at in offsets:
        done = proxy.reset_after(at, direction)
        tries += await _sent_until_taken(beyond, f"at-{at}")
        while not done.is_set():
            tries += await _sent_until_taken(beyond, f"at-{at}")
    print(f"{direction}: {len(offsets)} resets, {usual} bytes a call, {tries} tries")
    assert tries >= len(offsets) * 3 // 2, "the resets were elsewhere"
    assert (await queue.stats()).total == len(offsets) + 2
    for at in offsets:
        info = await queue.get_job(f"at-{at}")
        assert info is not None
        assert info.status == "pending"


@pytest.mark.parametrize("what", ["request", "reply"])
async def test_a_lost_request_or_reply_of_an_enqueue_makes_one_job(
    queue: Queue, beyond: Queue, proxy: Proxy, what: str
) -> None:
    await beyond.enqueue(work, Work(), job_id="first")
    for n in range(20):
        lose = proxy.lose_request if what == "request" else proxy.lose_reply
        lost = lose(f"job-{n}".encode())
        with pytest.raises(StoreUnavailable) as caught:
            await beyond.enqueue(work, Work(), job_id=f"job-{n}")
        assert list(caught.value.job_ids) == [f"job-{n}"]
        assert lost.is_set()
        assert (await queue.get_job(f"job-{n}") is not None) is (what == "reply")
        handle = await beyond.enqueue(work, Work(), job_id=f"job-{n}")
        assert handle.deduplicated is (what == "reply")
    assert (await queue.stats()).total == 21


@pytest.mark.parametrize("what", ["request", "reply"])
async def test_a_lost_request_or_reply_of_a_settle_is_harmless(
    queue: Queue,
    place: ServerPlace,
    processes: Processes,
    witness: Witness,
    proxy: Proxy,
    what: str,
) -> None:
    worker = await _worker(place, processes, queue, proxy)
    lose = proxy.lose_request if what == "request" else proxy.lose_reply
    handles: list[JobHandle[int]] = []
    for _ in range(10):
        lost = lose(place.word("succeed"))
        handles.append(await queue.enqueue(work, Work()))
        assert await handles[-1].result(timeout=40) == worker.pid
        await eventually(lost.is_set, "the loss")
        # The next is lost only when this one is over for the worker, too.
        await eventually(partial(_is_back, worker, len(handles)), "the worker back")
    await _completed_once(queue, witness, handles)
    assert "came too late" not in worker.log
    assert worker.alive


def _is_back(worker: Process, times: int) -> bool:
    return worker.log.count("the store of default is back") >= times


@pytest.mark.timeout(120)
async def test_workers_outlast_resets_at_random_bytes(
    queue: Queue, place: ServerPlace, processes: Processes, witness: Witness, proxy: Proxy
) -> None:
    workers = [await _worker(place, processes, queue, proxy)]
    workers.append(processes.worker(lease=LONG, url=place.url_at(proxy.port)))
    await eventually(lambda: witness.of("ready", pid=workers[1].pid), "the second ready")
    random = Random(15)
    count = 1_000 if SOAK else 100
    calls = [work.call(Work(seconds=random.uniform(0.0, 0.05))) for _ in range(count)]
    handles = await queue.enqueue_many(calls)
    resets = 0
    while (await queue.stats()).completed < count + 1:
        direction: Direction = random.choice(("to_server", "to_client"))
        done = proxy.reset_after(random.randrange(3_000), direction)
        async with asyncio.timeout(40):
            await done.wait()
        resets += 1
    print(f"{resets} resets over {count} jobs")
    assert resets > 3
    await assert_invariants(queue, witness, [each.id for each in handles])
    await _completed_once(queue, witness, handles)
    assert not [each for each in workers if "came too late" in each.log]
    assert all(each.alive for each in workers)


@pytest.mark.timeout(180)
async def test_latency_below_a_third_of_the_lease_loses_no_lease(
    queue: Queue, place: ServerPlace, processes: Processes, witness: Witness, proxy: Proxy
) -> None:
    """A shorter lease would be lost by a machine that is busy for a second."""
    longest, lease = 2.0, 6.5
    proxy.delay(0.0, longest / 2)
    url = place.url_at(proxy.port)
    workers = [processes.worker(lease=lease, url=url) for _ in range(2)]
    handles = [await queue.enqueue(work, Work(seconds=2 * lease)) for _ in range(4)]
    handles += [await queue.enqueue(work, Work(seconds=0.1 * n)) for n in range(20)]
    await _completed_once(queue, witness, handles, within=120)
    for each in workers:
        assert each.alive
        assert "lease" not in each.log, each.log
