"""`jobmill worker` in one process: how it starts, what it says, how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import urllib.error
import urllib.request
from functools import partial

import pytest

from jobmill import Scheduler
from jobmill.stores.redis.provision import running
from tests.cli.kit import Cli, ask, enqueue, eventually, free_port, held, status
from tests.servers import need_a_server

# A command has its loop for itself: there is nothing that it could hold up.
pytestmark = [pytest.mark.timeout(180), pytest.mark.blocks_loop]


def test_the_first_screen_says_what_it_works_on(cli: Cli) -> None:
    shown = cli.on_terminal("worker", "app.py", "--burst", "--queue", "default", "--queue", "mail")
    out = shown.ok().out
    place = f"sqlite:///{cli.folder / 'jobs.db'}"
    assert out.startswith("jobmill 0.1.0, Python 3.")
    for part in (f"default in {place}", f"mail in {place}", "app.greet", "10 jobs at once"):
        assert part in out


def test_a_burst_runs_what_is_due_and_ends(cli: Cli) -> None:
    enqueue(cli, "greet", '{"name": "Ada"}')
    bad = enqueue(cli, "divide", '{"by": 0}')
    late = enqueue(cli, "greet", '{"name": "late"}', delay=600)
    ran = cli.process("worker", "app", "--burst").ok()
    assert "divide" in ran.err
    assert "ZeroDivisionError: division by zero" in ran.err
    assert (cli.folder / "greeted").read_text().startswith("Ada ")
    assert (status(cli, bad), status(cli, late)) == (("failed", 1, 0), ("delayed", 0, 0))


def test_max_jobs_is_exact_and_jobs_restrict(cli: Cli) -> None:
    for name in ("a", "b", "c"):
        enqueue(cli, "greet", json.dumps({"name": name}))
    enqueue(cli, "divide", '{"by": 1}')
    ran = cli("worker", "app.py", "--max-jobs", "2", "--jobs", "greet", "--log-jobs").ok()
    assert "stopping: it has started 2 jobs, and --max-jobs is 2" in ran.err
    assert ran.err.count("completed in") == 2
    assert (cli.folder / "greeted").read_text().count("\n") == 2
    cli("worker", "app.py", "--burst", "--jobs", "divide").ok()
    assert (cli.folder / "greeted").read_text().count("\n") == 2


def test_max_memory_ends_it(cli: Cli) -> None:
    ran = cli("worker", "app.py", "--max-memory", "1").ok()
    assert "more than --max-memory 1" in ran.err


def test_the_first_signal_waits_and_the_second_hands_back(cli: Cli) -> None:
    job = enqueue(cli, "hold")
    worker = cli.start("worker", "app.py", "--shutdown-timeout", "600")
    held(cli, worker)
    worker.send(signal.SIGINT)
    worker.says("stopping: waiting up to 600 s for 1 running job")
    worker.send(signal.SIGINT)
    assert worker.ends() == 0
    assert status(cli, job) == ("pending", 0, 0)

    worker = cli.start("worker", "app.py")
    held(cli, worker, 2)
    worker.send(signal.SIGTERM)
    worker.says("stopping")
    (cli.folder / "release").touch()
    assert worker.ends() == 0
    assert status(cli, job) == ("completed", 1, 0)


def test_a_signal_in_start_up_ends_it(cli: Cli) -> None:
    (cli.folder / "slow.py").write_text(
        "import time\nopen('loading', 'w').close()\nwhile True:\n    time.sleep(0.01)\n"
    )
    worker = cli.start("worker", "slow.py")
    eventually((cli.folder / "loading").exists, "the import", worker)
    worker.send(signal.SIGTERM)
    assert worker.ends() == 0


def test_its_log_is_json_in_lines(cli: Cli) -> None:
    job = enqueue(cli, "divide", '{"by": 0}')
    ran = cli("worker", "app.py", "--burst", "--log-format", "json", "--log-jobs").ok()
    lines = [json.loads(line) for line in ran.err.splitlines()]
    (failed,) = [line for line in lines if line["logger"] == "jobmill.job"]
    assert failed["level"] == "warning"
    assert failed["pid"] > 0
    assert (failed["job_id"], failed["job_name"]) == (job, "app.divide")
    assert (failed["queue"], failed["attempt"]) == ("default", 1)
    assert failed["error"] == "ZeroDivisionError"
    assert "return 1 / by" in failed["traceback"]


def probed(port: int, path: str) -> tuple[int, str]:
    """What a probe answers; 0 where nobody does."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
            return answer.status, answer.read().decode().strip()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode().strip()
    except OSError:
        return 0, ""


def test_probes_say_whether_it_works(cli: Cli) -> None:
    port = free_port()
    asked = partial(probed, port)
    enqueue(cli, "hold")
    worker = cli.start("worker", "app.py", "--health-port", f"127.0.0.1:{port}")
    held(cli, worker)
    assert asked("/healthz") == (200, "ok")
    assert asked("/readyz") == (200, "ready")
    assert asked("/nothing")[0] == 404
    worker.send(signal.SIGTERM)
    eventually(lambda: asked("/readyz") == (503, "not ready"), "the stop seen", worker)
    assert asked("/healthz") == (200, "ok")
    (cli.folder / "release").touch()
    assert worker.ends() == 0


@pytest.mark.parametrize("processes", ["1", "2"])
def test_systemd_is_told(cli: Cli, processes: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.settimeout(50)
        # The whole path would be too long for a socket.
        here = os.open(cli.folder, os.O_RDONLY)
        path = f"/proc/self/fd/{here}/notify"
        told.bind(path)
        os.close(here)
        # So seldom that the socket, which holds ten words, is not full of them when others come.
        env = {"NOTIFY_SOCKET": "notify", "WATCHDOG_USEC": "100000000"}
        worker = cli.start("worker", "app.py", "--processes", processes, env=env)
        heard: list[bytes] = []
        while b"READY=1" not in heard or b"WATCHDOG=1" not in heard:
            heard.append(told.recv(100))
        worker.send(signal.SIGTERM)
        while b"STOPPING=1" not in heard:
            heard.append(told.recv(100))
        # Nobody reads any more, and it ends all the same.
        assert worker.ends() == 0
        assert set(heard) == {b"READY=1", b"WATCHDOG=1", b"STOPPING=1"}


@pytest.mark.store("redis")
def test_it_waits_for_a_store_that_is_down_and_says_so_once(cli: Cli) -> None:
    need_a_server()
    with running() as server:
        url = str(server.address)
        server.kill()
        port = free_port()
        probes = ("--health-port", f"127.0.0.1:{port}")
        worker = cli.start("worker", "app.py", *probes, env={"APP_STORE": url})

        def is_ready(code: int) -> None:
            eventually(lambda: probed(port, "/readyz")[0] == code, f"/readyz {code}", worker)

        worker.says("cannot be reached")
        is_ready(503)
        server.start()
        worker.says("the store of default is back")
        is_ready(200)
        words = ("enqueue", "greet", '{"name": "Ada"}', "--app", "app.py", "--wait")
        assert cli(*words, env={"APP_STORE": url}).ok().out == '"Hello, Ada!"\n'
        assert worker.log.count("the store of default cannot be reached") == 1
        server.kill()
        is_ready(503)
        assert probed(port, "/healthz")[0] == 200
        server.start()
        is_ready(200)
        worker.send(signal.SIGTERM)
        assert worker.ends() == 0


def test_declared_schedules_are_written(cli: Cli) -> None:
    worker = cli.start("worker", "app.py")

    def written() -> list[str]:
        return [each.name for each in ask(cli, lambda q: Scheduler(q).get_scheduled_jobs())]

    eventually(lambda: written() == ["morning"], "the schedule", worker)


def test_a_declared_schedule_that_is_wrong_stops_no_job(cli: Cli) -> None:
    program = cli.folder / "app.py"
    program.write_text(program.read_text().replace('name="morning"', 'name="morning", payload=7'))
    enqueue(cli, "greet", '{"name": "Ada"}')
    worker = cli.start("worker", "app.py", "--log-jobs")
    worker.says("schedules of default are not written: ")
    worker.says("completed in")
    worker.send(signal.SIGTERM)
    assert worker.ends() == 0


def test_a_port_that_is_taken_is_one_line(cli: Cli) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ran = cli("worker", "app.py", "--health-port", f"127.0.0.1:{port}")
    assert ran.code == 1
    assert ran.err.splitlines()[-1].startswith("jobmill: --health-port: nobody can listen on")


def test_no_scheduler_writes_none(cli: Cli) -> None:
    cli("worker", "app.py", "--burst", "--no-scheduler").ok()
    assert ask(cli, lambda queue: Scheduler(queue).get_scheduled_jobs()) == []


def test_the_app_is_found_as_python_would_find_it(cli: Cli) -> None:
    package = cli.folder / "deep" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "jobs.py").write_text(
        "from jobmill import create_queue, job\n"
        "class Holder:\n    queue = create_queue('sqlite:///jobs.db')\n"
        "@job\ndef work() -> None: ...\n"
    )
    for word in ("deep/package/jobs.py:Holder.queue", "deep/package/jobs.py"):
        words = ("--burst",) if ":" in word else ("--burst", "--store", "sqlite:///jobs.db")
        assert "  job        package.jobs.work\n" in cli("worker", word, *words).ok().err
