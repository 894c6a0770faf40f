"""Counts accepted jobs that are gone after a Redis server was killed, or power failed.

    python -m bench.redis_loss [--runs 5] [--only killed]

Producers enqueue, and a worker settles, until the server gets kill -9 at a random instant;
then it is started again on what it left. Power is not cut: for `power`, strace tells which
part of the journal an fsync had covered, and the server is started on that part alone. It is
the most that a disk which keeps its word can lose. `slow disk` is a kill while each fsync
takes half a second.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from bench.disk import slowed, traced
from bench.load import AT_ONCE, Producers, Settler, a_payload, once_there, parcel, records
from bench.machine import about_redis, fact, span
from jobmill import RedisQueue
from jobmill.stores.redis import RedisStore
from jobmill.stores.redis.provision import Server, running

JOURNALS = {
    f"appendfsync {how}": {"appendonly": "yes", "appendfsync": how}
    for how in ("always", "everysec", "no")
}
OTHERS = {"snapshots (save 1 1)": {"save": "1 1"}, "neither": {"save": ""}}
KINDS = {"killed": JOURNALS | OTHERS, "power": JOURNALS, "slow disk": JOURNALS}
BACKLOG = 10_000
SLOW = 0.5


class Loss(NamedTuple):
    """What one run lost: jobs, seconds of acceptances, and settles."""

    accepted: int
    missing: int
    seconds: float
    settled: int
    again: int


async def lose(server: Server, folder: Path, kind: str, at_once: int) -> Loss:
    """Work, kill, start again, count."""
    url = str(server.address)
    arriving, waiting = RedisQueue(url, queue_name="arriving"), RedisQueue(url)
    store = RedisStore(server.address)
    await store.open()
    await waiting.enqueue_many([parcel.call(a_payload(100)) for _ in range(BACKLOG)])
    await arriving.enqueue(parcel, {"text": "the first of its queue"})
    journal = await asyncio.to_thread(settle_down, server, folder)
    pid = int(await asyncio.to_thread(fact, server, "server", "process_id"))
    producers, settler = Producers(arriving, at_once), Settler(store)
    with ExitStack() as stack:
        trace, length = None, 0
        if kind == "power":
            assert journal is not None
            length = journal.stat().st_size
            trace = await asyncio.to_thread(stack.enter_context, traced(pid, folder))
        elif kind == "slow disk":
            await asyncio.to_thread(stack.enter_context, slowed(pid, SLOW))
        works = [asyncio.create_task(each.run()) for each in (producers, settler)]
        await asyncio.sleep(random.uniform(1.5, 3.0))
        killed_at = time.monotonic()
        await asyncio.to_thread(server.kill)
        await asyncio.sleep(0.1)  # answers that are on their way still count
        producers.stop()
        settler.stop()
        await asyncio.gather(*works)
    if trace is not None and journal is not None:
        await asyncio.to_thread(trace.cut, journal, length)
    await asyncio.to_thread(server.start)
    try:
        return await once_there(lambda: compared(server, producers, settler, killed_at))
    finally:
        for each in (arriving, waiting, store):
            await each.close()


async def compared(
    server: Server, producers: Producers, settler: Settler, killed_at: float
) -> Loss:
    """What the store has, held against what it had told."""
    arriving, waiting = (RedisStore(server.address, name) for name in ("arriving", "default"))
    try:
        await arriving.open()
        await waiting.open()
        accepted, settled = producers.accepted, settler.settled
        there = await records(arriving, list(accepted))
        worked = await records(waiting, list(settled))
    finally:
        await arriving.close()
        await waiting.close()
    missing = [at for each, at in accepted.items() if each not in there]
    kept = [each for each in settled if each in worked and worked[each].state == "completed"]
    return Loss(
        accepted=len(accepted),
        missing=len(missing),
        seconds=max(0.0, killed_at - min(missing, default=killed_at)),
        settled=len(settled),
        again=len(settled) - len(kept),
    )


def settle_down(server: Server, folder: Path) -> Path | None:
    """Make all that is there safe; the journal, where the server has one. It blocks."""
    if fact(server, "persistence", "aof_enabled") == "0":
        server.ask("SAVE")
        return None
    while fact(server, "persistence", "aof_rewrite_in_progress") != "0":
        time.sleep(0.02)
    (journal,) = [each for each in folder.rglob("*.aof") if "base" not in each.name]
    with journal.open("rb") as file:
        os.fsync(file.fileno())
    return journal


def main() -> int:
    """Run them all and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.redis_loss")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", choices=KINDS)
    options = parser.parse_args()
    print(about_redis())
    print(f"{options.runs} runs each, kill -9 after 1.5 to 3 s; least to most", flush=True)
    for kind in [options.only] if options.only else KINDS:
        for name, settings in KINDS[kind].items():
            for at_once in AT_ONCE:
                print(line(kind, name, at_once, runs(settings, kind, at_once, options.runs)))
                sys.stdout.flush()
    return 0


def runs(settings: dict[str, str], kind: str, at_once: int, count: int) -> list[Loss]:
    """Some runs, each on a server and a folder of its own."""
    losses: list[Loss] = []
    for _ in range(count):
        with tempfile.TemporaryDirectory(prefix="jobmill-loss-") as name:
            folder = Path(name).resolve()
            with running({"dir": str(folder), **settings}) as server:
                losses.append(asyncio.run(lose(server, folder, kind, at_once)))
    return losses


def line(kind: str, name: str, at_once: int, losses: list[Loss]) -> str:
    """The figures of some runs."""
    accepted, missing, seconds, settled, again = map(list, zip(*losses, strict=True))
    return (
        f"{kind:9} {name:20} {at_once:2} at once: missing {span(missing)} of {span(accepted)} "
        f"accepted ({span(seconds, 2)} s); to run again {span(again)} of {span(settled)} settled"
    )


if __name__ == "__main__":
    sys.exit(main())
