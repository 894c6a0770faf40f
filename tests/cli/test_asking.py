"""Commands that ask a store, and change what is in it: as JSON, piped, and on a terminal."""

from __future__ import annotations

import re
import signal
import uuid
from typing import Any

import jsonschema
import pytest

from jobmill.stores.postgresql import Address
from tests.cli import schemas
from tests.cli.kit import Cli, Ran, enqueue, eventually, held, status

# A command has its loop for itself: there is nothing that it could hold up.
pytestmark = [pytest.mark.timeout(180), pytest.mark.blocks_loop]

_STYLE = re.compile(r"\x1b\[[0-9;]*m")


def valid(ran: Ran, schema: dict[str, Any]) -> Any:
    jsonschema.Draft202012Validator(schema).validate(ran.ok().document)
    assert not ran.err
    return ran.document


def test_a_schema_that_does_not_fit_is_found(filled: Cli) -> None:
    with pytest.raises(jsonschema.ValidationError):
        valid(filled("queues", "list", "--json"), schemas.SCHEDULES)


def test_piped_it_is_plain_and_whole(filled: Cli) -> None:
    ran = filled("jobs", "list").ok()
    head, *rows = ran.out.splitlines()
    assert head.split() == ["id", "job", "status", "attempt", "enqueued", "took", "error"]
    assert [row.split()[0] for row in rows] == [
        *("cancelled", "due", "late", "bad", "done-Grace", "done-Ada"),
    ]
    assert "ValueError: a [31mred[0m error of two lines" in ran.out
    assert "\x1b" not in ran.out


def test_a_narrow_terminal_without_colours_cuts_errors_and_never_ids(filled: Cli) -> None:
    shown = filled.on_terminal("jobs", "list", width=40, env={"NO_COLOR": "1"}).ok().out
    colours = {code for style in _STYLE.findall(shown) for code in style[2:-1].split(";")}
    assert colours <= {"0", "1", ""}, "bold is no colour"
    plain = _STYLE.sub("", shown)
    assert "done-Grace" in plain
    assert "cancelled" in plain
    assert "two lines" not in plain
    assert "…" in plain


def test_a_line_of_json_for_each_and_bare_ids(filled: Cli) -> None:
    lines = filled("jobs", "list", "--jsonl", "--status", "completed").ok().lines
    for line in lines:
        jsonschema.Draft202012Validator(schemas.JOB).validate(line)
    ids = filled("jobs", "list", "-q", "--job", "greet", "--status", "completed").ok().out
    assert ids.split() == [line["id"] for line in lines] == ["done-Grace", "done-Ada"]


def test_a_list_goes_on_at_its_cursor(filled: Cli) -> None:
    first = valid(filled("jobs", "list", "--limit", "4", "--json"), schemas.JOBS)
    rest = filled("jobs", "list", "--json", "--cursor", first["next_cursor"]).ok().document
    assert len(first["jobs"]) == 4
    assert [job["id"] for job in rest["jobs"]] == ["done-Grace", "done-Ada"]
    assert rest["next_cursor"] is None


def test_another_queue_and_what_is_not_there(filled: Cli) -> None:
    assert filled("jobs", "list", "-q", "--queue", "other").ok().out == "elsewhere\n"
    gone = filled("jobs", "show", "nobody")
    assert (gone.code, gone.out) == (3, "")
    assert gone.err == "jobmill: there is no job nobody in the queue default\n"
    failed = filled("jobs", "wait", "bad")
    assert (failed.code, failed.out) == (1, "")
    assert failed.err.count("\n") == 1
    assert "ValueError" in failed.err
    late = filled("jobs", "wait", "late", "--timeout", "0.1")
    assert (late.code, late.out) == (1, "")


def test_jobs_are_enqueued_and_steered(cli: Cli) -> None:
    app = ("--app", "app.py")
    put = valid(cli("enqueue", "greet", '{"name": "Ada"}', *app, "--json"), schemas.ENQUEUED)
    assert put["deduplicated"] is False
    late = cli("enqueue", "app.divide", "-", *app, "-q", "--delay", "99", stdin='{"by": 0}')
    late_id = late.ok().out.strip()
    again = ("enqueue", "greet", '{"name": "Bob"}', *app, "--job-id", "b", "--json")
    for there in (False, True):
        answer = {"id": "b", "deduplicated": there, "checked": True}
        assert valid(cli(*again), schemas.ENQUEUED) == answer
    taken = cli("enqueue", "greet", '{"name": "Eve"}', *app, "--job-id", "b")
    assert (taken.code, taken.err.count("\n")) == (5, 1)

    store = ("--store", "sqlite:///jobs.db")
    done = cli("jobs", "run-now", late_id, "nobody", *store, "--json")
    assert (done.code, done.document) == (3, {"done": [late_id], "left": ["nobody"]})
    cancelled = cli("jobs", "cancel", "b", "--reason", "no need", *store)
    assert cancelled.ok().out == "1 job: cancel done\n"
    cli("worker", "app.py", "--burst").ok()
    assert (cli.folder / "greeted").read_text().split()[0] == "Ada"

    failed = valid(cli("jobs", "show", late_id, *store, "--json"), schemas.JOB)
    assert (failed["status"], failed["error"]["type"]) == ("failed", "ZeroDivisionError")
    dry = valid(cli("jobs", "retry", "--all", "--dry-run", *store, "--json"), schemas.COUNTED)
    assert dry == {"count": 1, "dry_run": True}
    unasked = cli("jobs", "retry", "--status", "failed", *store)
    assert (unasked.code, unasked.err.count("\n")) == (2, 1)
    assert "--yes" in unasked.err
    no = cli.on_terminal("jobs", "retry", "--status", "failed", *store, types="n\n")
    assert (no.code, "retry 1 job" in no.out) == (1, True)
    yes = cli.on_terminal("jobs", "retry", "--status", "failed", *store, types="y\n")
    assert "1 job: retry done" in yes.ok().out
    counted = valid(cli("jobs", "delete", "--all", "--yes", *store, "--json"), schemas.COUNTED)
    assert counted == {"count": 3, "dry_run": False}


@pytest.mark.parametrize("verb", ["delete", "cancel", "retry"])
def test_no_ids_are_none_and_never_all_jobs(cli: Cli, verb: str) -> None:
    due, bad = enqueue(cli, "greet", '{"name": "Ada"}'), enqueue(cli, "divide", '{"by": 0}')
    cli("worker", "app.py", "--burst", "--jobs", "divide").ok()
    words = ("jobs", verb, "-", "--yes", "--store", "sqlite:///jobs.db", "--json")
    for nothing in ("", " \n"):
        ran = valid(cli(*words, stdin=nothing), schemas.CHANGED)
        assert ran == {"done": [], "left": []}
    assert [status(cli, each)[0] for each in (due, bad)] == ["pending", "failed"]


def test_enqueue_waits_for_the_result(cli: Cli) -> None:
    worker = cli.start("worker", "app.py")
    words = ("enqueue", "greet", '{"name": "Ada"}', "--app", "app.py", "--wait")
    assert cli(*words).ok().out == '"Hello, Ada!"\n'
    info = valid(cli(*words, "--json"), schemas.JOB)
    assert info["result"] == "Hello, Ada!"
    failed = cli("enqueue", "divide", '{"by": 0}', "--app", "app.py", "--wait")
    assert (failed.code, failed.out) == (1, "")
    assert "failed: ZeroDivisionError: division by zero" in failed.err
    assert worker.code is None


def test_a_job_is_enqueued_by_its_name_alone_and_said_to_be_unchecked(cli: Cli) -> None:
    store = ("--store", "sqlite:///jobs.db")
    put = cli("enqueue", "app.greet", '{"name": "Ada"}', *store, "--json").ok()
    jsonschema.Draft202012Validator(schemas.ENQUEUED).validate(put.document)
    assert put.document["checked"] is False
    assert put.err.count("\n") == 1
    assert "nothing checked the name app.greet and the payload" in put.err
    bad = cli("enqueue", "app.greet", '{"nme": 1}', *store, "-q").ok().out.strip()
    empty = cli("enqueue", "report", *store, "-q").ok().out.strip()
    late = cli("enqueue", "nobody.knows", "[1]", *store, "-q").ok().out.strip()
    mail = cli("enqueue", "app.hold", *store, "--queue", "mail", "-q").ok().out
    assert cli("jobs", "list", *store, "--queue", "mail", "-q").ok().out == mail
    for words, named in ((("a b", "{}"), "'a b'"), (("app.greet", "{"), "JSON: ")):
        refused = cli("enqueue", *words, *store)
        assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
        assert named in refused.err
    cli("worker", "app.py", "--burst").ok()
    assert (cli.folder / "greeted").read_text().split()[0] == "Ada"
    assert status(cli, bad)[:2] == ("failed", 1)
    assert status(cli, late) == ("delayed", 0, 0)
    assert status(cli, empty) == ("completed", 1, 0)


def test_queues_are_paused_resumed_and_cleared(cli: Cli) -> None:
    store = ("--store", "sqlite:///jobs.db")
    cli("enqueue", "greet", '{"name": "Ada"}', "--app", "app.py").ok()
    assert valid(cli("queues", "pause", *store, "--json"), schemas.PAUSED)["paused"] is True
    assert cli("worker", "app.py", "--burst").ok().out == ""
    assert not (cli.folder / "greeted").exists(), "it is paused"
    (row,) = valid(cli("queues", "list", *store, "--json"), schemas.QUEUES)["queues"]
    assert (row["name"], row["pending"], row["paused"]) == ("default", 1, True)
    assert valid(cli("queues", "resume", *store, "--json"), schemas.PAUSED)["paused"] is False
    one = valid(cli("queues", "pause", "--job", "x", *store, "--json"), schemas.PAUSED)
    assert one["job"] == "x"
    dry = valid(cli("queues", "clear", "--dry-run", *store, "--json"), schemas.COUNTED)
    assert dry == {"count": 1, "dry_run": True}
    cleared = valid(cli("queues", "clear", "-y", *store, "--json"), schemas.COUNTED)
    assert cleared == {"count": 1, "dry_run": False}


def test_schedules_are_synced_and_steered(cli: Cli) -> None:
    app, store = ("--app", "app.py"), ("--store", "sqlite:///jobs.db")
    synced = valid(cli("schedules", "sync", *app, "--json"), schemas.SYNCED)
    done = {"dry_run": False}
    seen = {"scheduler": ["morning"]}
    assert synced == {**done, "written": ["morning"], "removed": [], "declared_by": seen}
    changed = valid(cli("schedules", "pause", "morning", *store, "--json"), schemas.CHANGED)
    assert changed == {"done": ["morning"], "left": []}
    assert cli("schedules", "next", "morning", *store).ok().out == ""
    missing = cli("schedules", "resume", "morning", "evening", *store)
    assert (missing.code, missing.out) == (3, "morning: resume done\n")
    assert missing.err == "jobmill: no schedule is called 'evening'\n"
    ticks = valid(cli("schedules", "next", *store, "--count", "3", "--json"), schemas.TICKS)
    assert [tick["at"][11:19] for tick in ticks["ticks"]] == ["08:00:00"] * 3
    fired = valid(cli("schedules", "trigger", "morning", *store, "--json"), schemas.TRIGGERED)
    show = valid(cli("jobs", "show", fired["id"], *store, "--json"), schemas.JOB)
    assert (show["name"], show["status"]) == ("report", "pending")

    program = cli.folder / "app.py"
    program.write_text(program.read_text().replace('name="morning"', 'name="noon"'))
    dry = valid(cli("schedules", "sync", *app, "--dry-run", "--json"), schemas.SYNCED)
    change = {"written": ["noon"], "removed": ["morning"], "declared_by": {"scheduler": ["noon"]}}
    assert dry == {**change, "dry_run": True}
    unasked = cli("schedules", "sync", *app, "-q")
    assert (unasked.code, unasked.err.count("\n")) == (2, 1)
    told = "scheduler, a scheduler of default in sqlite"
    assert told in cli("schedules", "sync", *app, "--dry-run").err
    no = cli.on_terminal("schedules", "sync", *app, "--json", types="n\n")
    assert (no.code, "remove morning" in no.out, "written" in no.out) == (1, True, False)
    synced = valid(cli("schedules", "sync", *app, "--yes", "--json"), schemas.SYNCED)
    assert synced == {**change, **done}
    removed = valid(cli("schedules", "remove", "noon", "-y", *store, "--json"), schemas.CHANGED)
    assert removed == {"done": ["noon"], "left": []}


def test_what_the_app_declares_is_found_by_the_place_of_its_queue(cli: Cli) -> None:
    words = ("schedules", "sync", "--app", "app.py", "--yes", "--json")
    for same in (("--store", "sqlite:///jobs.db"), ("--queue", "default")):
        synced = valid(cli(*words, *same), schemas.SYNCED)
        assert (synced["written"], synced["removed"]) == (["morning"], [])

    aside = cli.folder / "aside.py"
    aside.write_text("import app\nfrom app import queue\n")
    nothing_in = (
        ("--app", "aside.py"),
        ("--app", "app.py", "--queue", "other"),
        ("--app", "app.py", "--store", "sqlite:///other.db"),
    )
    for where in nothing_in:
        refused = cli("schedules", "sync", "--yes", *where)
        assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
        assert "declares schedules of the queue" in refused.err
        seen = (
            "it has no scheduler"
            if "aside.py" in where
            else "scheduler, a scheduler of default in sqlite"
        )
        assert seen in refused.err
    left = cli("schedules", "list", "--store", "sqlite:///jobs.db", "-q").ok()
    assert left.out == "morning\n"


def test_workers_and_the_doctor_see_who_works(cli: Cli) -> None:
    store = ("--store", "sqlite:///jobs.db")
    enqueue(cli, "hold")
    sick = cli("doctor", *store, "--json")
    assert sick.code in (0, 6), "a job that has just come is no illness"
    jsonschema.Draft202012Validator(schemas.DOCTOR).validate(sick.document)
    worker = cli.start("worker", "app.py")
    held(cli, worker)

    def seen() -> list[Any]:
        rows = valid(cli("workers", *store, "--json"), schemas.WORKERS)["workers"]
        return [row for row in rows if row["pid"] == worker.pid and row["running"]]

    (row,) = eventually(seen, "the worker with its run", worker)
    assert (row["state"], row["busy"]) == ("running", 1)
    assert row["running"][0]["name"] == "app.hold"
    assert "app.hold" in cli.on_terminal("workers", *store).ok().out

    def healthy() -> list[Ran]:
        # Not while the worker has had no turn to beat for as long as its short lease.
        ran = cli("doctor", "--app", "app.py", "--json")
        return [ran] if ran.code == 0 else []

    (well,) = eventually(healthy, "a healthy queue", worker)
    jsonschema.Draft202012Validator(schemas.DOCTOR).validate(well.document)
    assert well.document["healthy"] is True
    (cli.folder / "release").touch()
    worker.send(signal.SIGTERM)
    assert worker.ends() == 0
    assert valid(cli("workers", *store, "--json"), schemas.WORKERS) == {"workers": []}


def test_the_doctor_finds_what_is_missing(cli: Cli) -> None:
    cli("schedules", "sync", "--app", "app.py").ok()
    other = cli.folder / "other.py"
    other.write_text(
        "from jobmill import create_queue\nqueue = create_queue('sqlite:///jobs.db')\n"
    )
    enqueue(cli, "greet", '{"name": "Ada"}')
    ran = cli("doctor", "--app", "other.py")
    assert ran.code == 6
    assert "the app does not define app.greet" in ran.out
    assert "1 schedule waits for the next tick, and no worker is there" in ran.out
    assert "jobmill worker APP" in ran.out


def test_a_schema_is_told_and_brought_up_to_date(cli: Cli) -> None:
    store = ("--store", "sqlite:///new.db")
    assert valid(cli("migrate", "up", *store, "--json"), schemas.MIGRATED)["current"] is True
    assert (cli.folder / "new.db").exists()
    assert valid(cli("migrate", "status", *store, "--json"), schemas.MIGRATED)["applied"] is None
    nothing = cli("migrate", "sql", *store)
    assert (nothing.ok().out, "there is nothing to do" in nothing.err) == ("", True)


def test_top_is_live_until_ctrl_c(just_filled: Cli) -> None:
    # A terminal drops what is not yet read when Ctrl-C is hit: not before all that is looked for.
    shown = just_filled.on_terminal("top", "--interval", "0.1", interrupts=b"greet")
    assert shown.code == 0
    text = _STYLE.sub("", shown.out)
    assert "default in sqlite:///" in text
    assert "completed 2" in text
    assert "greet" in text
    piped = just_filled("top")
    assert (piped.code, piped.err.count("\n")) == (2, 1)


@pytest.mark.store("postgresql")
def test_an_operator_brings_a_postgresql_schema_up_to_date(
    cli: Cli, postgres_address: Address
) -> None:
    server = postgres_address
    who = f"{server.username}:{server.password or ''}@{server.host}:{server.port}"
    schema = f"cli_{uuid.uuid4().hex}"
    url = f"postgresql://{who}/{server.database}?schema={schema}&sslmode={server.sslmode}"
    store = ("--store", url)
    behind = cli("migrate", "status", *store, "--json")
    assert (behind.code, behind.document["applied"], behind.document["current"]) == (1, 0, False)
    assert "jobmill migrate up" in cli("migrate", "status", *store).out
    statements = cli("migrate", "sql", *store).ok().out
    assert f'CREATE SCHEMA IF NOT EXISTS "{schema}"' in statements
    up = valid(cli("migrate", "up", *store, "--json"), schemas.MIGRATED)
    assert (up["current"], up["applied"]) == (True, up["latest"])
    assert valid(cli("migrate", "status", *store, "--json"), schemas.MIGRATED) == up
    nothing = cli("migrate", "sql", *store)
    assert (nothing.ok().out, "there is nothing to do" in nothing.err) == ("", True)
    assert valid(cli("queues", "list", *store, "--json"), schemas.QUEUES) == {"queues": []}


TWO = """\
from jobmill import create_queue, job

mails = create_queue("sqlite:///jobs.db", name="mails")
reports = create_queue("sqlite:///jobs.db", name="reports")


@job(name="send")
def send() -> None:
    ...
"""


def test_of_a_program_with_two_queues_all_are_looked_at(cli: Cli) -> None:
    (cli.folder / "two.py").write_text(TWO)
    for name in ("mails", "reports"):
        words = ("enqueue", "send", "--app", "two.py", "--queue", name)
        cli(*words).ok()
    looked = cli("doctor", "--app", "two.py", "--json").ok()
    texts = [each["text"] for each in looked.document["findings"]]
    for name in ("mails", "reports"):
        assert [each for each in texts if each.startswith(f"{name}: ")], texts
    codes = [each["code"] for each in looked.document["findings"]]
    assert (codes.count("reachable"), codes.count("offset")) == (1, 1), "one store"
    assert (codes.count("well"), codes.count("known")) == (2, 2)
    one = cli("doctor", "--app", "two.py", "--queue", "mails", "--json").document["findings"]
    assert not [each for each in one if "reports" in each["text"]]

    worker = cli.start("worker", "two.py")

    def there() -> list[Any]:
        found: list[Any] = cli("workers", "--app", "two.py", "--json").ok().document["workers"]
        return found

    (shown,) = eventually(there, "the worker on the rosters", worker)
    assert sorted(shown["queues"]) == ["mails", "reports"], "once, of both"
