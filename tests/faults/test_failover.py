"""A primary that is killed, and a replica that Sentinels promote in its place."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobmill import Queue, create_queue
from jobmill.stores.redis.provision import Server, Watched, watched
from tests.faults.processes import Processes, comes_true, eventually
from tests.faults.producer_app import read_answers
from tests.faults.witness import Witness
from tests.servers import need_a_server

pytestmark = pytest.mark.store("redis")

LEASE = 2.0


@pytest.fixture
def trio() -> Iterator[Watched]:
    need_a_server()
    with watched(replicas=1) as made:
        yield made


@pytest.mark.timeout(180)
async def test_a_promotion_loses_no_job_that_all_replicas_had(
    trio: Watched, tmp_path: Path, witness: Witness
) -> None:
    places = ",".join(f"{each.place.host}:{each.place.port}" for each in trio.sentinels)
    url = f"redis+sentinel://{places}/jobs/0"
    safe = f"{url}?wait_replicas=1"
    answers, stop = tmp_path / "answers.jsonl", tmp_path / "stop"
    with Processes(url, tmp_path, witness) as processes:
        workers = [processes.worker(lease=LEASE), processes.worker(lease=LEASE)]
        producer = processes.producer(answers, count=1_000_000, pause=0.01, stop=stop, url=safe)
        await eventually(lambda: len(witness.of("end")) > 50, "jobs flowing")

        old, new = trio.servers
        old.kill()
        killed = time.monotonic()
        # A Sentinel that stood still for two seconds decides nothing for half a minute.
        await comes_true(lambda: _is_promoted(trio, new), "the promotion", within=90)
        promoted = time.monotonic()
        await asyncio.to_thread(old.start)
        await asyncio.to_thread(old.ask, "REPLICAOF", new.place.host, new.place.port)
        before = len(read_answers(answers))

        def accepted_again() -> bool:
            return any(answer.id for answer in read_answers(answers)[before:])

        await eventually(accepted_again, "jobs accepted again")
        accepted_at = time.monotonic()
        count = len(witness.of("end"))
        await eventually(lambda: len(witness.of("end")) > count + 50, "jobs flowing again")
        stop.touch()
        assert await producer.ends() == 0

        accepted = {answer.id for answer in read_answers(answers) if answer.id}
        async with create_queue(url) as queue:
            await comes_true(lambda: _is_drained(queue), "all completed", within=60)
            store: Any = queue.store.handle()
            await store.open()
            try:
                records = [record for record in await store.get(sorted(accepted)) if record]
            finally:
                await store.close()
        assert {record.id for record in records} == accepted, "an accepted job was lost"
        assert {record.state for record in records} == {"completed"}
        assert set(witness.starts()) >= accepted
        again = sum(times - 1 for times in witness.starts().values())
        print(
            f"{len(accepted)} accepted; promoted after {promoted - killed:.1f} s, accepted again "
            f"after {accepted_at - killed:.1f} s; {again} second runs"
        )
        assert all(each.alive for each in workers)


async def _is_promoted(trio: Watched, server: Server) -> bool:
    return await asyncio.to_thread(trio.primary) == server.place


async def _is_drained(queue: Queue) -> bool:
    stats = await queue.stats()
    return stats.completed == stats.total
