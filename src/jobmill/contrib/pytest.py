"""The pytest plugin of jobmill: a queue for each test. It comes with jobmill; nothing is to do.

    async def test_a_signup_sends_an_email(job_queue):
        await sign_up("ada@example.com", job_queue)
        await assert_enqueued(job_queue, send_email, payload=Email(to="ada@example.com"))
        await drain(job_queue)

`drain`, `assert_enqueued` and `run_inline` are in `jobmill.testing`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from jobmill.queue import Queue


@pytest.fixture
def job_queue() -> Iterator[Queue]:
    """A queue in memory, empty, for this test alone; nothing runs in it until `drain` is called.

    Jobs that the test defines are forgotten at its end, so that it may run again.
    """
    # Here, because pytest loads this module into every run, also where no test needs it.
    from jobmill.factory import InMemoryQueue
    from jobmill.registry import isolated

    with isolated(empty=False):
        yield InMemoryQueue()
