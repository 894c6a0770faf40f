"""What people get wrong at first, and what they are told."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from jobmill import (
    InMemoryQueue,
    JobContext,
    PayloadError,
    Queue,
    create_rate_limit_middleware,
    current_context,
    define_job,
    job,
)
from jobmill.errors import ConfigError


@dataclass
class Letter:
    to: str


@define_job(name="mistakes.post")
async def post(ctx: JobContext[Letter]) -> str:
    return ctx.payload.to


@job(name="mistakes.add")
async def add(a: int, b: int) -> int:
    return a + b


@job(name="mistakes.shout")
async def shout() -> None:
    ctx = current_context()
    ctx.log("x" * 50_000, long="y" * 50_000, **{f"f{n}": n for n in range(100)})
    await ctx.update_progress(1, "z" * 50_000)


async def test_a_payload_that_was_forgotten() -> None:
    queue: Any = InMemoryQueue()
    with pytest.raises(PayloadError, match=r"mistakes\.post takes a payload; give it after"):
        await queue.enqueue(post)


async def test_arguments_that_were_given_as_a_payload() -> None:
    queue: Any = InMemoryQueue()
    with pytest.raises(PayloadError, match=r"mistakes.add takes arguments; enqueue its .call"):
        await queue.enqueue(add, 3)


def test_arguments_that_do_not_fit_are_said_with_the_job() -> None:
    call: Any = add.call
    with pytest.raises(TypeError, match=r"mistakes\.add: missing a required argument: 'b'"):
        call(1)


async def test_one_call_is_no_list_of_calls() -> None:
    queue: Any = InMemoryQueue()
    with pytest.raises(TypeError, match="takes a list of calls"):
        await queue.enqueue_many(add.call(1, 2))


def test_process_without_a_loop_leaves_the_queue_as_it_was() -> None:
    queue = InMemoryQueue()
    with pytest.raises(RuntimeError, match="inside an async function"):
        queue.process()

    async def main() -> int:
        async with queue:
            queue.process()
            return await (await queue.enqueue(add.call(1, 2))).result(timeout=30)

    assert asyncio.run(main()) == 3


async def test_the_loop_of_the_worker_is_the_home() -> None:
    """So that short-lived loops, as of a view in a thread, do not become it."""
    queue = InMemoryQueue()
    queue.process()
    results: list[int] = []

    def view(n: int) -> None:
        async def main() -> int:
            return await (await queue.enqueue(add.call(n, n))).result(timeout=30)

        results.append(asyncio.run(main()))

    threads = [threading.Thread(target=view, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    await queue.shutdown()
    assert sorted(results) == [2 * n for n in range(8)]


async def test_shutdown_closes_though_the_worker_failed() -> None:
    @asynccontextmanager
    async def broken(queue: Queue) -> AsyncIterator[None]:
        raise ConnectionError("no database")
        yield

    queue = InMemoryQueue(lifespan=broken)
    queue.process()
    await queue.stats()
    with pytest.raises(ConnectionError, match="no database"):
        await queue.shutdown()
    assert queue._home._line is None


async def test_what_a_run_says_is_bounded() -> None:
    async with InMemoryQueue() as queue:
        queue.process()
        handle = await queue.enqueue(shout)
        await handle.result(timeout=30)
        info = await handle.info()
    (line,) = info.logs
    assert len(line["message"]) == 10_000
    assert len(line["fields"]["long"]) == 1_000
    assert len(line["fields"]) == 50
    assert len(info.progress_note or "") == 1_000


@pytest.mark.parametrize("key", ["", "\ud800", "k" * 501, 5])
def test_a_rate_limit_key_that_is_none(key: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        create_rate_limit_middleware(max_per_second=1, key=key)
    assert caught.value.field == "key"
