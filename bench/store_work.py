"""The life of many jobs by a store alone, without a queue or a worker."""

from __future__ import annotations

import itertools
import secrets
import time

from bench.bare import BATCH, THOUSAND
from jobmill.ids import JobIds
from jobmill.policy import Policy
from jobmill.states import Move
from jobmill.store import NewJob, Store, Want


async def add(store: Store, jobs: int) -> None:
    """Add so many jobs, by thousands."""
    new_id = JobIds(time.time, secrets.randbits)
    new = [
        NewJob(id=new_id(), name="bench", payload=b'{"number":%d}' % number, policy=Policy())
        for number in range(jobs)
    ]
    for start in range(0, jobs, THOUSAND):
        await store.add(new[start : start + THOUSAND], wake=False)


async def work(store: Store, jobs: int) -> None:
    """Claim all of them and settle them, by hundreds."""
    moves: list[Move] = []
    done = 0
    for number in itertools.count():
        want = Want(worker="bench", token=f"bench.{number}", limit=BATCH, lease=30.0)
        claims = (await store.claim(want, moves)).claims
        moves = [
            Move(event="succeed", job_id=each.id, token=each.token, result=b"null")
            for each in claims
        ]
        done += len(claims)
        if not claims:
            break
    ended = (await store.counts()).states
    assert done == jobs, done
    assert ended == {"completed": jobs}, ended
