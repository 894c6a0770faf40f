"""A worker's slots, queues and names."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from jobmill import InMemoryQueue, JobContext, PostgresQueue, Scheduler, Worker
from jobmill.errors import ConfigError
from jobmill.queue import Queue
from tests.api.running.conftest import MakeQueue
from tests.api.running.kit import define, ended, flaky, until


class Gauge:
    """A job that tells how many of it run at once."""

    def __init__(self, *, hold: bool = False) -> None:
        self.now = self.most = self.runs = 0
        self.free = asyncio.Event()
        if not hold:
            self.free.set()

    async def __call__(self, ctx: JobContext[Any]) -> None:
        self.now += 1
        self.runs += 1
        self.most = max(self.most, self.now)
        await self.free.wait()
        await asyncio.sleep(0)
        self.now -= 1


async def gauge_job(gauge: Gauge, **options: Any) -> Any:
    async def handler(ctx: JobContext[Any]) -> None:
        await gauge(ctx)

    return define(handler, **options)


async def test_concurrency_is_never_exceeded(make_queue: Any) -> None:
    queue: Queue = make_queue(concurrency=3)
    gauge = Gauge()
    job = await gauge_job(gauge)
    handles = await queue.enqueue_many([job.call() for _ in range(60)])
    queue.process()
    for handle in handles:
        assert (await ended(queue, handle)).status == "completed"
    assert gauge.most == 3
    assert gauge.runs == 60


async def test_a_worker_claims_only_what_it_can_start(make_queue: Any) -> None:
    queue: Queue = make_queue(concurrency=2)
    gauge = Gauge(hold=True)
    job = await gauge_job(gauge)
    await queue.enqueue_many([job.call() for _ in range(5)])
    queue.process()
    await until(lambda: gauge.now == 2)
    other: Queue = make_queue(concurrency=2)
    other.process()
    await until(lambda: gauge.now == 4)
    stats = await queue.stats()
    assert (stats.processing, stats.pending) == (4, 1)
    gauge.free.set()
    await until(lambda: gauge.runs == 5)


async def test_one_worker_serves_several_queues_within_one_concurrency(make_queue: Any) -> None:
    queues = [make_queue(name, concurrency=2) for name in ("a", "b", "c")]
    gauge = Gauge(hold=True)
    job = await gauge_job(gauge)
    handles = [
        (queue, handle)
        for queue in queues
        for handle in await queue.enqueue_many([job.call() for _ in range(20)])
    ]
    worker = Worker(queues)
    assert worker.concurrency == 2
    running = asyncio.create_task(worker.run())
    await until(lambda: gauge.now == 2)
    gauge.free.set()
    for queue, handle in handles:
        await ended(queue, handle)
    assert gauge.most == 2
    await worker.stop()
    await running


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_a_busy_queue_does_not_starve_the_others_of_its_worker(
    make_queue: Any, concurrency: int
) -> None:
    queues = [make_queue(name, poll_interval=300) for name in ("busy", "calm")]
    busy, calm = queues
    order: list[str] = []

    async def handler(ctx: JobContext[Any]) -> None:
        order.append(ctx.queue_name)
        await asyncio.sleep(0)

    job = define(handler)
    await busy.enqueue_many([job.call() for _ in range(300)])
    await calm.enqueue_many([job.call() for _ in range(10)])
    worker = Worker(queues, concurrency=concurrency)
    running = asyncio.create_task(worker.run())
    await until(lambda: len(order) == 310)
    # By the order, since more of them run until somebody looks.
    assert order[: 310 - order[::-1].index("calm")].count("busy") < 100
    await worker.stop()
    await running


async def test_idle_queues_of_a_worker_leave_their_stores_alone(make_queue: Any) -> None:
    pairs = [flaky(make_queue(name, poll_interval=300)) for name in ("a", "b")]
    queues = [queue for queue, _ in pairs]

    async def handler(ctx: JobContext[Any]) -> None: ...

    job = define(handler)
    worker = Worker(queues)
    running = asyncio.create_task(worker.run())
    for queue in queues:
        await ended(queue, await queue.enqueue(job))
    before = [faults.count("claim") for _, faults in pairs]
    for _ in range(200):
        await asyncio.sleep(0.001)
    after = [faults.count("claim") for _, faults in pairs]
    assert all(last - first <= 4 for first, last in zip(before, after, strict=True))
    await worker.stop()
    await running
    for queue in queues:
        await queue.close()


async def test_a_worker_restricted_to_names_leaves_the_others_to_others(make_queue: Any) -> None:
    queue: Queue = make_queue(concurrency=1)
    ran: list[str] = []

    async def handler(ctx: JobContext[Any]) -> None:
        ran.append(ctx.job_name)

    mine, other = define(handler), define(handler)
    others = await queue.enqueue_many([other.call() for _ in range(50)], priority=-1)
    handles = await queue.enqueue_many([mine.call() for _ in range(5)])
    queue.process(jobs=mine)
    for handle in handles:
        await ended(queue, handle)
    assert ran == [mine.name] * 5
    assert (await queue.stats()).pending == 50
    rest: Queue = make_queue()
    rest.process(jobs=[other.name])
    for handle in others:
        await ended(queue, handle)
    assert ran.count(other.name) == 50


async def test_process_twice_is_an_error(queue: Queue) -> None:
    queue.process()
    with pytest.raises(RuntimeError, match="worker already"):
        queue.process()


async def test_a_worker_runs_once(queue: Queue) -> None:
    worker = Worker(queue)
    running = asyncio.create_task(worker.run())
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="run before"):
        await worker.run()
    await worker.stop()
    await running
    with pytest.raises(RuntimeError, match="run before"):
        await worker.run()


async def test_wrong_options_of_a_worker_are_refused(queue: Queue) -> None:
    for options, field in (
        ({"concurrency": 0}, "concurrency"),
        ({"jobs": []}, "jobs"),
        ({"stall_after": 0}, "stall_after"),
    ):
        with pytest.raises(ConfigError) as caught:
            Worker(queue, **options)
        assert caught.value.field == field
    with pytest.raises(ConfigError):
        Worker([])
    assert Worker(queue, jobs="send_email").names == ("send_email",)


def _undecorated() -> None: ...


def test_a_worker_of_one_queue_twice_is_refused() -> None:
    queue = InMemoryQueue(name="mails")
    with pytest.raises(ConfigError, match=r"^queues: InMemoryQueue\('mails'\) is given twice$"):
        Worker([queue, InMemoryQueue(name="others"), queue])


def test_a_worker_of_one_queue_by_two_objects_is_refused(make_queue: MakeQueue) -> None:
    """Which of them a job runs by would be chance; and each would overwrite the other's beats."""
    queue, other, again = make_queue("mails"), make_queue("others"), make_queue("mails")
    with pytest.raises(ConfigError, match=r"'mails'\) .* are one queue of .*; give one") as caught:
        Worker([queue, other, again])
    assert caught.value.field == "queues"
    Worker([queue, other])
    with pytest.raises(ConfigError, match="are one queue"):
        Worker([queue, Queue(queue.store.handle())])


def test_queues_of_one_name_in_stores_of_their_own_are_two() -> None:
    Worker([InMemoryQueue(), InMemoryQueue()])
    Worker([InMemoryQueue(memory="one"), InMemoryQueue(memory="another")])
    dsn = "postgresql://localhost/app"
    Worker([PostgresQueue(dsn), PostgresQueue(dsn, schema="mill")])


@pytest.mark.parametrize("queues", [3, "default", None, [3], []])
def test_a_worker_of_what_is_no_queue_is_refused(queues: Any) -> None:
    with pytest.raises(ConfigError, match=r"^queues: ") as caught:
        Worker(queues)
    assert caught.value.field == "queues"


def test_a_worker_of_a_set_of_queues_is_refused(queue: Queue) -> None:
    some: Any = {queue}
    with pytest.raises(ConfigError, match="is no queue; give a Queue or a list of them"):
        Worker(some)


@pytest.mark.parametrize(
    ("jobs", "what"),
    [
        (_undecorated, "_undecorated.* is no job; decorate the function with @job"),
        ([_undecorated], "_undecorated.* is no job; decorate the function with @job"),
        ({"a": 1}, "is no job; give jobs, or their names"),
        (["a", 1], "1 is no job; give jobs, or their names"),
        ("", "is no job"),
        (b"a", "is no job"),
        ([], "one job at least"),
    ],
)
def test_a_worker_of_what_is_no_job_is_refused(queue: Queue, jobs: Any, what: str) -> None:
    with pytest.raises(ConfigError, match=f"^jobs: .*{what}") as caught:
        Worker(queue, jobs=jobs)
    assert caught.value.field == "jobs"


def test_a_worker_may_be_of_a_job_that_is_not_defined_here(queue: Queue) -> None:
    Worker(queue, jobs="elsewhere")
    Worker(queue, jobs=["elsewhere", define(_undecorated_too)])


async def _undecorated_too(ctx: JobContext[Any]) -> None: ...


async def test_schedules_that_are_not_due_cost_an_idle_worker_nothing(make_queue: Any) -> None:
    queue, faults = flaky(make_queue(poll_interval=1.0))
    scheduler = Scheduler(queue=queue)

    async def handler(ctx: JobContext[Any]) -> None: ...

    for number in range(10):
        await scheduler.schedule(f"s{number}", "0 0 29 2 *", define(handler))
    queue.process()
    # Its start asks some more: the schedules, at once and when it has learnt of them.
    await until(lambda: faults.count("claim") >= 3 and faults.count("read") >= 2)
    began, before = time.monotonic(), len(faults.calls)
    # Long enough for a late one of these, as of a busy machine, not to stand out.
    await until(lambda: len(faults.calls) - before >= 10)
    rate = (len(faults.calls) - before) / (time.monotonic() - began)
    assert rate <= 2.0
    assert faults.count("read") + faults.count("tick") <= 2 + 10
    await queue.shutdown()
