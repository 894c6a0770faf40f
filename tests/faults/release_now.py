"""The same program's jobs as they are now: another payload, and a job that is new."""

from __future__ import annotations

from dataclasses import dataclass

from jobmill import JobContext, define_job
from tests.faults.witness import say


@dataclass(frozen=True, slots=True)
class Name:
    first: str
    last: str


@define_job(name="faults.greet")
async def greet(ctx: JobContext[Name]) -> str:
    say("start", ctx.job_id, ctx.attempt)
    return f"Dear {ctx.payload.first} {ctx.payload.last}"


@define_job(name="faults.farewell")
async def farewell(ctx: JobContext[Name]) -> str:
    say("start", ctx.job_id, ctx.attempt)
    return f"Farewell {ctx.payload.first}"
