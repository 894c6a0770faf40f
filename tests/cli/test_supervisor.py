"""`jobmill worker --processes N`: no process that dies, and no restart, costs a job anything."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from jobmill import Monitor, Queue, job
from jobmill.registry import isolated
from jobmill.stores.redis.provision import running
from tests.cli.kit import APP, LONG, Cli, Started, alive, ask, enqueue, eventually, held, status
from tests.conftest import SOAK
from tests.faults.places import postgres_url
from tests.servers import need_a_server, own_postgres

# A command has its loop for itself: there is nothing that it could hold up.
pytestmark = pytest.mark.blocks_loop

LOAD = """\
import os, time
from jobmill import create_queue, job

store = os.environ.get("APP_STORE", "sqlite:///jobs.db?synchronous=normal")
queue = create_queue(store, lease=20.0)


@job(name="work")
def work(n: int) -> int:
    time.sleep(0.002)
    while not os.path.exists("go"):
        time.sleep(0.01)
    return n
"""
"""Its jobs wait until there is a file, go, beside it."""
STORES = ("sqlite", "redis", "postgresql") if SOAK else ("sqlite",)
"""A supervisor knows no store, so that one will do; in soak it is tried on each."""


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.store(name)) for name in STORES])
def loaded(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cli]:
    """The command in a folder with two programs, app.py and load.py, on one store."""
    with ExitStack() as stack:
        environment: dict[str, str] = {}
        if request.param == "redis":
            need_a_server()
            environment["APP_STORE"] = str(stack.enter_context(running()).address)
        elif request.param == "postgresql":
            server = stack.enter_context(own_postgres())
            environment["APP_STORE"] = postgres_url(server.address.port)
        (tmp_path / "app.py").write_text(APP)
        (tmp_path / "load.py").write_text(LOAD)
        command = Cli(tmp_path, **environment)
        stack.callback(command.end)
        yield command


def two(worker: Started, *but: int) -> list[int]:
    """Its two processes, when there are two, none of them one of these."""

    def look() -> list[int]:
        there = worker.children()
        return there if len(there) == 2 and not set(there) & set(but) else []

    return eventually(look, "two processes", worker)


def _more_than(look: Callable[[], int], number: int) -> bool:
    return look() > number


def fill(cli: Cli, count: int, *, keep: float = 86_400.0) -> None:
    with isolated():

        @job(name="work", keep_result=keep)
        def work(n: int) -> int:
            return n

        async def put(queue: Queue) -> None:
            await queue.enqueue_many([work.call(n) for n in range(count)])

        ask(cli, put)


@pytest.mark.timeout(600 if SOAK else 180)
def test_a_rolling_restart_under_load_loses_nothing_and_spends_no_attempt(loaded: Cli) -> None:
    cli, count = loaded, 20_000 if SOAK else 2_000
    go = cli.folder / "go"
    fill(cli, count)
    worker = cli.start("worker", "load.py", "--processes", "2", "--concurrency", "2")
    seen = two(worker)
    rounds = 0

    def left() -> int:
        stats = ask(cli, lambda queue: queue.stats())
        return stats.pending + stats.processing

    def replaced() -> int:
        assert len(worker.children()) >= 2, "the new one comes before the old one goes"
        return worker.log.count("replacing process")

    while left() > count // 10:
        before = replaced()
        worker.send(signal.SIGHUP)
        # The first time there is work for sure, however late this comes.
        go.touch()
        eventually(partial(_more_than, replaced, before + 1), "a round of replacing", worker)
        rounds += 1
        seen += [each for each in two(worker, *seen) if each not in seen]
    eventually(lambda: not left(), "all done", worker)
    worker.send(signal.SIGTERM)
    assert worker.ends() == 0
    assert rounds >= 1
    assert len(seen) >= 4
    assert not any(map(alive, seen))

    async def spent(queue: Queue) -> list[tuple[str, int, int]]:
        found: list[tuple[str, int, int]] = []
        cursor: str | None = None
        while True:
            page = await queue.list_jobs(limit=1_000, cursor=cursor)
            found += [(each.status, each.attempts, each.lapses) for each in page.jobs]
            if (cursor := page.next_cursor) is None:
                return found

    assert ask(cli, spent) == [("completed", 1, 0)] * count


def test_a_process_that_is_killed_is_replaced_and_its_job_runs_again(cli: Cli) -> None:
    job = enqueue(cli, "hold")
    worker = cli.start("worker", "app.py", "--processes", "2")
    held(cli, worker)
    victim = int((cli.folder / "held").read_text())
    os.kill(victim, signal.SIGKILL)
    two(worker, victim)
    worker.says(f"process {victim} was ended by SIGKILL; starting another")
    held(cli, worker, 2)
    (cli.folder / "release").touch()
    eventually(lambda: status(cli, job) == ("completed", 1, 1), "its end", worker)
    worker.send(signal.SIGTERM)
    assert worker.ends() == 0


@pytest.mark.timeout(600 if SOAK else 180)
def test_poison_kills_its_processes_and_no_neighbour(loaded: Cli) -> None:
    """By os._exit, by a segmentation fault, and, in soak, as the system does for want of memory."""
    cli = loaded
    deaths = {"leave": "ended with exit code 9", "crash": "was ended by SIGSEGV"}
    if SOAK:
        deaths["hoard"] = "was ended by SIGKILL"
    poison = {name: enqueue(cli, name) for name in deaths}
    innocent = [enqueue(cli, "greet", '{"name": "Ada"}') for _ in range(30 if SOAK else 3)]
    worker = cli.start("worker", "app.py", "--processes", "2")
    most = {name: 3 if name == "leave" else 2 for name in deaths}
    for name, each in poison.items():
        eventually(partial(_has_ended, cli, each), f"the end of {name}", worker)
        end, _, lapses = status(cli, each)
        assert (end, lapses) == ("failed", most[name])
    for name, said in deaths.items():
        assert 1 <= worker.log.count(said) <= most[name]
    for each in innocent:
        eventually(partial(_has_ended, cli, each), "the end of a neighbour", worker)
        end, attempts, lapses = status(cli, each)
        assert (end, attempts) == ("completed", 1)
        assert lapses <= 1, "it ran beside a suspect"
    two(worker)
    worker.send(signal.SIGTERM)
    assert worker.ends() == 0


def _has_ended(cli: Cli, job_id: str) -> bool:
    return status(cli, job_id)[0] in {"completed", "failed"}


def test_a_stop_is_passed_on_and_the_second_hands_back(cli: Cli) -> None:
    jobs = [enqueue(cli, "hold") for _ in range(2)]
    words = ("--processes", "2", "--shutdown-timeout", "600")
    worker = cli.start("worker", "app.py", *words, env=LONG)
    held(cli, worker, 2)
    processes = two(worker)
    worker.send(signal.SIGTERM)
    worker.says("stopping: waiting up to 600 s")
    worker.send(signal.SIGTERM)
    assert worker.ends() == 0
    assert not any(map(alive, processes))
    assert [status(cli, each) for each in jobs] == [("pending", 0, 0)] * 2


def test_systemd_may_tell_every_process_to_stop_at_once(cli: Cli) -> None:
    """As it does without KillMode=mixed: that is one stop, and not two."""
    job = enqueue(cli, "hold")
    worker = cli.start("worker", "app.py", "--processes", "2", env=LONG)
    held(cli, worker)
    for each in two(worker):
        os.kill(each, signal.SIGTERM)
    worker.send(signal.SIGTERM)
    worker.says("stopping: waiting up to 30 s for 1 running job")
    (cli.folder / "release").touch()
    assert worker.ends() == 0
    assert status(cli, job) == ("completed", 1, 0)


def test_a_stop_in_start_up_ends_all(cli: Cli) -> None:
    (cli.folder / "slow.py").write_text(
        "import os, time\nopen(f'loading-{os.getpid()}', 'w').close()\n"
        "while not os.path.exists('release'):\n    time.sleep(0.01)\n"
        "from jobmill import create_queue\nqueue = create_queue('sqlite:///jobs.db')\n"
    )
    worker = cli.start("worker", "slow.py", "--processes", "2")
    eventually(lambda: list(cli.folder.glob("loading-*")), "an import", worker)
    processes = worker.children()
    worker.send(signal.SIGTERM)
    worker.says("stopping, with all processes: 1")
    (cli.folder / "release").touch()
    assert worker.ends() == 0
    assert not any(map(alive, processes))


def test_its_processes_do_not_outlive_it(cli: Cli) -> None:
    job = enqueue(cli, "hold")
    worker = cli.start("worker", "app.py", "--processes", "2", env=LONG)
    held(cli, worker)
    processes = two(worker)
    worker.send(signal.SIGKILL)
    worker.ends()
    (cli.folder / "release").touch()
    eventually(lambda: not any(map(alive, processes)), "their end", worker)
    assert status(cli, job) == ("completed", 1, 0), "in order"


def test_an_app_that_cannot_be_loaded_ends_it_at_once(cli: Cli) -> None:
    (cli.folder / "broken.py").write_text("raise ValueError('no way')\n")
    ran = cli.process("worker", "broken.py", "--processes", "2")
    assert ran.code == 2
    assert "broken.py: it cannot be imported: ValueError: no way" in ran.err
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_store_that_cannot_be_used_ends_it(cli: Cli, processes: str) -> None:
    (cli.folder / "jobs.db").write_bytes(b"no database" * 1_000)
    ran = cli.process("worker", "app.py", "--processes", processes)
    assert ran.code == 4
    assert "the worker cannot work: " in ran.err


def test_a_process_past_its_jobs_is_replaced(cli: Cli) -> None:
    worker = cli.start("worker", "app.py", "--processes", "2", "--max-jobs", "2")
    first = two(worker)
    for n in range(8):
        enqueue(cli, "greet", f'{{"name": "{n}"}}')
    worker.says("and --max-jobs is 2")
    path = cli.folder / "greeted"

    def by_another() -> bool:
        pids = {int(line.split()[1]) for line in path.read_text().splitlines()}
        return bool(pids - set(first))

    eventually(lambda: path.exists() and path.read_text().count("\n") == 8, "all greeted", worker)
    enqueue(cli, "greet", '{"name": "once more"}')
    eventually(lambda: len(set(worker.children()) - set(first)) >= 1, "another process", worker)
    worker.send(signal.SIGTERM)
    assert worker.ends() == 0


@pytest.mark.timeout(1_800 if SOAK else 180)
def test_recycled_processes_leave_nothing_behind(loaded: Cli) -> None:
    """In soak 100,000 jobs: each done once, no record left, and a supervisor as it was."""
    cli = loaded
    (cli.folder / "go").touch()
    waves, size, each = (10, 10_000, 2_500) if SOAK else (1, 1_000, 200)
    since = ask(cli, lambda queue: queue.ask(lambda store: store.counts())).now
    words = ("--processes", "2", "--concurrency", "2", "--max-jobs", str(each))
    worker = cli.start("worker", "load.py", *words)
    first = two(worker)
    eventually(partial(_work, cli, 2), "two that work", worker)
    before = worker.holds()
    for _ in range(waves):
        fill(cli, size, keep=0.0)
        eventually(partial(_is_worked_off, cli), "a wave worked off", worker, within=300)
    eventually(lambda: worker.log.count("replacing process") >= 2 * waves, "recycling", worker)
    eventually(
        lambda: len(worker.children()) == 2 and worker.holds() == before, "as before", worker
    )
    assert set(two(worker)).isdisjoint(first)
    assert worker.memory() < 100_000_000

    buckets = ask(cli, lambda queue: queue.ask(lambda store: store.metrics(since)))
    done = {
        kind: sum(getattr(bucket, kind) for bucket in buckets)
        for kind in ("started", "completed", "failed", "retried", "lapsed")
    }
    assert done == {
        "started": waves * size,
        "completed": waves * size,
        "failed": 0,
        "retried": 0,
        "lapsed": 0,
    }
    eventually(lambda: not ask(cli, lambda queue: queue.stats()).total, "no record left", worker)
    worker.send(signal.SIGTERM)
    assert worker.ends() == 0


def _work(cli: Cli, count: int) -> bool:
    """Whether so many workers have said that they work."""
    return len(ask(cli, lambda queue: Monitor(queue).get_workers()).workers) == count


def _is_worked_off(cli: Cli) -> bool:
    stats = ask(cli, lambda queue: queue.stats())
    return not stats.pending and not stats.processing


def test_a_burst_ends_when_all_processes_are_done(cli: Cli) -> None:
    for n in range(4):
        enqueue(cli, "greet", f'{{"name": "{n}"}}')
    cli.process("worker", "app.py", "--processes", "2", "--burst").ok()
    assert (cli.folder / "greeted").read_text().count("\n") == 4


def test_it_starts_anew_when_a_file_changes(cli: Cli) -> None:
    worker = cli.start("worker", "app.py", "--reload")
    worker.says("app.greet")
    (first,) = eventually(worker.children, "a process", worker)
    words = ("enqueue", "greet", '{"name": "Ada"}', "--app", "app.py", "--wait")
    assert cli(*words).ok().out == '"Hello, Ada!"\n'
    program = cli.folder / "app.py"
    good = program.read_text()
    program.write_text(good.replace("Hello", "Good day"))
    worker.says("has changed: starting anew")
    assert cli(*words).ok().out in ('"Good day, Ada!"\n', '"Hello, Ada!"\n')
    eventually(lambda: not alive(first), "the end of the first", worker)
    assert cli(*words).ok().out == '"Good day, Ada!"\n'

    program.write_text("def broken(:\n")
    worker.says("SyntaxError")
    worker.says("waiting for a change")
    assert worker.code is None
    program.write_text(good)
    assert cli(*words).ok().out == '"Hello, Ada!"\n'
    worker.send(signal.SIGINT)
    assert worker.ends() == 0
