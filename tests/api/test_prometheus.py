"""What Prometheus is told: the fleet's figures under documented names, with bounded labels."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from jobmill import ConfigError, JobContext, Queue, define_job, job
from jobmill.contrib.prometheus import QueueCollector
from jobmill.registry import isolated
from jobmill.store import HISTOGRAM_BOUNDS
from tests.api.conftest import MakeQueue

ROOT = Path(__file__).parents[2]
NAMES = frozenset(family.name for family in QueueCollector([]).describe())

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@define_job(name="prom.mixed", retries=1, retry_delay=0.0)
async def mixed(ctx: JobContext[str]) -> None:
    if ctx.payload == "fail" or (ctx.payload == "retry" and ctx.attempt == 1):
        raise ValueError(ctx.payload)


@job(name="prom.later")
async def later() -> None: ...


def samples_of(text: bytes) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((name, frozenset(labels.items())))


async def run(queue: Queue, *payloads: str) -> None:
    for payload in payloads:
        handle = await queue.enqueue(mixed, payload)
        await queue.wait_for_end(handle.id, 30)


async def test_the_figures_are_told(working: Queue) -> None:
    collector = QueueCollector(working)
    await run(working, "before")
    await collector.exposition()
    await run(working, "good", "good", "retry", "fail")
    await working.enqueue(later, delay=600)
    samples = samples_of(await collector.exposition())
    labels = {"queue": working.name, "job_name": "prom.mixed"}
    outcomes = {
        outcome: value(samples, "jobmill_jobs_ended_total", outcome=outcome, **labels)
        for outcome in ("completed", "failed", "cancelled")
    }
    assert outcomes == {"completed": 3, "failed": 1, "cancelled": 0}
    assert value(samples, "jobmill_attempts_retried_total", **labels) == 2
    assert value(samples, "jobmill_runs_started_total", **labels) == 6
    assert value(samples, "jobmill_leases_lapsed_total", **labels) == 0
    for name in ("jobmill_run_duration_seconds", "jobmill_wait_duration_seconds"):
        assert value(samples, f"{name}_count", **labels) == 6
        assert value(samples, f"{name}_bucket", le="+Inf", **labels) == 6
        assert (value(samples, f"{name}_sum", **labels) or -1.0) >= 0.0
        bars = [
            value(samples, f"{name}_bucket", le=repr(round(bound, 3)), **labels)
            for bound in HISTOGRAM_BOUNDS
        ]
        assert bars == sorted(bars, key=lambda bar: -1.0 if bar is None else bar)
        assert None not in bars
    queue = {"queue": working.name}
    assert value(samples, "jobmill_jobs", job_name="prom.later", state="delayed", **queue) == 1
    assert value(samples, "jobmill_jobs", job_name="prom.mixed", state="failed", **queue) == 1
    assert value(samples, "jobmill_queue_depth", **queue) == 0
    assert value(samples, "jobmill_oldest_due_seconds", **queue) == 0
    assert value(samples, "jobmill_store_up", **queue) == 1

    async def one_worker() -> bool:
        found = samples_of(await collector.exposition())
        return value(found, "jobmill_workers", **queue) == 1

    while not await one_worker():
        await asyncio.sleep(0.01)
    samples = samples_of(await collector.exposition())
    assert value(samples, "jobmill_worker_slots", **queue) == working.concurrency
    assert value(samples, "jobmill_workers_blocked", **queue) == 0


async def test_a_registry_collects_from_a_thread(working: Queue) -> None:
    registry = CollectorRegistry(auto_describe=True)
    registry.register(QueueCollector([working]))
    assert await asyncio.to_thread(generate_latest, registry)
    await run(working, "good")
    samples = samples_of(await asyncio.to_thread(generate_latest, registry))
    labels = {"queue": working.name, "job_name": "prom.mixed", "outcome": "completed"}
    assert value(samples, "jobmill_jobs_ended_total", **labels) == 1


async def test_labels_come_from_names_that_are_defined_here(make_queue: MakeQueue) -> None:
    queue = make_queue()
    collector = QueueCollector(queue, names=["expected"])
    await collector.exposition()
    with isolated():
        for name in ("x" * 200, "hostile:1", "hostile:2", "expected"):
            await queue.enqueue(define_job(name=name, handler=_nothing))
            handle = await queue.enqueue(define_job(name=f"{name[:150]}.b", handler=_nothing))
            await queue.cancel(handle.id)
    await queue.enqueue(later)
    samples = samples_of(await collector.exposition())
    names = {dict(labels).get("job_name") for _, labels in samples} - {None}
    assert names == {"other", "expected", "prom.later"}
    of = {"queue": queue.name, "job_name": "other"}
    assert value(samples, "jobmill_jobs", state="pending", **of) == 3
    assert value(samples, "jobmill_jobs_ended_total", outcome="cancelled", **of) == 4


async def _nothing(ctx: JobContext[None]) -> None: ...


async def test_a_store_that_is_away_is_down_and_no_exception(
    make_queue: MakeQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jobmill import StoreUnavailable

    away, there = make_queue(name="away"), make_queue(name="there")

    async def ask(verb: Any) -> Any:
        raise StoreUnavailable("gone")

    monkeypatch.setattr(away, "ask", ask)
    samples = samples_of(await QueueCollector([away, there]).exposition())
    assert value(samples, "jobmill_store_up", queue="away") == 0
    assert value(samples, "jobmill_store_up", queue="there") == 1
    assert value(samples, "jobmill_workers", queue="away") is None
    assert value(samples, "jobmill_workers", queue="there") == 0


async def test_two_scrapes_at_once_never_let_a_counter_fall(working: Queue) -> None:
    collector = QueueCollector(working)
    await collector.exposition()
    labels = {"queue": working.name, "job_name": "prom.mixed", "outcome": "completed"}
    seen = [0.0]

    async def scrape() -> None:
        samples = samples_of(await collector.exposition())
        seen.append(value(samples, "jobmill_jobs_ended_total", **labels) or 0.0)

    for _ in range(5):
        await asyncio.gather(run(working, "good"), *[scrape() for _ in range(4)])
    await scrape()
    assert seen[-1] == 5
    assert max(seen) == 5


def test_what_is_no_queue_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        QueueCollector(["mail"])  # type: ignore[list-item]
    assert caught.value.field == "queues"


def test_names_keep_to_the_rules_of_prometheus() -> None:
    for family in QueueCollector([]).describe():
        assert re.fullmatch(r"jobmill_[a-z]+(_[a-z]+)*", family.name), family.name
        assert not family.name.endswith(("_total", "_count", "_sum", "_bucket"))
        assert family.documentation.endswith(".")
        if family.type == "histogram":
            assert family.name.endswith("_seconds")


def exposed(name: str) -> bool:
    """Whether a series of this name is exposed."""
    families = {family.name: family.type for family in QueueCollector([]).describe()}
    if name.endswith("_total"):
        return families.get(name.removesuffix("_total")) == "counter"
    for suffix in ("_bucket", "_sum", "_count"):
        if name.endswith(suffix):
            return families.get(name.removesuffix(suffix)) == "histogram"
    return families.get(name) == "gauge"


def test_the_dashboard_uses_only_names_that_are_exposed() -> None:
    dashboard = json.loads((ROOT / "docs/grafana/jobmill.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked += [
        each["definition"]
        for each in dashboard["templating"]["list"]
        if "query" in each and "definition" in each
    ]
    used = {name for expr in asked for name in re.findall(r"jobmill_[a-z_]+", expr)}
    assert {name for name in used if not exposed(name)} == set()
    plain = {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in used}
    assert plain == NAMES, "the dashboard shows each of them"
    for expr in asked:
        assert expr.count("(") == expr.count(")")
        assert expr.count("{") == expr.count("}")
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)


def test_the_page_has_each_name() -> None:
    page = (ROOT / "docs/monitoring.md").read_text()
    told = re.findall(r"^\| `(jobmill_[a-z_]+)`", page, re.MULTILINE)
    families = QueueCollector([]).describe()
    assert told == [
        family.name + ("_total" if family.type == "counter" else "") for family in families
    ]
