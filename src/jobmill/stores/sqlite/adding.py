"""`add`: store jobs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from jobmill.policy import encode_policy
from jobmill.states import State
from jobmill.store import Added, NewJob
from jobmill.stores.sqlite.turn import Turn


def add(turn: Turn, jobs: Sequence[NewJob], *, wake: bool, whole: bool = False) -> list[Added]:
    """Store jobs, one answer for each; with `whole`, none where one is a conflict."""
    sql = turn.sql("add")
    there = {
        job_id: (name, payload)
        for job_id, name, payload in turn.among(sql["there"], (turn.queue,), [j.id for j in jobs])
    }
    holders: dict[tuple[str, str], str | None] = {}
    fresh: dict[str, NewJob] = {}
    answers: list[Added] = []
    for job in jobs:
        answer = _look(turn, job, there, holders)
        answers.append(answer)
        if answer.status == "added":
            fresh[job.id] = job
            there[job.id] = job.name, job.payload
            if job.unique_key is not None:
                holders[job.name, job.unique_key] = job.id
    if whole and any(answer.status == "conflict" for answer in answers):
        return [
            Added("dropped", job.id)
            if answer.status != "conflict" and answer.job_id in fresh
            else answer
            for job, answer in zip(jobs, answers, strict=True)
        ]
    if fresh:
        turn.executemany(sql["insert"], [_row(turn, job) for job in fresh.values()])
        if wake:
            turn.tell_jobs()
    return answers


def _look(
    turn: Turn,
    job: NewJob,
    there: dict[str, tuple[str, bytes]],
    holders: dict[tuple[str, str], str | None],
) -> Added:
    known = there.get(job.id)
    if known is not None:
        return Added("same" if known == (job.name, job.payload) else "conflict", job.id)
    if job.unique_key is None:
        return Added("added", job.id)
    key = job.name, job.unique_key
    if key not in holders:
        holders[key] = holder_of(turn, *key)
    holder = holders[key]
    return Added("added", job.id) if holder is None else Added("held", holder)


def holder_of(turn: Turn, name: str, unique_key: str) -> str | None:
    """The unfinished job that holds this key."""
    row = turn.execute(turn.sql("add")["holder"], (turn.queue, name, unique_key)).fetchone()
    return None if row is None else row[0]


def _row(turn: Turn, job: NewJob) -> tuple[Any, ...]:
    now = turn.now
    run_at = now + job.delay if job.delay is not None else job.run_at
    due = run_at is None or run_at <= now
    state: State = "pending" if due else "delayed"
    turn.count(job.name, state, 1)
    return (
        turn.queue,
        job.id,
        job.name,
        state,
        job.priority,
        now if due else run_at,
        now,
        job.unique_key,
        encode_policy(job.policy),
        msgspec.json.encode(job.metadata) if job.metadata else None,
        job.payload,
    )
