"""Traces lead from the enqueue to the run, and metrics count both, by the messaging conventions."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from jobmill import (
    Cancel,
    InMemoryQueue,
    JobContext,
    JobInfo,
    Queue,
    Snooze,
    StoreUnavailable,
    define_job,
    job,
)
from jobmill.contrib.opentelemetry import instrument
from jobmill.stores.memory import MemoryStore
from tests.api.conftest import MakeQueue
from tests.api.test_imports import modules_after

METRICS = {
    "messaging.client.sent.messages",
    "messaging.client.consumed.messages",
    "messaging.client.operation.duration",
    "messaging.process.duration",
}
tracer = trace.get_tracer("test")


class Telemetry:
    """All that was exported."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._reader = InMemoryMetricReader()
        self.meters = MeterProvider([self._reader], shutdown_on_exit=False)

    def instrument(self, *queues: Queue, **options: Any) -> None:
        instrument(*queues, tracer_provider=self.tracers, meter_provider=self.meters, **options)

    def spans(self, name: str) -> list[ReadableSpan]:
        return [span for span in self._exporter.get_finished_spans() if span.name == name]

    def span(self, name: str) -> ReadableSpan:
        (span,) = self.spans(name)
        return span

    def points(self) -> dict[str, list[Any]]:
        data = self._reader.get_metrics_data()
        return {
            metric.name: list(metric.data.data_points)
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def close(self) -> None:
        self.tracers.shutdown()
        self.meters.shutdown()


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    told = Telemetry()
    yield told
    told.close()


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def ids(span: ReadableSpan) -> tuple[int, int]:
    context = span.get_span_context()
    assert context is not None
    return context.trace_id, context.span_id


def links(span: ReadableSpan) -> list[tuple[int, int]]:
    return [(link.context.trace_id, link.context.span_id) for link in span.links]


async def over(queue: Queue, job_id: str) -> JobInfo:
    answer = await queue.wait_for_end(job_id, 30)
    assert answer is not None
    return answer[0]


@define_job(name="otel.inner")
async def inner(ctx: JobContext[None]) -> int:
    return trace.get_current_span().get_span_context().span_id


@job(name="otel.plain")
def plain() -> int:
    return trace.get_current_span().get_span_context().span_id


@define_job(name="otel.fails", retries=0)
async def fails(ctx: JobContext[None]) -> None:
    raise KeyError("a secret")


async def test_a_run_is_linked_to_the_span_that_enqueued_it(
    make_queue: MakeQueue, telemetry: Telemetry
) -> None:
    queue = make_queue()
    telemetry.instrument(queue)
    with telemetry.tracers.get_tracer("t").start_as_current_span("request") as request:
        handle = await queue.enqueue(inner)
    queue.process()
    info = await over(queue, handle.id)
    sent, run = telemetry.span(f"enqueue {queue.name}"), telemetry.span(f"process {queue.name}")
    assert (sent.kind, run.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    assert sent.parent is not None
    assert sent.parent.span_id == request.get_span_context().span_id
    assert run.parent is None
    assert links(run) == [ids(sent)]
    assert ids(run)[0] != ids(sent)[0]
    # Inside the handler, it is the current one.
    assert info.result == ids(run)[1]
    assert set(info.metadata) == {"traceparent"}
    common = {
        "messaging.system": "jobmill",
        "messaging.destination.name": queue.name,
        "messaging.message.id": handle.id,
        "jobmill.job.name": "otel.inner",
    }
    assert attributes(sent) == {
        **common,
        "messaging.operation.name": "enqueue",
        "messaging.operation.type": "send",
        "messaging.message.body.size": 4,
    }
    assert attributes(run) == {
        **common,
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "jobmill.job.attempt": 1,
    }


async def test_a_plain_function_has_its_span_in_its_thread(
    working: Queue, telemetry: Telemetry
) -> None:
    telemetry.instrument(working)
    handle = await working.enqueue(plain)
    info = await over(working, handle.id)
    assert info.result == ids(telemetry.span(f"process {working.name}"))[1]


async def test_the_context_is_taken_at_each_call_and_not_in_the_flush(
    telemetry: Telemetry,
) -> None:
    queue = InMemoryQueue()
    telemetry.instrument(queue)
    spans: dict[str, int] = {}

    async def caller(number: int) -> str:
        with telemetry.tracers.get_tracer("t").start_as_current_span(f"request {number}") as own:
            handle = await queue.enqueue(inner)
            spans[handle.id] = own.get_span_context().trace_id
            return handle.id

    await asyncio.gather(*[caller(number) for number in range(20)])
    for job_id, trace_id in spans.items():
        info = await queue.get_job(job_id)
        assert info is not None
        assert info.metadata["traceparent"].split("-")[1] == f"{trace_id:032x}"
    assert len(set(spans.values())) == 20
    await queue.close()


async def test_many_jobs_are_one_span(telemetry: Telemetry) -> None:
    async with InMemoryQueue() as queue:
        telemetry.instrument(queue)
        handles = await queue.enqueue_many([inner.call(None), inner.call(None)])
        sent = telemetry.span(f"enqueue {queue.name}")
        assert attributes(sent)["messaging.batch.message_count"] == 2
        assert "messaging.message.id" not in attributes(sent)
        queue.process()
        for handle in handles:
            await over(queue, handle.id)
        runs = telemetry.spans(f"process {queue.name}")
        assert [links(run) for run in runs] == [[ids(sent)]] * 2


async def test_sync_code_is_traced_too(telemetry: Telemetry) -> None:
    async with InMemoryQueue(memory="otel-sync") as queue:
        telemetry.instrument(queue)
        handle = await asyncio.to_thread(queue.enqueue_sync, inner)
        info = await queue.get_job(handle.id)
        assert info is not None
        sent = ids(telemetry.span(f"enqueue {queue.name}"))
        assert info.metadata["traceparent"].split("-")[1:3] == [
            f"{sent[0]:032x}",
            f"{sent[1]:016x}",
        ]


async def test_a_context_of_the_callers_own_is_kept(telemetry: Telemetry) -> None:
    async with InMemoryQueue() as queue:
        telemetry.instrument(queue)
        own = {"traceparent": f"00-{7:032x}-{9:016x}-01", "tenant": "a"}
        handle = await queue.enqueue(inner, metadata=own)
        queue.process()
        info = await over(queue, handle.id)
        assert info.metadata == own
        assert links(telemetry.span(f"process {queue.name}")) == [(7, 9)]
        assert links(telemetry.span(f"enqueue {queue.name}")) == [(7, 9)]


async def test_a_run_may_be_a_child_in_the_same_trace(telemetry: Telemetry) -> None:
    async with InMemoryQueue() as queue:
        telemetry.instrument(queue, same_trace=True)
        handle = await queue.enqueue(inner)
        queue.process()
        await over(queue, handle.id)
        sent, run = telemetry.span(f"enqueue {queue.name}"), telemetry.span(f"process {queue.name}")
        assert run.parent is not None
        assert (run.parent.trace_id, run.parent.span_id) == ids(sent)
        assert links(run) == [ids(sent)]


@pytest.mark.parametrize("metadata", [{}, {"traceparent": "nonsense"}, {"traceparent": "00-0-0-0"}])
async def test_a_job_without_a_context_runs_without_a_link(
    metadata: dict[str, str], telemetry: Telemetry
) -> None:
    async with InMemoryQueue() as queue:
        handle = await queue.enqueue(inner, metadata=metadata)
        telemetry.instrument(queue)
        queue.process()
        assert (await over(queue, handle.id)).status == "completed"
        assert links(telemetry.span(f"process {queue.name}")) == []


async def test_failures_are_told_by_their_type_alone(telemetry: Telemetry) -> None:
    async with InMemoryQueue() as queue:
        telemetry.instrument(queue)
        handle = await queue.enqueue(fails)
        queue.process()
        await over(queue, handle.id)
        run = telemetry.span(f"process {queue.name}")
        assert run.status.status_code == StatusCode.ERROR
        assert attributes(run)["error.type"] == "KeyError"
        assert "secret" not in run.to_json()


async def test_a_timeout_is_told_as_one(telemetry: Telemetry) -> None:
    @define_job(name="otel.slow", timeout=0.02, abort_grace=0.01, retries=0)
    async def slow(ctx: JobContext[None]) -> None:
        await asyncio.Event().wait()

    async with InMemoryQueue() as queue:
        telemetry.instrument(queue)
        handle = await queue.enqueue(slow)
        queue.process()
        await over(queue, handle.id)
        assert attributes(telemetry.span(f"process {queue.name}"))["error.type"] == "JobTimeout"


@pytest.mark.parametrize("wish", [Cancel("enough"), Snooze(600)])
async def test_a_wish_is_no_failure(wish: BaseException, telemetry: Telemetry) -> None:
    @define_job(name="otel.wishes")
    async def wishes(ctx: JobContext[None]) -> None:
        raise wish

    async with InMemoryQueue() as queue:
        telemetry.instrument(queue)
        handle = await queue.enqueue(wishes)
        queue.process()
        while (await handle.info()).status not in ("cancelled", "delayed"):
            await asyncio.sleep(0.001)
        run = telemetry.span(f"process {queue.name}")
        assert run.status.status_code == StatusCode.UNSET
        assert attributes(run)["jobmill.job.wish"] == type(wish).__name__


async def test_an_enqueue_that_fails_is_told_as_failed(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with InMemoryQueue() as queue:
        telemetry.instrument(queue)

        async def gone(*_: object, **__: object) -> Any:
            raise StoreUnavailable("gone")

        monkeypatch.setattr(MemoryStore, "add", gone)
        with pytest.raises(StoreUnavailable):
            await queue.enqueue(inner)
        sent = telemetry.span(f"enqueue {queue.name}")
        assert sent.status.status_code == StatusCode.ERROR
        assert attributes(sent)["error.type"] == "StoreUnavailable"
        monkeypatch.undo()
    (point,) = telemetry.points()["messaging.client.sent.messages"]
    assert (point.value, point.attributes["error.type"]) == (1, "StoreUnavailable")


async def test_metrics_count_what_is_sent_and_what_is_run(telemetry: Telemetry) -> None:
    async with InMemoryQueue() as queue:
        telemetry.instrument(queue)
        handles = await queue.enqueue_many([inner.call(None)] * 3)
        failed = await queue.enqueue(fails)
        queue.process()
        for job_id in [*[handle.id for handle in handles], failed.id]:
            await over(queue, job_id)
    points = telemetry.points()
    assert set(points) == METRICS
    for name in ("messaging.client.sent.messages", "messaging.client.consumed.messages"):
        by_job = {point.attributes["jobmill.job.name"]: point.value for point in points[name]}
        assert by_job == {"otel.inner": 3, "otel.fails": 1}
        for point in points[name]:
            assert point.attributes["messaging.system"] == "jobmill"
            assert point.attributes["messaging.destination.name"] == queue.name
    runs = {
        (point.attributes["jobmill.job.name"], point.attributes.get("error.type")): point
        for point in points["messaging.process.duration"]
    }
    assert {key: point.count for key, point in runs.items()} == {
        ("otel.inner", None): 3,
        ("otel.fails", "KeyError"): 1,
    }
    assert runs["otel.inner", None].explicit_bounds[0] == 0.005
    sent = points["messaging.client.operation.duration"]
    assert sum(point.count for point in sent) == 2
    for kind in points.values():
        for point in kind:
            assert not any("id" in key.split(".") for key in point.attributes), "without end"


def test_the_core_loads_no_tracer() -> None:
    assert not {name for name in modules_after("import jobmill") if "opentelemetry" in name}
    assert not {name for name in modules_after("import jobmill.queue") if "prometheus" in name}
