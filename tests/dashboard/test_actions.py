"""What can be done, on every store: it is done, to no more than was asked for, and told of."""

from __future__ import annotations

import html
import re
from typing import Any

import httpx
import pytest

from jobmill import JobContext, Queue, Scheduler, define_job
from jobmill.dashboard import actions, audit, create_app
from jobmill.store import Counts, Query
from jobmill.stores.memory import MemoryStore
from jobmill.testing import drain
from tests.api.conftest import MakeQueue
from tests.dashboard.kit import HTML, Asker, asking, fail, fill, greet, later


@define_job(name="shop.fail_too", retries=0)
async def fail_too(ctx: JobContext[str]) -> None:
    raise RuntimeError(ctx.payload)


def flash_after(answer: httpx.Response) -> str:
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


async def status(queue: Queue, job_id: str) -> str | None:
    info = await queue.get_job(job_id)
    return None if info is None else info.status


async def test_every_action_on_every_store(make_queue: MakeQueue) -> None:
    queue = make_queue()
    ids = await fill(queue)
    async with asking(create_app(queue)) as asker:

        async def done(action: str, job: str) -> Any:
            answer = await asker.send_json(f"/api/jobs/{action}", {"ids": [ids[job], "none"]})
            assert answer.status_code == 200, answer.text
            assert answer.json()["refused"] == 1
            return answer.json()["count"]

        assert await done("run_now", "waits") == 1
        assert await status(queue, ids["waits"]) == "pending"
        assert await done("cancel", "waits") == 1
        assert await status(queue, ids["waits"]) == "cancelled"
        assert await done("retry", "bad") == 1
        assert await status(queue, ids["bad"]) == "pending"
        assert await done("delete", "bad") == 1
        assert await status(queue, ids["bad"]) is None
        for path in ("/queues/default", "/schedules/nightly"):
            for action in ("pause", "resume"):
                assert (await asker.send_json(f"/api{path}/{action}")).json()["count"] == 1
        made = (await asker.send_json("/api/schedules/nightly/trigger")).json()["text"]
        assert await status(queue, made) == "pending"
        found = (await asker.get("/api/audit", params={"limit": 3})).json()
        rest = await asker.get("/api/audit", params={"cursor": found["cursor"]})
        told = found["entries"] + rest.json()["entries"]
        assert [(each["action"], each["count"], each["outcome"]) for each in told] == [
            (action, 1, "done")
            for action in (
                *("trigger", "resume", "pause", "resume", "pause"),
                *("delete", "retry", "cancel", "run_now"),
            )
        ]
        assert {each["who"] for each in told} == {"anybody"}
        assert told[-1]["target"].startswith("2 jobs: ")

        # All that match: counted, shown, then done.
        await queue.enqueue_many([fail.call(f"no {number}") for number in range(7)])
        await queue.enqueue(fail, "else")
        await drain(queue)
        asked = {"all": "1", "q": "job:shop.fail error:valueerror", "state": "failed"}
        page = await asker.send_form("/jobs/retry", **asked)
        assert page.status_code == 200
        main = page.text.partition("<main")[2]
        fields = dict(re.findall(r'name="([^"]+)"\s+value="([^"]*)"', main))
        assert fields["confirmed"] == "1"
        number = int(fields["count.default"])
        assert number == (await queue.stats()).failed == 9
        # As a browser has them, who reads what is escaped.
        data = {name: html.unescape(value) for name, value in fields.items() if name != "csrf"}
        answer = await asker.send_form("/jobs/retry", **data)
        assert answer.status_code == 303
        assert (await queue.stats()).failed == 0


async def test_no_more_is_done_than_was_counted(queue: Queue, asker: Asker) -> None:
    await queue.enqueue_many([later.call() for _ in range(12)])
    body: dict[str, Any] = {"q": "job:shop.later"}
    counted = (await asker.send_json("/api/jobs/cancel", body)).json()
    assert counted == {
        "action": "cancel",
        "count": 12,
        "by_queue": {"default": 12},
        "searches": {"default": "job:shop.later"},
    }
    assert (await queue.stats()).pending == 12
    await queue.enqueue_many([later.call() for _ in range(5)])
    done = (await asker.send_json("/api/jobs/cancel", {**body, "count": 12})).json()
    assert (done["count"], done["left"]) == (12, 0)
    assert (await queue.stats()).pending == 5
    # What has ended is not cancelled again, and what was not asked for stays.
    await queue.enqueue(greet, {})
    deleted = {"q": "job:shop.later", "states": ["cancelled"], "count": 100}
    assert (await asker.send_json("/api/jobs/delete", deleted)).json()["count"] == 12
    assert (await queue.stats()).total == 6


async def test_all_of_a_unique_key_are_found_without_a_count_of_all(
    queue: Queue, asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store may need very long to count by key: it is searched instead, step by step."""
    mine: list[str] = []
    for _ in range(3):
        mine.append((await queue.enqueue(fail, "mine", unique_key="k")).id)
        await queue.enqueue(fail, "other", unique_key="other")
        await drain(queue)
    counts = MemoryStore.counts

    async def no_counts(store: MemoryStore, query: Query | None = None, **words: Any) -> Counts:
        assert query is None or query.unique_key is None
        return await counts(store, query, **words)

    monkeypatch.setattr(MemoryStore, "counts", no_counts)
    monkeypatch.setattr(actions, "_AT_ONCE", 2)
    body: dict[str, Any] = {"q": "unique:k"}
    counted = (await asker.send_json("/api/jobs/delete", body)).json()
    assert counted["count"] == 3
    done = (await asker.send_json("/api/jobs/delete", {**body, "count": 3})).json()
    assert (done["count"], done["left"]) == (3, 0)
    assert [await status(queue, each) for each in mine] == [None] * 3
    assert (await queue.stats()).failed == 3


async def test_all_that_match_an_id_are_that_job(queue: Queue, asker: Asker) -> None:
    mine = await queue.enqueue(fail, "mine")
    newer = await queue.enqueue(fail, "newer")
    await drain(queue)
    body: dict[str, Any] = {"q": f"id:{mine.id}", "count": 1}
    for elsewhere in ("job:shop.later", "unique:other", "error:elsewhere", "state:completed"):
        wanted = {**body, "q": f"{body['q']} {elsewhere}"}
        for changes in ({"count": None}, {}):
            answer = await asker.send_json("/api/jobs/retry", {**wanted, **changes})
            assert answer.json()["count"] == 0, wanted
        assert (await asker.get("/api/jobs", params=wanted)).json()["jobs"] == [], wanted
    for action, expected in (("retry", "pending"), ("cancel", "cancelled"), ("delete", None)):
        answer = await asker.send_json(f"/api/jobs/{action}", body)
        assert answer.json()["count"] == 1
        assert await status(queue, mine.id) == expected
        assert await status(queue, newer.id) == "failed"


async def test_the_error_that_was_counted_is_the_one(queue: Queue, asker: Asker) -> None:
    first = await queue.enqueue(fail, "a timeout")
    await drain(queue)
    asked = {"all": "1", "q": "error:timeout"}
    main = (await asker.send_form("/jobs/delete", **asked)).text.partition("<main")[2]
    fields = dict(re.findall(r'name="([^"]+)"\s+value="([^"]*)"', main))
    assert fields["count.default"] == "1"
    # By now the words mean the error of another job, which nobody has been shown.
    second = await queue.enqueue(fail_too, "timeout")
    await drain(queue)
    data = {name: html.unescape(value) for name, value in fields.items() if name != "csrf"}
    flash_after(await asker.send_form("/jobs/delete", **data))
    assert await status(queue, first.id) is None
    assert await status(queue, second.id) == "failed"


async def test_the_api_says_which_error_was_counted(queue: Queue, asker: Asker) -> None:
    first = await queue.enqueue(fail, "a timeout")
    await drain(queue)
    counted = (await asker.send_json("/api/jobs/delete", {"q": "error:timeout"})).json()
    second = await queue.enqueue(fail_too, "timeout")
    await drain(queue)
    body = {"q": counted["searches"]["default"], "count": counted["count"]}
    assert (await asker.send_json("/api/jobs/delete", body)).json()["count"] == 1
    assert await status(queue, first.id) is None
    assert await status(queue, second.id) == "failed"


async def test_what_takes_too_long_says_what_is_left(
    queue: Queue, asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actions, "_AT_ONCE", 3)
    monkeypatch.setattr(actions, "_SECONDS", -1.0)
    await queue.enqueue_many([later.call() for _ in range(10)])
    done = (await asker.send_json("/api/jobs/cancel", {"q": "shop.later", "count": 10})).json()
    assert (done["count"], done["left"]) == (0, 10)
    (entry,) = (await asker.get("/api/audit")).json()["entries"]
    assert entry["outcome"] == "10 left"


async def test_a_search_that_is_not_understood_does_nothing(queue: Queue, asker: Asker) -> None:
    await queue.enqueue(later)
    for path in ("/jobs/delete", "/api/jobs/delete"):
        wrong = {"q": "colour:red", "all": "1", "confirmed": "1", "count.default": "9"}
        if path.startswith("/api"):
            answer = await asker.send_json(path, {"q": "colour:red", "count": 9})
        else:
            answer = await asker.send_form(path, **wrong)
        assert answer.status_code == 400
    nothing = await asker.send_form("/jobs/delete")
    assert flash_after(nothing) == "/jobs"
    assert "No job was selected." in (await asker.get("/jobs", headers=HTML)).text
    assert "No job was selected." not in (await asker.get("/jobs", headers=HTML)).text
    assert (await queue.stats()).total == 1
    for path in ("/jobs/explode", "/queues/nope/pause", "/queues/default/explode"):
        assert (await asker.send_form(path)).status_code == 404, path
    for path in ("/schedules/nope/pause", "/schedules/nope/trigger", "/schedules/nope/explode"):
        assert (await asker.send_form(path)).status_code == 404, path
        assert (await asker.send_json(f"/api{path}")).status_code == 404, path


async def test_the_forms_lead_back_and_say_what_was_done(
    queue: Queue, asker: Asker, ids: dict[str, str]
) -> None:
    answer = await asker.send_form(
        "/jobs/retry", ids=[f"default/{ids['bad']}", ids["done"]], back="/jobs?state=failed"
    )
    assert flash_after(answer) == "/jobs?state=failed"
    assert "2 jobs started over." in (await asker.get("/jobs", headers=HTML)).text
    answer = await asker.send_form("/queues/default/pause", back="//evil.example", job="shop.fail")
    assert flash_after(answer) == "/queues/default"
    assert await queue.is_paused("shop.fail")
    assert not await queue.is_paused()
    answer = await asker.send_form("/queues/default/pause", job="<b>")
    assert answer.status_code == 400
    answer = await asker.send_form("/schedules/nightly/trigger", queue="default")
    assert flash_after(answer) == "/schedules/nightly"
    page = (await asker.get("/schedules/nightly", headers=HTML)).text
    assert "was added" in page


async def test_a_trigger_adds_none_beside_one_that_runs(queue: Queue, asker: Asker) -> None:
    scheduler = Scheduler(queue)
    await scheduler.schedule("one", "0 0 * * *", later, allow_concurrent=False)
    first = (await asker.send_json("/api/schedules/one/trigger")).json()
    again = (await asker.send_json("/api/schedules/one/trigger")).json()
    assert (first["count"], again["count"]) == (1, 0)
    assert first["text"] == again["text"]


async def test_nothing_is_done_that_cannot_be_told_of(
    queue: Queue, asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> str:
        message = "no audit"
        raise RuntimeError(message)

    token = await asker.token()
    monkeypatch.setattr(audit, "begin", broken)
    answer = await asker.post("/api/queues/default/pause", json={}, headers={"x-csrf-token": token})
    assert answer.status_code == 500
    assert not await queue.is_paused()


async def test_a_held_key_is_refused_and_told_of(queue: Queue, asker: Asker) -> None:
    first = await queue.enqueue(fail, "x", unique_key="k")
    await drain(queue)
    await queue.enqueue(fail, "x", unique_key="k", delay=60)
    done = (await asker.send_json("/api/jobs/retry", {"ids": [first.id]})).json()
    assert (done["count"], done["refused"]) == (0, 1)
    assert await status(queue, first.id) == "failed"
