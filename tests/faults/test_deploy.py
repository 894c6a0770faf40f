"""Two releases of a program side by side: what one does not know, the other runs (P10)."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from functools import partial

import pytest

from jobmill import JobContext, JobFailed, JobHandle, Queue, define_job
from jobmill.registry import isolated
from tests.faults.jobs import Work, work
from tests.faults.processes import Processes, comes_true, eventually
from tests.faults.release_now import Name, farewell, greet
from tests.faults.witness import Witness


@dataclass(frozen=True, slots=True)
class NameBefore:
    full: str


async def greet_before(ctx: JobContext[NameBefore]) -> str:
    raise NotImplementedError


async def _enqueued_before(queue: Queue) -> JobHandle[str]:
    """A job as the release before enqueued it."""
    with isolated():
        before = define_job(name=greet.name, handler=greet_before)
        return await queue.enqueue(before, NameBefore("Ann Lee"))


async def test_a_job_that_a_worker_does_not_know_waits_unspent_for_one_that_does(
    queue: Queue, processes: Processes, witness: Witness
) -> None:
    before = processes.worker(release="before")
    unknown = await queue.enqueue(farewell, Name("Ann", "Lee"))

    async def put_off() -> bool:
        info = await unknown.info()
        return info.status == "delayed"

    await comes_true(put_off, "the unknown job put off")
    assert await (await queue.enqueue(work, Work())).result(timeout=40) == before.pid

    async def unspent() -> bool:
        # On a slow machine it may be claimed again just now.
        info = await unknown.info()
        return (info.attempts, info.lapses, info.errors) == (0, 0, [])

    await comes_true(unspent, "the attempt given back")
    await eventually(lambda: farewell.name in before.log, "the unknown name in the log")

    now = processes.worker(release="now")
    await eventually(partial(witness.of, "ready", pid=now.pid), "the new release ready")
    # In order, so that it hands back what it may just have claimed again.
    before.send(signal.SIGTERM)
    assert await before.ends() == 0
    await queue.run_now(unknown.id)
    assert await unknown.result(timeout=40) == "Farewell Ann"
    info = await unknown.info()
    assert (info.attempts, info.lapses) == (1, 0)


async def test_a_payload_of_another_release_is_set_aside_with_its_reason(
    queue: Queue, processes: Processes, witness: Witness
) -> None:
    worker = processes.worker(release="now")
    old = await _enqueued_before(queue)
    new = await queue.enqueue(greet, Name("Ann", "Lee"))
    assert await new.result(timeout=40) == "Dear Ann Lee"
    with pytest.raises(JobFailed):
        await old.result(timeout=40)
    info = await old.info()
    assert info.error is not None
    assert (info.status, info.attempts, info.error.type) == ("failed", 1, "PayloadError")
    assert "first" in info.error.message, "the reason names the field"
    assert info.payload == {"full": "Ann Lee"} or info.raw_payload == b'{"full":"Ann Lee"}'
    assert set(witness.starts()) == {new.id}
    assert worker.alive

    # Nothing is lost: where the release before still runs, the operator lets it go there.
    worker.kill()
    processes.worker(release="before")
    assert await queue.retry(old.id)
    assert await old.result(timeout=40) == "Dear Ann Lee"
