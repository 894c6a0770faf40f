"""Jobs of a program as they were one release ago."""

from __future__ import annotations

from dataclasses import dataclass

from jobmill import JobContext, define_job
from tests.faults.witness import say


@dataclass(frozen=True, slots=True)
class Name:
    full: str


@define_job(name="faults.greet")
async def greet(ctx: JobContext[Name]) -> str:
    say("start", ctx.job_id, ctx.attempt)
    return f"Dear {ctx.payload.full}"
