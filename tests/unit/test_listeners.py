"""Listeners are called in order, and what they do wrong does not matter."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import pytest

from jobmill.errors import ConfigError, Retry
from jobmill.listeners import Listeners


async def test_sync_and_async_ones_are_called_and_waited_for() -> None:
    told: list[Any] = []
    thread: list[int] = []

    def plain(*given: Any) -> None:
        thread.append(threading.get_ident())
        told.append(("plain", *given))

    async def coroutine(*given: Any) -> None:
        await asyncio.sleep(0)
        told.append(("async", *given))

    class Callable:
        async def __call__(self, *given: Any) -> None:
            told.append(("object", *given))

    listeners = Listeners(5.0)
    for each in (plain, coroutine, Callable()):
        listeners.add("job_failed", each)
    await listeners.tell("job_failed", "job", "error")
    await listeners.tell("job_completed", "job")
    assert sorted(told) == [
        ("async", "job", "error"),
        ("object", "job", "error"),
        ("plain", "job", "error"),
    ]
    assert thread != [threading.get_ident()]
    listeners.close()


async def test_who_unsubscribed_is_not_called() -> None:
    told: list[str] = []

    async def listener(word: str) -> None:
        told.append(word)

    listeners = Listeners(5.0)
    first = listeners.add("job_completed", listener)
    listeners.add("job_completed", listener)
    await listeners.tell("job_completed", "both")
    first()
    first()
    await listeners.tell("job_completed", "one")
    assert told == ["both", "both", "one"]
    assert listeners.any_of(["job_completed"])
    assert not listeners.any_of(["job_failed"])


@pytest.mark.parametrize(
    "error", [ValueError("no"), SystemExit(1), Retry(), asyncio.CancelledError(), KeyError()]
)
@pytest.mark.parametrize("plain", [True, False])
async def test_a_failure_is_logged_and_counted(
    error: BaseException, plain: bool, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []

    async def fails(word: str) -> None:
        raise error

    def fails_plainly(word: str) -> None:
        raise error

    async def works(word: str) -> None:
        told.append(word)

    listeners = Listeners(5.0)
    listeners.add("job_completed", fails_plainly if plain else fails)
    listeners.add("job_completed", works)
    await listeners.tell("job_completed", "1")
    await listeners.tell("job_completed", "2")
    assert told == ["1", "2"]
    assert listeners.failures == {"job_completed": 2}
    assert [record.name for record in caplog.records] == ["jobmill.monitor"] * 2
    assert "fails" in caplog.text
    listeners.close()


async def test_a_slow_one_is_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    free = threading.Event()
    cancelled: list[bool] = []

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    listeners = Listeners(0.05)
    listeners.add("queue_backlog", slow)
    listeners.add("queue_backlog", lambda: free.wait(60.0))
    async with asyncio.timeout(30):
        await listeners.tell("queue_backlog")
    assert cancelled == [True]
    assert listeners.failures == {"queue_backlog": 2}
    free.set()
    listeners.close()


async def test_a_plain_one_that_hangs_holds_one_thread_and_is_called_again_when_it_returned(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.CRITICAL)
    free = threading.Event()
    hung: list[int] = []
    told: list[int] = []

    def hangs(number: int) -> None:
        hung.append(number)
        if not free.wait(60.0):
            raise TimeoutError
        # Of a call that nobody waits for any more, what it raises is nobody's either.
        if number == 1:
            raise ValueError(number)

    async def works(number: int) -> None:
        told.append(number)

    listeners = Listeners(0.2)
    listeners.add("job_completed", hangs)
    listeners.add("job_completed", works)
    for number in (1, 2, 3, 4):
        await listeners.tell("job_completed", number)
    assert told == [1, 2, 3, 4]
    assert hung == [1]
    assert listeners.failures == {"job_completed": 4}
    free.set()
    async with asyncio.timeout(30):
        number = 5
        while hung == [1]:
            await listeners.tell("job_completed", number)
            number += 1
    assert hung == [1, number - 1]
    listeners.close()


async def test_a_call_that_is_cancelled_with_its_monitor_ends() -> None:
    began = asyncio.Event()

    async def slow() -> None:
        began.set()
        await asyncio.Event().wait()

    listeners = Listeners(30.0)
    listeners.add("job_failed", slow)
    telling = asyncio.create_task(listeners.tell("job_failed"))
    await began.wait()
    telling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await telling
    assert not listeners.failures


def test_what_is_no_event_or_no_function_is_refused() -> None:
    listeners = Listeners(1.0)
    for event, listener, field in (("job_done", print, "event"), ("job_failed", 3, "listener")):
        with pytest.raises(ConfigError) as caught:
            listeners.add(event, listener)  # type: ignore[arg-type]
        assert caught.value.field == field
