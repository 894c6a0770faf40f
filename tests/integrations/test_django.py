"""jobmill as a backend of Django's tasks, as a project has it: manage.py, settings, transactions.

Each test talks to processes of that project, as Django's settings belong to a process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import django
import pytest

from jobmill.stores import postgresql
from tests.servers import emptied_postgres

pytestmark = pytest.mark.timeout(300)
"""A test starts several processes, each of which loads Django."""
PROJECT = Path(__file__).parents[2] / "examples" / "django_project"
NEW = django.VERSION >= (6, 0)
has_tasks = pytest.mark.skipif(not NEW, reason="Django 6, for Python 3.12, has tasks; this has not")

SETUP = """
import json, os, django
os.environ["DJANGO_SETTINGS_MODULE"] = "shop.settings"
django.setup()
from django.db import transaction
from django.tasks import default_task_backend as backend, task_backends
from django.utils import timezone
from shop.tasks import *
def stored(name="default"):
    return backend.queue(name).ask_sync(lambda store: store.counts()).states
def told(**facts):
    print(json.dumps(facts, default=str))
"""


class Project:
    """The example's project in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {**os.environ, "PYTHONPATH": str(PROJECT), "PYTHONWARNINGS": "error"}
        self.env.pop("JOBMILL_URL", None)

    def options(self, **options: Any) -> None:
        self.env["SHOP_OPTIONS"] = json.dumps(options)

    def run(self, *words: str, code: int = 0) -> str:
        ran = subprocess.run(
            [sys.executable, *words],
            capture_output=True,
            check=False,
            cwd=self.folder,
            env=self.env,
            text=True,
            timeout=120,
        )
        assert ran.returncode == code, ran.stdout + ran.stderr
        return ran.stdout + ran.stderr

    def manage(self, *words: str, code: int = 0) -> str:
        return self.run(str(PROJECT / "manage.py"), *words, code=code)

    def ask(self, code: str) -> Any:
        # What is logged comes after it.
        lines = self.run("-c", SETUP + code).splitlines()
        return json.loads(next(line for line in reversed(lines) if line.startswith("{")))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture
def on_postgres(project: Project, postgres_address: postgresql.Address) -> Project:
    address = emptied_postgres(postgres_address)
    project.env["SHOP_DATABASE"] = json.dumps(
        {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": address.host,
            "PORT": address.port,
            "USER": address.username,
            "PASSWORD": address.password,
            "NAME": address.database,
        }
    )
    login = address.username if not address.password else f"{address.username}:{address.password}"
    url = f"postgresql://{login}@{address.host}:{address.port}/{address.database}"
    project.options(url=url, transaction="join")
    return project


def test_the_package_is_there_without_tasks_and_says_what_its_backend_needs() -> None:
    import jobmill.contrib.django as package

    assert package.__all__ == ["JobmillBackend", "JobmillTask"]
    if NEW:
        assert package.JobmillBackend.__name__ == "JobmillBackend"
        assert package.JobmillTask.__name__ == "JobmillTask"
        return
    with pytest.raises(ImportError, match=r"JobmillBackend needs Django 6\.0 .* Django 5\."):
        _ = package.JobmillBackend


@has_tasks
def test_the_shop_takes_an_order_and_a_worker_sends_its_receipt(project: Project) -> None:
    project.manage("check")
    first = project.ask(
        "from django.test import Client\n"
        "answer = Client().post('/orders/ada')\n"
        "told(status=answer.status_code, **answer.json())"
    )
    assert first["status"] == 202
    assert first["receipt"].startswith("mail:")
    ran = project.manage("jobmill", "worker", "--burst", "--log-format", "json")
    assert "shop.tasks.send_receipt" in project.manage("jobmill", "jobs", "list", "--queue", "mail")
    assert "Traceback" not in ran
    assert "mail" in project.manage("jobmill", "queues", "list")
    after = project.ask(
        "from django.test import Client\n"
        f"told(**Client().get('/receipts/{first['receipt']}').json())"
    )
    assert after == {"status": "SUCCESSFUL", "text": "receipt for ada"}


@has_tasks
def test_results_tell_what_became_of_tasks(project: Project) -> None:
    project.options(url="sqlite:///jobs.db", job={"retries": 1, "retry_delay": 0, "jitter": 0})
    ids = project.ask(
        "late = timezone.now() + timezone.timedelta(days=1)\n"
        "some = [count_stock.enqueue(7), charge.enqueue('ada'), fetch_prices.enqueue(),\n"
        "        count_stock.using(run_after=late, priority=-3).enqueue(1)]\n"
        "told(ids=[each.id for each in some])"
    )["ids"]
    project.manage("jobmill", "worker", "--burst")
    told = project.ask(
        f"some = [backend.get_result(each) for each in {ids}]\n"
        "told(status=[each.status for each in some], attempts=[each.attempts for each in some],\n"
        "     errors=[[e.exception_class.__name__ for e in each.errors] for each in some],\n"
        "     values=[some[0].return_value, some[2].return_value],\n"
        "     late=some[3].task.run_after > timezone.now(), priority=some[3].task.priority)"
    )
    assert told["status"] == ["SUCCESSFUL", "FAILED", "SUCCESSFUL", "READY"]
    assert told["attempts"] == [1, 1, 2, 0]
    assert told["errors"] == [[], ["Fail"], ["ConnectionError"], []]
    assert told["values"] == [7, 2]
    assert told["late"] is True
    assert told["priority"] == -3


@has_tasks
def test_the_higher_priority_runs_first_and_no_receiver_of_a_signal_changes_an_end(
    project: Project,
) -> None:
    project.options(url="sqlite:///jobs.db", concurrency=1)
    told = project.ask(
        "from django.tasks.signals import task_finished, task_started\n"
        "import asyncio\n"
        "from jobmill.testing import drain\n"
        "order, ends = [], []\n"
        "def started(task_result, **_): order.append(task_result.args[0])\n"
        "def finished(task_result, **_): ends.append([task_result.args[0], task_result.status])\n"
        "task_started.connect(started); task_finished.connect(finished)\n"
        "def broken(**_): raise RuntimeError('a receiver')\n"
        "task_finished.connect(broken)\n"
        "import logging; logging.disable(logging.CRITICAL)\n"
        "for priority in (0, 90, -90, 50):\n"
        "    charge.using(priority=priority).enqueue(str(priority))\n"
        "asyncio.run(drain(backend.queue()))\n"
        "told(order=order, ends=ends)"
    )
    assert told["order"] == ["90", "50", "0", "-90"]
    assert told["ends"] == [[each, "FAILED"] for each in told["order"]]


TRANSACTIONS = """
from django.db import connection
with connection.cursor() as cursor:
    cursor.execute("CREATE TABLE orders (name text)")
seen = {}
class Undo(Exception): pass
try:
    with transaction.atomic():
        connection.cursor().execute("INSERT INTO orders VALUES ('undone')")
        count_stock.enqueue(1)
        raise Undo
except Undo:
    pass
seen["after rollback"] = stored().get("pending", 0)
with transaction.atomic():
    connection.cursor().execute("INSERT INTO orders VALUES ('done')")
    result = count_stock.enqueue(2)
    seen["inside"] = None if LOCKED else stored().get("pending", 0)
    seen["enqueued inside"] = result.enqueued_at
seen["after commit"] = stored().get("pending", 0)
seen["found"] = backend.get_result(result.id).args
count_stock.enqueue(3)
seen["without one"] = stored().get("pending", 0)
told(**seen)
"""
EXPECTED = {
    "after rollback": 0,
    "inside": 0,
    "enqueued inside": None,
    "after commit": 1,
    "found": [2],
    "without one": 2,
}


@has_tasks
@pytest.mark.store("postgresql")
def test_a_task_joins_the_transaction_of_postgresql(on_postgres: Project) -> None:
    assert on_postgres.ask(f"LOCKED = False{TRANSACTIONS}") == EXPECTED


@has_tasks
def test_a_task_joins_the_transaction_of_its_own_sqlite_file(project: Project) -> None:
    project.options(url="sqlite:///shop.sqlite3", transaction="join")
    # The transaction holds the file's write lock, so that no other connection is asked inside.
    told = project.ask(f"LOCKED = True{TRANSACTIONS}")
    assert told == {**EXPECTED, "inside": None}


@has_tasks
def test_a_task_waits_for_the_commit_on_any_store(project: Project) -> None:
    assert project.ask(f"LOCKED = False{TRANSACTIONS}") == EXPECTED


@has_tasks
def test_what_cannot_be_stored_is_refused_before_the_commit(project: Project) -> None:
    told = project.ask(
        "try:\n"
        "    with transaction.atomic():\n"
        "        count_stock.enqueue('x' * (1 << 21))\n"
        "        told(refused=False)\n"
        "except ValueError as error:\n"
        "    told(refused=type(error).__name__)"
    )
    assert told == {"refused": "PayloadTooLarge"}


CHECKED = [
    ({}, "jobmill.W001"),
    ({"url": "sqlite:///jobs.db"}, None),
    ({"url": "sqlite:///jobs.db", "retires": 3}, "jobmill.E002"),
    ({"url": "carrier://pigeon"}, "jobmill.E002"),
    ({"url": "sqlite:///jobs.db", "job": {"executor": "process"}}, "jobmill.E002"),
    ({"url": "sqlite:///jobs.db", "job": {"retires": 1}}, "jobmill.E002"),
    ({"url": "sqlite:///jobs.db", "transaction": "perhaps"}, "jobmill.E002"),
    ({"url": "sqlite:///jobs.db", "transaction": "join", "database": "no"}, "jobmill.E003"),
    ({"url": "redis://localhost", "transaction": "join"}, "jobmill.E004"),
]


@has_tasks
def test_the_checks_name_what_is_wrong(project: Project) -> None:
    told = project.ask(
        "from jobmill.contrib.django import JobmillBackend\n"
        f"options = {[options for options, _ in CHECKED]}\n"
        "made = [JobmillBackend('a', {'OPTIONS': each}) for each in options]\n"
        "told(ids=[[each.id for each in backend.check()] for backend in made],\n"
        "     queue=[each.id for each in JobmillBackend('a', {'QUEUES': ['a b']}).check()])"
    )
    assert told["ids"] == [[] if expected is None else [expected] for _, expected in CHECKED]
    assert told["queue"] == ["jobmill.E001"]


@has_tasks
def test_a_project_that_will_not_do_is_told_so_in_words(project: Project) -> None:
    project.options(url="carrier://pigeon")
    told = project.manage("jobmill", "worker", "--burst", code=1)
    assert "jobmill.E002" in told
    assert "Traceback" not in told


@has_tasks
def test_words_of_the_command_are_left_to_it(project: Project) -> None:
    said = project.run(
        "-c",
        SETUP + "import contextlib\n"
        "count_stock.enqueue(1)\n"
        "from django.core.management import call_command\n"
        "for words in (['queues', 'list', '--json'], ['jobs']):\n"
        "    with contextlib.suppress(SystemExit):\n"
        "        call_command('jobmill', *words)",
    )
    assert '"name": "default"' in said
    assert "jobmill jobs COMMAND" in said
    assert "Unknown command" not in said


@has_tasks
def test_an_id_that_anyone_made_up_is_no_result_and_makes_no_queue(project: Project) -> None:
    told = project.ask(
        "from jobmill.contrib.django import JobmillBackend\n"
        "from jobmill.contrib.django.queues import _queues\n"
        "from django.tasks.exceptions import TaskResultDoesNotExist\n"
        "free = JobmillBackend('default', {'QUEUES': [], 'OPTIONS': backend.options})\n"
        "kept = count_stock.using(queue_name='default').enqueue(1)\n"
        "missing = 0\n"
        "for each in ('x', 'x:y', 'no such:1', ':', 'a' * 999, 'mail:1', 'mail:' + kept.id):\n"
        "    for one in (free, backend):\n"
        "        try: one.get_result(each)\n"
        "        except TaskResultDoesNotExist: missing += 1\n"
        "told(missing=missing, names=sorted(name for _, name in _queues),\n"
        "     found=free.get_result(kept.id).args)"
    )
    assert told == {"missing": 14, "names": ["default", "mail"], "found": [1]}


@has_tasks
def test_a_name_out_of_the_store_is_never_imported(project: Project) -> None:
    (project.folder / "trap.py").write_text("print('sprung')")
    told = project.ask(
        "import sys; sys.path.insert(0, '.')\n"
        "from jobmill.store import NewJob\n"
        "from jobmill.policy import Policy\n"
        "queue = backend.queue()\n"
        "new = NewJob(id='one', name='trap.it', payload=b'{}', policy=Policy())\n"
        "queue.ask_sync(lambda store: store.add([new]))\n"
        "from django.tasks.exceptions import TaskResultDoesNotExist\n"
        "try: backend.get_result('default:one'); found = True\n"
        "except TaskResultDoesNotExist: found = False\n"
        "told(found=found, imported='trap' in sys.modules)"
    )
    assert told == {"found": False, "imported": False}
