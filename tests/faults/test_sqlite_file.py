"""What befalls the file of an SQLite queue: locks, rights, a full disk, a kill in a commit."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import sqlite3
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from jobmill import Queue, StoreUnavailable, create_queue
from tests.faults.checked import assert_invariants
from tests.faults.jobs import Gate, Work, hold, work
from tests.faults.places import SQLitePlace, locked
from tests.faults.processes import Process, Processes, comes_true, eventually
from tests.faults.producer_app import read_answers
from tests.faults.witness import Witness

pytestmark = pytest.mark.store("sqlite")

NOBODY = 65534


@pytest.fixture
def place() -> Iterator[SQLitePlace]:
    with SQLitePlace.made() as made:
        yield made


@contextlib.contextmanager
def full_disk(pid: int, largest: int) -> Iterator[None]:
    """Let the process write no file beyond that size."""
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (largest, resource.RLIM_INFINITY))
    yield
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@pytest.mark.parametrize("ends", ["while locked", "after"])
async def test_a_worker_outlasts_a_locked_file(
    queue: Queue,
    place: SQLitePlace,
    processes: Processes,
    gate: Gate,
    ends: str,
) -> None:
    witness = processes.witness
    worker = processes.worker(lease=1.0)
    handle = await queue.enqueue(hold, gate)
    await eventually(lambda: witness.of("start"), "the start")
    with locked(place.path):
        # Longer than the lease, and than a locked file is tried again.
        with pytest.raises(StoreUnavailable) as caught:
            await queue.enqueue(work, Work(), job_id="refused")
        assert caught.value.job_ids == ("refused",)
        assert "locked" in str(caught.value)
        if ends == "while locked":
            gate.open()
            await eventually(lambda: witness.of("end"), "the end")
        await eventually(lambda: "cannot be reached" in worker.log, "the worker's trouble")
    again = await queue.enqueue(work, Work(), job_id="refused")
    assert await again.result(timeout=40) == worker.pid
    gate.open()
    assert await handle.result(timeout=40) == worker.pid
    info = await handle.info()
    assert (info.attempts, info.lapses) == (1, 0)
    assert witness.starts() == Counter([handle.id, "refused"])


async def test_a_worker_outlasts_a_full_disk(
    queue: Queue, place: SQLitePlace, processes: Processes, witness: Witness, gate: Gate
) -> None:
    # Whatever the worker writes from here on lies beyond the limit.
    ballast = Work(ballast="x" * 500_000)
    worker = processes.worker(lease=30.0)
    for _ in range(2):
        await (await queue.enqueue(work, ballast)).result(timeout=40)
    handle = await queue.enqueue(hold, gate)
    await eventually(lambda: witness.of("start", job=handle.id), "the start")
    with full_disk(worker.pid, 200_000):
        gate.open()
        await eventually(lambda: witness.of("end", job=handle.id), "the end")
        await eventually(lambda: "cannot be reached" in worker.log, "the worker's trouble")
        info = await handle.info()
        assert info.status == "processing"
    assert await handle.result(timeout=40) == worker.pid
    assert len(witness.of("start", job=handle.id)) == 1
    assert worker.alive
    assert await (await queue.enqueue(work, Work())).result(timeout=40) == worker.pid


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, that is soon full."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "jobmill", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False).returncode:
        # What follows for a worker and a producer is seen by the limits of the other tests, too.
        pytest.skip("file systems cannot be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


async def test_a_file_system_without_space_holds_up_and_loses_nothing(
    small_disk: Path, tmp_path: Path, witness: Witness, gate: Gate
) -> None:
    place, ballast = SQLitePlace(small_disk), small_disk / "ballast"
    with Processes(place.url, tmp_path, witness) as processes:
        async with create_queue(place.url, poll_interval=0.2) as queue:
            worker = processes.worker(lease=30.0)
            handle = await queue.enqueue(hold, gate)
            await eventually(lambda: witness.of("start", job=handle.id), "the start")
            # What the journal has room for is used up, then the disk.
            with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
                while True:
                    file.write(b"x" * 4_096)
            named: Sequence[str] = ()
            refused, accepted = "", [handle]
            for n in range(1_000):
                try:
                    made = await queue.enqueue(work, Work(ballast="x" * 2_000), job_id=f"j{n}")
                    accepted.append(made)
                except StoreUnavailable as error:
                    named, refused = error.job_ids, str(error)
                    break
            assert "space" in refused
            assert list(named) == [f"j{len(accepted) - 1}"]
            gate.open()
            await eventually(lambda: witness.of("end", job=handle.id), "the end")
            await eventually(partial(_is_in_trouble, worker), "the worker's trouble")
            ballast.unlink()
            for each in accepted:
                assert await each.result(timeout=40) == worker.pid
            await assert_invariants(queue, witness, [each.id for each in accepted])
            assert set(witness.starts().values()) == {1}
            assert {info.id for info in (await queue.list_jobs(limit=1_000)).jobs} == {
                each.id for each in accepted
            }
            assert worker.alive
        with closing(sqlite3.connect(place.path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_enqueue_never_lies_on_a_full_disk(
    queue: Queue, processes: Processes, tmp_path: Path
) -> None:
    start, answers = tmp_path / "start", tmp_path / "answers.jsonl"
    producer = processes.producer(answers, count=60, ballast=20_000, start=start)
    with full_disk(producer.pid, 600_000):
        start.touch()
        await eventually(
            lambda: [answer for answer in read_answers(answers) if answer.error], "a refusal"
        )
    assert await producer.ends() == 0
    given = read_answers(answers)
    accepted = {answer.id for answer in given if answer.id}
    refused = {job for answer in given for job in answer.job_ids}
    assert len(accepted) + len(refused) == 60
    page = await queue.list_jobs(limit=100)
    assert {info.id for info in page.jobs} == accepted

    resent = await queue.enqueue(work, Work(), job_id=next(iter(refused)))
    assert not resent.deduplicated


async def test_a_read_only_file_is_a_clear_error_and_loses_nothing() -> None:
    # Not in pytest's folder: each start of pytest bars it to the user "nobody".
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)  # noqa: ASYNC240
        witness = Witness(folder / "witness.jsonl")
        witness.path.touch()
        witness.path.chmod(0o666)
        place = SQLitePlace(folder)
        with Processes(place.url, folder, witness) as processes:
            async with create_queue(place.url) as queue:
                handle = await queue.enqueue(work, Work())
            place.path.chmod(0o444)
            barred = processes.worker(user=NOBODY if os.geteuid() == 0 else None)
            assert await barred.ends() != 0
            assert f"ConfigError: the file {place.path} cannot be written" in barred.log

            place.path.chmod(0o644)
            worker = processes.worker()
            async with create_queue(place.url) as queue:
                await comes_true(partial(_is_completed, queue, handle.id), "the job completed")
            assert [line.pid for line in witness.of("start")] == [worker.pid]


async def _is_completed(queue: Queue, job_id: str) -> bool:
    info = await queue.get_job(job_id)
    return info is not None and info.status == "completed"


def _are_given(answers: Path, enough: int) -> bool:
    return len(read_answers(answers)) > enough


async def test_kill_9_in_commit_loses_nothing_that_was_answered(
    place: SQLitePlace, processes: Processes, witness: Witness, tmp_path: Path
) -> None:
    answers = tmp_path / "answers.jsonl"
    known = 0
    for times in range(6):
        # In turn: commits of one job each, and commits that many calls share.
        producer = processes.producer(answers, count=3_000, together=1 + 49 * (times % 2))
        enough = known + 20
        await eventually(partial(_are_given, answers, enough), "more answers")
        producer.kill()
        known = len(read_answers(answers))
        with closing(sqlite3.connect(place.path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)

    accepted = {answer.id for answer in read_answers(answers)}
    async with create_queue(place.url) as queue:
        stored = (await queue.stats()).total
        for each in accepted:
            info = await queue.get_job(each)
            assert info is not None
            assert info.status == "pending"
        # Beyond the answered ones: at most what was being asked at each kill.
        assert len(accepted) <= stored <= len(accepted) + 3 + 3 * 50

        processes.worker(concurrency=50, lease=30.0)

        async def all_completed() -> bool:
            return (await queue.stats()).completed == stored

        await comes_true(all_completed, "all completed")
    assert set(witness.starts()) >= accepted
    assert set(witness.starts().values()) == {1}


def _is_in_trouble(worker: Process) -> bool:
    return "cannot be reached" in worker.log


async def test_workers_that_outlast_a_lock_do_not_rob_each_other(
    queue: Queue, place: SQLitePlace, processes: Processes, witness: Witness, gate: Gate
) -> None:
    # The file is locked for longer; each lease holds until then on a machine that is busy.
    workers = [processes.worker(lease=3.0, concurrency=2) for _ in range(3)]
    handles = [await queue.enqueue(hold, gate) for _ in range(5)]
    await eventually(lambda: len(witness.of("start")) == 5, "five starts")
    with locked(place.path):
        for each in workers:
            await eventually(partial(_is_in_trouble, each), "trouble")
    gate.open()
    for handle in handles:
        await handle.result(timeout=40)
    assert [(await handle.info()).lapses for handle in handles] == [0] * len(handles)
    assert set(witness.starts().values()) == {1}
