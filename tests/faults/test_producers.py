"""Programs that enqueue the same at the same time (P1, P6)."""

from __future__ import annotations

from pathlib import Path

from jobmill import Queue
from tests.faults.processes import Processes, comes_true
from tests.faults.producer_app import read_answers
from tests.faults.witness import Witness

PRODUCERS = 10
TIMES = 20


async def test_ten_producers_with_one_unique_key(
    queue: Queue, processes: Processes, witness: Witness, tmp_path: Path
) -> None:
    start, answers = tmp_path / "start", tmp_path / "answers.jsonl"
    many = [
        processes.producer(answers, count=TIMES, unique_key="one", start=start)
        for _ in range(PRODUCERS)
    ]
    start.touch()
    for each in many:
        assert await each.ends() == 0
    all_answers = read_answers(answers)
    assert len(all_answers) == PRODUCERS * TIMES
    assert not [answer for answer in all_answers if answer.error]
    assert len({answer.id for answer in all_answers}) == 1
    assert [answer.deduplicated for answer in all_answers].count(False) == 1
    assert (await queue.stats()).total == 1

    # The key is free again when its job has ended.
    processes.worker()

    async def completed() -> bool:
        return (await queue.stats()).completed == 1

    await comes_true(completed, "the job completed")
    assert list(witness.starts().values()) == [1]
    again = processes.producer(answers, unique_key="one")
    assert await again.ends() == 0
    assert not read_answers(answers)[-1].deduplicated


async def test_ten_producers_with_one_job_id(
    queue: Queue, processes: Processes, witness: Witness, tmp_path: Path
) -> None:
    start, answers = tmp_path / "start", tmp_path / "answers.jsonl"
    processes.worker()
    many = [
        processes.producer(answers, count=TIMES, job_id="the-one", start=start)
        for _ in range(PRODUCERS)
    ]
    start.touch()
    for each in many:
        assert await each.ends() == 0
    all_answers = read_answers(answers)
    assert len(all_answers) == PRODUCERS * TIMES
    assert {(answer.id, answer.error) for answer in all_answers} == {("the-one", "")}
    assert [answer.deduplicated for answer in all_answers].count(False) == 1

    async def completed() -> bool:
        return (await queue.stats()).completed == 1

    await comes_true(completed, "the job completed")
    assert witness.starts() == {"the-one": 1}
    assert (await queue.stats()).total == 1
