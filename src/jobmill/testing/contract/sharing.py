"""What handles and queues promise."""

from __future__ import annotations

import asyncio
import threading

import pytest

from jobmill.errors import Unsupported
from jobmill.states import Event
from jobmill.store import JOBS, Added, Features, Lease, Query, Store, Window
from jobmill.testing.contract.case import (
    T0,
    StillClock,
    StoreCase,
    a_job,
    claim,
    ids,
    move,
    on_a_store,
    record,
    running,
    some_jobs,
)


class ShareContract(StoreCase):
    """Queues of one store do not see each other; handles of one queue do."""

    @on_a_store
    async def test_a_store_is_a_store(self, store: Store) -> None:
        assert isinstance(store, Store)
        assert isinstance(store.features, Features)
        assert store.queue == store.handle().queue
        assert store.handle("other").queue == "other"

    @on_a_store
    async def test_opening_again_does_nothing(self, store: Store) -> None:
        await store.add([a_job()], now=T0)
        await store.open()
        assert ids((await claim(store)).claims) == ["j1"]

    async def test_closing_again_does_nothing(self) -> None:
        store = await self.open_store(StillClock())
        await store.close()
        await store.close()
        unopened = store.handle()
        await unopened.close()

    @on_a_store
    async def test_a_handle_sees_the_same_jobs(self, store: Store) -> None:
        other = store.handle()
        await other.open()
        try:
            await store.add(some_jobs(2), now=T0)
            assert ids((await claim(other, "t1", limit=1)).claims) == ["j1"]
            assert ids((await claim(store, "t2")).claims) == ["j2"]
            assert await store.renew([Lease("j1", "t1")], 30.0, now=T0) == ["ok"]
        finally:
            await other.close()
        assert (await move(store, "succeed", "j1", "t1")).status == "applied"

    @on_a_store
    async def test_queues_do_not_see_each_other(self, store: Store) -> None:
        other = store.handle("other")
        await other.open()
        try:
            await running(store, unique_key="k")
            await store.write("pauses", "*", b"{}", now=T0)
            await store.reserve("r", "j1", "t1", [Window(1, 60.0)], now=T0)
            added = await other.add(
                [a_job("j1", payload=b"1"), a_job("j2", unique_key="k")], now=T0
            )
            assert added == [Added("added", "j1"), Added("added", "j2")]
            assert await other.reserve("r", "j1", "t1", [Window(1, 60.0)], now=T0) == 0
            assert ids((await claim(other, "t2", limit=1)).claims) == ["j1"]
            assert await other.renew([Lease("j1", "t1")], 30.0, now=T0) == ["lost"]
            assert (await move(other, "succeed", "j1", "t1")).status == "stale"
            assert (await claim(other, "t3", now=T0 + 30)).lapsed[0].token == "t3"
            assert (await record(store)).token == "t1"
            await move(other, "fail", "j1", "t3", error=b"1", fingerprint="f")
            assert await store.events(0, 10) == []
            assert await store.errors(10) == []
            assert await store.metrics(0.0) == []
            assert [doc.key for doc in await other.read("pauses")] == []
            assert await other.drop(Query(), limit=99, now=T0) >= 1
            assert await other.prune(99, now=T0 + 10**8) == 0
            assert (await store.counts(now=T0)).states == {"processing": 1}
            assert len((await store.find(Query(), limit=9, now=T0)).records) == 1
        finally:
            await other.close()

    @on_a_store
    async def test_queues_lists_those_that_hold_something(self, store: Store) -> None:
        assert await store.queues() == []
        handles = [store.handle(name) for name in ("z", "b", "empty")]
        for handle in handles:
            await handle.open()
        try:
            await handles[0].add([a_job()], now=T0)
            await handles[1].write("pauses", "*", b"{}", now=T0)
            assert await store.queues() == ["b", "z"]
            await store.add([a_job()], now=T0)
            assert await store.queues() == sorted(["b", "z", store.queue])
            assert await handles[2].queues() == await store.queues()
        finally:
            for handle in handles:
                await handle.close()

    @on_a_store
    async def test_a_handle_lives_on_a_loop_of_another_thread(self, store: Store) -> None:
        """Adds and claims from two threads at once, and a wake-up across them."""
        loop = asyncio.get_running_loop()
        waits = asyncio.Event()

        async def elsewhere() -> list[str]:
            other = store.handle()
            await other.open()
            try:
                await other.wait([JOBS], 0.0)
                loop.call_soon_threadsafe(waits.set)
                await other.wait([JOBS], 20.0)
                got: list[str] = []
                number = 0
                while len(got) < 50:
                    number += 1
                    got += ids((await claim(other, f"o{number}", limit=3)).claims)
                return got
            finally:
                await other.close()

        async with asyncio.timeout(20):
            job = asyncio.create_task(asyncio.to_thread(asyncio.run, elsewhere()))
            await waits.wait()
            for new in some_jobs(50):
                await store.add([new], now=T0)
            assert await job == [new.id for new in some_jobs(50)]

    @on_a_store
    async def test_a_waiter_whose_loop_is_gone_harms_nobody(self, store: Store) -> None:
        other = store.handle()

        def abandon() -> None:
            loop = asyncio.new_event_loop()
            loop.run_until_complete(other.open())
            waiter = loop.create_task(other.wait([JOBS], 60.0))
            loop.run_until_complete(asyncio.sleep(0.01))
            waiter.cancel()
            loop.run_until_complete(asyncio.gather(waiter, return_exceptions=True))
            loop.run_until_complete(other.close())
            loop.close()

        thread = threading.Thread(target=abandon)
        thread.start()
        await asyncio.to_thread(thread.join)
        await store.add([a_job()], now=T0)
        assert ids((await claim(store)).claims) == ["j1"]

    @on_a_store
    async def test_a_store_without_transactions_says_so(self, store: Store) -> None:
        if Features.TRANSACTIONS in store.features:
            return  # what it takes is the driver's; its own tests show that it works
        with pytest.raises(Unsupported):
            await store.add_with(object(), [a_job()])
        with pytest.raises(Unsupported):
            store.add_with_sync(object(), [a_job()])
        assert await store.get(["j1"], now=T0) == [None]

    @on_a_store
    async def test_workers_at_once_run_each_job_once(self, store: Store) -> None:
        """Ten workers claim, settle or release two hundred jobs through two handles."""
        other = store.handle()
        await other.open()
        await store.add(some_jobs(200), now=T0)
        done: list[str] = []

        async def work(number: int) -> None:
            mine = (store, other)[number % 2]
            turn = 0
            while True:
                turn += 1
                token = f"w{number}-{turn}"
                got = ids((await claim(mine, token, worker=f"w{number}", limit=4)).claims)
                if not got:
                    return
                for index, id_ in enumerate(got):
                    event: Event = "release" if index == 3 and turn == 1 else "succeed"
                    moved = await move(mine, event, id_, token)
                    assert moved.status == "applied"
                    if event == "succeed":
                        done.append(id_)

        try:
            async with asyncio.timeout(50), asyncio.TaskGroup() as group:
                for number in range(10):
                    group.create_task(work(number))
            await work(10)
        finally:
            await other.close()
        assert sorted(done) == sorted(job.id for job in some_jobs(200))
        assert (await store.counts(now=T0)).states == {"completed": 200}
        assert len(await store.events(0, 999)) == 200
