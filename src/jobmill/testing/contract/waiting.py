"""What `wait` promises: it always returns, and, where the store pushes, at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import pytest

from jobmill.states import Event
from jobmill.store import ENDS, JOBS, Features, Store, topic_of_job
from jobmill.testing.contract.case import (
    T0,
    StoreCase,
    a_job,
    claim,
    in_state,
    move,
    on_a_store,
    running,
    some_jobs,
)

_LONG = 30.0
_SOON = 20.0
"""Within this a store that pushes, or looks often, has to wake."""


@contextlib.asynccontextmanager
async def _woken(store: Store, topic: str) -> AsyncGenerator[None]:
    """A waiter on the topic is woken by what is done inside."""
    await _forget(store, topic)
    waiter = asyncio.create_task(store.wait([topic], _LONG))
    await asyncio.sleep(0)
    try:
        yield
        async with asyncio.timeout(_SOON):
            await waiter
    finally:
        waiter.cancel()


async def _forget(store: Store, topic: str) -> None:
    """Have the wake-ups of what was told before; the first wait may have to subscribe."""
    await store.wait([topic], 0.01)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.05):
            while True:
                await store.wait([topic], 0.01)


async def _heard(store: Store, id_: str) -> None:
    """Have a job told of: what a busy server has still to do for the first wait is done then."""
    async with _woken(store, JOBS):
        await store.add([a_job(id_)])


class WaitContract(StoreCase):
    """A hint may be lost, but none is lost while nothing goes wrong."""

    @on_a_store
    async def test_a_wait_ends_after_its_timeout(self, store: Store) -> None:
        async with asyncio.timeout(_SOON):
            for topics in ([JOBS], [topic_of_job("j1"), JOBS], []):
                await store.wait(topics, 0.01)
                await store.wait(topics, 0.0)

    @on_a_store
    async def test_an_added_job_wakes(self, store: Store) -> None:
        async with _woken(store, JOBS):
            await store.add([a_job()])

    @on_a_store
    async def test_a_job_added_before_the_wait_wakes(self, store: Store) -> None:
        await store.wait([JOBS], 0.0)
        await store.add([a_job()])
        async with asyncio.timeout(_SOON):
            await store.wait([JOBS], _LONG)

    @on_a_store
    async def test_a_job_wakes_who_has_just_begun_to_wait(self, store: Store) -> None:
        waiter = asyncio.create_task(store.wait([JOBS], _LONG))
        await asyncio.sleep(0)
        await store.add([a_job()])
        async with asyncio.timeout(_SOON):
            await waiter

    @pytest.mark.parametrize("event", ["release", "retry", "lapse"])
    @on_a_store
    async def test_a_job_that_is_pending_again_wakes(self, store: Store, event: Event) -> None:
        await running(store)
        async with _woken(store, JOBS):
            await move(store, event, token="t1")

    @on_a_store
    async def test_a_revive_wakes(self, store: Store) -> None:
        await in_state(store, "failed")
        async with _woken(store, JOBS):
            await move(store, "revive")

    @on_a_store
    async def test_a_hastened_job_wakes(self, store: Store) -> None:
        await in_state(store, "delayed")
        async with _woken(store, JOBS):
            await move(store, "hasten")

    @on_a_store
    async def test_a_running_job_that_is_asked_wakes(self, store: Store) -> None:
        await running(store)
        async with _woken(store, JOBS):
            await move(store, "cancel")

    @on_a_store
    async def test_a_document_that_workers_act_on_wakes(self, store: Store) -> None:
        async with _woken(store, JOBS):
            await store.write("pauses", "*", b"{}")
        async with _woken(store, JOBS):
            await store.write("pauses", "*", None)

    @on_a_store
    async def test_another_document_wakes_nobody(self, store: Store) -> None:
        if Features.PUSH not in store.features:
            return  # a store that polls looks anyway
        other = store.handle()
        await other.open()
        both = (store, other)
        for number, each in enumerate(both):
            await _heard(each, f"heard{number}")
        for each in both:
            await _forget(each, JOBS)
        waiters = [asyncio.create_task(each.wait([JOBS], _LONG)) for each in both]
        try:
            for writer in both:
                await writer.write("workers", "w", b"{}")
                await writer.write("workers", "w", None)
            done, _ = await asyncio.wait(waiters, timeout=0.1)
            assert not done
            await store.add([a_job()])
            async with asyncio.timeout(_SOON):
                await asyncio.gather(*waiters)
        finally:
            for waiter in waiters:
                waiter.cancel()
            await other.close()

    @on_a_store
    async def test_a_tick_wakes(self, store: Store) -> None:
        version = await store.write("schedules", "s", b"1")
        assert version
        async with _woken(store, JOBS):
            await store.tick("s", version, b"2", [], [a_job()])

    @pytest.mark.parametrize("event", ["succeed", "fail", "abort"])
    @on_a_store
    async def test_the_end_of_a_job_wakes_who_waits_for_it(
        self, store: Store, event: Event
    ) -> None:
        await running(store)
        async with _woken(store, topic_of_job("j1")):
            await move(store, event, token="t1")

    @on_a_store
    async def test_a_cancel_wakes_who_waits_for_the_job(self, store: Store) -> None:
        await store.add([a_job()], now=T0)
        async with _woken(store, topic_of_job("j1")):
            await move(store, "cancel")

    @on_a_store
    async def test_an_end_that_rides_on_a_claim_wakes(self, store: Store) -> None:
        await running(store)
        async with _woken(store, topic_of_job("j1")):
            await move(store, "succeed", token="t1")
            await claim(store, "t2")

    @pytest.mark.parametrize("event", ["succeed", "retry", "fail", "abort"])
    @on_a_store
    async def test_an_end_or_a_retry_wakes_who_follows_all(
        self, store: Store, event: Event
    ) -> None:
        await running(store)
        async with _woken(store, ENDS):
            await move(store, event, token="t1", delay=9.0)

    @on_a_store
    async def test_an_end_wakes_who_has_just_begun_to_follow_all(self, store: Store) -> None:
        await running(store)
        # The first wait may have to subscribe, and the end be sooner than that.
        waiter = asyncio.create_task(store.wait([ENDS], _LONG))
        await asyncio.sleep(0)
        await move(store, "succeed", token="t1")
        async with asyncio.timeout(_SOON):
            await waiter

    @on_a_store
    async def test_who_follows_all_is_woken_again_and_again(self, store: Store) -> None:
        await store.add(some_jobs(3), now=T0)
        for job in some_jobs(3):
            async with _woken(store, ENDS):
                await move(store, "cancel", job.id)

    @on_a_store
    async def test_one_of_several_topics_wakes(self, store: Store) -> None:
        await store.add([a_job("j1"), a_job("j2")], now=T0)
        topics = [topic_of_job("j1"), topic_of_job("j2")]
        waiter = asyncio.create_task(store.wait(topics, _LONG))
        await asyncio.sleep(0)
        await move(store, "cancel", "j2")
        async with asyncio.timeout(_SOON):
            await waiter

    @on_a_store
    async def test_all_who_wait_are_woken(self, store: Store) -> None:
        other = store.handle()
        await other.open()
        try:
            async with _woken(store, JOBS), _woken(other, JOBS):
                await store.add([a_job()])
        finally:
            await other.close()

    @on_a_store
    async def test_a_cancelled_wait_leaves_the_store_usable(self, store: Store) -> None:
        waiter = asyncio.create_task(store.wait([JOBS], _LONG))
        await asyncio.sleep(0)
        waiter.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiter
        async with _woken(store, JOBS):
            await store.add([a_job()])

    @on_a_store
    async def test_an_added_job_does_not_wake_where_it_should_not(self, store: Store) -> None:
        if Features.PUSH not in store.features:
            return  # a store that polls sees it anyway
        await _heard(store, "heard")
        await _forget(store, JOBS)
        waiter = asyncio.create_task(store.wait([JOBS], _LONG))
        await asyncio.sleep(0)
        try:
            await store.add([a_job("j1")], wake=False)
            done, _ = await asyncio.wait([waiter], timeout=0.05)
            assert not done
            # It would have been heard.
            await store.add([a_job("j2")])
            async with asyncio.timeout(_SOON):
                await waiter
        finally:
            waiter.cancel()
