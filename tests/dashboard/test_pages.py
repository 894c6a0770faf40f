"""What the pages say, whoever wrote it; what they hide; and what it costs to ask."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from jobmill import (
    InMemoryQueue,
    JobContext,
    Queue,
    Scheduler,
    SQLiteQueue,
    create_queue,
    define_job,
)
from jobmill.dashboard import board, create_app
from jobmill.dashboard.board import Watched
from jobmill.dashboard.filters import read_filter
from jobmill.dashboard.masking import HIDDEN, Mask
from jobmill.dashboard.reads.figures import HOUR, Surveyor
from jobmill.dashboard.reads.schedules import schedule_view
from jobmill.dashboard.views import ScheduleView
from jobmill.policy import Policy
from jobmill.store import NewJob, Page, Record, Store
from jobmill.stores.memory import MemoryStore
from jobmill.testing import drain
from tests.dashboard.kit import HTML, PAGES, Asker, asking, fail, fill, greet, later

HOSTILE = (
    "<script>alert(1)</script>\"><img src=x onerror=alert(2)>' javascript:alert(3) {{7*7}} "
    "\x1b[31mred \u202eevil &amp; <b>"
)
MACHINES = (
    *("/api/overview", "/api/jobs", "/api/jobs/{done}", "/api/jobs/{bad}", "/api/queues/default"),
    *("/api/schedules", "/api/schedules/nightly", "/api/workers", "/api/errors", "/api/audit"),
)


async def test_every_page_answers(asker: Asker, ids: dict[str, str]) -> None:
    for path in PAGES:
        answer = await asker.get(path.format(**ids), headers=HTML)
        assert answer.status_code == 200, path
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert "<main" in answer.text, path


async def test_what_is_not_there_is_said_so(asker: Asker) -> None:
    for path in ("/nope", "/jobs/nope", "/queues/nope", "/schedules/nope", "/api/jobs/a%00b"):
        answer = await asker.get(path, headers=HTML)
        assert answer.status_code == 404, path
        assert "Traceback" not in answer.text
    for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/static/nope"):
        assert (await asker.get(path)).status_code == 404, path


async def test_text_of_others_is_text_on_every_page(queue: Queue) -> None:
    ids = await fill(queue, HOSTILE)
    async with asking(create_app(queue)) as asker:
        await asker.send_json("/api/jobs/retry", {"ids": [HOSTILE]})
        paths = [path.format(**ids) for path in PAGES]
        paths += [
            str(httpx.URL("/jobs", params={"q": word})) for word in (HOSTILE, f'job:"{HOSTILE}"')
        ]
        paths += [str(httpx.URL("/jobs", params={"queue": HOSTILE})), f"/jobs/{ids['waits']}"]
        seen = 0
        for path in paths:
            page = (await asker.get(path, headers=HTML)).text
            seen += "alert(1)" in page
            assert "<script>alert" not in page, path
            assert "<img" not in page, path
            assert not re.search(r"""(href|src|action)=["']?javascript:""", page), path
            assert "49" not in re.findall(r"javascript:alert\(3\) (\S+)", page), path
            assert not set(page) & set("\x1b\u202e"), path
    assert seen >= 6


async def test_secrets_are_hidden_on_pages_and_in_json(queue: Queue) -> None:
    url = "postgresql://ada:hunter2@db/app"
    ids = await fill(queue, f"cannot reach {url}")
    async with asking(create_app(queue)) as asker:
        await asker.send_json("/api/jobs/retry", {"ids": [url]})
        for path in (*PAGES, *MACHINES):
            answer = await asker.get(path.format(**ids), headers=HTML)
            assert answer.status_code == 200, path
            assert "hunter2" not in answer.text, path
        job = (await asker.get(f"/api/jobs/{ids['done']}")).json()
    assert job["payload"]["password"] == HIDDEN
    assert job["payload"]["nested"] == [{"secretKey": HIDDEN}]
    assert job["result"] == {"said": "hello", "api_key": HIDDEN}
    assert job["metadata"]["token"] == HIDDEN
    assert job["logs"][0]["fields"]["password"] == HIDDEN


@pytest.mark.parametrize(
    "name",
    [
        *("password", "DB_PASSWORD", "userPassword", "passwd", "api-key", "apiKey", "X-Api-Key"),
        *("access_token", "accessToken", "Authorization", "client_secret", "privateKey", "cookie"),
        *("dbpassword", "cardNumber", "pin"),
    ],
)
def test_a_name_that_looks_secret_is(name: str) -> None:
    assert Mask().is_secret(name)


@pytest.mark.parametrize(
    "name",
    ["to", "author", "keyboard", "pinned", "tokenizer_x", "key", "path", "monkey", "authority"],
)
def test_a_name_that_does_not_is_not(name: str) -> None:
    assert not Mask().is_secret(name)


def test_more_names_may_be_secret() -> None:
    masked = Mask(["Birth Day"]).value({"birthDay": "x", "deep": {"birth_day": 1}, "day": "y"})
    assert masked == {"birthDay": HIDDEN, "deep": {"birth_day": HIDDEN}, "day": "y"}
    headers = [{"name": "Authorization", "value": "x"}, {"key": "Accept", "value": "y"}]
    shown = [each["value"] for each in Mask().value(headers)]
    assert shown == [HIDDEN, "y"]


async def test_a_payload_that_is_no_json_is_shown_as_hex(queue: Queue, asker: Asker) -> None:
    pickled = b"\x80\x04\x95\x1c\x00\x00\x00cos\nsystem\n"
    new = NewJob(id="odd", name="odd", payload=pickled, policy=Policy())
    await queue.ask(lambda store: store.add([new]))
    page = await asker.get("/jobs/odd", headers=HTML)
    assert page.status_code == 200
    assert pickled.hex() in page.text
    assert (await asker.get("/api/jobs/odd")).json()["payload"] is None


async def test_a_store_that_is_down_is_said_to_be(queue: Queue) -> None:
    await fill(queue)
    down = create_queue("redis://:hunter2@127.0.0.1:1/0", name="down")
    async with asking(create_app(down)) as asker:
        for path in ("/jobs", "/jobs/x", "/queues/down", "/schedules", "/workers", "/errors"):
            page = await asker.get(path, headers=HTML)
            assert page.status_code == 503, path
            assert "Traceback" not in page.text
            assert "hunter2" not in page.text
        # The one that is there to say how things are says so.
        page = await asker.get("/", headers=HTML)
        assert page.status_code == 200
        assert "127.0.0.1:1" in page.text
        assert (await asker.get("/readyz")).status_code == 503
        assert (await asker.get("/healthz")).status_code == 200
        assert (await asker.send_json("/api/queues/down/pause")).status_code == 503
    async with asking(create_app([queue, down])) as asker:
        for path in ("/", "/jobs", "/schedules", "/workers", "/errors", "/audit"):
            page = await asker.get(path, headers=HTML)
            assert page.status_code == 200, path
        found = (await asker.get("/api/jobs")).json()
        assert len(found["jobs"]) == 3
        assert [each["queue"] for each in found["unanswered"]] == ["down"]
    await down.close()


async def test_a_defect_shows_no_traceback(
    asker: Asker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def defect(*_: object) -> None:
        message = "hunter2"
        raise RuntimeError(message)

    monkeypatch.setattr(Watched, "ask", defect)
    answer = await asker.get("/jobs", headers=HTML)
    assert answer.status_code == 500
    assert "hunter2" not in answer.text
    assert "hunter2" in caplog.text


class Counting:
    """A store that counts what it is asked."""

    def __init__(self, store: Store, asked: list[str]) -> None:
        self._store = store
        self._asked = asked

    def __getattr__(self, name: str) -> Any:
        self._asked.append(name)
        return getattr(self._store, name)


async def test_a_page_costs_the_same_however_many_jobs_there_are(
    queue: Queue, asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    ask = Watched.ask

    async def counted(self: Watched, verb: Callable[[Any], Any]) -> Any:
        return await ask(self, lambda store: verb(Counting(store, asked)))

    monkeypatch.setattr(Watched, "ask", counted)
    ids = await fill(queue)

    async def costs() -> dict[str, int]:
        found: dict[str, int] = {}
        for path in (*PAGES, *MACHINES, "/jobs?state=failed&q=error:thing", "/metrics"):
            asked.clear()
            await asker.get(path.format(**ids), headers=HTML)
            found[path] = len(asked)
        return found

    few = await costs()
    for _ in range(10):
        await queue.enqueue_many([fail.call("x") for _ in range(200)])
    await drain(queue)
    await queue.enqueue_many([later.call() for _ in range(1_000)])
    many = await costs()
    # What was surveyed a moment ago is not asked for again: so the same, or less.
    assert all(many[path] <= few[path] + 4 for path in few), (few, many)
    assert max(many.values()) <= 12, many


async def test_lists_are_capped(queue: Queue, asker: Asker) -> None:
    await queue.enqueue_many([later.call() for _ in range(300)])
    for limit, least in (("1000000000", 200), ("-1", 50), ("x", 50), ("9" * 5_000, 200), ("0", 1)):
        page = await asker.get("/api/jobs", params={"limit": limit})
        assert len(page.json()["jobs"]) == least, limit


async def test_pages_of_several_queues_are_one_list(queue: Queue) -> None:
    other = InMemoryQueue(name="other")
    expected: list[str] = []
    for number in range(30):
        handle = await (other if number % 3 else queue).enqueue(later)
        expected.insert(0, handle.id)
    async with asking(create_app([queue, other])) as asker:
        found: list[str] = []
        cursor: str | None = ""
        while cursor is not None:
            page = (await asker.get("/api/jobs", params={"limit": 7, "cursor": cursor})).json()
            found += [row["id"] for row in page["jobs"]]
            cursor = page["cursor"]
        assert sorted(found) == sorted(expected)
        assert (await asker.get("/api/jobs", params={"cursor": "nonsense"})).status_code == 400
    await other.close()


async def test_a_search_finds_what_it_says(queue: Queue, asker: Asker, ids: dict[str, str]) -> None:
    handle = await queue.enqueue(later, unique_key="order 7", delay=60)

    async def found(q: str, **more: str) -> list[str]:
        page = (await asker.get("/api/jobs", params={"q": q, **more})).json()
        return [row["id"] for row in page["jobs"]]

    assert await found("job:shop.fail") == [ids["bad"]]
    assert await found("shop.fail") == [ids["bad"]]
    assert await found(f"id:{ids['done']}") == [ids["done"]]
    assert await found(ids["done"]) == [ids["done"]]
    assert await found(f"id:{ids['done']} state:failed") == []
    assert await found("error:NO", state="failed") == [ids["bad"]]
    assert await found("error:elsewhere") == []
    assert await found('unique:"order 7"') == [handle.id]
    assert await found("state:completed") == [ids["done"]]
    assert await found("queue:default job:shop.fail") == [ids["bad"]]
    wrong = await asker.get("/api/jobs", params={"q": "colour:red state:odd"})
    assert wrong.status_code == 400
    assert "colour:" in wrong.json()["error"]
    assert "odd" in wrong.json()["error"]


@pytest.mark.parametrize("text", ['job:a.b error:"two words"', "unique:k queue:q", "id:x", ""])
def test_a_filter_and_its_text_say_the_same(text: str) -> None:
    first = read_filter(text)
    assert not first.problems
    assert read_filter(first.text) == first


async def test_no_instant_is_too_far_for_a_page(queue: Queue, asker: Asker) -> None:
    # Ten thousand years: "for ever", as some say it.
    ages = 3e11

    @define_job(name="kept", retries=0, keep_failed=ages)
    async def kept_for_ever(ctx: JobContext[None]) -> None:
        raise ValueError

    @define_job(name="again", retries=1, retry_delay=ages, max_retry_delay=ages)
    async def tried_again_at_last(ctx: JobContext[None]) -> None:
        raise ValueError

    kept = await queue.enqueue(kept_for_ever, None)
    again = await queue.enqueue(tried_again_at_last, None)
    await drain(queue)
    await Scheduler(queue).schedule("nightly", "0 0 * * *", later)

    async def spoil(store: Store) -> None:
        (doc,) = await store.read("schedules")
        plan = msgspec.json.decode(doc.value) | {"next_run": 1e300}
        await store.write("schedules", doc.key, msgspec.json.encode(plan))

    await queue.ask(spoil)
    for path in ("/", "/jobs", f"/jobs/{kept.id}", f"/jobs/{again.id}", "/schedules"):
        assert (await asker.get(path, headers=HTML)).status_code == 200, path
    (row,) = (await asker.get("/api/schedules")).json()["schedules"]
    assert row["status"] == "broken"
    job = (await asker.get(f"/api/jobs/{kept.id}")).json()
    assert job["expires_at"].startswith("9999-12-31")


async def test_no_search_finds_what_is_hidden(queue: Queue, asker: Asker) -> None:
    await queue.enqueue(fail, "no route to redis://me:it's-hunter2@db/0")
    await drain(queue)
    for q, found in (("error:route", 1), ("error:hunter2", 0), ("error:me:it", 0)):
        assert len((await asker.get("/api/jobs", params={"q": q})).json()["jobs"]) == found, q
    for path in ("/jobs", "/errors", "/api/jobs", "/api/errors"):
        assert "hunter2" not in (await asker.get(path, headers=HTML)).text, path


@pytest.mark.parametrize(
    "q", ["job:a job:b", "a b", "error:x error:y", "queue:a job:j", "id:a id:b"]
)
def test_what_is_said_twice_is_no_search(q: str) -> None:
    (problem,) = read_filter(q, queue="b" if "queue:" in q else None).problems
    assert "give one of them" in problem
    assert not read_filter("job:a a queue:b", queue="b").problems


async def test_the_clocks_are_told_of_among_the_coming_ticks(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    await Scheduler(queue).schedule(
        *("nightly", "30 2 * * *", greet, {}),
        timezone="America/New_York",
        start_date=datetime(2031, 3, 1, tzinfo=UTC),
    )
    board = create_app(queue).state.desk.board
    found = await schedule_view(board, Mask(), "nightly")
    assert found is not None
    view = found[1]
    assert isinstance(view, ScheduleView)
    assert len(view.runs) == 20
    changes = [(run.at.isoformat(), run.change) for run in view.runs if run.change]
    # On the ninth of March 2031 the hour from 2 to 3 is left out; the tick comes at its end.
    assert changes == [("2031-03-09T03:00:00-04:00", "clocks go forward by 1 h before this one")]
    assert view.row.description == "At 02:30"


async def test_queues_that_come_later_are_told_of_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with SQLiteQueue(tmp_path / "jobs.db") as first:
        await first.enqueue(later)
        app = create_app([first, first], discover=True)
        async with asking(app) as asker:
            assert 'queue="later"' not in (await asker.get("/metrics")).text
            async with SQLiteQueue(tmp_path / "jobs.db", name="later") as other:
                await other.enqueue(later)
            monkeypatch.setattr(board, "_DISCOVER_EVERY", 0.0)
            monkeypatch.setattr(board, "MOST", 1)
            told = (await asker.get("/api/overview")).json()
            assert (len(told["queues"]), told["left_out"]) == (2, 1)
            for path in ("/", "/queues"):
                page = (await asker.get(path, headers=HTML)).text
                assert "1 more queue of these stores is not shown" in page, path
            monkeypatch.setattr(board, "MOST", 9)
            told = (await asker.get("/api/overview")).json()
            assert (len(told["queues"]), told["left_out"]) == (3, 0)
            metrics = (await asker.get("/metrics")).text
            # Each under its label, and once: Prometheus takes no figure twice.
            for label in ("default", "default.2", "later"):
                assert metrics.count(f'jobmill_store_up{{queue="{label}"}}') == 1
        await app.state.desk.board.close()


async def test_a_search_that_has_found_nothing_goes_on_by_itself_for_a_while(
    queue: Queue, asker: Asker, ids: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Record] = []

    async def find(*_: object, **__: object) -> Page:
        return Page(records=tuple(found), cursor="5")

    found += [record for record in await queue.ask(lambda it: it.get([ids["done"]])) if record]
    monkeypatch.setattr(MemoryStore, "find", find)
    page = (await asker.get("/jobs?q=job:rare", headers=HTML)).text
    assert "data-goes-on" not in page  # what was found stays to be seen
    found.clear()
    page = (await asker.get("/jobs?q=job:rare", headers=HTML)).text
    assert re.search(r'data-goes-on href="[^"]*hops=1"', page)
    page = (await asker.get("/jobs?q=job:rare&hops=19", headers=HTML)).text
    assert re.search(r'data-goes-on href="[^"]*hops=20"', page)
    page = (await asker.get("/jobs?q=job:rare&hops=20", headers=HTML)).text
    assert "data-goes-on" not in page
    assert "Search on" in page


async def test_a_list_shows_how_payloads_begin(queue: Queue, asker: Asker) -> None:
    await queue.enqueue(greet, {"password": "hunter2", "to": "ada@example.com"})
    await queue.enqueue(greet, {"to": "x" * 300})
    await queue.enqueue(greet, {"to": "y" * 5_000})
    long, cut, short = (await asker.get("/api/jobs")).json()["jobs"]
    assert short["payload"] == f'{{"password":"{HIDDEN}","to":"ada@example.com"}}'
    assert (len(cut["payload"]), cut["payload"][-1]) == (120, "…")
    assert long["payload"] is None
    assert "ada@example.com" in (await asker.get("/jobs", headers=HTML)).text


async def test_what_needs_no_store_waits_for_none(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_app(queue, discover=True)
    asked: list[object] = []

    async def never(*_: object) -> None:
        asked.append(_)
        await asyncio.Event().wait()

    monkeypatch.setattr(board.Watched, "ask", never)
    async with asking(app) as asker, asyncio.timeout(30):
        assert (await asker.get("/healthz")).status_code == 200
        assert (await asker.get("/static/jobmill.css")).status_code == 200
    assert not asked
    async with asking(create_app(queue)) as asker, asyncio.timeout(30):
        # There is nothing to listen to.
        assert (await asker.head("/events")).status_code == 200


async def test_what_was_changed_is_looked_at_anew(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched, surveyor = Watched("default", queue), Surveyor()
    looked, go_on = asyncio.Event(), asyncio.Event()
    ask = Watched.ask

    async def slowly(each: Watched, verb: Any) -> Any:
        found = await ask(each, verb)
        if not looked.is_set():
            looked.set()
            await go_on.wait()
        return found

    monkeypatch.setattr(Watched, "ask", slowly)
    before = asyncio.ensure_future(surveyor.of(watched, HOUR))
    await looked.wait()
    await queue.enqueue(later)
    surveyor.forget("default")
    after = asyncio.ensure_future(surveyor.of(watched, HOUR))
    await asyncio.sleep(0)
    go_on.set()
    assert (await before).counts.due == 0
    assert (await after).counts.due == 1
    assert (await surveyor.of(watched, HOUR)).counts.due == 1


async def test_how_all_is_is_added_up(queue: Queue, ids: dict[str, str], asker: Asker) -> None:
    await queue.enqueue(later)
    view = (await asker.get("/api/overview")).json()
    load = view["load"]
    assert load["counts"] == {
        **dict.fromkeys(("processing", "cancelled"), 0),
        **dict.fromkeys(("pending", "delayed", "completed", "failed"), 1),
    }
    assert load["due"] == 1
    assert load["workforce"] == {"workers": 1, "slots": 10, "busy": 1}
    assert load["figures"]["completed"] == load["figures"]["failed"] == 1
    # Two jobs ended in the last five minutes, and one is due.
    assert load["drain"] == pytest.approx(150, rel=0.2)
    assert sum(point["completed"] for point in load["points"]) == 1
    assert (await asker.get("/scale/default")).json()["value"] == 1
