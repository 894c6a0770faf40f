"""Putting jobs in: each option, which of them counts, and what stands in the way."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, cast

import pytest

from jobmill import (
    ConfigError,
    DuplicateJob,
    EnqueueOptions,
    JobContext,
    JobOptions,
    PayloadError,
    Queue,
    StoreUnavailable,
    define_job,
    job,
)
from tests.api.conftest import MakeQueue
from tests.api.jobs import HOUR, Email, broken, echo, echoes, hold, runs, send, statuses, watched
from tests.waiting import eventually


async def finished(queue: Queue, handle: Any, end: str) -> None:
    """Bring the job to this end, by the worker of the queue or by hand."""
    if end == "cancelled":
        assert await handle.cancel()
    elif end == "deleted":
        assert await queue.delete(handle.id)
    else:
        queue.process()
        await eventually_ended(queue, handle.id)
        assert (await handle.info()).status == end


async def eventually_ended(queue: Queue, job_id: str) -> None:
    await queue.wait_for_end(job_id, 30)


async def test_what_enqueue_gives_is_the_job_in_the_store(queue: Queue) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    handle = await queue.enqueue(send, Email("ann"))
    info = await handle.info()
    assert (info.id, info.name, info.queue, info.status) == (
        handle.id,
        "api.send",
        "default",
        "pending",
    )
    assert info.payload == {"to": "ann", "subject": ""}
    assert info.raw_payload is None
    assert not handle.deduplicated
    assert (info.attempts, info.max_attempts, info.lapses, info.priority) == (0, 1, 0, 0)
    assert (info.unique_key, info.metadata, info.errors, info.logs) == (None, {}, [], [])
    unset = (info.started_at, info.completed_at, info.duration, info.error)
    assert unset == (None, None, None, None)
    assert before <= info.enqueued_at == info.created_at <= info.run_at
    assert info.run_at <= datetime.now(UTC) + timedelta(seconds=1)


async def test_a_call_is_a_job_with_its_payload(queue: Queue) -> None:
    handle = await queue.enqueue(echo.call("a"), priority=3)
    info = await handle.info()
    assert (info.payload, info.priority) == ({"value": "a"}, 3)


@pytest.mark.parametrize("delay", [60, 60.0, timedelta(minutes=1)])
async def test_a_delay_counts_from_now(queue: Queue, delay: Any) -> None:
    info = await (await queue.enqueue(echo, delay=delay)).info()
    assert info.status == "delayed"
    assert info.run_at - info.enqueued_at == pytest.approx(
        timedelta(seconds=60), abs=timedelta(seconds=0.001)
    )


async def test_no_delay_at_all_is_pending(queue: Queue) -> None:
    assert (await (await queue.enqueue(echo, delay=0)).info()).status == "pending"


async def test_run_at_is_an_instant_in_any_zone(queue: Queue) -> None:
    at = datetime(2090, 6, 1, 12, tzinfo=timezone(timedelta(hours=-4)))
    info = await (await queue.enqueue(echo, run_at=at)).info()
    assert info.status == "delayed"
    assert info.run_at == at


async def test_a_run_at_that_is_past_is_due(queue: Queue) -> None:
    info = await (await queue.enqueue(echo, run_at=datetime(2001, 1, 1, tzinfo=UTC))).info()
    assert info.status == "pending"


async def test_delay_and_run_at_exclude_each_other(queue: Queue) -> None:
    with pytest.raises(ConfigError) as refused:
        await queue.enqueue(echo, delay=1, run_at=datetime.now(UTC))
    assert refused.value.field == "run_at"
    assert await statuses(queue) == {}


async def test_lower_priorities_run_first_and_equal_ones_in_order(make_queue: MakeQueue) -> None:
    queue = make_queue(concurrency=1)
    ran: list[str] = []

    @job(name="api.noted")
    async def noted(text: str) -> None:
        ran.append(text)

    for text, priority in [("c", 0), ("e", 7), ("a", -5), ("d", 0), ("b", -5)]:
        await queue.enqueue(noted.call(text), priority=priority)
    queue.process()
    await eventually(lambda: len(ran) == 5)
    assert ran == ["a", "b", "c", "d", "e"]


async def test_metadata_goes_with_the_job_to_its_handler(queue: Queue) -> None:
    @define_job(name="api.meta")
    async def meta(ctx: JobContext[None]) -> dict[str, str]:
        return dict(ctx.metadata)

    given = {"from": "tests", "zero": "a\0b", "": "é"}
    handle = await queue.enqueue(meta, metadata=given)
    queue.process()
    assert await handle.result(30) == given
    assert (await handle.info()).metadata == given


async def test_max_attempts_and_timeout_of_the_enqueue_count(queue: Queue) -> None:
    @job(name="api.again", retry_delay=0, jitter=0, retries=9, timeout=HOUR)
    async def again() -> None:
        raise OSError("no")

    @job(name="api.slow", retries=0)
    async def slow() -> None:
        await asyncio.Event().wait()

    two = await queue.enqueue(again, max_attempts=2)
    late = await queue.enqueue(slow, timeout=0.01)
    queue.process()
    await eventually_ended(queue, two.id)
    await eventually_ended(queue, late.id)
    info = await two.info()
    assert (info.status, info.attempts, info.max_attempts) == ("failed", 2, 2)
    error = (await late.info()).error
    assert error is not None
    assert error.type == "JobTimeout"


# -- job_id ---------------------------------------------------------------------------------


async def test_the_same_job_id_again_is_the_same_job(queue: Queue) -> None:
    first = await queue.enqueue(send, Email("ann"), job_id="mail:1")
    again = await queue.enqueue(send, Email("ann"), job_id="mail:1", priority=4, delay=9)
    assert (first.id, first.deduplicated) == ("mail:1", False)
    assert (again.id, again.deduplicated) == ("mail:1", True)
    assert await statuses(queue) == {"pending": 1}
    assert (await again.info()).priority == 0


async def test_the_same_job_id_is_the_same_job_also_after_its_end(queue: Queue) -> None:
    first = await queue.enqueue(send, Email("ann"), job_id="mail:1")
    queue.process()
    assert await first.result(30) == "ann"
    again = await queue.enqueue(send, Email("ann"), job_id="mail:1")
    assert again.deduplicated
    assert await again.result(30) == "ann"


@pytest.mark.parametrize("call", [send.call(Email("bob")), echo.call("ann")])
async def test_a_job_id_of_another_job_or_payload_is_refused(queue: Queue, call: Any) -> None:
    await queue.enqueue(send, Email("ann"), job_id="mail:1")
    with pytest.raises(DuplicateJob) as refused:
        await queue.enqueue(call, job_id="mail:1")
    assert refused.value.job_id == "mail:1"
    assert await statuses(queue) == {"pending": 1}


async def test_ten_producers_of_one_job_id_make_one_job(make_queue: MakeQueue) -> None:
    queues = [make_queue() for _ in range(10)]
    handles = await asyncio.gather(
        *(each.enqueue(send, Email("ann"), job_id="mail:1") for each in queues)
    )
    assert sum(not handle.deduplicated for handle in handles) == 1
    assert await statuses(queues[0]) == {"pending": 1}


async def test_job_ids_belong_to_one_queue(make_queue: MakeQueue) -> None:
    for name in ("a", "b"):
        handle = await make_queue(name=name).enqueue(echo, job_id="one")
        assert not handle.deduplicated


# -- unique_key -----------------------------------------------------------------------------


async def test_a_held_key_gives_the_handle_of_its_holder(queue: Queue) -> None:
    first = await queue.enqueue(send, Email("ann"), unique_key="ann", delay=HOUR)
    second = await queue.enqueue(send, Email("bob"), unique_key="ann")
    assert (second.id, second.deduplicated) == (first.id, True)
    assert await statuses(queue) == {"delayed": 1}
    assert (await second.info()).unique_key == "ann"


async def test_a_running_job_holds_its_key(queue: Queue) -> None:
    first = await queue.enqueue(hold, unique_key="one")
    queue.process()
    await runs(first)
    assert (await queue.enqueue(hold, unique_key="one")).id == first.id
    await first.cancel()


async def test_a_key_belongs_to_a_job_name_of_a_queue(make_queue: MakeQueue) -> None:
    queue, other = make_queue(), make_queue(name="other")
    handles = [
        await queue.enqueue(send, Email("ann"), unique_key="k"),
        await queue.enqueue(echo, unique_key="k"),
        await other.enqueue(send, Email("ann"), unique_key="k"),
    ]
    assert [handle.deduplicated for handle in handles] == [False] * 3


@pytest.mark.parametrize(
    ("call", "end"),
    [
        (echo.call("ann"), "completed"),
        (broken.call("ann"), "failed"),
        (echo.call("ann"), "cancelled"),
        (echo.call("ann"), "deleted"),
    ],
)
async def test_a_key_is_free_after_each_end(queue: Queue, call: Any, end: str) -> None:
    first = await queue.enqueue(call, unique_key="k")
    await finished(queue, first, end)
    again = await queue.enqueue(call, unique_key="k", delay=HOUR)
    assert again.id != first.id
    assert not again.deduplicated


async def test_clear_frees_keys(queue: Queue) -> None:
    await queue.enqueue(echo, unique_key="k")
    assert await queue.clear() == 1
    assert not (await queue.enqueue(echo, unique_key="k")).deduplicated


async def test_retry_of_a_job_whose_key_is_held_is_refused(queue: Queue) -> None:
    first = await queue.enqueue(echo, unique_key="k")
    await first.cancel()
    holder = await queue.enqueue(echo, unique_key="k")
    with pytest.raises(DuplicateJob) as refused:
        await queue.retry(first.id)
    assert refused.value.job_id == holder.id
    assert (await first.info()).status == "cancelled"
    await holder.cancel()
    assert await queue.retry(first.id)
    assert (await queue.enqueue(echo, unique_key="k")).id == first.id


async def test_ten_producers_of_one_key_make_one_job(make_queue: MakeQueue) -> None:
    queues = [make_queue() for _ in range(10)]
    handles = await asyncio.gather(
        *(each.enqueue(echo.call(n), unique_key="k") for n, each in enumerate(queues))
    )
    assert len({handle.id for handle in handles}) == 1
    assert sum(not handle.deduplicated for handle in handles) == 1


async def test_unique_by_payload_is_by_the_whole_payload(queue: Queue) -> None:
    @define_job(name="api.once", unique="payload")
    async def once(ctx: JobContext[Email]) -> None: ...

    first = await queue.enqueue(once, Email("ann"))
    assert (await queue.enqueue(once, Email("ann", ""))).id == first.id
    assert (await queue.enqueue(once, Email("ann", "x"))).id != first.id
    assert (await queue.enqueue(once, Email("ann"), unique_key="mine")).id != first.id


async def test_unique_by_a_function_of_the_payload(queue: Queue) -> None:
    def by_receiver(payload: Email) -> str:
        return payload.to

    @define_job(name="api.once", unique=by_receiver)
    async def once(ctx: JobContext[Email]) -> None: ...

    first = await queue.enqueue(once, Email("ann", "1"))
    assert (await queue.enqueue(once, Email("ann", "2"))).id == first.id
    assert (await first.info()).unique_key == "ann"


@pytest.mark.parametrize("key", ["", "x" * 501, "\ud800", 3, None])
async def test_a_function_that_gives_no_key_is_refused(queue: Queue, key: Any) -> None:
    @define_job(name="api.once", unique=lambda _: key)
    async def once(ctx: JobContext[None]) -> None: ...

    with pytest.raises(PayloadError, match="unique"):
        await queue.enqueue(once)
    assert await statuses(queue) == {}


async def test_unique_of_the_queues_default_options(make_queue: MakeQueue) -> None:
    @job(name="api.free", unique=None)
    async def free(n: int) -> None: ...

    queue = make_queue(default_options=JobOptions(unique="payload"))
    first = await queue.enqueue(echo.call(1))
    assert (await queue.enqueue(echo.call(1))).id == first.id
    assert (await queue.enqueue(free.call(1))).id != (await queue.enqueue(free.call(1))).id


# -- which option counts ----------------------------------------------------------------------


async def test_options_are_merged_field_by_field(make_queue: MakeQueue) -> None:
    @job(name="api.own", priority=5, keep_result=HOUR)
    async def own() -> None: ...

    queue = make_queue(
        default_options=JobOptions(priority=9, retries=7, timeout=50, keep_result=1, jitter=0)
    )

    async def stored(**options: Any) -> tuple[Any, ...]:
        handle = await queue.enqueue(own, **options)
        line = queue.store.handle()
        await line.open()
        (record,) = await line.get([handle.id])
        await line.close()
        assert record is not None
        policy = record.policy
        assert policy.jitter == 0
        return (record.priority, policy.max_attempts, policy.timeout, policy.keep_result)

    assert await stored() == (5, 8, 50.0, HOUR)
    assert await stored(priority=-1, max_attempts=2) == (-1, 2, 50.0, HOUR)
    assert await stored(timeout=None) == (5, 8, None, HOUR)
    assert await stored(timeout=3, priority=None, max_attempts=None) == (5, 8, 3.0, HOUR)


async def test_an_option_that_is_chosen_as_its_default_is_chosen(make_queue: MakeQueue) -> None:
    @job(name="api.own", retries=3, priority=0)
    async def own() -> None: ...

    queue = make_queue(default_options=JobOptions(retries=7, priority=9))
    info = await (await queue.enqueue(own)).info()
    assert (info.max_attempts, info.priority) == (4, 0)


# -- at the door ------------------------------------------------------------------------------

BAD_VALUES: dict[str, list[Any]] = {
    "delay": [-1, float("nan"), float("inf"), "5", True, 1e10, []],
    "run_at": [datetime(2030, 1, 1), 5, "now"],  # noqa: DTZ001
    "priority": [1.5, "1", True, 2**31, -(2**31) - 1],
    "max_attempts": [0, -1, 1.5, True, "2", 2**31],
    "timeout": [0, -1, float("nan"), "5", True],
    "unique_key": ["", "x" * 501, 3, b"k", "\ud800"],
    "job_id": ["", "x" * 201, "a b", "a/b", "a\n", "é", 3, "\0"],
    "metadata": [[], {"a": 1}, {1: "a"}, {"a": "x" * 20_000}, {"\ud800": ""}],
    "wake": [1],
}
BAD_OPTIONS = [(field, bad) for field, some in BAD_VALUES.items() for bad in some]


@pytest.mark.parametrize(("field", "value"), BAD_OPTIONS)
async def test_a_wrong_option_is_refused_by_name(queue: Queue, field: str, value: Any) -> None:
    options = cast("EnqueueOptions", {field: value})
    with pytest.raises(ConfigError) as refused:
        await queue.enqueue(echo, **options)
    assert refused.value.field == field
    assert str(refused.value).startswith(f"{field}: ")
    with pytest.raises(ConfigError):
        await queue.enqueue_many([echo.call()], **options)
    with pytest.raises(ConfigError):
        queue.enqueue_sync(echo, **options)
    assert await statuses(queue) == {}


@pytest.mark.parametrize("no_job", ["api.send", len, None, 3, send.handler])
async def test_what_is_no_job_is_refused(queue: Queue, no_job: Any) -> None:
    with pytest.raises(TypeError):
        await queue.enqueue(no_job)
    with pytest.raises(TypeError):
        await queue.enqueue_many([echo.call(), no_job])
    with pytest.raises(TypeError):
        await queue.enqueue(echo, retries=3)  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        await queue.enqueue(echo.call(), {"value": 1})  # type: ignore[call-overload]
    assert await statuses(queue) == {}


# -- many ---------------------------------------------------------------------------------------


async def test_many_go_in_their_order_in_one_call_for_each_thousand(make_queue: MakeQueue) -> None:
    queue, watch = watched(make_queue())
    handles = await queue.enqueue_many(echoes(2_001), priority=2, metadata={"a": "b"})
    assert [len(ids) for ids in watch.adds] == [1_000, 1_000, 1]
    assert [handle.id for handle in handles] == [each for ids in watch.adds for each in ids]
    info = await handles[1_500].info()
    assert (info.payload, info.priority, info.metadata) == ({"value": 1_500}, 2, {"a": "b"})
    assert await statuses(queue) == {"pending": 2_001}
    await queue.close()


async def test_none_at_all_are_many_too(queue: Queue) -> None:
    assert await queue.enqueue_many([]) == []
    assert await queue.enqueue_many(iter(echoes(0))) == []


async def test_one_bad_payload_among_many_stores_none(queue: Queue) -> None:
    with pytest.raises(PayloadError):
        await queue.enqueue_many([*echoes(3), echo.call(float("nan"))])
    assert await statuses(queue) == {}


async def test_many_cannot_share_a_job_id_but_one_can_have_it(queue: Queue) -> None:
    with pytest.raises(ConfigError) as refused:
        await queue.enqueue_many(echoes(2), job_id="one")
    assert refused.value.field == "job_id"
    (handle,) = await queue.enqueue_many(echoes(1), job_id="one")
    (again,) = await queue.enqueue_many(echoes(1), job_id="one")
    assert (handle.id, again.id, again.deduplicated) == ("one", "one", True)
    with pytest.raises(DuplicateJob):
        await queue.enqueue_many([echo.call("other")], job_id="one")
    assert await statuses(queue) == {"pending": 1}


async def test_many_of_one_key_are_one_job(queue: Queue) -> None:
    handles = await queue.enqueue_many(echoes(5), unique_key="k")
    assert {handle.id for handle in handles} == {handles[0].id}
    assert [handle.deduplicated for handle in handles] == [False, True, True, True, True]


async def test_many_that_fail_midway_can_be_sent_again(make_queue: MakeQueue) -> None:
    queue, watch = watched(make_queue())
    await queue.enqueue_many(echoes(1))
    calls = echoes(1_500)
    watch.lost = 1
    with pytest.raises(StoreUnavailable) as down:
        await queue.enqueue_many(calls)
    assert len(down.value.job_ids) == 1_500
    again = [
        queue.enqueue(call, job_id=job_id)
        for call, job_id in zip(calls, down.value.job_ids, strict=True)
    ]
    handles = await asyncio.gather(*again)
    assert sum(handle.deduplicated for handle in handles) == 1_000
    assert await statuses(queue) == {"pending": 1_501}
    await queue.close()
