"""Where calls come from: one turn of a loop, other loops, threads, forks; and lost answers."""

from __future__ import annotations

import asyncio
import contextvars
import re
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from jobmill import InMemoryQueue, StoreUnavailable
from tests.api.conftest import MakeQueue
from tests.api.jobs import HOUR, echo, echoes, statuses, watched
from tests.waiting import eventually

# -- gathering


async def test_concurrent_enqueues_go_together(make_queue: MakeQueue) -> None:
    queue, watch = watched(make_queue())
    handles = await asyncio.gather(*(queue.enqueue(call) for call in echoes(100)))
    assert len(watch.adds) <= 2
    assert [each for ids in watch.adds for each in ids] == [handle.id for handle in handles]
    infos = await asyncio.gather(*(handle.info() for handle in handles))
    assert [info.payload["value"] for info in infos] == list(range(100))
    await queue.close()


async def test_what_comes_meanwhile_goes_together_next(make_queue: MakeQueue) -> None:
    queue, watch = watched(make_queue())
    await queue.stats()
    watch.stuck = asyncio.Event()
    tasks = []
    for call in echoes(50):
        tasks.append(asyncio.create_task(queue.enqueue(call)))
        await asyncio.sleep(0)
    await eventually(lambda: len(watch.adds) == 2)
    watch.stuck.set()
    await asyncio.gather(*tasks)
    assert len(watch.adds) <= 4
    assert await statuses(queue) == {"pending": 50}
    await queue.close()


async def test_a_caller_who_is_cancelled_leaves_the_others(make_queue: MakeQueue) -> None:
    queue, watch = watched(make_queue())
    watch.stuck = asyncio.Event()
    tasks = [asyncio.create_task(queue.enqueue(call)) for call in echoes(5)]
    await eventually(lambda: watch.adds)
    tasks[0].cancel()
    tasks[3].cancel()
    await asyncio.sleep(0)
    watch.stuck.set()
    told = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(each, BaseException) for each in told] == [True, False, False, True, False]
    assert len(watch.adds) == 1
    await queue.close()


async def test_a_caller_who_is_cancelled_before_the_sending_stores_nothing(
    make_queue: MakeQueue,
) -> None:
    queue, watch = watched(make_queue())
    watch.stuck = asyncio.Event()
    under_way = []
    for call in echoes(2):
        under_way.append(asyncio.create_task(queue.enqueue(call)))
        await eventually(lambda: len(watch.adds) == len(under_way))
    task = asyncio.create_task(queue.enqueue(echo))
    await asyncio.sleep(0)
    task.cancel()
    watch.stuck.set()
    await asyncio.gather(*under_way)
    assert await statuses(queue) == {"pending": 2}
    assert len(watch.adds) == 2
    await queue.close()


async def test_each_caller_gets_its_own_job_ids_and_can_send_again(make_queue: MakeQueue) -> None:
    queue, watch = watched(make_queue())
    await queue.enqueue(echo, job_id="opens")
    for lost in ("down", "lost"):
        setattr(watch, lost, 1)
        calls = echoes(10)
        told = await asyncio.gather(
            *(queue.enqueue(call) for call in calls), return_exceptions=True
        )
        ids = []
        for error in told:
            assert isinstance(error, StoreUnavailable)
            assert len(error.job_ids) == 1
            ids.append(error.job_ids[0])
        assert len(set(ids)) == 10
        again = await asyncio.gather(
            *(queue.enqueue(call, job_id=each) for call, each in zip(calls, ids, strict=True))
        )
        assert all(handle.deduplicated == (lost == "lost") for handle in again)
        await queue.clear()
    await queue.close()


async def test_a_store_that_cannot_be_opened_also_names_the_job_ids(
    make_queue: MakeQueue,
) -> None:
    queue, watch = watched(make_queue())
    watch.opens_down = 4
    with pytest.raises(StoreUnavailable) as down:
        await queue.enqueue(echo, job_id="one")
    assert down.value.job_ids == ("one",)
    with pytest.raises(StoreUnavailable) as down:
        await queue.enqueue_many(echoes(3))
    assert len(down.value.job_ids) == 3
    told: list[Any] = await asyncio.gather(
        *(queue.enqueue(echo, job_id=each) for each in "ab"), return_exceptions=True
    )
    assert [type(each) for each in told] == [StoreUnavailable] * 2
    assert [each.job_ids for each in told] == [("a",), ("b",)]
    with pytest.raises(StoreUnavailable) as down:
        await asyncio.to_thread(queue.enqueue_sync, echo, job_id="sync")
    assert down.value.job_ids == ("sync",)
    assert not (await queue.enqueue(echo, job_id="one")).deduplicated
    await queue.close()


async def test_the_sending_runs_in_a_fresh_context(make_queue: MakeQueue) -> None:
    var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="fresh")
    seen = []
    queue, watch = watched(make_queue())

    class Stuck(asyncio.Event):
        async def wait(self) -> Any:
            seen.append(var.get())

    watch.stuck = Stuck()
    var.set("the caller's")
    await queue.enqueue(echo)
    assert seen == ["fresh"]
    await queue.close()


# -- other loops and threads


async def test_calls_from_other_loops_are_passed_home(make_queue: MakeQueue) -> None:
    queue, watch = watched(make_queue())
    home = await queue.enqueue(echo.call("home"))

    async def elsewhere(n: int) -> Any:
        handle = await queue.enqueue(echo.call(n))
        assert (await handle.info()).payload == {"value": n}
        return await handle.result(30)

    queue.process()
    results = await asyncio.gather(
        *(asyncio.to_thread(asyncio.run, elsewhere(n)) for n in range(4))
    )
    assert results == [0, 1, 2, 3]
    assert await home.result(30) == "home"
    assert sum(map(len, watch.adds)) == 5
    await queue.shutdown(timeout=0)


def test_the_next_run_is_the_next_home(make_queue: MakeQueue) -> None:
    queue = make_queue()

    async def first() -> str:
        return (await queue.enqueue(echo.call(1))).id

    async def second(job_id: str) -> Any:
        queue.process()
        info = await queue.get_job(job_id)
        assert info is not None
        result = await (await queue.enqueue(echo.call(2))).result(30)
        await queue.shutdown()
        return info.payload["value"], result

    assert asyncio.run(second(asyncio.run(first()))) == (1, 2)
    assert asyncio.run(statuses(queue)) == {"completed": 2}
    asyncio.run(queue.close())


def test_a_home_that_ends_with_a_call_under_way_tells_its_caller(make_queue: MakeQueue) -> None:
    """The caller on another loop is neither left hanging nor told that it was cancelled."""
    queue, watch = watched(make_queue())
    at_home, sent = threading.Event(), threading.Event()

    async def home() -> None:
        await queue.stats()
        watch.stuck = asyncio.Event()
        at_home.set()
        await eventually(lambda: watch.adds)
        sent.set()

    with ThreadPoolExecutor() as threads:
        ended = threads.submit(asyncio.run, home())
        assert at_home.wait(30)
        called = threads.submit(asyncio.run, queue.enqueue(echo, job_id="one"))
        assert sent.wait(30)
        ended.result(30)
        with pytest.raises(StoreUnavailable) as told:
            called.result(30)
    assert told.value.job_ids == ("one",)
    watch.stuck = None
    asyncio.run(again(queue))


async def again(queue: Any) -> None:
    assert (await queue.enqueue(echo, job_id="one")).id == "one"
    await queue.close()


async def test_a_queue_that_was_closed_opens_anew(make_queue: MakeQueue) -> None:
    queue = make_queue()
    await queue.enqueue(echo)
    await queue.close()
    await queue.close()
    assert await statuses(queue) == {"pending": 1}


async def test_a_queue_closes_at_the_end_of_its_with(make_queue: MakeQueue) -> None:
    async with make_queue() as queue:
        worker = queue.process()
        handle = await queue.enqueue(echo.call(1))
        assert await handle.result(30) == 1
        with pytest.raises(RuntimeError):
            queue.process()
    assert queue._home._line is None
    assert queue._worker is None
    del worker


# -- enqueue_sync


def test_enqueue_sync_is_for_code_without_a_loop(make_queue: MakeQueue) -> None:
    queue = make_queue()
    handle = queue.enqueue_sync(echo.call(1), priority=3, job_id="one")
    again = queue.enqueue_sync(echo, {"value": 1}, job_id="one")
    assert (handle.id, handle.deduplicated) == ("one", False)
    assert (again.id, again.deduplicated) == ("one", True)

    async def look() -> Any:
        info = await handle.info()
        await queue.close()
        return info.payload, info.priority

    assert asyncio.run(look()) == ({"value": 1}, 3)
    assert not queue.enqueue_sync(echo, delay=HOUR).deduplicated


def test_enqueue_sync_is_safe_from_any_thread(make_queue: MakeQueue) -> None:
    queue = make_queue()
    start = threading.Barrier(8)

    def run(n: int) -> list[str]:
        start.wait(30)
        return [queue.enqueue_sync(echo.call(f"{n}.{i}")).id for i in range(5)]

    with ThreadPoolExecutor(8) as threads:
        ids = [each for some in threads.map(run, range(8)) for each in some]
    assert len(set(ids)) == 40
    assert asyncio.run(statuses(queue)) == {"pending": 40}
    assert sum(each.name == "jobmill-sync" for each in threading.enumerate()) == 1


async def test_enqueue_sync_works_beside_a_running_loop(make_queue: MakeQueue) -> None:
    queue = make_queue()
    queue.process()
    handles = await asyncio.gather(
        *(asyncio.to_thread(queue.enqueue_sync, call) for call in echoes(5))
    )
    assert await asyncio.gather(*(each.result(30) for each in handles)) == list(range(5))


async def test_closing_ends_the_thread_and_who_waits_in_it(make_queue: MakeQueue) -> None:
    queue, watch = watched(make_queue())
    watch.stuck = asyncio.Event()
    called = asyncio.create_task(asyncio.to_thread(queue.enqueue_sync, echo, job_id="one"))
    await eventually(lambda: watch.adds)
    await queue.close()
    with pytest.raises(StoreUnavailable) as told:
        await called
    assert told.value.job_ids == ("one",)
    await eventually(lambda: all(t.name != "jobmill-sync" for t in threading.enumerate()))


FORK = """
import asyncio, os, sys, threading
from jobmill import SQLiteQueue, job

@job(name="api.echo")
async def echo(value: str) -> str:
    return value

queue = SQLiteQueue(sys.argv[1])
parent = queue.enqueue_sync(echo.call("parent")).id
# As if another thread were in the middle of a call at the fork.
queue._sync._lock.acquire()
queue._home._lock.acquire()
queue._ids._lock.acquire()
child = os.fork()
if child == 0:
    made = queue.enqueue_sync(echo.call("child")).id
    async def twice():
        await queue.enqueue(echo.call("child too"))
        queue.process()
        await (await queue.enqueue(echo.call("worked"))).result(30)
        await queue.shutdown()
    asyncio.run(twice())
    os._exit(0)
queue._sync._lock.release()
queue._home._lock.release()
queue._ids._lock.release()
queue.enqueue_sync(echo.call("parent again"))
assert os.waitpid(child, 0)[1] == 0
async def look():
    jobs = (await queue.list_jobs()).jobs
    await queue.close()
    return sorted(job.payload["value"] for job in jobs)
print(*asyncio.run(look()), sep=", ")
"""


SLOW = re.compile(r"^Executing .* took [\d.]+ seconds\n", re.MULTILINE)


def run_script(script: str, *arguments: str) -> str:
    told = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "ignore::DeprecationWarning", "-c",
         textwrap.dedent(script), *arguments],
        capture_output=True, check=False, text=True, timeout=100,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    # That a callback was slow says something of the machine only.
    assert SLOW.sub("", told.stderr) == ""
    return told.stdout.strip()


@pytest.mark.store("sqlite")
def test_a_forked_child_has_a_thread_and_a_home_of_its_own(tmp_path: Path) -> None:
    told = run_script(FORK, str(tmp_path / "jobs.db"))
    assert told == "child, child too, parent, parent again, worked"


def test_ids_of_a_fork_are_its_own() -> None:
    """Also where the clock went back, so that each id follows from the last one."""
    told = run_script(
        """
        import os
        from jobmill import InMemoryQueue
        from jobmill.seams import Seams

        class Still:
            def wall(self): return self.at
            def boot(self): return 0.0

        clock = Still()
        clock.at = 2000.0
        queue = InMemoryQueue(seams=Seams(clock=clock))
        queue._ids()
        clock.at = 1000.0
        out, back = os.pipe()
        if os.fork() == 0:
            os.write(back, queue._ids().encode())
            os._exit(0)
        print(os.read(out, 100).decode() != queue._ids())
        """
    )
    assert told == "True"


@pytest.mark.store("sqlite")
def test_what_schedulers_of_a_fork_trigger_are_jobs_of_their_own(tmp_path: Path) -> None:
    """Also where the clock went back, so that each id follows from the last one."""
    told = run_script(
        """
        import asyncio, os, sys
        from jobmill import Scheduler, SQLiteQueue, job
        from jobmill.seams import Seams

        @job(name="api.nothing")
        async def nothing() -> None: ...

        class Still:
            at = 2000.0
            def wall(self): return self.at
            def boot(self): return 0.0

        clock = Still()
        queue = SQLiteQueue(sys.argv[1], seams=Seams(clock=clock))
        scheduler = Scheduler(queue)

        async def written():
            await scheduler.schedule("yearly", "@yearly", nothing)
            await scheduler.trigger("yearly")
            await queue.close()

        async def triggered():
            await scheduler.trigger("yearly")
            jobs = (await queue.list_jobs()).jobs
            await queue.close()
            return len(jobs)

        asyncio.run(written())
        clock.at = 1000.0
        child = os.fork()
        if child == 0:
            asyncio.run(triggered())
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        print(asyncio.run(triggered()))
        """,
        str(tmp_path / "jobs.db"),
    )
    assert told == "3"


@pytest.mark.store("sqlite")
def test_a_scheduler_that_ticks_is_started_anew_in_a_fork(tmp_path: Path) -> None:
    told = run_script(
        """
        import asyncio, os, sys
        from jobmill import Scheduler, SQLiteQueue

        scheduler = Scheduler(SQLiteQueue(sys.argv[1]))

        async def started():
            await scheduler.start()
            carrying = scheduler._carrying is not None and not scheduler._carrying[0].done()
            here = carrying and scheduler._carrying[0].get_loop() is asyncio.get_running_loop()
            await scheduler.stop()
            await scheduler.queue.close()
            return here

        loop = asyncio.new_event_loop()
        loop.run_until_complete(scheduler.start())
        child = os.fork()
        if child == 0:
            print(asyncio.run(started()), flush=True)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        loop.run_until_complete(scheduler.stop())
        loop.run_until_complete(scheduler.queue.close())
        loop.close()
        """,
        str(tmp_path / "jobs.db"),
    )
    assert told == "True"


def test_a_worker_of_a_fork_has_a_name_and_tokens_of_its_own() -> None:
    told = run_script(
        """
        import asyncio, os
        from jobmill import InMemoryQueue, Worker, job

        @job(name="api.nothing")
        async def nothing() -> None: ...

        queue = InMemoryQueue()
        worker = Worker(queue)

        async def worked():
            running = asyncio.create_task(worker.run())
            handle = await queue.enqueue(nothing)
            await handle.result(60)
            (record,) = await queue.ask(lambda store: store.get([handle.id]))
            await worker.stop()
            await running
            return f"{worker.id} {record.token}"

        out, back = os.pipe()
        if os.fork() == 0:
            os.write(back, asyncio.run(worked()).encode())
            os._exit(0)
        own, theirs = asyncio.run(worked()).split(), os.read(out, 200).decode().split()
        print([len(own), len(theirs), len({*own, *theirs})])
        """
    )
    assert told == "[2, 2, 4]"


@pytest.mark.store("sqlite")
def test_a_script_that_closes_nothing_ends(tmp_path: Path) -> None:
    told = run_script(
        """
        import asyncio, sys
        from jobmill import SQLiteQueue, job

        @job(name="api.echo")
        async def echo(value: int) -> int:
            return value

        queue = SQLiteQueue(sys.argv[1])
        queue.enqueue_sync(echo.call(1))
        asyncio.run(queue.enqueue(echo.call(2)))
        asyncio.run(queue.enqueue(echo.call(3)))
        print(asyncio.run(queue.stats()).pending)
        """,
        str(tmp_path / "jobs.db"),
    )
    assert told == "3"


@pytest.mark.store("memory")
async def test_a_private_memory_is_one_for_all_loops_and_threads() -> None:
    queue = InMemoryQueue()
    await queue.enqueue(echo)
    await asyncio.to_thread(queue.enqueue_sync, echo)
    assert await statuses(queue) == {"pending": 2}
    assert await asyncio.to_thread(asyncio.run, statuses(queue)) == {"pending": 2}
    assert await statuses(InMemoryQueue()) == {}
    await queue.close()
