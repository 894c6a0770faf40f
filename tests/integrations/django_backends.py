"""jobmill's backend with the helpers that Django's own tests of its tasks expect of a backend."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from jobmill.contrib.django.backend import JobmillBackend
from jobmill.contrib.django.found import AnyResult, AnyTask
from jobmill.queue import Queue
from jobmill.store import Query, Store
from jobmill.testing import drain


class DummyBackend(JobmillBackend):
    """Where Django's tests take its DummyBackend: nothing runs, and they look at what is there."""

    @property
    def results(self) -> list[AnyResult]:
        """Helper one: everything that was enqueued."""

        async def ids(store: Store) -> list[str]:
            return [record.id for record in (await store.find(Query(), limit=1_000)).records]

        return [
            self.get_result(f"{queue.name}:{job_id}")
            for queue in self.served()
            for job_id in reversed(queue.ask_sync(ids))
        ]

    def clear(self) -> None:
        """Helper two: forget it."""
        for queue in self.served():
            queue.ask_sync(_drop)


class ImmediateBackend(JobmillBackend):
    """Where Django's tests take its ImmediateBackend: a worker runs each task at once."""

    def enqueue(self, task: AnyTask, args: Sequence[Any], kwargs: Mapping[str, Any]) -> AnyResult:  # type: ignore[override]
        """Enqueue, let a worker run what is due, and look at the result again."""
        result = super().enqueue(task, args, kwargs)
        queue = self.queue(task.queue_name)
        try:
            asyncio.run(_work(queue))
        except KeyboardInterrupt:
            # Handed back, as it should be; the next test's worker would run it again.
            queue.ask_sync(_drop)
            raise
        result.refresh()
        return result


async def _work(queue: Queue) -> None:
    await drain(queue)


async def _drop(store: Store) -> int:
    return await store.drop(Query(), limit=1_000)
