"""Traces and metrics of jobs by OpenTelemetry (extra `otel`).

    from jobmill.contrib.opentelemetry import instrument

    instrument(queue)

By the semantic conventions for messaging, version 1.44, which are still in development there:
https://opentelemetry.io/docs/specs/semconv/messaging/. Each call that enqueues is a producer span;
its context goes with the job, in its metadata, under the keys of the propagator (`traceparent`,
`tracestate`). Each run is a consumer span in a trace of its own, linked to that context.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import msgspec
from opentelemetry import metrics, propagate, trace
from opentelemetry.context import Context
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, TracerProvider
from opentelemetry.util.types import AttributeValue

from jobmill.context import JobContext
from jobmill.errors import Cancel, Snooze
from jobmill.job import JobMiddleware
from jobmill.queue import Queue
from jobmill.store import NewJob
from jobmill.version import VERSION

__all__ = ["instrument"]

_SCHEMA: Final = "https://opentelemetry.io/schemas/1.44.0"
_SYSTEM: Final = "jobmill"
_BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Bounds of the histograms, as the conventions ask."""
_NO_ERRORS: Final = (Cancel, Snooze)
"""What a handler raises to say what is to become of its job, and not because it failed."""
_NO_FAILURES: Final = frozenset({"cancelled", "shutdown", "lease_lost"})
"""Why a run is stopped from outside, for which its own code is not to blame."""

Attributes = dict[str, AttributeValue]


def instrument(
    *queues: Queue,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    same_trace: bool = False,
) -> None:
    """Trace what is enqueued into these queues and what their workers run, from now on.

    The providers are OpenTelemetry's global ones where none is given. With `same_trace` a run
    is also a child of the span that enqueued its job, in the same trace; that is easier to read
    where jobs run soon, and confusing where they run for days. To be called before workers
    start.
    """
    for queue in queues:
        queue.tracing = _Bridge(queue.name, tracer_provider, meter_provider, same_trace=same_trace)


class _Bridge:
    """What OpenTelemetry is told of one queue."""

    def __init__(
        self,
        queue: str,
        tracer_provider: TracerProvider | None,
        meter_provider: MeterProvider | None,
        *,
        same_trace: bool,
    ) -> None:
        self.layers: Sequence[JobMiddleware] = (self._around,)
        self._queue = queue
        self._same_trace = same_trace
        self._tracer = trace.get_tracer(
            "jobmill", VERSION, tracer_provider=tracer_provider, schema_url=_SCHEMA
        )
        meter = metrics.get_meter(
            "jobmill", VERSION, meter_provider=meter_provider, schema_url=_SCHEMA
        )
        self._sent = meter.create_counter(
            "messaging.client.sent.messages", "{message}", "Jobs that were to be enqueued."
        )
        self._consumed = meter.create_counter(
            "messaging.client.consumed.messages", "{message}", "Runs that were started."
        )
        self._sending = meter.create_histogram(
            "messaging.client.operation.duration",
            "s",
            "How long enqueueing took.",
            explicit_bucket_boundaries_advisory=_BOUNDS,
        )
        self._running = meter.create_histogram(
            "messaging.process.duration",
            "s",
            "How long middleware and handler took.",
            explicit_bucket_boundaries_advisory=_BOUNDS,
        )

    @contextmanager
    def sending(self, jobs: Sequence[NewJob]) -> Generator[Sequence[NewJob]]:
        """A producer span around the call, whose context goes with each job."""
        told = self._common("enqueue", "send")
        names = {job.name for job in jobs}
        if len(names) == 1:
            told["jobmill.job.name"] = names.pop()
        more: Attributes = {}
        if len(jobs) == 1:
            more["messaging.message.id"] = jobs[0].id
            more["messaging.message.body.size"] = len(jobs[0].payload)
        else:
            more["messaging.batch.message_count"] = len(jobs)
        # A context that came with a job is the caller's own wish.
        links = [link for job in jobs if (link := _link(job.metadata)) is not None]
        began = time.perf_counter()
        with self._tracer.start_as_current_span(
            f"enqueue {self._queue}",
            kind=SpanKind.PRODUCER,
            attributes={**told, **more},
            links=links,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield [_with_context(job) for job in jobs]
            except BaseException as error:
                told["error.type"] = _fail(span, error)
                raise
            finally:
                self._sent.add(len(jobs), told)
                self._sending.record(time.perf_counter() - began, told)

    async def _around(self, ctx: JobContext[Any], call_next: Callable[[], Awaitable[Any]]) -> Any:
        """A consumer span around middleware and handler, linked to where the job came from."""
        told = self._common("process", "process")
        told["jobmill.job.name"] = ctx.job_name
        link = _link(ctx.metadata)
        parent = propagate.extract(ctx.metadata) if self._same_trace else Context()
        began = time.perf_counter()
        self._consumed.add(1, told)
        with self._tracer.start_as_current_span(
            f"process {self._queue}",
            context=parent,
            kind=SpanKind.CONSUMER,
            attributes={
                **told,
                "messaging.message.id": ctx.job_id,
                "jobmill.job.attempt": ctx.attempt,
            },
            links=() if link is None else (link,),
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                return await call_next()
            except _NO_ERRORS as wish:
                span.set_attribute("jobmill.job.wish", type(wish).__name__)
                raise
            except BaseException as error:
                reason = ctx.signal.reason
                if reason in _NO_FAILURES:
                    span.set_attribute("jobmill.job.aborted", str(reason))
                else:
                    shown = "JobTimeout" if reason == "timeout" else None
                    told["error.type"] = _fail(span, error, shown)
                raise
            finally:
                self._running.record(time.perf_counter() - began, told)

    def _common(self, name: str, kind: str) -> Attributes:
        return {
            "messaging.system": _SYSTEM,
            "messaging.destination.name": self._queue,
            "messaging.operation.name": name,
            "messaging.operation.type": kind,
        }


def _fail(span: Span, error: BaseException, shown: str | None = None) -> str:
    """Say that it failed, and by what; not with its message, which may hold anything."""
    kind = shown or type(error).__qualname__
    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR))
    return kind


def _with_context(job: NewJob) -> NewJob:
    """The job with the current context in its metadata, where it has none of its own."""
    if _link(job.metadata) is not None:
        return job
    carried: dict[str, str] = {}
    propagate.inject(carried)
    if not carried:
        return job
    return msgspec.structs.replace(job, metadata={**carried, **job.metadata})


def _link(metadata: Mapping[str, str]) -> Link | None:
    """A link to the context that goes with a job."""
    context = trace.get_current_span(propagate.extract(metadata, Context())).get_span_context()
    return Link(context) if context.is_valid else None
