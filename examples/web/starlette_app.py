"""Background jobs in a Starlette app, with a client that all of a worker's jobs share.

uvicorn starlette_app:app, or python starlette_app.py
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from jobmill import JobContext, PayloadError, Queue, create_queue, define_job


@asynccontextmanager
async def resources(_: Queue) -> AsyncIterator[dict[str, str]]:
    # Entered once when a worker starts: a pool of connections, say.
    yield {"greeting": "Hello"}


queue = create_queue("sqlite:///jobs.db", lifespan=resources)


@define_job(name="greet")
async def greet(ctx: JobContext[str]) -> str:
    return f"{ctx.state['greeting']}, {ctx.payload}!"


async def enqueue(request: Request) -> Response:
    try:
        handle = await queue.enqueue(greet, (await request.json())["name"])
    except PayloadError as error:
        return JSONResponse({"error": str(error)}, status_code=422)
    return JSONResponse({"greeting": await handle.result(timeout=30)})


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    async with queue:
        queue.process()
        yield


app = Starlette(routes=[Route("/greet", enqueue, methods=["POST"])], lifespan=lifespan)


def main() -> None:
    from starlette.testclient import TestClient

    with TestClient(app) as client:
        print(client.post("/greet", json={"name": "Ada"}).json())
        print(client.post("/greet", json={"name": 7}).json())


if __name__ == "__main__":
    main()
