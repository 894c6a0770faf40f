"""How it is told whether a test of the contract catches a store."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from jobmill.testing.contract import StoreContract


def cases(suite: StoreContract, name: str) -> Iterator[dict[str, Any]]:
    """The arguments of each run of a test."""
    marks = getattr(getattr(type(suite), name), "pytestmark", ())
    axes = []
    for mark in marks:
        names, values = mark.args
        names = [names] if isinstance(names, str) else names
        axes.append(
            [
                dict(zip(names, value if len(names) > 1 else [value], strict=True))
                for value in values
            ]
        )
    for combination in itertools.product(*axes):
        yield {key: value for part in combination for key, value in part.items()}


async def fails(suite: StoreContract, name: str) -> bool:
    """Whether any run of the test fails by what it expects."""
    test = getattr(suite, name)
    for arguments in cases(suite, name):
        try:
            await test(**arguments)
        except (AssertionError, ValueError, TimeoutError):
            # An answer of the wrong length does not unpack; a wait that is not woken times out.
            return True
    return False
