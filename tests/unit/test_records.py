from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, strategies as st

from jobmill.errors import PayloadError
from jobmill.records import MAX_MESSAGE, MAX_TRACEBACK, JobError, JobInfo, JobPage, QueueStats

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def caught(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as raised:
        return raised


def test_an_error_says_what_was_raised_and_where() -> None:
    error = JobError.from_exception(caught(KeyError("path")), 2, NOON)
    assert (error.type, error.module, error.message) == ("KeyError", "builtins", "'path'")
    assert (error.attempt, error.at) == (2, NOON)
    assert "in caught" in error.traceback
    assert error.traceback.endswith("KeyError: 'path'\n")
    assert JobError.from_exception(MuteError(), 1, NOON).module == __name__


def test_an_exception_that_cannot_speak_is_told_all_the_same() -> None:
    error = JobError.from_exception(caught(MuteError()), 1, NOON)
    assert error.type == "MuteError"
    assert error.message == "<no message: its __str__ raised RuntimeError>"
    assert "MuteError" in error.traceback


def test_long_texts_are_cut() -> None:
    error = JobError.from_exception(caught(ValueError("é" * 100_000)), 1, NOON)
    assert len(error.message) == MAX_MESSAGE
    assert len(error.traceback.encode()) <= MAX_TRACEBACK
    assert error.traceback.startswith("Traceback")
    assert error.traceback.endswith("é\n")
    assert "characters left out" in error.traceback


@given(st.text(st.characters(codec=None)))
def test_any_message_can_be_stored(message: str) -> None:
    error = JobError.from_exception(caught(ValueError(message)), 1, NOON)
    error.message.encode()
    assert JobError.from_json(error.to_json()) == error


def test_an_error_without_an_instant_takes_the_callers() -> None:
    data = b'{"type":"Lost","message":"gone"}'
    assert JobError.from_json(data, at=NOON) == JobError("Lost", "", "gone", "", 0, NOON)
    assert JobError.from_json('{"type":"Lost","at":0}').at == datetime(1970, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b"\xff", b'{"type":1}', b'{"type":"a","at":1e300}']
)
def test_what_is_no_error_is_refused(data: bytes) -> None:
    with pytest.raises(PayloadError):
        JobError.from_json(data)


def test_a_job_says_when_it_was_made_and_how_long_it_ran() -> None:
    info = JobInfo(
        id="id", name="a", queue="default", status="pending", enqueued_at=NOON, run_at=NOON
    )
    assert info.created_at == NOON
    assert info.duration is None
    started = dataclasses.replace(info, started_at=NOON)
    assert started.duration is None
    ended = dataclasses.replace(started, completed_at=NOON + timedelta(seconds=1.5))
    assert ended.duration == 1.5
    assert JobPage([info]).next_cursor is None


def test_the_total_is_the_sum_of_the_states() -> None:
    stats = QueueStats(pending=1, processing=2, completed=3, failed=4, delayed=5, cancelled=6)
    assert stats.total == 21
    assert dataclasses.asdict(stats)["total"] == 21
    assert QueueStats().total == 0
