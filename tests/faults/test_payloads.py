"""Payloads at the edge, to a worker in another process and back (P10, P12)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jobmill import PayloadError, PayloadTooLarge, Queue, create_queue
from tests.faults.jobs import echo
from tests.faults.places import Place
from tests.faults.processes import Processes

LARGEST = 4_096


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


REFUSED: dict[str, Any] = {
    "one over the limit": "x" * (LARGEST - 1),
    "lone surrogate": {"to": "\ud800"},
    "lone surrogate as a key": {"\udfff": 1},
    "not a number": {"x": float("nan")},
    "infinity": [float("-inf")],
    "nesting of 65": nested(65),
    "nesting of 1,000": nested(1_000),
    "nesting of 100,000": nested(100_000),
    "bytes of no JSON": {"x": object()},
}
EXACT: dict[str, Any] = {
    "nothing": None,
    "empty text": "",
    "empty list": [],
    "empty object": {},
    "at the limit": "x" * (LARGEST - 2),
    "NUL": {"a\0b": "\0", "c": "\0\0d"},
    "control characters": "".join(map(chr, range(32))) + "\x7f\u2028\u2029\ufeff",
    "beyond the first plane": "😀\U0010ffff",
    "2^53 + 1": 2**53 + 1,
    "2^63 - 1": 2**63 - 1,
    "2^63": 2**63,
    "2^64 - 1": 2**64 - 1,
    "-2^63": -(2**63),
    "tiny": 5e-324,
    "huge": 1.7976931348623157e308,
    "negative zero": -0.0,
    "a tenth": 0.1,
    "nesting of 64": nested(64),
    "booleans": [True, False, None, 0, 1],
    "keys that look like commands": {"'; --": 1, "{}": 2, "*\r\n$3": "\r\n", "%s": "%(x)s"},
}
EITHER: dict[str, Any] = {
    "2^64": 2**64,
    "-2^63 - 1": -(2**63) - 1,
    "2^4000": 2**4_000,
}
"""Refused or exact, as the codec goes."""


async def test_a_payload_comes_back_exactly_or_is_refused_at_the_door(
    place: Place, processes: Processes
) -> None:
    worker = processes.worker()
    async with create_queue(place.url, max_payload_bytes=LARGEST, poll_interval=0.2) as queue:
        for what, value in REFUSED.items():
            error = PayloadTooLarge if "limit" in what else PayloadError
            with pytest.raises(error):
                await queue.enqueue(echo, value)
        assert (await queue.stats()).total == 0, "something refused was stored"
        for what, value in {**EXACT, **EITHER}.items():
            await _comes_back(queue, what, value)
    assert worker.alive
    assert "Traceback" not in worker.log


async def _comes_back(queue: Queue, what: str, value: Any) -> None:
    try:
        handle = await queue.enqueue(echo, value)
    except PayloadError:
        assert what in EITHER, what
        return
    back = await handle.result(timeout=40)
    info = await handle.info()
    assert _told(back) == _told(info.payload) == _told(value), what


def _told(value: Any) -> str:
    """Text, which tells 1 from True and 0.0 from -0.0."""
    return json.dumps(value, sort_keys=True)
