"""What machines ask: is it alive, is it ready, what are its figures."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from jobmill.dashboard.board import Watched
from jobmill.dashboard.desk import desk_of
from jobmill.dashboard.rendering import refusal
from jobmill.dashboard.visit import visit_of
from jobmill.errors import ConfigError, StoreError
from jobmill.store import Query, Store

if TYPE_CHECKING:
    from jobmill.contrib.prometheus import QueueCollector


async def healthz(_: Request) -> Response:
    """It is alive."""
    return PlainTextResponse("ok\n")


async def readyz(request: Request) -> Response:
    """Whether every store answers; which does not is told to nobody here."""
    answers = await asyncio.gather(*(_answers(each) for each in desk_of(request).board))
    if all(answers):
        return PlainTextResponse("ok\n")
    return PlainTextResponse("a store cannot be reached\n", 503)


async def metrics(request: Request) -> Response:
    """The figures of all queues, for Prometheus."""
    state = request.app.state
    if find_spec("prometheus_client") is None:
        text = 'The figures need: pip install "jobmill[prometheus]"'
        return refusal(request.scope, visit_of(request), 501, text)
    if getattr(state, "collector", None) is None:
        # In a thread, as what it imports reads files.
        state.collector = await asyncio.to_thread(_collector)
    collector, kind = state.collector
    for each in desk_of(request).board:
        collector.include(each.label, each.queue)
    return Response(await collector.exposition(), headers={"content-type": kind})


def _collector() -> tuple[QueueCollector, str]:
    from prometheus_client import CONTENT_TYPE_LATEST

    from jobmill.contrib.prometheus import QueueCollector

    return QueueCollector([]), CONTENT_TYPE_LATEST


async def _answers(watched: Watched) -> bool:
    async def light(store: Store) -> None:
        await store.counts(Query(states=("processing",)))

    try:
        await watched.ask(light)
    except (StoreError, ConfigError):
        return False
    return True
