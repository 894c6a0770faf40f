"""`jobmill workers`: who works on a queue now, and on what."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from jobmill.cli.asking import Asked, ask
from jobmill.cli.output import Column, Form, show
from jobmill.cli.text import ago
from jobmill.monitor import Monitor
from jobmill.queue import Queue
from jobmill.roster import Roster, WorkerInfo

_MEGABYTE: Final = 1 << 20
_NAMED: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A worker, as JSON has it too. `state` is "dead" where it is silent for too long."""

    id: str
    state: str
    host: str
    pid: int
    version: str
    queues: tuple[str, ...]
    slots: int
    busy: int
    memory: int | None
    started_at: datetime
    last_beat: datetime
    running: tuple[dict[str, Any], ...]


_COLUMNS: Final[tuple[Column[Row], ...]] = (
    Column("worker", lambda row: row.id),
    Column("state", lambda row: row.state, lambda row: STYLES.get(row.state, "")),
    Column("busy", lambda row: f"{row.busy}/{row.slots}", right=True),
    Column("memory", lambda row: _memory(row.memory), right=True),
    Column("started", lambda row: ago(row.started_at)),
    Column("beat", lambda row: ago(row.last_beat)),
    Column("version", lambda row: row.version),
    Column("runs", lambda row: _runs(row), gives=True),  # noqa: PLW0108  it is below
)
STYLES: Final[dict[str, str]] = {
    "running": "green",
    "stopping": "yellow",
    "stuck": "red",
    "dead": "red",
}


def workers(
    *,
    asked: Asked = Asked(),  # noqa: B008  it is frozen
    form: Form = Form(),  # noqa: B008  it is frozen
) -> None:
    """List the workers of the queue, with what each runs now.

    Of a program with several queues, the workers of all, where no --queue names one.
    """

    async def roster(queue: Queue) -> Roster:
        return await Monitor(queue).get_workers()

    # Who serves several queues is on the roster of each.
    found = {each.id: each for queue in asked.all_made() for each in ask(queue, roster).workers}
    rows = [row_of(each) for each in found.values()]
    show(form, "workers", rows, _COLUMNS, key=lambda row: row.id, none="no worker is there")


def row_of(worker: WorkerInfo) -> Row:
    """The worker as a row."""
    entry = worker.entry
    return Row(
        id=worker.id,
        state=entry.state if worker.alive else "dead",
        host=entry.host,
        pid=entry.pid,
        version=entry.version,
        queues=entry.queues,
        slots=entry.slots,
        busy=entry.busy,
        memory=entry.memory,
        started_at=worker.started_at,
        last_beat=worker.last_beat,
        running=tuple(
            {"id": each.id, "name": each.name, "attempt": each.attempt} for each in entry.running
        ),
    )


def _memory(size: int | None) -> str:
    return "" if size is None else f"{size // _MEGABYTE} MB"


def _runs(row: Row) -> str:
    names = [f"{each['name']} {each['id']}" for each in row.running[:_NAMED]]
    rest = len(row.running) - len(names)
    return ", ".join([*names, *([f"and {rest} more"] if rest else [])])
