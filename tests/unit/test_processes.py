"""ProcessExecutor: handlers in child processes come back as they would here, and end for real."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from jobmill.context import AbortReason, AbortSignal
from jobmill.errors import (
    Cancel,
    DefinitionError,
    Fail,
    JobCancelled,
    JobTimeout,
    LeaseLost,
    PayloadError,
    PayloadTooLarge,
    Retry,
    Snooze,
)
from jobmill.executors import (
    ChildDied,
    ChildFailure,
    ContextFields,
    ProcessExecutor,
    matches,
    processes,
)
from jobmill.job import JobDefinition, job
from jobmill.registry import isolated
from tests.unit import child_jobs
from tests.waiting import eventually, eventually_sync

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 3, 29, 1, 30, 0, 123456, tzinfo=UTC)
FIELDS = ContextFields(
    job_id="id-1",
    job_name="the name",
    queue_name="mail",
    attempt=2,
    max_attempts=4,
    enqueued_at=NOW,
    started_at=NOW,
    metadata={"trace": "ümlaut"},
)


class Bench:
    """An executor, and a short way to run jobs on it."""

    def __init__(self, slots: int = 2) -> None:
        self.executor = ProcessExecutor(slots)
        self.progress: list[tuple[float, str | None]] = []
        self.lines: list[tuple[str, dict[str, Any]]] = []

    async def run(
        self,
        definition: JobDefinition[Any, Any],
        payload: Any = None,
        *,
        signal: AbortSignal | None = None,
        grace: float = 30.0,
        **more: Any,
    ) -> Any:
        data = await self.executor.run(
            definition,
            definition.encode_payload(payload),
            FIELDS,
            signal or AbortSignal(),
            grace,
            on_progress=self.on_progress,
            on_log=self.on_log,
            **more,
        )
        return definition.decode_result(data)

    async def on_progress(self, value: float, note: str | None) -> None:
        self.progress.append((value, note))

    def on_log(self, message: str, fields: dict[str, Any]) -> None:
        self.lines.append((message, fields))


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    fds = open_fds()
    bench = Bench()
    yield bench
    await bench.executor.close()
    await eventually(lambda: not children())
    await eventually(lambda: open_fds() <= fds)


_elders: set[int] = set()


@pytest.fixture(autouse=True)
def _only_new_children_count() -> None:
    """A server that other tests have started is a child of this process, too."""
    _elders.clear()
    _elders.update(children())


def open_fds() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def children(of: int | None = None) -> list[int]:
    """The ids of the children that a process got in this test, zombies too."""
    of = os.getpid() if of is None else of
    found: list[int] = []
    for thread in Path(f"/proc/{of}/task").iterdir():
        # A thread may end while it is looked at.
        with suppress(FileNotFoundError, ProcessLookupError):
            found += map(int, (thread / "children").read_text().split())
    return [pid for pid in found if pid not in _elders]


def is_gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    # A grandchild is reaped by whoever adopted it, which may take its time.
    return state in "ZX"


async def pids(path: Path) -> list[int]:
    await eventually(path.exists)
    return marked(path)


def marked(path: Path) -> list[int]:
    return [int(each) for each in path.read_text().split()]


# -- what comes back ------------------------------------------------------------------------


async def test_a_function_gives_its_result(bench: Bench) -> None:
    assert await bench.run(child_jobs.add, {"a": 2, "b": 3}) == 5
    assert await bench.run(child_jobs.add, {"a": 2}) == 3


async def test_a_context_handler_gives_its_result(bench: Bench) -> None:
    assert await bench.run(child_jobs.mirror, child_jobs.Point(1, 2)) == child_jobs.Point(2, 1)


async def test_a_function_of_another_module_is_found_by_its_definition(bench: Bench) -> None:
    assert await bench.run(child_jobs.multiply, {"a": 6, "b": 7}) == 42


async def test_it_runs_in_another_process_with_this_ones_surroundings(bench: Bench) -> None:
    assert await bench.run(child_jobs.pid) != os.getpid()
    told = await bench.run(child_jobs.surroundings)
    assert told == {"cwd": str(Path.cwd()), "path": sys.path, "argv": ["-c"]}


async def test_the_context_is_this_runs(bench: Bench) -> None:
    told = await bench.run(child_jobs.context)
    assert told == {
        "job_id": "id-1",
        "job_name": "the name",
        "queue_name": "mail",
        "attempt": 2,
        "max_attempts": 4,
        "enqueued_at": NOW.isoformat(),
        "started_at": NOW.isoformat(),
        "metadata": {"trace": "ümlaut"},
    }


async def test_context_variables_do_not_leak_from_job_to_job(bench: Bench) -> None:
    assert [await bench.run(child_jobs.leaky_context) for _ in range(2)] == ["clean", "clean"]


@pytest.mark.parametrize("name", ["queue", "state"])
async def test_what_cannot_be_in_a_child_says_so(bench: Bench, name: str) -> None:
    with pytest.raises(ChildFailure, match=rf"JobsError: ctx\.{name} is not there in a child"):
        await bench.run(child_jobs.absent, {"name": name})


async def test_an_unknown_attribute_of_the_context_is_an_attribute_error(bench: Bench) -> None:
    with pytest.raises(ChildFailure, match="AttributeError: nonsense"):
        await bench.run(child_jobs.absent, {"name": "nonsense"})


async def test_progress_and_log_lines_are_passed_up_in_order(bench: Bench) -> None:
    await bench.run(child_jobs.report)
    assert bench.progress == [(50.0, "half"), (100.0, None)]
    fields = {
        "n": 3,
        "ratio": 0.5,
        "who": "Point(x=1, y=2)",
        "big": str(2**80),
        "odd": "?",
        "none": None,
    }
    assert bench.lines == [("half way", fields)]


async def test_a_failing_listener_is_logged_and_changes_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def bad(value: float, note: str | None) -> None:
        raise ValueError(value)

    logged: list[object] = []
    monkeypatch.setattr(bench, "on_progress", bad)
    monkeypatch.setattr(processes.log, "exception", lambda text, *args, **_: logged.append(args))
    assert await bench.run(child_jobs.report) is None
    assert len(bench.lines) == 1
    assert logged == [("id-1",), ("id-1",)]


async def test_what_handlers_print_goes_to_stderr_and_corrupts_nothing(
    bench: Bench, capfd: pytest.CaptureFixture[str]
) -> None:
    assert await bench.run(child_jobs.noisy) == "said"
    out, err = capfd.readouterr()
    assert out == ""
    for text in ("a print of", "an echo of", "a warning of"):
        assert f"{text} a handler" in err


# -- errors ---------------------------------------------------------------------------------


async def test_an_error_comes_back_with_its_traceback_and_place(bench: Bench) -> None:
    with pytest.raises(ChildFailure) as caught:
        await bench.run(child_jobs.fail, {"kind": "odd"})
    failure = caught.value
    error = failure.error
    assert (error.type, error.module) == ("OddError", "tests.unit.child_jobs")
    assert (error.message, error.attempt) == ("odd", 2)
    assert "child_jobs.py" in error.traceback
    assert failure.place == f"{child_jobs.__file__}:fail"
    assert str(failure) == "OddError: odd"


async def test_matches_tells_types_by_their_bases_here_and_from_a_child(bench: Bench) -> None:
    with pytest.raises(ChildFailure) as caught:
        await bench.run(child_jobs.fail, {"kind": "odd"})
    for error in (caught.value, child_jobs.OddError()):
        assert matches(error, (child_jobs.OddError,))
        assert matches(error, (ValueError, LookupError))
        assert matches(error, [Exception])
        assert not matches(error, (ValueError, KeyError))
        assert not matches(error, ())


async def test_a_system_exit_is_a_failure_and_no_exception(bench: Bench) -> None:
    with pytest.raises(ChildFailure) as caught:
        await bench.run(child_jobs.fail, {"kind": "exit"})
    assert (caught.value.error.type, caught.value.error.message) == ("SystemExit", "3")
    assert matches(caught.value, (SystemExit,))
    assert not matches(caught.value, (Exception,))


async def test_a_keyboard_interrupt_comes_back_as_itself(bench: Bench) -> None:
    async def run() -> str:
        # Caught in its coroutine: out of it, it would go through the loop, as asyncio has it.
        try:
            await bench.run(child_jobs.interrupt)
        except KeyboardInterrupt:
            return "interrupted"
        return "ran"

    assert await run() == "interrupted"


async def test_what_steers_a_run_comes_back_as_itself(bench: Bench) -> None:
    with pytest.raises(Retry) as retry:
        await bench.run(child_jobs.steer, {"kind": "retry"})
    assert (retry.value.delay, retry.value.reason) == (2.5, "later")
    with pytest.raises(Retry) as retry:
        await bench.run(child_jobs.steer, {"kind": "retry at once"})
    assert (retry.value.delay, retry.value.reason) == (None, "")
    with pytest.raises(Snooze) as snooze:
        await bench.run(child_jobs.steer, {"kind": "snooze"})
    assert (snooze.value.delay, snooze.value.reason) == (7.0, "tired")
    with pytest.raises(Cancel) as cancel:
        await bench.run(child_jobs.steer, {"kind": "cancel"})
    assert cancel.value.reason == "never mind"
    with pytest.raises(Fail) as fail:
        await bench.run(child_jobs.steer, {"kind": "fail"})
    assert fail.value.reason == "hopeless"
    with pytest.raises(ChildFailure, match="ValueError"):
        await bench.run(child_jobs.steer, {"kind": "endless snooze"})


async def test_a_result_that_does_not_encode_is_a_payload_error(bench: Bench) -> None:
    with pytest.raises(PayloadError) as caught:
        await bench.run(child_jobs.unsayable)
    assert caught.value.path == "$.bad[1]"
    assert not isinstance(caught.value, PayloadTooLarge)


async def test_a_result_over_the_limit_is_refused_in_the_child(bench: Bench) -> None:
    assert len(await bench.run(child_jobs.large, {"size": 98}, result_limit=100)) == 98
    with pytest.raises(PayloadTooLarge) as caught:
        await bench.run(child_jobs.large, {"size": 99}, result_limit=100)
    assert (caught.value.size, caught.value.limit) == (101, 100)


async def test_large_results_and_payloads_arrive_whole(bench: Bench) -> None:
    assert await bench.run(child_jobs.large, {"size": 5_000_000}) == "x" * 5_000_000


async def test_a_payload_that_does_not_decode_is_a_payload_error(bench: Bench) -> None:
    with pytest.raises(PayloadError) as caught:
        await bench.executor.run(
            child_jobs.add,
            b'{"a": "x"}',
            FIELDS,
            AbortSignal(),
            1.0,
            on_progress=bench.on_progress,
            on_log=bench.on_log,
        )
    assert caught.value.path == "$.a"


# -- definitions that no child can load -------------------------------------------------------


async def test_a_nested_job_is_refused_and_does_not_run(bench: Bench) -> None:
    with isolated(empty=False), pytest.raises(DefinitionError, match="top level of a module"):
        await bench.run(child_jobs.make_nested())


async def test_another_job_of_the_same_name_never_runs_instead(bench: Bench) -> None:
    with isolated():

        @job(name="twin", executor="process")
        def twin() -> str:
            return "the test's"

        twin.handler.__module__ = child_jobs.__name__
        with pytest.raises(DefinitionError, match="give them different names"):
            await bench.run(twin)


async def test_a_module_that_cannot_be_imported_says_which_and_why(
    bench: Bench, tmp_path: Path
) -> None:
    with isolated():

        @job(name="lost", executor="process")
        def lost() -> None: ...

        lost.handler.__module__ = "jobs_that_are_nowhere"
        with pytest.raises(DefinitionError, match="could not load module jobs_that_are_nowhere"):
            await bench.run(lost)


# -- aborts -----------------------------------------------------------------------------------

REASONS: list[tuple[AbortReason, type[Exception]]] = [
    ("timeout", JobTimeout),
    ("cancelled", JobCancelled),
    ("shutdown", JobCancelled),
    ("lease_lost", LeaseLost),
]


@pytest.mark.parametrize(("reason", "_error"), REASONS)
async def test_a_handler_that_polls_its_signal_ends_by_itself(
    bench: Bench, tmp_path: Path, reason: AbortReason, _error: type[Exception]
) -> None:
    abort, path = AbortSignal(), tmp_path / "began"
    running = asyncio.create_task(bench.run(child_jobs.obey, {"path": str(path)}, signal=abort))
    (pid,) = await pids(path)
    abort.abort(reason)
    assert await running == f"aborted: {reason}"
    # It obeyed, so its child goes on, and the signal of the next job is a new one.
    assert await bench.run(child_jobs.pid) == pid


@pytest.mark.parametrize(("reason", "error"), REASONS)
async def test_a_handler_may_raise_at_its_signal(
    bench: Bench, tmp_path: Path, reason: AbortReason, error: type[Exception]
) -> None:
    abort, path = AbortSignal(), tmp_path / "began"
    running = asyncio.create_task(
        bench.run(child_jobs.obey_by_raising, {"path": str(path)}, signal=abort)
    )
    await pids(path)
    abort.abort(reason)
    with pytest.raises(error):
        await running


async def test_an_async_result_is_awaited_and_its_signal_wakes_it(
    bench: Bench, tmp_path: Path
) -> None:
    abort, path = AbortSignal(), tmp_path / "began"
    running = asyncio.create_task(bench.run(child_jobs.obey_async, str(path), signal=abort))
    await pids(path)
    abort.abort("timeout")
    assert await running == "awaited: timeout"


@pytest.mark.parametrize(("reason", "error"), REASONS)
async def test_a_deaf_handler_is_killed_after_its_grace(
    bench: Bench, tmp_path: Path, reason: AbortReason, error: type[Exception]
) -> None:
    abort, path = AbortSignal(), tmp_path / "began"
    running = asyncio.create_task(
        bench.run(child_jobs.deaf, {"path": str(path)}, signal=abort, grace=0.2)
    )
    (pid,) = await pids(path)
    start = time.monotonic()
    abort.abort(reason)
    with pytest.raises(error):
        await running
    assert is_gone(pid)
    # Not later by more than a machine may make of it: the usual grace is 30 s here.
    assert 0.2 <= time.monotonic() - start < 20.0


async def test_what_a_killed_handler_started_dies_with_it(bench: Bench, tmp_path: Path) -> None:
    abort, path = AbortSignal(), tmp_path / "began"
    running = asyncio.create_task(
        bench.run(child_jobs.family, {"path": str(path)}, signal=abort, grace=0.0)
    )
    child, grandchild = await pids(path)
    abort.abort("cancelled")
    with pytest.raises(JobCancelled):
        await running
    assert is_gone(child)
    await eventually(lambda: is_gone(grandchild))


async def test_an_abort_before_the_start_starts_nothing(bench: Bench) -> None:
    abort = AbortSignal()
    abort.abort("shutdown")
    with pytest.raises(JobCancelled):
        await bench.run(child_jobs.pid, signal=abort)
    assert children() == []


async def test_an_abort_while_the_child_is_made_starts_no_handler(
    bench: Bench, tmp_path: Path
) -> None:
    abort, path = AbortSignal(), tmp_path / "began"
    running = asyncio.create_task(bench.run(child_jobs.obey, {"path": str(path)}, signal=abort))
    await asyncio.sleep(0)
    abort.abort("shutdown")
    with pytest.raises(JobCancelled):
        await running
    assert await bench.run(child_jobs.add, {"a": 1}) == 2
    assert not path.exists()


async def test_a_cancelled_run_tells_its_handler_first(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "began"
    running = asyncio.create_task(bench.run(child_jobs.obey, {"path": str(path)}))
    (pid,) = await pids(path)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await bench.run(child_jobs.pid) == pid


async def test_a_cancelled_run_leaves_no_deaf_handler_behind(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "began"
    running = asyncio.create_task(bench.run(child_jobs.deaf, {"path": str(path)}, grace=0.2))
    (pid,) = await pids(path)
    running.cancel()
    await asyncio.wait([running], timeout=0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert is_gone(pid)


async def test_a_cancel_at_any_moment_of_a_start_leaks_nothing(bench: Bench) -> None:
    for turns in range(12):
        running = asyncio.create_task(bench.run(child_jobs.add, {"a": turns}, grace=0.0))
        for _ in range(turns):
            await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert len(children()) <= 2
    assert await bench.run(child_jobs.add, {"a": 1}) == 2


async def test_a_stop_sent_to_every_process_does_not_touch_the_children(
    bench: Bench, tmp_path: Path
) -> None:
    path = tmp_path / "began"
    assert await bench.run(child_jobs.deaf_to_signals, {"path": str(path)}) == "still here"


async def test_what_a_handler_forks_is_not_deaf_to_signals(bench: Bench) -> None:
    assert await bench.run(child_jobs.fork_and_terminate) == signal.SIGTERM


# -- deaths -----------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 3, 255])
async def test_an_exit_without_a_word_is_a_death(bench: Bench, code: int) -> None:
    with pytest.raises(ChildDied, match=f"exit code {code}") as caught:
        await bench.run(child_jobs.leave, {"code": code})
    assert (caught.value.exitcode, caught.value.signal) == (code, None)
    assert matches(caught.value, (Exception,))
    assert await bench.run(child_jobs.add, {"a": 1}) == 2


async def test_a_segfault_is_a_death(bench: Bench) -> None:
    with pytest.raises(ChildDied, match="SIGSEGV") as caught:
        await bench.run(child_jobs.crash)
    assert caught.value.signal == "SIGSEGV"
    assert await bench.run(child_jobs.add, {"a": 1}) == 2


async def test_a_kill_from_outside_is_a_death_that_hints_at_memory(
    bench: Bench, tmp_path: Path
) -> None:
    path = tmp_path / "began"
    running = asyncio.create_task(bench.run(child_jobs.deaf, {"path": str(path)}))
    (pid,) = await pids(path)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(ChildDied, match=r"SIGKILL.*memory"):
        await running


@pytest.mark.parametrize("definition", [child_jobs.orphan, child_jobs.fork_and_die])
async def test_what_a_dead_child_started_dies_with_it(
    bench: Bench, tmp_path: Path, definition: JobDefinition[Any, Any]
) -> None:
    path = tmp_path / "began"
    start = time.monotonic()
    with pytest.raises(ChildDied, match=r"exit code [56]"):
        await bench.run(definition, {"path": str(path)})
    # The grandchild would go on for ten minutes.
    assert time.monotonic() - start < 60.0
    child, grandchild = await pids(path)
    assert is_gone(child)
    await eventually(lambda: is_gone(grandchild))


async def test_a_handler_that_closes_the_connection_has_died(bench: Bench) -> None:
    with pytest.raises(ChildDied):
        await bench.run(child_jobs.close_everything)


async def test_a_child_that_died_while_idle_costs_no_attempt(bench: Bench) -> None:
    pid = await bench.run(child_jobs.pid)
    os.kill(pid, signal.SIGKILL)
    # At once, before the loop can know of the death, and again afterwards.
    other = await bench.run(child_jobs.pid)
    assert other != pid
    os.kill(other, signal.SIGKILL)
    await eventually(lambda: other not in children())
    assert await bench.run(child_jobs.pid) not in {pid, other}


# -- children ---------------------------------------------------------------------------------


async def test_two_hundred_jobs_reuse_their_children(bench: Bench) -> None:
    assert children() == []
    seen = set(await asyncio.gather(*(bench.run(child_jobs.pid) for _ in range(200))))
    assert len(seen) == 2
    assert set(children()) == seen


async def test_one_after_the_other_needs_one_child(bench: Bench) -> None:
    assert len({await bench.run(child_jobs.pid) for _ in range(20)}) == 1


async def test_never_more_run_at_once_than_there_are_slots(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "room").mkdir()
    guests = [{"folder": str(tmp_path), "number": number} for number in range(20)]
    met = await asyncio.gather(*(bench.run(child_jobs.meet, guest) for guest in guests))
    assert max(met) == 2


async def test_a_child_is_replaced_after_its_share_of_jobs(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "JOBS_PER_CHILD", 3)
    seen = [await bench.run(child_jobs.pid) for _ in range(7)]
    assert [seen.count(pid) for pid in dict.fromkeys(seen)] == [3, 3, 1]
    await eventually(lambda: children() == seen[-1:])


async def test_close_ends_idle_children_and_refuses_new_jobs() -> None:
    bench = Bench()
    await asyncio.gather(*(bench.run(child_jobs.pid) for _ in range(4)))
    assert len(children()) == 2
    await bench.executor.close()
    assert children() == []
    with pytest.raises(RuntimeError):
        await bench.run(child_jobs.pid)
    await bench.executor.close()


async def test_close_leaves_a_running_job_its_end(tmp_path: Path) -> None:
    bench = Bench()
    abort, path = AbortSignal(), tmp_path / "began"
    running = asyncio.create_task(bench.run(child_jobs.obey, {"path": str(path)}, signal=abort))
    await pids(path)
    await bench.executor.close()
    abort.abort("shutdown")
    assert await running == "aborted: shutdown"
    await eventually(lambda: not children())


async def test_close_kills_an_idle_child_that_does_not_go() -> None:
    bench = Bench()
    pid = await bench.run(child_jobs.pid)
    os.kill(pid, signal.SIGSTOP)
    start = time.monotonic()
    await bench.executor.close()
    assert is_gone(pid)
    # It would stand still for ever.
    assert time.monotonic() - start < 30.0


# -- whole programs ---------------------------------------------------------------------------

HARNESS = """
    import asyncio, json, os, sys
    from datetime import UTC, datetime
    from jobmill.context import AbortSignal
    from jobmill.executors import ChildFailure, ContextFields, ProcessExecutor, matches
    from jobmill.job import job

    async def on_progress(value, note): ...
    def on_log(message, fields): ...

    async def run(executor, definition, payload=None):
        now = datetime.now(UTC)
        fields = ContextFields(job_id="1", job_name=definition.name, queue_name="q", attempt=1,
            max_attempts=1, enqueued_at=now, started_at=now, metadata={})
        data = await executor.run(definition, definition.encode_payload(payload), fields,
            AbortSignal(), 1.0, on_progress=on_progress, on_log=on_log)
        return definition.decode_result(data)
"""


def program(folder: Path, text: str, name: str = "app.py") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(HARNESS) + textwrap.dedent(text))
    return path


def launch(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


SCRIPT = """
    class Odd(Exception):
        pass

    @job(executor="process")
    def where(): return {"name": __name__, "pid": os.getpid()}

    @job(executor="process")
    def odd(): raise Odd("so")

    async def main():
        executor = ProcessExecutor(1)
        told = await run(executor, where)
        try:
            await run(executor, odd)
        except ChildFailure as failure:
            told["odd"] = [matches(failure, (Odd,)), failure.error.module]
        told["same"] = told.pop("pid") == os.getpid()
        await executor.close()
        print(json.dumps({**told, "job": where.name}))

    if __name__ == "__main__":
        asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("file", "command", "name"),
    [
        ("app.py", ["app.py"], "app.where"),
        ("folder with space/app.py", ["folder with space/app.py"], "app.where"),
        ("package/jobs.py", ["-m", "package.jobs"], "package.jobs.where"),
    ],
)
def test_jobs_of_a_script_run_under_the_same_name(
    tmp_path: Path, file: str, command: list[str], name: str
) -> None:
    program(tmp_path, SCRIPT, file)
    done = launch(tmp_path, *command)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "name": "__mp_main__",
        "odd": [True, "__main__"],
        "same": False,
        "job": name,
    }


@pytest.mark.parametrize(
    ("command", "file", "told"),
    [
        (["-"], None, "is not defined in a file"),
        (["-c"], None, "is not defined in a file"),
        (["-m", "package"], "package/__main__.py", "is defined in a __main__.py"),
    ],
)
def test_jobs_that_no_file_defines_are_refused(
    tmp_path: Path, command: list[str], file: str | None, told: str
) -> None:
    path = program(tmp_path, SCRIPT.replace("job(", 'job(name="where", ', 1), file or "app.py")
    text = path.read_text().replace("@job(executor", '@job(name="odd", executor')
    path.write_text(text)
    done = subprocess.run(
        [sys.executable, *command, *([text] if command == ["-c"] else [])],
        input=text,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("jobmill.errors.DefinitionError: the job 'where' ")
    assert told in last


def test_a_script_that_starts_its_worker_unguarded_is_refused(tmp_path: Path) -> None:
    program(tmp_path, SCRIPT.replace('if __name__ == "__main__":', "if True:"))
    done = launch(tmp_path, "app.py")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert 'put what starts it under: if __name__ == "__main__":' in last


@pytest.mark.parametrize("busy", [True, False])
def test_no_child_outlives_a_worker_that_is_killed(tmp_path: Path, busy: bool) -> None:
    program(
        tmp_path,
        f"""
        import subprocess, time

        @job(executor="process")
        def work():
            grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            with open("new", "w") as file:
                file.write(f"{{os.getpid()}} {{grandchild.pid}}")
            os.rename("new", "began")
            while {busy}:
                time.sleep(60)

        async def main():
            executor = ProcessExecutor(1)
            await run(executor, work)
            os.rename("began", "idle")
            await asyncio.Event().wait()

        if __name__ == "__main__":
            asyncio.run(main())
        """,
    )
    worker = subprocess.Popen([sys.executable, "app.py"], cwd=tmp_path)
    marker = tmp_path / ("began" if busy else "idle")
    try:
        eventually_sync(marker.exists)
        family = marked(marker)
        assert not any(is_gone(pid) for pid in family)
    finally:
        worker.kill()
        worker.wait()
    for pid in family:
        eventually_sync(lambda: is_gone(pid))  # noqa: B023 - called before the next turn


def test_the_terminals_interrupt_does_not_reach_the_children(tmp_path: Path) -> None:
    program(
        tmp_path,
        """
        import time

        @job(executor="process")
        def work():
            return os.getsid(0) != os.getppid() and os.getpgid(0) == os.getpid()

        async def main():
            print(json.dumps(await run(ProcessExecutor(1), work)))

        if __name__ == "__main__":
            asyncio.run(main())
        """,
    )
    done = launch(tmp_path, "app.py")
    assert json.loads(done.stdout) is True, done.stderr


def test_it_works_on_uvloop(tmp_path: Path) -> None:
    pytest.importorskip("uvloop")
    program(tmp_path, SCRIPT.replace("asyncio.run(main())", "import uvloop; uvloop.run(main())"))
    done = launch(tmp_path, "app.py")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["job"] == "app.where"
