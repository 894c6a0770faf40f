"""Making a queue: what a URL or a keyword says, and which of them are refused."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from jobmill import (
    ConfigError,
    InMemoryQueue,
    JobContext,
    JobOptions,
    Queue,
    SQLiteQueue,
    create_queue,
    define_job,
)
from jobmill.stores.memory import MemoryStore
from jobmill.stores.sqlite import SQLiteStore
from jobmill.urls import StoreURL
from tests.api.conftest import MakeQueue
from tests.api.jobs import echo, statuses

SECRET = "hunter2"


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JOBMILL_URL", raising=False)


def stored_at(queue: Queue) -> Path:
    async def store() -> None:
        await queue.enqueue(echo)
        await queue.close()

    assert isinstance(queue.store, SQLiteStore)
    asyncio.run(store())
    assert queue.store.path.is_file()
    return queue.store.path


async def test_without_a_url_it_is_a_private_memory() -> None:
    one, two = create_queue(), create_queue("memory://")
    assert isinstance(one.store, MemoryStore)
    await one.enqueue(echo)
    assert await statuses(one) == {"pending": 1}
    assert await statuses(two) == {}


async def test_a_name_shares_a_memory_in_the_process() -> None:
    for one, two in [
        (create_queue("memory://shared"), create_queue("memory://shared")),
        (InMemoryQueue(memory="kept"), InMemoryQueue(memory="kept")),
        (InMemoryQueue(memory="both"), create_queue("memory://both")),
    ]:
        await one.enqueue(echo)
        assert await statuses(two) == {"pending": 1}
        assert await statuses(InMemoryQueue(memory="other")) == {}


@pytest.mark.store("sqlite")
def test_three_slashes_are_relative_and_four_absolute(tmp_path: Path) -> None:
    assert stored_at(create_queue("sqlite:///jobs.db")) == tmp_path / "jobs.db"
    (tmp_path / "a b").mkdir()
    assert stored_at(create_queue(f"sqlite:///{tmp_path}/a%20b/x.db")) == (
        tmp_path / "a b" / "x.db"
    )
    assert stored_at(create_queue("sqlite:///a b/%23.db?synchronous=normal")) == (
        tmp_path / "a b" / "#.db"
    )
    assert stored_at(SQLiteQueue("y.db", synchronous="normal")) == tmp_path / "y.db"
    assert stored_at(SQLiteQueue(path=tmp_path / "z.db")) == tmp_path / "z.db"
    assert SQLiteQueue().store.path == tmp_path / "jobs.db"  # type: ignore[attr-defined]


@pytest.mark.store("sqlite")
def test_the_environment_gives_the_url_where_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBMILL_URL", "sqlite:///env.db")
    assert stored_at(create_queue()) == tmp_path / "env.db"
    assert isinstance(create_queue("memory://").store, MemoryStore)
    monkeypatch.setenv("JOBMILL_URL", "")
    assert isinstance(create_queue().store, MemoryStore)
    monkeypatch.setenv("JOBMILL_URL", f"nosuch://:{SECRET}@host")
    with pytest.raises(ConfigError) as refused:
        create_queue()
    assert SECRET not in str(refused.value)


BAD_URLS: list[Any] = [
    *("", " ", "jobs.db", "sqlite", "sqlite:", "sqlite:/jobs.db", "://", 3, b"memory://", []),
    *("sqlite://", "sqlite:///", "sqlite://jobs.db", "sqlite:///:memory:", "sqlite:///file:a"),
    *("sqlite:///a.db?sync=normal", "sqlite:///a.db?synchronous=off", "sqlite:///a.db?"),
    *("sqlite:///a.db?synchronous=normal&synchronous=full", "sqlite:///a.db?synchronous="),
    *("sqlite:///a#1.db", "sqlite:///a\n.db", "sqlite:///a%00.db", "sqlite:///%ff.db"),
    *("sqlite:///\ud800.db", "sqlite://[/a.db", "SQLITE:///a.db", "nosuch:///a"),
    *("memory://a/b", "memory://?size=3", "memory:", "__init__://", "../x://"),
]
BAD_URLS.remove("sqlite:///a.db?")  # an empty list of settings is one too


@pytest.mark.parametrize("url", BAD_URLS)
def test_a_url_that_will_not_do_is_refused_before_anything_is_made(
    url: Any, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as refused:
        create_queue(url)
    assert refused.value.field in ("url", "path")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url",
    [
        f"nosuch://user:{SECRET}@host:99/0",
        f"redis:/:{SECRET}@host",
        f"user:{SECRET}@host",
        f"redis//:{SECRET}@host/0",
        f"nosuch://user:{SECRET}@[host",
        f"nosuch://user:a@{SECRET}@host\n",
        f"nosuch://user:{SECRET}℀@host",  # Python's own message would repeat it
        f"sqlite:///a.db?password={SECRET}",
        f"sqlite:///a.db?password={SECRET}&password={SECRET}",
        f"memory:///?password={SECRET}",
        f"nope?password={SECRET}",
    ],
)
def test_no_message_shows_a_password(url: str) -> None:
    with pytest.raises(ConfigError) as refused:
        create_queue(url)
    told = refused.value
    while told is not None:
        assert SECRET not in str(told)
        if told.__suppress_context__:
            break
        told = told.__cause__ or told.__context__  # type: ignore[assignment]


def test_a_url_that_is_taken_apart_does_not_show_its_password() -> None:
    url = StoreURL.parse(f"redis+tls://:{SECRET}@host:1/2?password={SECRET}")
    assert (url.backend, url.scheme, url.path) == ("redis", "redis+tls", "2")
    assert SECRET not in repr(url)


BAD_OPTIONS: list[tuple[str, Any]] = [
    *(("name", bad) for bad in ("", "a b", "a:b", "a/b", "x" * 101, "é", 3, b"a", "a\n", "\0")),
    *(("queue_name", bad) for bad in ("", "a b", 3)),
    *(("concurrency", bad) for bad in (0, -1, 1.5, True, "5", None)),
    *(("poll_interval", bad) for bad in (0, -1, "1", None, float("nan"), True)),
    *(("lease", bad) for bad in (0, -1, "1", None, float("inf"), 0.01)),
    *(("middleware", bad) for bad in (3, "m", [3], object())),
    *(("default_options", bad) for bad in (3, {"retries": 1}, JobOptions)),
    *(("max_payload_bytes", bad) for bad in (0, -1, 1.5, True, "5")),
    *(("lifespan", bad) for bad in (3, "f")),
]


@pytest.mark.parametrize(("field", "value"), BAD_OPTIONS)
def test_a_wrong_keyword_is_refused_by_name(field: str, value: Any, tmp_path: Path) -> None:
    makers: list[Any] = [create_queue, InMemoryQueue, SQLiteQueue]
    for make in makers:
        with pytest.raises(ConfigError) as refused:
            make(**{field: value})
        assert refused.value.field == field
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["", ":memory:", "file:a", "a\0b", 3, None])
def test_a_path_that_is_none_is_refused(path: Any) -> None:
    with pytest.raises(ConfigError) as refused:
        SQLiteQueue(path)
    assert refused.value.field == "path"


@pytest.mark.parametrize("memory", ["", 3, b"a"])
def test_a_memory_that_is_no_name_is_refused(memory: Any) -> None:
    with pytest.raises(ConfigError) as refused:
        InMemoryQueue(memory=memory)
    assert refused.value.field == "memory"


@pytest.mark.parametrize("value", ["off", "", None, 3])
def test_a_synchronous_that_is_none_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError) as refused:
        SQLiteQueue(synchronous=value)
    assert refused.value.field == "synchronous"


def test_an_unknown_keyword_is_a_type_error() -> None:
    makers: list[Any] = [create_queue, InMemoryQueue, SQLiteQueue]
    for make in makers:
        with pytest.raises(TypeError, match="concurency"):
            make(concurency=3)


def test_name_and_queue_name_are_the_same(make_queue: MakeQueue) -> None:
    assert make_queue().name == "default"
    assert make_queue(name="a-b_c.D9").name == "a-b_c.D9"
    assert make_queue(queue_name="mail").name == "mail"
    assert make_queue(name="mail", queue_name="mail").name == "mail"
    assert create_queue(queue_name="mail").name == "mail"
    with pytest.raises(ConfigError):
        make_queue(name="a", queue_name="b")
    assert "mail" in repr(make_queue(name="mail"))


def test_keywords_have_the_defaults_that_are_told(make_queue: MakeQueue) -> None:
    queue = make_queue()
    assert (queue.concurrency, queue.poll_interval, queue.lease) == (10, 1.0, 30.0)
    assert (queue.middleware, queue.default_options, queue.lifespan) == ((), None, None)
    assert queue.max_payload_bytes == 1024 * 1024
    minute = make_queue(lease=timedelta(minutes=1), poll_interval=timedelta(seconds=2))
    assert (minute.lease, minute.poll_interval) == (60.0, 2.0)


async def test_the_lifespan_gives_the_state(make_queue: MakeQueue) -> None:
    told: list[Any] = []

    @asynccontextmanager
    async def lifespan(queue: Queue) -> Any:
        told.append(queue)
        yield {"pool": 1}
        told.append("closed")

    @define_job(name="api.stateful")
    async def stateful(ctx: JobContext[None]) -> int:
        assert ctx.queue is told[0]
        return int(ctx.state["pool"])

    queue = make_queue(lifespan=lifespan)
    await queue.enqueue(stateful)
    assert told == []
    queue.process()
    assert await (await queue.enqueue(stateful)).result(30) == 1
    await queue.shutdown()
    assert told == [queue, "closed"]


async def test_the_middleware_of_a_queue_wraps_each_of_its_jobs(make_queue: MakeQueue) -> None:
    async def twice(ctx: JobContext[Any], proceed: Any) -> Any:
        return [await proceed(), ctx.job_name]

    queue = make_queue(middleware=twice)
    queue.process()
    assert await (await queue.enqueue(echo.call(1))).result(30) == [1, "api.echo"]
