"""What a store has lost is told once, whoever finds it lost."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from jobmill.clock import SystemClock
from jobmill.losses import tell_losses
from jobmill.policy import Policy
from jobmill.run import Run
from jobmill.states import Claim
from jobmill.store import Store


class Emptied:
    """A store without records, which takes its time to say so."""

    queue = "default"

    async def get(self, ids: list[str]) -> list[None]:
        await asyncio.sleep(0)
        return [None for _ in ids]


def a_run() -> Run:
    claim = Claim("one", "job", b"", Policy(), "t", 1, 0, 0, 0.0, 0.0, 0.0)
    return Run(claim, SystemClock(), 0.0, "default")


async def test_two_that_find_it_at_once_tell_it_once(caplog: pytest.LogCaptureFixture) -> None:
    store: Any = Emptied()
    run = a_run()
    await asyncio.gather(*(tell_losses(cast("Store", store), [run], 1.0) for _ in range(2)))
    assert caplog.text.count("has no record of 1 jobs that run here") == 1
