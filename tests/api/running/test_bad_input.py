"""P10: what goes bad later never blocks the queue, burns attempts or kills a worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from jobmill import JobContext, JobHooks, Worker
from jobmill.feed import Feed
from jobmill.policy import Policy
from jobmill.queue import Queue
from jobmill.run import Run
from jobmill.states import Claim, Move
from jobmill.store import NewJob, Want
from tests.api.running.kit import Shifted, define, ended, fresh, record_of, until


async def put(queue: Queue, name: str, payload: bytes, **fields: Any) -> str:
    """Write a job straight into the store, as another program might."""
    job_id = fresh("id")
    store = queue.store.handle()
    await store.open()
    policy = fields.pop("policy", Policy())
    await store.add([NewJob(id=job_id, name=name, payload=payload, policy=policy, **fields)])
    await store.close()
    return job_id


CLOCK = 0.001
"""Seconds that an instant may be off for the digits that a store keeps."""


async def _probe(ctx: JobContext[Any]) -> str:
    return "alive"


async def still_works(queue: Queue) -> None:
    assert await (await queue.enqueue(define(_probe))).result(30) == "alive"


async def test_an_unknown_job_is_put_off_unspent_and_longer_each_time(make_queue: Any) -> None:
    clock = Shifted()
    queue: Queue = make_queue(clock=clock, concurrency=1)
    worker = queue.process()
    (feed,) = await until(lambda: worker._feeds)
    last = clock.wall()
    job_id = await put(queue, "other.release", b"{}")
    for delay in (5, 10, 20, 40, 80, 160, 300, 300, 300):

        async def put_off(last: float = last) -> bool:
            record = await record_of(queue, job_id)
            return record.state == "delayed" and record.run_at > last + 1

        await until(put_off)
        record = await record_of(queue, job_id)
        assert (record.state, record.attempts, record.errors) == ("delayed", 0, ())
        # It was put off between the instant when it was due and this one.
        assert last <= record.run_at - delay + CLOCK
        assert record.run_at - delay <= clock.wall() + CLOCK
        last = record.run_at
        clock.by += record.run_at - clock.wall() + 0.001
    assert feed.runner.unknown["other.release"] >= 9
    await still_works(queue)


async def test_an_unknown_job_fails_after_a_day(make_queue: Any) -> None:
    clock = Shifted()
    queue: Queue = make_queue(clock=clock)
    queue.process()
    job_id = await put(queue, "other.release", b"{}")

    async def put_off() -> bool:
        record = await record_of(queue, job_id)
        return record.state == "delayed" and record.memo is not None

    await until(put_off)
    clock.by += 86_000
    last = (await record_of(queue, job_id)).memo

    async def put_off_again() -> bool:
        return (await record_of(queue, job_id)).memo != last

    await until(put_off_again)
    assert (await record_of(queue, job_id)).state == "delayed"
    clock.by += 500
    info = await ended(queue, job_id)
    assert info.status == "failed"
    assert info.error is not None
    assert info.error.type == "UnknownJob"
    assert "other.release" in info.error.message


async def test_an_unknown_job_runs_once_its_name_is_known(make_queue: Any) -> None:
    clock = Shifted()
    queue: Queue = make_queue(clock=clock)
    name = fresh("late")
    queue.process()
    job_id = await put(queue, name, b"7")

    async def put_off() -> bool:
        return (await record_of(queue, job_id)).state == "delayed"

    await until(put_off)

    async def handler(ctx: JobContext[Any]) -> Any:
        return [ctx.payload, ctx.attempt]

    define(handler, name=name)
    clock.by += 6
    info = await ended(queue, job_id)
    assert (info.result, info.attempts) == ([7, 1], 1)


@pytest.mark.parametrize(
    "payload", [b"", b"{", b"\xff\xfe", b"null", b'{"to": 3}', b"[" * 5000, b"\x80\x04K\x01."]
)
async def test_a_payload_that_does_not_decode_fails_at_once_with_its_bytes_kept(
    queue: Queue, payload: bytes
) -> None:
    ran: list[Any] = []

    async def handler(ctx: JobContext[dict[str, str]]) -> None:
        ran.append(ctx.payload)

    job = define(handler, retries=5)
    queue.process()
    info = await ended(queue, await put(queue, job.name, payload))
    assert (info.status, info.attempts) == ("failed", 1)
    assert info.error is not None
    assert info.error.type == "PayloadError"
    assert (await record_of(queue, info.id)).payload == payload
    assert ran == []
    await still_works(queue)


@pytest.mark.parametrize(
    "fields",
    [
        {"name": ""},
        {"name": "../../etc/passwd"},
        {"name": "os.system"},
        {"name": "x" * 10_000},
        {"priority": 2**31 - 1},
        {"metadata": {"a" * 1000: "\x00"}},
        {"run_at": -1e9},
        {"policy": Policy(max_attempts=1, timeout=1e-9)},
        {"policy": Policy(retry_delay=1e300, max_retry_delay=1e300)},
        {"policy": Policy(max_lapses=0)},
        {"policy": Policy(abort_grace=1e9)},
    ],
    ids=lambda fields: next(iter(fields)),
)
async def test_a_hostile_record_never_blocks_the_queue(
    make_queue: Any, fields: dict[str, Any]
) -> None:
    queue: Queue = make_queue(concurrency=1)

    async def handler(ctx: JobContext[Any]) -> None:
        raise ValueError

    job = define(handler)
    await put(queue, **{"name": job.name, "payload": b"{}", **fields})
    queue.process()
    await still_works(queue)


async def test_a_hostile_memo_never_blocks_the_queue(make_queue: Any) -> None:
    clock = Shifted()
    queue: Queue = make_queue(clock=clock)
    store = queue.store.handle()
    await store.open()
    for memo in (b"\xff", b'{"unknown_since": 1e308, "times": -5}', b'{"unknown_since":"x"}'):
        job_id = await put(queue, "other.release", b"{}")
        claimed = await store.claim(Want(worker="w", token=fresh("token"), limit=1, lease=30))
        (claim,) = claimed.claims
        assert claim.id == job_id
        await store.move([Move(event="snooze", job_id=job_id, token=claim.token, memo=memo)])
        worker = queue.process()
        await until(lambda: worker._feeds)  # noqa: B023  at once

        async def put_off(job_id: str = job_id) -> bool:
            record = await record_of(queue, job_id)
            return record.state == "delayed" and record.run_at > clock.wall() + 3

        await until(put_off)
        await queue.shutdown(timeout=0)
    await store.close()


class _Exits(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


class _Worse(Exception):
    @property
    def __notes__(self) -> list[str]:  # type: ignore[override]
        raise SystemExit(3)


@dataclass
class _Bad:
    n: int

    def __post_init__(self) -> None:
        if self.n == 7:
            raise SystemExit(3)


@pytest.mark.parametrize("kind", [_Exits, _Worse])
async def test_an_error_that_exits_when_it_is_shown_costs_no_slot(
    make_queue: Any, kind: type[Exception]
) -> None:
    queue: Queue = make_queue(concurrency=1)

    async def handler(ctx: JobContext[Any]) -> None:
        raise kind

    queue.process()
    info = await ended(queue, await queue.enqueue(define(handler, retries=1)))
    assert (info.status, info.attempts, len(info.errors)) == ("failed", 2, 2)
    assert info.error is not None
    assert info.error.type == kind.__name__
    await still_works(queue)


@pytest.mark.parametrize("kind", [_Exits, _Worse])
async def test_a_hook_that_raises_such_an_error_changes_nothing(
    make_queue: Any, kind: type[Exception]
) -> None:
    queue: Queue = make_queue(concurrency=1)

    def hook(ctx: JobContext[Any], *args: Any) -> None:
        raise kind

    queue.process()
    hooks = JobHooks(after_run=hook, on_finally=hook)
    assert await (await queue.enqueue(define(_probe, hooks=hooks))).result(30) == "alive"
    await still_works(queue)


async def test_a_payload_that_exits_while_it_is_decoded_costs_no_slot(make_queue: Any) -> None:
    queue: Queue = make_queue(concurrency=1)

    async def handler(ctx: JobContext[_Bad]) -> None: ...

    job = define(handler, retries=1)
    queue.process()
    job_id = await put(queue, job.name, b'{"n": 7}', policy=Policy(max_attempts=1))
    info = await ended(queue, job_id)
    assert info.status == "failed"
    assert info.error is not None
    assert info.error.type == "SystemExit"
    await still_works(queue)


async def test_a_run_that_breaks_off_frees_its_slot(
    make_queue: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    queue: Queue = make_queue(concurrency=1)
    execute = Worker._execute
    broken: list[Run] = []

    async def breaks(worker: Worker, feed: Feed, run: Run) -> None:
        if not broken:
            broken.append(run)
            raise MemoryError
        await execute(worker, feed, run)

    monkeypatch.setattr(Worker, "_execute", breaks)
    queue.process()
    info = await ended(queue, await queue.enqueue(define(_probe, retries=0)))
    assert info.status == "failed"
    assert info.error is not None
    assert "broke off: MemoryError" in info.error.message
    assert "broke off" in caplog.text
    await still_works(queue)


async def test_a_run_that_is_cancelled_before_its_first_step_is_handed_back(
    make_queue: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue: Queue = make_queue(concurrency=1)
    start = Worker._start
    cut: list[Run] = []

    def starts(worker: Worker, feed: Feed, claim: Claim, claimed_at: float) -> None:
        start(worker, feed, claim, claimed_at)
        run = feed.held[claim.id]
        if not cut and run.asyncio_task is not None:
            cut.append(run)
            run.asyncio_task.cancel()

    monkeypatch.setattr(Worker, "_start", starts)
    queue.process()
    assert await (await queue.enqueue(define(_probe))).result(30) == "alive"
    assert len(cut) == 1
