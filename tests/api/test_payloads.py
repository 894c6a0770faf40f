"""What comes through the door comes back exactly; the rest is refused with its path."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest

from jobmill import JobContext, PayloadError, PayloadTooLarge, Queue, define_job
from tests.api.conftest import MakeQueue
from tests.api.jobs import Email, echo, send, statuses

LIMIT = 1_000


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def of_size(size: int) -> str:
    """An argument of echo with which its payload is `size` bytes of JSON."""
    return "x" * (size - len('{"value":""}'))


EXACT = {
    "empty text": "",
    "empty list": [],
    "empty object": {},
    "none": None,
    "at the limit": of_size(LIMIT),
    "at the limit in bytes": "é" * (len(of_size(LIMIT)) // 2),
    "NUL": "a\0b\0",
    "NUL in a key": {"\0": "\0"},
    "controls": "".join(map(chr, range(32))) + "\x7f\u2028\u2029\ufeff\ufffe",
    "astral": "\U0001f980" * 3,
    "quotes": "'; drop table jobs; -- \" \\ {{ }} %s :x ?",
    "markup": "<script>alert(1)</script>",
    "2^53 + 1": 2**53 + 1,
    "2^63 - 1": 2**63 - 1,
    "2^63": 2**63,
    "-2^63": -(2**63),
    "2^64 - 1": 2**64 - 1,
    "2^80": 2**80,
    "small": 5e-324,
    "large": 1.7976931348623157e308,
    "minus zero": -0.0,
    "third": 1 / 3,
    "true and one": [True, 1, 1.5],
    "nesting": nested(60),
    "keys in no order": {"b": 1, "a": {"d": 1, "c": 2}},
}

REFUSED: dict[str, tuple[Any, str, type[PayloadError]]] = {
    "one over the limit": (of_size(LIMIT + 1), "$", PayloadTooLarge),
    "NaN": ({"a": [0, math.nan]}, "$.value.a[1]", PayloadError),
    "infinity": (-math.inf, "$.value", PayloadError),
    "lone surrogate": (["\ud800"], "$.value[0]", PayloadError),
    "lone surrogate in a key": ({"\udfff": 1}, "$.value", PayloadError),
    "nesting of 1,000": (nested(1_000), "$.value", PayloadError),
    "nesting of 100,000": (nested(100_000), "$.value", PayloadError),
    "a set": ({"a": {1}}, "$.value.a", PayloadError),
    "bytes": (b"a", "$.value", PayloadError),
    "an object": (object(), "$.value", PayloadError),
    "numbers as keys": ({1: 1}, "$.value", PayloadError),
}


@pytest.mark.parametrize("name", EXACT)
async def test_what_is_taken_comes_back_exactly(make_queue: MakeQueue, name: str) -> None:
    queue = make_queue(max_payload_bytes=LIMIT)
    value = EXACT[name]
    handle = await queue.enqueue(echo.call(value))
    again = await queue.enqueue(echo.call(value), job_id=handle.id)
    assert again.deduplicated
    stored = (await handle.info()).payload["value"]
    assert repr(stored) == repr(value) or stored == value == EXACT[name]
    queue.process()
    result = await handle.result(30)
    assert type(result) is type(value)
    assert result == value
    assert repr(result) == repr(value) or isinstance(value, dict)


@pytest.mark.parametrize("name", REFUSED)
async def test_what_json_cannot_say_is_refused_with_its_path(
    make_queue: MakeQueue, name: str
) -> None:
    queue = make_queue(max_payload_bytes=LIMIT)
    value, path, kind = REFUSED[name]
    with pytest.raises(PayloadError) as refused:
        await queue.enqueue(echo.call(value))
    assert type(refused.value) is kind
    assert refused.value.path.startswith(path)
    assert str(refused.value).startswith("$")
    if isinstance(refused.value, PayloadTooLarge):
        assert (refused.value.size, refused.value.limit) == (LIMIT + 1, LIMIT)
    with pytest.raises(PayloadError):
        await queue.enqueue_many([echo.call(1), echo.call(value)])
    with pytest.raises(PayloadError):
        queue.enqueue_sync(echo.call(value))
    assert await statuses(queue) == {}


async def test_a_payload_is_checked_against_its_type(queue: Queue) -> None:
    bad: Any
    for bad, path in (
        (Email(3), "$.to"),  # type: ignore[arg-type]
        ({"to": "a", "subject": 3}, "$"),
        (None, "$"),
        ("ann", "$"),
    ):
        with pytest.raises(PayloadError) as refused:
            await queue.enqueue(send, bad)
        assert refused.value.path.startswith(path)
    assert await statuses(queue) == {}


async def test_what_is_stored_is_what_was_given_then(queue: Queue) -> None:
    value = {"a": [1]}
    handle = await queue.enqueue(echo.call(value))
    value["a"].append(2)
    assert (await handle.info()).payload == {"value": {"a": [1]}}


async def test_the_handler_gets_the_type_that_it_names(working: Queue) -> None:
    @dataclass(frozen=True)
    class Inner:
        data: bytes

    @define_job(name="api.typed")
    async def typed(ctx: JobContext[list[Email]]) -> list[Email]:
        assert all(type(each) is Email for each in ctx.payload)
        return ctx.payload

    emails = [Email("ann"), Email("bob", "\0")]
    assert await (await working.enqueue(typed, emails)).result(30) == emails
