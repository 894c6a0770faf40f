"""Background jobs in a Litestar app: the queue is a dependency, a struct the payload.

uvicorn litestar_app:app, or python litestar_app.py
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
from litestar import Litestar, get, post
from litestar.di import NamedDependency, Provide
from litestar.exceptions import NotFoundException
from litestar.params import FromPath, JSONBody

from jobmill import JobContext, Queue, create_queue, define_job

queue = create_queue("sqlite:///jobs.db")


class Picture(msgspec.Struct, frozen=True):
    path: str
    width: int = 100


@define_job(name="resize", unique="payload")
async def resize(ctx: JobContext[Picture]) -> str:
    return f"{ctx.payload.path} at {ctx.payload.width} pixels"


@post("/pictures", status_code=202)
async def enqueue(data: JSONBody[Picture], jobs: NamedDependency[Queue]) -> dict[str, str]:
    handle = await jobs.enqueue(resize, data)
    return {"job": handle.id}


@get("/jobs/{job_id:str}")
async def show(job_id: FromPath[str], jobs: NamedDependency[Queue]) -> dict[str, str | None]:
    info = await jobs.get_job(job_id)
    if info is None:
        raise NotFoundException
    return {"status": info.status, "result": info.result}


@asynccontextmanager
async def lifespan(_: Litestar) -> AsyncIterator[None]:
    async with queue:
        queue.process()
        yield


app = Litestar(
    [enqueue, show],
    lifespan=[lifespan],
    dependencies={"jobs": Provide(lambda: queue, sync_to_thread=False)},
)


def main() -> None:
    from litestar.testing import TestClient

    with TestClient(app) as client:
        job = client.post("/pictures", json={"path": "cat.png", "width": 64}).json()["job"]
        while (told := client.get(f"/jobs/{job}").json())["status"] != "completed":
            pass
        print(told["result"])


if __name__ == "__main__":
    main()
