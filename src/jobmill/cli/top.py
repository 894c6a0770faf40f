"""`jobmill top`: a queue, its workers and its figures, live on a terminal."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter

from jobmill.cli.asking import Asked, ask
from jobmill.cli.ending import Ended, Exit
from jobmill.cli.output import STATUS_STYLES
from jobmill.cli.text import ago, one_line, span
from jobmill.cli.workers import STYLES, Row, row_of
from jobmill.errors import StoreUnavailable
from jobmill.health import SystemHealth
from jobmill.metrics import JobMetrics
from jobmill.monitor import Monitor
from jobmill.queue import Queue
from jobmill.records import QueueStats
from jobmill.states import STATES

if TYPE_CHECKING:
    from rich.console import RenderableType

_LATELY: Final = 300
_HEALTH: Final = {"healthy": "green", "degraded": "yellow", "unhealthy": "red"}


@dataclass(frozen=True, slots=True)
class View:
    """What there is to be seen at one moment."""

    stats: QueueStats
    health: SystemHealth
    metrics: JobMetrics
    workers: tuple[Row, ...]


def top(
    *,
    asked: Asked = Asked(),  # noqa: B008  it is frozen
    interval: Annotated[float, Parameter(help="Seconds between two looks.")] = 1.0,
) -> int:
    """Watch a queue live, until Ctrl-C. For programs there is: queues stats --json."""
    if interval <= 0:
        raise Ended(Exit.USAGE, f"--interval: {interval:g} will not do; give seconds")

    async def watch(queue: Queue) -> None:
        if not sys.stdout.isatty():
            message = "top needs a terminal; for programs there is jobmill queues stats --json"
            raise Ended(Exit.USAGE, message)
        await _watch(queue, interval)

    try:
        ask(asked, watch)
    except KeyboardInterrupt:
        return Exit.DONE
    return Exit.DONE


async def _watch(queue: Queue, interval: float) -> None:
    from rich.live import Live

    monitor = Monitor(queue, retention=_LATELY)
    with Live(screen=True, auto_refresh=False) as live:
        while True:
            try:
                shown = _drawn(queue, await _look(queue, monitor))
            except StoreUnavailable as error:
                shown = _lost(queue, error)
            live.update(shown, refresh=True)
            await asyncio.sleep(interval)


async def _look(queue: Queue, monitor: Monitor) -> View:
    return View(
        stats=await queue.stats(),
        health=await monitor.get_system_health(),
        metrics=await monitor.get_metrics(),
        workers=tuple(row_of(each) for each in (await monitor.get_workers()).workers),
    )


def _lost(queue: Queue, error: StoreUnavailable) -> RenderableType:
    from rich.text import Text

    return Text(f"{queue.store.place}\n\n{one_line(str(error))}", style="red")


def _drawn(queue: Queue, view: View) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    head = Text()
    head.append(queue.name, "bold")
    head.append(f" in {queue.store.place}, {datetime.now(UTC).astimezone():%H:%M:%S}  ")
    head.append(view.health.status, _HEALTH[view.health.status])
    parts: list[RenderableType] = [head, Text(), _counts(view.stats), _figures(view), Text()]
    parts += [Text(f"! {one_line(issue)}", style="yellow") for issue in view.health.issues]
    parts += [_names(view.metrics), Text(), _workers(view.workers)]
    return Group(*parts)


def _counts(stats: QueueStats) -> RenderableType:
    from rich.text import Text

    line = Text()
    for state in STATES:
        line.append(f"{state} ", "dim")
        line.append(f"{getattr(stats, state):,}   ", STATUS_STYLES[state])
    return line


def _figures(view: View) -> RenderableType:
    from rich.text import Text

    metrics = view.metrics
    return Text(
        f"{metrics.throughput:,.0f} jobs a minute   "
        f"runs {span(metrics.p50_duration)}, 95 % under {span(metrics.p95_duration)}   "
        f"waits {span(metrics.p50_wait)}, 95 % under {span(metrics.p95_wait)}   "
        f"errors {metrics.error_rate:.1%}   oldest due {span(view.health.oldest_wait)}"
    )


def _names(metrics: JobMetrics) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, header_style="dim")
    drawn.add_column("job, of the last 5 minutes", no_wrap=True)
    for head in ("ended", "failed", "retried", "run", "wait"):
        drawn.add_column(head, justify="right")
    by_count = sorted(metrics.by_job.items(), key=lambda item: -item[1].total_jobs)
    for name, own in by_count:
        drawn.add_row(
            Text(one_line(name)),
            f"{own.total_jobs:,}",
            Text(f"{own.failed_jobs:,}", style="red" if own.failed_jobs else ""),
            f"{own.retried:,}",
            span(own.average_duration),
            span(own.average_wait),
        )
    return drawn


def _workers(rows: tuple[Row, ...]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, header_style="dim")
    drawn.add_column("worker", no_wrap=True)
    for head in ("state", "busy", "beat", "runs"):
        drawn.add_column(head, no_wrap=True)
    for row in rows:
        names = ", ".join(each["name"] for each in row.running)
        drawn.add_row(
            Text(one_line(row.id)),
            Text(row.state, style=STYLES.get(row.state, "")),
            f"{row.busy}/{row.slots}",
            ago(row.last_beat),
            Text(one_line(names)),
        )
    return drawn
