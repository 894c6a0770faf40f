"""A store in which something of each kind is there: what the pages of the tests show.

It is written by the store's own verbs, some of it an hour back, and by no worker: so each page
shows the same each time. The same serves for the screens of the README.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from jobmill import Queue
from jobmill.plans import SCHEDULES
from jobmill.policy import Policy
from jobmill.records import JobError, cancellation
from jobmill.roster import WORKERS, Entry, Running, encode_entry
from jobmill.schedule import (
    Entry as TickEntry,
    Outcome,
    Plan,
    created,
    encode_plan,
    entry_value,
    tick_key,
)
from jobmill.states import (
    Claim,
    Failure,
    Move,
    Note,
    after_cancel,
    after_failure,
    after_lapse,
    after_success,
)
from jobmill.store import Lease, NewJob, Store, Want

LEASE = 7_200.0
POLICY = Policy(max_attempts=3, timeout=30.0)
ONCE = Policy(max_attempts=1)
CLOSED = ("SMTPServerDisconnected", "Connection unexpectedly closed")


@dataclass
class Seeded:
    """The ids of the jobs that tests look for."""

    completed: str = ""
    failed: str = ""
    processing: str = ""
    delayed: str = ""
    retried: str = ""
    pending: str = ""
    cancelled: str = ""
    logged: str = ""
    all: list[str] = field(default_factory=list)


class Seeder:
    """Writes into one queue. `now`: the store's, at the end of what is written."""

    def __init__(self, store: Store, now: float, names: str) -> None:
        self.store = store
        self.now = now
        self._number = 0
        self._names = names
        self._random = random.Random(7)

    def new(self, name: str, payload: object, **more: object) -> NewJob:
        """A job with an id that is told from others."""
        self._number += 1
        identifier = f"0193c2aa-7c1e-7b40-{self._names}-{self._number:012x}"
        values = {"policy": POLICY, **more}
        return msgspec.convert(
            {"id": identifier, "name": name, "payload": msgspec.json.encode(payload), **values},
            NewJob,
        )

    async def run(self, job: NewJob, at: float, seconds: float = 0.0) -> Claim:
        """The job added at an instant, and claimed a little later."""
        await self.store.add([job], now=at)
        return await self.claim(job.name, at + seconds)

    async def claim(self, name: str, at: float, worker: str = "web-1:4711") -> Claim:
        """The next job of a name, as a worker claims it."""
        self._number += 1
        token = f"seed-{self._names}:{self._number}"
        want = Want(worker=worker, token=token, limit=1, lease=LEASE, names=(name,))
        return (await self.store.claim(want, now=at)).claims[0]

    async def move(self, move: Move, at: float) -> None:
        """How a run ended."""
        (moved,) = await self.store.move([move], now=at)
        assert moved.status == "applied", (move, moved)


TRACEBACK = """\
Traceback (most recent call last):
  File "/srv/shop/{file}.py", line 41, in {function}
    await {call}
  File "/srv/shop/net.py", line 112, in ask
    raise {type}({message!r})
{type}: {message}
"""


def failure(claim: Claim, at: float, kind: str, message: str) -> Failure:
    """What is kept of an error, as a worker would have written it."""
    trace = TRACEBACK.format(
        file=claim.name, function="handle", call="ask(payload)", type=kind, message=message
    )
    moment = datetime.fromtimestamp(at, UTC)
    error = JobError(kind, "shop.net", message, trace, claim.attempt, moment)
    return Failure(error=error.to_json(), fingerprint=f"{claim.name}-{kind}".lower())


async def seed(queue: Queue, *, hour: int = 0, names: str = "9d20") -> Seeded:
    """Fill the queue. `hour`: how many jobs a minute there were in the hour before now."""

    async def write(store: Store) -> Seeded:
        now = (await store.counts()).now
        seeder = Seeder(store, now, names)
        for minute in range(58 if hour else 0):
            await _minute(seeder, (now // 60 - 60 + minute) * 60.0 + 20.0, hour)
        found = await _each_kind(seeder, now)
        await _fleet(seeder, now, found.processing)
        await _calendar(store, now)
        return found

    return await queue.ask(write)


async def _minute(seeder: Seeder, at: float, count: int) -> None:
    chance = random.Random(at)
    is_bad = 24 <= (seeder.now - at) / 60 <= 31
    jobs: list[NewJob] = []
    failing: dict[str, bool] = {}
    """Which fail, and whether they are tried again."""
    for index in range(max(1, round(chance.gauss(count, count / 7)))):
        name = chance.choice(["send_email", "send_email", "resize", "sync_crm"])
        fails = chance.random() < (0.24 if is_bad and name == "send_email" else 0.008)
        again = chance.random() < 0.5
        policy = ONCE if fails and not again else POLICY
        jobs.append(seeder.new(name, {"n": index}, policy=policy))
        if fails:
            failing[jobs[-1].id] = again
    await seeder.store.add(jobs, now=at)
    want = Want(worker="web-1:4711", token=f"hour-{at}", limit=len(jobs), lease=LEASE)
    claims = (await seeder.store.claim(want, now=at + chance.random() / 8)).claims
    moves: list[Move] = []
    for claim in claims:
        if claim.id in failing:
            why = failure(claim, at + 1, *CLOSED)
            moves.append(after_failure(claim, why, retryable=failing[claim.id], delay=9e4))
        else:
            moves.append(after_success(claim, b"null"))
    await seeder.store.move(moves, now=at + 0.2 + chance.random())


async def _each_kind(seeder: Seeder, now: float) -> Seeded:
    found = Seeded()
    store = seeder.store

    job = seeder.new("send_email", {"to": "ada@example.com", "subject": "Welcome"})
    claim = await seeder.run(job, now - 300, 0.02)
    await seeder.move(after_success(claim, b'"sent to ada@example.com"'), now - 299.6)
    found.completed = job.id

    job = seeder.new(
        "send_email",
        {"to": "grace@example.com", "subject": "Invoice 42", "smtp": {"password": "hunter2"}},
        metadata={"tenant": "acme"},
    )
    claim = await seeder.run(job, now - 280)
    for attempt in range(3):
        at = now - 279 + 10 * attempt
        why = failure(claim, at, *CLOSED)
        await seeder.move(after_failure(claim, why, retryable=True, delay=5.0), at)
        if attempt < 2:
            claim = await seeder.claim("send_email", at + 6)
    found.failed = job.id

    job = seeder.new("build_report", {"customer": 7}, policy=ONCE)
    claim = await seeder.run(job, now - 240)
    why = failure(claim, now - 239, "CustomerGone", "customer 7 is gone")
    await seeder.move(after_failure(claim, why, retryable=True, delay=1.0), now - 239)

    job = seeder.new("sync_crm", {"since": "2026-11-01"})
    claim = await seeder.run(job, now - 120)
    why = failure(claim, now - 110, "TimeoutError", "no answer within 10 s")
    await seeder.move(after_failure(claim, why, retryable=True, delay=86_000.0), now - 110)
    found.retried = job.id

    job = seeder.new("send_reminder", {"to": "alan@example.com"}, delay=172_800.0)
    await store.add([job], now=now - 100)
    found.delayed = job.id

    job = seeder.new(
        "import_products", {"file": "spring.csv"}, unique_key="spring.csv", priority=-5
    )
    await store.add(
        [job, *[seeder.new("import_products", {"file": f"{n}.csv"}) for n in range(5)]],
        now=now - 83,
    )
    found.pending = job.id

    job = seeder.new("resize", {"path": "a.png", "width": 640})
    await store.add([job], now=now - 70)
    claim = await seeder.claim("resize", now - 69)
    why = Failure(error=cancellation("no longer needed"))
    await seeder.move(after_cancel(claim, why), now - 60)
    found.cancelled = job.id

    job = seeder.new("poison", {"bytes": 10**9})
    claim = await seeder.run(job, now - 60)
    why = failure(claim, now - 55, "LeaseLapsed", "its worker died")
    await seeder.move(after_lapse(claim, why), now - 55)

    job = seeder.new("crunch", {"chapters": 100})
    claim = await seeder.run(job, now - 40, 0.3)
    lines = [
        (
            index,
            msgspec.json.encode({"message": f"chapter {index} is read", "at": now - 30 + index}),
        )
        for index in range(1, 5)
    ]
    note = Note(progress=42.0, progress_note="chapter 42 of 100", lines=tuple(lines))
    await store.renew([Lease(job.id, claim.token)], LEASE, {job.id: note}, now=now - 20)
    found.processing = found.logged = job.id
    return found


async def _fleet(seeder: Seeder, now: float, crunching: str) -> None:
    every = 600.0
    running = Running(id=crunching, name="crunch", since=now - 39)
    entries = {
        "web-1:4711": Entry(
            host="web-1",
            pid=4711,
            version="0.1.0",
            queues=("default",),
            slots=10,
            every=every,
            up=86_400.0,
            busy=1,
            memory=41_287_680,
            running=(running,),
        ),
        "web-2:4712": Entry(
            host="web-2",
            pid=4712,
            version="0.1.0",
            queues=("default",),
            slots=10,
            every=every,
            up=600.0,
            busy=0,
            memory=39_000_000,
            blocked=7.2,
            blocked_by="build_report",
        ),
    }
    for key, entry in entries.items():
        await seeder.store.write(WORKERS, key, encode_entry(entry))


async def _calendar(store: Store, now: float) -> None:
    digest = Plan(
        id="p1",
        job="send_digest",
        payload=msgspec.Raw(b'{"to":"all"}'),
        policy=POLICY,
        cron="30 2 1,15 * *",
        timezone="America/New_York",
        allow_concurrent=False,
    )
    beat = Plan(
        id="p2", job="ping", payload=msgspec.Raw(b"null"), policy=POLICY, cron="*/5 * * * *"
    )
    still = Plan(
        id="p3",
        job="send_invoices",
        payload=msgspec.Raw(b"null"),
        policy=POLICY,
        cron="0 0 1 * *",
        timezone="Europe/Berlin",
        paused=True,
    )
    plans = {"daily_digest": digest, "heartbeat": beat, "monthly_invoices": still}
    for name, plan in plans.items():
        fresh = created(plan, now, at_once=False)
        fresh = msgspec.structs.replace(fresh, runs=381, last_run=now - 3_000)
        if plan.paused:
            fresh = msgspec.structs.replace(fresh, next_run=None)
        await store.write(SCHEDULES, name, encode_plan(fresh), version=0)
        version = next(doc for doc in await store.read(SCHEDULES) if doc.key == name).version
        outcomes: tuple[Outcome, ...] = ("fired", "skipped", "missed", "fired")
        entries = [
            (
                tick_key(now - 86_400 * (4 - index)),
                entry_value(
                    TickEntry(outcome=outcome, job_id=None if outcome == "missed" else "gone-1")
                ),
            )
            for index, outcome in enumerate(outcomes)
        ]
        await store.tick(name, version, encode_plan(fresh), entries, ())
