"""A primary that is killed, and a standby that is promoted in its place (P1)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from jobmill import Queue, create_queue
from jobmill.stores.postgresql.provision import Server
from jobmill.testing.proxy import Proxy
from tests.faults.places import postgres_url
from tests.faults.processes import Processes, comes_true, eventually
from tests.faults.producer_app import read_answers
from tests.faults.witness import Witness
from tests.servers import ask_postgres, own_postgres

pytestmark = pytest.mark.store("postgresql")

HOST = "127.0.0.1"
LEASE = 2.0
SOME = 30


@pytest.fixture
def primary() -> Iterator[Server]:
    with own_postgres() as server:
        yield server


@pytest.fixture
async def between(primary: Server) -> AsyncIterator[Proxy]:
    """The way from the primary to its standby."""
    async with Proxy(HOST, primary.address.port) as proxy:
        yield proxy


@pytest.fixture
async def name(primary: Server) -> AsyncIterator[Proxy]:
    """What leads producers and workers to the primary, and later to the standby."""
    async with Proxy(HOST, primary.address.port) as proxy:
        yield proxy


async def _asked(server: Server, statement: str) -> str:
    return (await asyncio.to_thread(ask_postgres, server.address, statement)).strip()


async def _says(server: Server, statement: str) -> bool:
    return (
        await _asked(server, f"SELECT coalesce(bool_or({statement}), FALSE) FROM " + _LINK) == "t"
    )


_LINK = "pg_stat_replication WHERE application_name = 'walreceiver'"


@pytest.mark.timeout(240)
@pytest.mark.parametrize("synchronous", [False, True], ids=["asynchronous", "synchronous"])
async def test_a_promoted_standby_lacks_nothing_but_what_it_had_not_received(
    primary: Server,
    between: Proxy,
    name: Proxy,
    tmp_path: Path,
    witness: Witness,
    synchronous: bool,
) -> None:
    data = primary.folder.parent / "standby"
    await asyncio.to_thread(primary.copy_to, data, port=between.port)
    standby = Server(data)
    try:
        await asyncio.to_thread(standby.start)
        await comes_true(partial(_says, primary, "state = 'streaming'"), "the standby follows")
        if synchronous:
            await _asked(
                primary,
                "ALTER SYSTEM SET synchronous_standby_names = '*';\nSELECT pg_reload_conf()",
            )
            await comes_true(partial(_says, primary, "sync_state = 'sync'"), "it is waited for")
        with Processes(postgres_url(name.port), tmp_path, witness) as processes:
            await _promote(primary, standby, between, name, processes, tmp_path, synchronous)
    finally:
        await asyncio.to_thread(standby.close)


async def _promote(
    primary: Server,
    standby: Server,
    between: Proxy,
    name: Proxy,
    processes: Processes,
    folder: Path,
    synchronous: bool,
) -> None:
    witness = processes.witness
    answers, stop = folder / "answers.jsonl", folder / "stop"
    workers = [processes.worker(lease=LEASE), processes.worker(lease=LEASE)]
    producer = processes.producer(answers, count=1_000_000, pause=0.01, stop=stop)
    await eventually(lambda: len(witness.of("end")) > SOME, "jobs flowing")

    def accepted() -> set[str]:
        return {answer.id for answer in read_answers(answers) if answer.id}

    def errors() -> int:
        return sum(1 for answer in read_answers(answers) if answer.error)

    before = accepted()
    place = await _asked(primary, "SELECT pg_current_wal_flush_lsn()")
    await comes_true(partial(_says, primary, f"flush_lsn >= '{place}'"), "the standby in step")
    between.swallow()
    if synchronous:
        await eventually(lambda: errors() > 0, "enqueue raises")
    else:
        await eventually(lambda: len(accepted()) > len(before) + SOME, "jobs the standby lacks")
    await asyncio.to_thread(primary.kill)
    known = errors()
    # It asks one by one: what the primary answered stands before that.
    await eventually(lambda: errors() > known, "enqueue raises")
    seen = accepted()
    await asyncio.to_thread(standby.promote)
    name.lead_to(HOST, standby.address.port)
    name.cut()

    await eventually(lambda: len(accepted()) > len(seen) + SOME, "jobs accepted again")
    count = len(witness.of("end"))
    await eventually(lambda: len(witness.of("end")) > count + SOME, "jobs flowing again")
    stop.touch()
    assert await producer.ends() == 0

    async with create_queue(postgres_url(name.port)) as queue:
        await comes_true(lambda: _is_drained(queue), "all completed", within=60)
        store: Any = queue.store.handle()
        await store.open()
        try:
            records = [one for one in await store.get(sorted(accepted())) if one]
        finally:
            await store.close()
    lost = accepted() - {record.id for record in records}
    again = sum(times - 1 for times in witness.starts().values())
    print(
        f"{len(seen)} accepted before, {len(seen - before)} of them while the standby was cut "
        f"off; {len(lost)} lost, {again} second runs"
    )
    assert {record.state for record in records} == {"completed"}
    if synchronous:
        assert not lost, "an accepted job was lost"
    else:
        assert lost, "nothing was lost, so that the fault was none"
        assert lost <= seen - before, "a job was lost that the standby had"
    assert all(each.alive for each in workers)


async def _is_drained(queue: Queue) -> bool:
    stats = await queue.stats()
    return stats.completed == stats.total
