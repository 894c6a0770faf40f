"""Measures jobmill beside bare loops over the same drivers, and beside its peers.

    python -m bench [--jobs 20000] [--rounds 3] [--stores redis ...] [--peers FOLDER] [--out FILE]
                    [--full | --short]

Rounds alternate between all that is compared; the best round of each counts, since what disturbs
one only ever makes it slower. Every round checks that each job ran and was settled once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from bench import measures
from bench.bare import THOUSAND
from bench.peers import PEERS, PLACE, made, make_all, measured, version as peer_version
from bench.places import Place, places, queue
from bench.report import table

STORES: Final = ("memory", "sqlite", "redis", "postgresql")
VERBS: Final = ("drain", "bulk", "gathered", "one", "latency")
FULL_BACKLOGS: Final = (1_000, 10_000, 100_000, 1_000_000)
BACKLOGS: Final = (1_000, 100_000)
SETTLING: Final = 15.0
IDLE: Final = 20.0
"""Seconds in which nothing is asked of a worker: a server may count late what it did before."""

Note = Callable[[str, str, str, float], None]
"""Takes a store, what was measured, of whom, and the figure."""


def main() -> int:
    """Run the rounds, print the table, and write the figures."""
    options = _options()
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    figures: dict[str, dict[str, dict[str, list[float]]]] = {}

    def note(store: str, what: str, whose: str, figure: float) -> None:
        figures.setdefault(store, {}).setdefault(what, {}).setdefault(whose, []).append(figure)
        print(f"{store:11} {what:16} {whose:14} {figure:14,.4f}", file=sys.stderr, flush=True)

    if options.peers is not None:
        make_all(options.peers)
    for _ in range(7):
        note("process", "import", "jobmill", measures.import_time(1))
    with places(set(options.stores)) as there:
        for number in range(options.rounds):
            for place in there:
                ours(place, options.jobs, note)
                if options.peers is not None:
                    theirs(place, options.peers, options.jobs, note)
                if not number and place.name != "memory" and not options.short:
                    once(place, options.jobs, FULL_BACKLOGS if options.full else BACKLOGS, note)
    found = {"about": about(options, load), "figures": figures}
    print(table(found))
    if options.out is not None:
        options.out.parent.mkdir(exist_ok=True)
        options.out.write_text(json.dumps(found, indent=1) + "\n")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--stores", nargs="+", choices=STORES, default=STORES)
    parser.add_argument(
        "--peers", type=Path, nargs="?", const=PLACE, help="the folder of their environments"
    )
    extent = parser.add_mutually_exclusive_group()
    extent.add_argument("--full", action="store_true", help="backlogs up to a million")
    extent.add_argument("--short", action="store_true", help="draining and enqueueing alone")
    parser.add_argument("--out", type=Path, help="the file to write the figures to")
    return parser.parse_args()


def ours(place: Place, jobs: int, note: Note) -> None:
    """One round of jobmill and of the bare loop, batched alike."""
    few = max(1, jobs // 4)
    for concurrency, some in ((100, jobs), (10, few)):
        url = place.fresh()
        if place.name != "memory":
            asyncio.run(measures.bulk(queue(url), some))
        what = f"drain {concurrency}"
        note(place.name, what, "bare", asyncio.run(place.bare(url, concurrency, some)))
        found = asyncio.run(measures.drain(queue(place.fresh(), concurrency), some))
        note(place.name, what, "jobmill", found)
    for what, batch, some in (("bulk", THOUSAND, jobs), ("one", 1, max(1, jobs // 40))):
        url = place.fresh()
        asyncio.run(measures.prepared(queue(url)))
        note(place.name, what, "bare", asyncio.run(place.bare_enqueue(url, batch, some)))
    for what, verb, some in (
        ("bulk", measures.bulk, jobs),
        ("gathered", measures.gathered, few),
        ("one", measures.one, max(1, jobs // 40)),
        ("latency", measures.latency, 50),
    ):
        note(place.name, what, "jobmill", asyncio.run(verb(queue(place.fresh()), some)))


def theirs(place: Place, folder: Path, jobs: int, note: Note) -> None:
    """One round of each peer on the store; one that fails is said, and has no figure."""
    few = max(1, jobs // 4)
    for peer in PEERS:
        if peer.store != place.name or not made(folder, peer):
            continue
        for verb in VERBS:
            some = {"drain": jobs, "bulk": jobs, "gathered": few, "one": jobs // 40, "latency": 50}
            count = some[verb] if verb == "latency" else max(1, int(some[verb] * peer.share))
            try:
                found = measured(folder, peer, verb, place.fresh(), jobs=count, concurrency=100)
            except (subprocess.SubprocessError, ValueError, IndexError) as error:
                print(f"{peer.name} {verb} failed: {error}", file=sys.stderr)
                continue
            what = "drain 100" if verb == "drain" else verb
            if found.get("ran_twice"):
                note(place.name, "ran twice", peer.name, found["ran_twice"])
            if (figure := found.get("median" if verb == "latency" else "rate")) is not None:
                note(place.name, what, peer.name, figure)


def once(place: Place, jobs: int, backlogs: tuple[int, ...], note: Note) -> None:
    """What needs no rounds, or takes too long for them."""
    for processes in (1, 2):
        url = place.fresh()
        found = asyncio.run(measures.drain_apart(queue(url), url, jobs, processes))
        note(place.name, f"processes {processes}", "jobmill", found)
    for waiting in backlogs:
        found = asyncio.run(measures.backlog(queue(place.fresh()), waiting, BACKLOGS[0]))
        note(place.name, f"backlog {waiting}", "jobmill", found)
    url = place.fresh()
    with measures.Workers(url, "default", 1, 10) as workers:
        # What the server does by itself ends with the first asking, a little later.
        place.statements()
        asyncio.run(asyncio.sleep(SETTLING))
        note(place.name, "memory MB", "jobmill", workers.memory())
        if (before := place.statements()) is not None:
            asyncio.run(asyncio.sleep(IDLE))
            after = place.statements() or 0.0
            note(place.name, "idle statements", "jobmill", (after - before) / IDLE)


def about(options: argparse.Namespace, load: str) -> dict[str, Any]:
    """How, where and when it was measured, and with what; `load`: of the minute before."""
    peers = {
        peer.name: peer_version(options.peers, peer)
        for peer in PEERS
        if options.peers is not None and made(options.peers, peer)
    }
    return {
        "command": _command(options),
        "day": str(datetime.now(UTC).date()),
        "machine": platform.machine(),
        "cores": os.cpu_count() or 1,
        "load of the minute before": load,
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "drivers": {name: version(name) for name in ("redis", "hiredis", "asyncpg", "msgspec")},
        "peers": peers,
        "jobs": options.jobs,
        "rounds": options.rounds,
    }


def _command(options: argparse.Namespace) -> str:
    """What was asked, without the folders of this machine."""
    words = ["python -m bench", f"--jobs {options.jobs}", f"--rounds {options.rounds}"]
    if tuple(options.stores) != STORES:
        words.append(f"--stores {' '.join(options.stores)}")
    words += [f"--{word}" for word in ("peers", "full") if getattr(options, word)]
    return " ".join(words)


if __name__ == "__main__":
    sys.exit(main())
