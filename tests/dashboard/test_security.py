"""Who may come in, from where, with what; and what a dashboard never does, whoever asks."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
import time
from pathlib import Path
from typing import Any

import pytest
import time_machine
from starlette.requests import Request
from starlette.types import ASGIApp, Message

from jobmill import ConfigError, InMemoryQueue, Queue
from jobmill.dashboard import User, Users, create_app, guesses, logouts, stream, users
from jobmill.dashboard.guesses import FREE, Guesses
from jobmill.dashboard.hosts import Hosts, is_loopback
from jobmill.dashboard.sessions import LASTS, Sessions, read_secret
from tests.dashboard.conftest import HASHING
from tests.dashboard.kit import HTML, PAGES, Asker, asking, later
from tests.waiting import eventually

PASSWORD = "correct horse"
CHANGES = (
    *("/queues/default/pause", "/queues/default/resume", "/jobs/retry", "/jobs/delete"),
    *("/schedules/nightly/trigger", "/api/queues/default/pause", "/api/jobs/cancel"),
    *("/api/schedules/nightly/pause", "/logout", "/login"),
)


@pytest.fixture(scope="session")
def user_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with an operator, ada, and a viewer, bob; only to be read."""
    path = tmp_path_factory.mktemp("users") / "users.txt"
    path.write_text("# who may come in\n\n")
    assert not users.add_user(path, "ada", PASSWORD, "operator")
    assert not users.add_user(path, "bob", PASSWORD, "viewer")
    return path


async def guarded(queue: Queue, path: Path, **options: Any) -> ASGIApp:
    """The dashboard with a login; made in a thread, since it reads files."""
    return await asyncio.to_thread(create_app, queue, users=path, **options)


async def log_in(asker: Asker, name: str = "ada", password: str = PASSWORD, **more: str) -> Any:
    form = (await asker.get("/login", headers=HTML)).text
    token = re.search(r'name="csrf"\s+value="([^"]+)"', form)
    assert token is not None
    data = {"csrf": token[1], "name": name, "password": password, **more}
    return await asker.post("/login", data=data, headers=HTML)


# -- from where ---------------------------------------------------------------------------------


async def test_without_a_login_it_answers_on_loopback_only(queue: Queue) -> None:
    app = create_app(queue)
    async with asking(app, client="192.0.2.7") as far:
        assert (await far.get("/", headers=HTML)).status_code == 403
        assert (await far.get("/api/jobs")).status_code == 403
    async with asking(app, host="192.0.2.1") as exposed:
        # A server that listens elsewhere than on loopback, whoever asks.
        assert (await exposed.get("/")).status_code == 403
    async with asking(app, client="::1") as near:
        assert (await near.get("/")).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "", "evil.example:80"])
async def test_a_foreign_host_is_refused(asker: Asker, host: str) -> None:
    for path in ("/", "/login", "/healthz", "/api/jobs"):
        assert (await asker.get(path, headers={"host": host})).status_code == 421, path


async def test_a_host_may_be_allowed(queue: Queue, user_file: Path) -> None:
    app = await guarded(queue, user_file, allowed_hosts=["Jobs.example"])
    async with asking(app, host="jobs.example") as asker:
        assert (await asker.get("/login", headers=HTML)).status_code == 200
        assert (await asker.get("/", headers={"host": "example"})).status_code == 421
    assert Hosts(["*"]).allows("anything")
    assert Hosts().allows("[::1]:8080")


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        *(("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("::ffff:127.0.0.1", True)),
        *(("localhost", True), ("/run/socket", True), ("0.0.0.0", False), ("::", False)),
        *(("10.0.0.1", False), ("example.org", False), ("", False)),
    ],
)
def test_what_loopback_is(address: str, *, expected: bool) -> None:
    assert is_loopback(address) is expected


# -- with what ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", CHANGES)
async def test_a_change_needs_the_token_of_its_session(asker: Asker, path: str) -> None:
    token = await asker.token()
    for data in ({}, {"csrf": ""}, {"csrf": "x" * 43}, {"csrf": token[:-1] + "é"}):
        assert (await asker.post(path, data=data)).status_code == 403
    assert (await asker.post(path, json={"csrf": token})).status_code == 403
    assert (await asker.post(path)).status_code == 403
    asker.cookies.clear()
    assert (await asker.post(path, data={"csrf": token})).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost.evil.example"},
        {"origin": "http://localhost:9"},
        {"origin": "http://[localhost"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
async def test_a_change_from_another_site_is_refused(
    queue: Queue, asker: Asker, headers: dict[str, str]
) -> None:
    token = await asker.token()
    answer = await asker.post("/queues/default/pause", data={"csrf": token}, headers=headers)
    assert answer.status_code == 403
    assert not await queue.is_paused()
    own = {"origin": "http://localhost", "sec-fetch-site": "same-origin"}
    answer = await asker.post("/queues/default/pause", data={"csrf": token}, headers=own)
    assert answer.status_code == 303
    assert await queue.is_paused()
    # A proxy has put its own name for the app into Host; the browser knows better.
    proxied = {"origin": "https://jobs.example", "sec-fetch-site": "same-origin"}
    answer = await asker.post("/queues/default/resume", data={"csrf": token}, headers=proxied)
    assert answer.status_code == 303


async def test_the_cookies_of_others_lose_no_session(queue: Queue, asker: Asker) -> None:
    token = await asker.token()
    ((name, value),) = asker.cookies.items()
    asker.cookies.clear()
    own = f"{name}={value}"
    for other in ('seen={"a": [1, 2]}', "bad(name)=1", "x=a b", '"x"=y', "expires=1"):
        for cookie in (f"{other}; {own}", f"{own}; {other}"):
            answer = await asker.post(
                "/queues/default/pause", data={"csrf": token}, headers={"cookie": cookie}
            )
            assert answer.status_code == 303, cookie


async def test_half_a_body_does_nothing(queue: Queue) -> None:
    # A whole one would pause one job name; nothing of it would pause the queue.
    parts: list[Message] = [{"type": "http.request", "body": b'{"job": ', "more_body": True}]
    statuses: list[int] = []

    async def receive() -> Message:
        return parts.pop() if parts else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if "status" in message:
            statuses.append(message["status"])

    json = (b"content-type", b"application/json")
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/api/queues/default/pause",
        "query_string": b"",
        "headers": [(b"host", b"localhost"), json, (b"authorization", b"some proxy's")],
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 1),
        "scheme": "http",
    }
    await create_app(queue)(scope, receive, send)
    assert statuses == [400]
    assert not await queue.is_paused()


async def test_looking_changes_nothing(queue: Queue, asker: Asker, ids: dict[str, str]) -> None:
    before = await queue.ask(lambda store: store.counts())
    for path in CHANGES:
        for method in ("GET", "HEAD", "PUT", "PATCH", "DELETE"):
            answer = await asker.request(method, path)
            # To /login alone leads a GET.
            assert answer.status_code in ({303} if path == "/login" else {404, 405}) | {405}, path
    for path in PAGES:
        await asker.get(path.format(**ids))
        assert (await asker.head(path.format(**ids))).text == ""
    after = await queue.ask(lambda store: store.counts())
    assert after.states == before.states
    assert not await queue.is_paused()


async def test_bodies_are_bounded(asker: Asker) -> None:
    token = await asker.token()
    headers = {"x-csrf-token": token, "content-type": "application/json"}
    for body, status in (
        (b"x" * (1 << 20 | 1), 413),
        (b"[" * 100_000, 400),
        (b"\xff", 400),
        (b"[]", 400),
        (b'{"ids": 1}', 400),
        (b'{"no": 1}', 400),
        (b"{}", 400),
    ):
        answer = await asker.post("/api/jobs/retry", content=body, headers=headers)
        assert answer.status_code == status, body[:20]
    many = {"x-csrf-token": token, "content-type": "application/x-www-form-urlencoded"}
    assert (await asker.post("/jobs/retry", content="a=&" * 9_999, headers=many)).status_code == 400
    plain = {"x-csrf-token": token, "content-type": "text/plain"}
    assert (await asker.post("/jobs/retry", content="a", headers=plain)).status_code == 415


async def test_each_answer_says_what_a_browser_may_do(asker: Asker) -> None:
    nonces: set[str] = set()
    for path in ("/", "/jobs", "/nope", "/api/jobs", "/healthz", "/login"):
        headers = (await asker.get(path, headers=HTML)).headers
        policy = headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        nonces.update(re.findall(r"'nonce-([^']+)'", policy))
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store"
    assert len(nonces) == 6
    page = (await asker.get("/", headers=HTML)).text
    static = re.search(r'"(/static/[^"]+\.css[^"]*)"', page)
    assert static is not None
    assert "immutable" in (await asker.get(static[1])).headers["cache-control"]


# -- who ----------------------------------------------------------------------------------------


async def test_nobody_sees_anything_before_login(queue: Queue, user_file: Path) -> None:
    async with asking(await guarded(queue, user_file)) as asker:
        for path in (*PAGES, "/static/../jobs"):
            answer = await asker.get(path, headers=HTML)
            assert answer.status_code in {303, 404}, path
            if answer.status_code == 303:
                assert answer.headers["location"].startswith("/login?next=%2F")
        for path in ("/api/jobs", "/api/session", "/metrics", "/scale/default", "/events"):
            assert (await asker.get(path)).status_code == 401, path
        for path in ("/healthz", "/readyz"):
            assert (await asker.get(path)).text == "ok\n"


async def test_login_and_logout(queue: Queue, user_file: Path) -> None:
    async with asking(await guarded(queue, user_file)) as asker:
        asked = await asker.get("/jobs?state=failed", headers=HTML)
        answer = await log_in(asker, next="/jobs?state=failed")
        assert answer.headers["location"] == "/jobs?state=failed"
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Lax" in cookie
        # Another session than before it: nobody can have planted it.
        assert asked.headers["set-cookie"].partition(";")[0] not in cookie
        assert (await asker.get("/jobs", headers=HTML)).status_code == 200
        (name, value), *_ = asker.cookies.items()
        token = await asker.token()
        out = await asker.post("/logout", data={"csrf": token}, headers=HTML)
        assert out.status_code == 303
        assert (await asker.get("/jobs", headers=HTML)).status_code == 303
        # What was logged out stays so, also for who has kept its cookie.
        kept = await asker.get("/jobs", headers={**HTML, "cookie": f"{name}={value}"})
        assert kept.status_code == 303


async def test_a_logout_holds_in_every_process(
    queue: Queue, user_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logouts, "_EVERY", 0.0)
    secret = tmp_path / "secret.txt"
    first = await guarded(queue, user_file, secret_file=secret)
    second = await guarded(queue, user_file, secret_file=secret)
    async with asking(first) as asker, asking(second) as elsewhere:
        await log_in(asker)
        (name, value), *_ = asker.cookies.items()
        kept = {**HTML, "cookie": f"{name}={value}"}
        assert (await elsewhere.get("/jobs", headers=kept)).status_code == 200
        await asker.post("/logout", data={"csrf": await asker.token()}, headers=HTML)
        assert (await elsewhere.get("/jobs", headers=kept)).status_code == 303
        # Nor does it come back with the next process.
        third = await guarded(queue, user_file, secret_file=secret)
        async with asking(third) as later_on:
            assert (await later_on.get("/jobs", headers=kept)).status_code == 303
        # A logout is kept for as long as its session might be used, and not for ever.
        with time_machine.travel(time.time() + 2 * LASTS, tick=True):
            await log_in(asker)
            await asker.post("/logout", data={"csrf": await asker.token()}, headers=HTML)
        assert len(await queue.ask(lambda store: store.read("logouts"))) == 1


@pytest.mark.parametrize(
    "there", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)"]
)
async def test_login_leads_to_no_other_site(queue: Queue, user_file: Path, there: str) -> None:
    async with asking(await guarded(queue, user_file)) as asker:
        assert (await log_in(asker, next=there)).headers["location"] == "/"


async def test_a_viewer_looks_and_does_not_act(queue: Queue, user_file: Path) -> None:
    async with asking(await guarded(queue, user_file)) as asker:
        await log_in(asker, "bob")
        assert (await asker.get("/queues/default", headers=HTML)).status_code == 200
        for path in CHANGES[:-2]:
            assert (await asker.send_form(path)).status_code == 403, path
    async with asking(await guarded(queue, user_file, read_only=True)) as asker:
        await log_in(asker, "ada")
        assert (await asker.send_form("/queues/default/pause")).status_code == 403
    assert not await queue.is_paused()


async def test_guessing_is_slowed_down(
    queue: Queue, user_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    check = users.is_password

    def counted(password: str, kept: str) -> bool:
        hashed.append(kept)
        return check(password, kept)

    monkeypatch.setattr(users, "is_password", counted)
    # So long that no machine is slow enough to wait it out between two requests.
    monkeypatch.setattr(guesses, "_FIRST", 300.0)
    async with asking(await guarded(queue, user_file)) as asker:
        for number in range(FREE):
            name = "ada" if number % 2 else "nobody"
            answer = await log_in(asker, name, "wrong")
            assert answer.status_code == 401
            assert "wrong" in answer.text
        # A name that is none is hashed for as long as one that is.
        assert len(hashed) == FREE
        answer = await log_in(asker)
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) >= 1
        basic = "Basic " + base64.b64encode(f"ada:{PASSWORD}".encode()).decode()
        answer = await asker.get("/api/jobs", headers={"authorization": basic})
        assert answer.status_code == 429
        assert len(hashed) == FREE


async def test_who_is_known_guesses_no_faster(
    queue: Queue, user_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guesses, "_FIRST", 300.0)

    def basic(name: str, password: str) -> dict[str, str]:
        told = base64.b64encode(f"{name}:{password}".encode()).decode()
        return {"authorization": f"Basic {told}"}

    async with asking(await guarded(queue, user_file)) as asker:
        ada = basic("ada", PASSWORD)
        assert (await asker.get("/api/session", headers=ada)).status_code == 200
        answers: list[int] = []
        for number in range(FREE + 1):
            answer = await asker.get("/api/session", headers=basic("ada", f"wrong {number}"))
            answers.append(answer.status_code)
            # What is right of one's own forgives no guesses at another name.
            await log_in(asker, "bob")
            asker.cookies.clear()
        assert answers == [*[401] * FREE, 429]
        # The program that knows the password is not kept out by those who guess at it.
        assert (await asker.get("/api/session", headers=ada)).status_code == 200


def test_each_wrong_guess_waits_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    wrongs = Guesses()
    waits: list[float] = []
    for _ in range(FREE + 10):
        wrongs.wrong("a")
        waits.append(wrongs.wait("a"))
    assert waits[: FREE - 1] == [0.0] * (FREE - 1)
    assert waits[FREE - 1 : FREE + 3] == [1.0, 2.0, 4.0, 8.0]
    assert waits[-1] == 300.0
    assert wrongs.wait("b") == 0.0
    now += 300.0
    assert wrongs.wait("a") == 0.0
    wrongs.right("a")
    wrongs.wrong("a")
    assert wrongs.wait("a") == 0.0
    for number in range(20_000):
        wrongs.wrong(str(number))
    assert len(wrongs._known) <= 10_000


async def test_programs_name_themselves(queue: Queue, user_file: Path) -> None:
    basic = "Basic " + base64.b64encode(f"ada:{PASSWORD}".encode()).decode()
    headers = {"authorization": basic}
    async with asking(await guarded(queue, user_file), headers=headers) as asker:
        for path in ("/api/jobs", "/metrics", "/scale/default"):
            answer = await asker.get(path)
            assert answer.status_code == 200, path
            assert "set-cookie" not in answer.headers
        # No foreign page can make a browser send such a header with JSON; a form needs its token.
        assert (await asker.post("/api/queues/default/pause", json={})).status_code == 200
        assert (await asker.post("/queues/default/resume", data={"a": "b"})).status_code == 403
    assert await queue.is_paused()
    for wrong in ("Basic", "Basic !", "Basic YWRh", "basic " + base64.b64encode(b"ada:x").decode()):
        async with asking(await guarded(queue, user_file)) as asker:
            answer = await asker.get("/api/jobs", headers={"authorization": wrong})
            assert answer.status_code == 401, wrong


async def test_a_session_ends_with_its_user_or_password(queue: Queue, tmp_path: Path) -> None:
    path = tmp_path / "users.txt"

    def add(name: str, password: str) -> None:
        users.add_user(path, name, password, "operator")

    await asyncio.to_thread(add, "ada", PASSWORD)
    async with asking(await guarded(queue, path)) as asker:
        await log_in(asker)
        assert (await asker.get("/", headers=HTML)).status_code == 200
        await asyncio.to_thread(add, "ada", "another password")

        async def is_out() -> bool:
            return (await asker.get("/", headers=HTML)).status_code == 303

        deadline = time.monotonic() + 30
        while not await is_out():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)


def test_a_cookie_that_is_not_ours_is_none() -> None:
    sessions = Sessions(b"s" * 32)
    session = sessions.new("ada", "stamp")
    sealed = sessions.seal(session)
    assert sessions.read(sealed) == session
    body, _, signature = sealed.partition(".")
    for wrong in (None, "", ".", body, f"{body}.", f"{body}x.{signature}", f"{body}.{signature}é"):
        assert sessions.read(wrong) is None
    assert Sessions(b"t" * 32).read(sealed) is None
    with time_machine.travel(time.time() + LASTS + 1):
        assert sessions.read(sealed) is None


async def test_the_host_application_may_say_who_it_is(queue: Queue) -> None:
    async def login(request: Request) -> User | None:
        name = request.headers.get("x-user")
        return User(name, "operator" if name == "ada" else "viewer") if name else None

    async with asking(create_app(queue, login=login), client="192.0.2.7") as asker:
        assert (await asker.get("/", headers=HTML)).status_code == 401
        asker.headers["x-user"] = "bob"
        assert (await asker.get("/", headers=HTML)).status_code == 200
        assert (await asker.send_form("/queues/default/pause")).status_code == 403
        asker.headers["x-user"] = "ada"
        assert (await asker.send_form("/queues/default/pause")).status_code == 303
        entry = (await asker.get("/api/audit")).json()["entries"][0]
        assert (entry["who"], entry["ip"]) == ("ada", "192.0.2.7")


def test_files_that_will_not_do_are_told_of(tmp_path: Path) -> None:
    queue = InMemoryQueue()
    with pytest.raises(ConfigError, match=r"users: .*missing\.txt cannot be read"):
        create_app(queue, users=tmp_path / "missing.txt")
    for line in ("ada", "ada:king:scrypt$1", "ada:viewer:hunter2", "a b:viewer:scrypt$1"):
        (tmp_path / "bad.txt").write_text(f"# \n{line}\n")
        with pytest.raises(ConfigError, match=r"line 2 of .*bad\.txt") as caught:
            create_app(queue, users=tmp_path / "bad.txt")
        assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigError, match="login"):
        create_app(queue, users=tmp_path / "x", login=lambda _: None)
    with pytest.raises(ConfigError, match="queues"):
        create_app([1])  # type: ignore[list-item]
    nothing: tuple[Any, ...] = ([], {})
    for none in nothing:
        with pytest.raises(ConfigError, match="queues: there are none"):
            create_app(none)
    with pytest.raises(ConfigError, match="password"):
        users.add_user(tmp_path / "u", "ada", "short", "viewer")
    with pytest.raises(ConfigError, match="name"):
        users.add_user(tmp_path / "u", "a:b", PASSWORD, "viewer")
    (tmp_path / "short").write_text("x")
    with pytest.raises(ConfigError, match="secret_file"):
        read_secret(tmp_path / "short")
    secret = read_secret(tmp_path / "made")
    assert read_secret(tmp_path / "made") == secret
    assert (tmp_path / "made").stat().st_mode & 0o077 == 0


def test_a_password_costs_a_guesser_much() -> None:
    assert HASHING >= 1 << 15


def test_a_user_is_replaced_in_a_file_of_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "users.txt"
    users.add_user(path, "ada", PASSWORD, "viewer")
    assert users.add_user(path, "ada", "another password", "operator")
    known = Users(path)
    assert known.check("ada", PASSWORD) is None
    assert known.check("ada", "another password") == User("ada", "operator")
    assert path.stat().st_mode & 0o077 == 0
    assert "another" not in path.read_text()


# -- streams ------------------------------------------------------------------------------------


class Stream:
    """An event stream, as a server holds it open."""

    def __init__(self, app: ASGIApp) -> None:
        self.status = 0
        self.text = ""
        self._gone = asyncio.Event()
        self._asked = False
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/events",
            "query_string": b"",
            "headers": [(b"host", b"localhost")],
            "server": ("127.0.0.1", 80),
            "client": ("127.0.0.1", 1),
            "scheme": "http",
        }
        self.task = asyncio.ensure_future(app(scope, self._receive, self._send))

    async def _receive(self) -> Message:
        if self._asked:
            await self._gone.wait()
            return {"type": "http.disconnect"}
        self._asked = True
        return {"type": "http.request"}

    async def _send(self, message: Message) -> None:
        self.status = message.get("status", self.status)
        self.text += message.get("body", b"").decode()

    async def close(self) -> None:
        self._gone.set()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task


async def test_a_stream_tells_of_a_change(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_EVERY", 0.01)
    streams = [Stream(create_app(queue)) for _ in range(2)]
    await eventually(lambda: all("retry:" in each.text for each in streams), 30)
    for each in streams:
        looked = each.task
        assert not looked.done()
    number = 0

    async def until_told() -> None:
        nonlocal number
        deadline = time.monotonic() + 30
        while not all("event: change\n" in each.text for each in streams):
            number += 1
            await queue.enqueue(later)
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)

    await until_told()
    for each in streams:
        await each.close()


async def test_streams_are_capped_and_end_with_the_server(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "MOST", 3)
    app = create_app(queue)
    streams = [Stream(app) for _ in range(3)]
    await eventually(lambda: all("retry:" in each.text for each in streams), 30)
    late = Stream(app)
    await late.task
    assert late.status == 503
    await streams[0].close()
    again = Stream(app)
    await eventually(lambda: "retry:" in again.text, 30)
    app.state.desk.streams.end()
    async with asyncio.timeout(30):
        await asyncio.gather(*(each.task for each in (*streams[1:], again)))
