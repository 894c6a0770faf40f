"""Background jobs in a FastAPI app: a queue for its lifespan, and a dependency that gives it.

    uvicorn fastapi_app:app             # then: curl -X POST localhost:8000/welcome/ada
    python fastapi_app.py               # the same, asked by a test client

The worker runs inside the app here. To run it elsewhere, leave `process()` out and start
`jobmill worker fastapi_app.py`: both open the same file.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request
from pydantic import BaseModel, Field

from jobmill import JobContext, Queue, create_queue, define_job

queue = create_queue("sqlite:///jobs.db")


class Welcome(BaseModel):
    """The body of the request, and the payload of the job."""

    name: str = Field(min_length=1, max_length=50)
    language: str = "en"


@define_job(name="welcome", retries=3, timeout=30)
async def welcome(ctx: JobContext[Welcome]) -> str:
    await ctx.update_progress(50, "writing")
    return f"Welcome, {ctx.payload.name}!"


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with queue:
        app.state.queue = queue
        queue.process()
        yield


def the_queue(request: Request) -> Queue:
    jobs: Queue = request.app.state.queue
    return jobs


Jobs = Annotated[Queue, Depends(the_queue)]
app = FastAPI(lifespan=lifespan)


@app.post("/welcome", status_code=202)
async def enqueue(body: Welcome, jobs: Jobs) -> dict[str, str]:
    handle = await jobs.enqueue(welcome, body)
    return {"job": handle.id}


@app.get("/jobs/{job_id}")
async def show(job_id: str, jobs: Jobs) -> dict[str, object]:
    info = await jobs.get_job(job_id)
    if info is None:
        raise HTTPException(404, "there is no such job")
    return {"status": info.status, "progress": info.progress, "result": info.result}


def main() -> None:
    from fastapi.testclient import TestClient

    with TestClient(app) as client:
        refused = client.post("/welcome", json={"name": ""})
        print("without a name:", refused.status_code)
        job = client.post("/welcome", json={"name": "Ada"}).json()["job"]
        while (told := client.get(f"/jobs/{job}").json())["status"] != "completed":
            pass
        print(told["status"], told["progress"], told["result"])


if __name__ == "__main__":
    main()
