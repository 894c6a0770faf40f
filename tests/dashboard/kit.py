"""How the tests ask a dashboard: raw requests, and a queue that has something of everything."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from starlette.types import ASGIApp

from jobmill import JobContext, Queue, Scheduler, define_job, job
from jobmill.roster import WORKERS, Entry, Running, encode_entry
from jobmill.testing import drain

PAGES = (
    *("/", "/jobs", "/jobs/{done}", "/jobs/{bad}", "/queues", "/queues/default", "/schedules"),
    *("/schedules/nightly", "/workers", "/errors", "/audit"),
)
HTML = {"accept": "text/html"}


@define_job(name="shop.greet")
async def greet(ctx: JobContext[dict[str, Any]]) -> dict[str, Any]:
    ctx.log("on my way", password="hunter2", to=str(ctx.payload.get("to")))
    await ctx.update_progress(50, "half of it")
    return {"said": "hello", "api_key": "hunter2"}


@define_job(name="shop.fail", retries=0)
async def fail(ctx: JobContext[str]) -> None:
    raise ValueError(ctx.payload)


@job(name="shop.later")
def later() -> None: ...


class Asker(httpx.AsyncClient):
    """A client of one app, which knows the token that its forms carry."""

    async def token(self) -> str:
        found: str = (await self.get("/api/session")).json()["csrf"]
        return found

    async def send_form(self, path: str, **fields: Any) -> httpx.Response:
        data = {"csrf": await self.token(), **fields}
        return await self.post(path, data=data, headers=HTML)

    async def send_json(self, path: str, body: Any = None) -> httpx.Response:
        headers = {"x-csrf-token": await self.token()}
        return await self.post(path, json=body or {}, headers=headers)


@asynccontextmanager
async def asking(
    app: ASGIApp, *, host: str = "localhost", client: str = "127.0.0.1", **options: Any
) -> AsyncGenerator[Asker]:
    """A client of the app; `client`: the address that it comes from."""
    transport = httpx.ASGITransport(app, client=(client, 4711), raise_app_exceptions=False)
    async with Asker(transport=transport, base_url=f"http://{host}", **options) as asker:
        yield asker


async def fill(queue: Queue, said: str = "no such thing") -> dict[str, str]:
    """One job of each kind, a schedule, a worker: `said` is wherever somebody's text may be."""
    payload = {"to": said, "password": "hunter2", "nested": [{"secretKey": "hunter2"}]}
    metadata = {"from": said, "token": "hunter2"}
    done = await queue.enqueue(greet, payload, metadata=metadata)
    bad = await queue.enqueue(fail, said)
    await drain(queue)
    waits = await queue.enqueue(later, delay=3_600, unique_key=said)
    zone = "America/New_York"
    await Scheduler(queue).schedule("nightly", "30 2 * * *", fail, said, timezone=zone)
    entry = Entry(
        host=said,
        pid=1,
        version=said,
        queues=("default",),
        slots=10,
        every=10_000.0,
        busy=1,
        blocked=3.0,
        blocked_by=said,
        unknown={said: 1},
        running=(Running(id=done.id, name=said, aborted=said),),
    )
    await queue.ask(lambda store: store.write(WORKERS, "w1", encode_entry(entry)))
    return {"done": done.id, "bad": bad.id, "waits": waits.id}
