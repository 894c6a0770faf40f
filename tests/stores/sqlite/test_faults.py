# ruff: noqa: ASYNC240  the tests themselves may look at a file
"""What breaks under the file, and what callers are told. No exception of sqlite3 gets out."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

import pytest

from jobmill.errors import ConfigError, SchemaMismatch, StoreError, StoreUnavailable
from jobmill.states import after_success
from jobmill.store import Query, Want
from jobmill.stores.sqlite import SQLiteStore
from tests.stores.sqlite.conftest import Start, a_job

pytestmark = pytest.mark.store("sqlite")

ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


async def opening(path: Path | str, **options: Any) -> str:
    """What is said where a path cannot be opened."""
    with pytest.raises(ConfigError) as caught:
        await SQLiteStore(path, **options).open()
    assert caught.value.field == "path"
    return str(caught.value)


@pytest.mark.parametrize("name", [":memory:", "", "file:jobs.db?mode=memory", "a\0b"])
def test_what_names_no_file_is_refused(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SQLiteStore(name)
    assert caught.value.field == "path"


def test_an_unknown_synchronous_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        SQLiteStore("jobs.db", synchronous="off")  # type: ignore[arg-type]
    assert caught.value.field == "synchronous"


async def test_a_directory_is_refused(tmp_path: Path) -> None:
    assert f"{tmp_path} is a directory" in await opening(tmp_path)


async def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    assert f"no directory {tmp_path}/none" in await opening(tmp_path / "none" / "jobs.db")


async def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    path.write_bytes(b"dear diary, " * 1_000)
    assert f"{path} is no SQLite database" in await opening(path)
    assert path.read_bytes() == b"dear diary, " * 1_000


@pytest.mark.parametrize("what", ["file", "directory"])
async def test_what_is_read_only_is_refused(path: Path, start: Start, what: str) -> None:
    store = SQLiteStore(path)
    await store.open()
    await store.close()
    target = path if what == "file" else path.parent
    if ROOT:  # for the user that the child becomes
        path.chmod(0o666)
        for folder in (path.parent, *path.parent.parents[:3]):
            if folder != Path(tempfile.gettempdir()):
                folder.chmod(0o755 if folder != path.parent else 0o777)
    mode = target.stat().st_mode
    target.chmod(mode & ~0o222)
    child = start("""
        if os.geteuid() == 0:
            os.setuid(65534)
        try:
            asyncio.run(SQLiteStore(PATH).open())
        except Exception as error:
            text = str(error)
            say(type(error).__name__, "cannot be written" in text, str(PATH.parent) in text)
    """)
    try:
        assert await asyncio.to_thread(child.lines) == ["ConfigError", "True", "True"]
    finally:
        target.chmod(mode)


async def test_a_newer_schema_is_refused_and_left_alone(path: Path) -> None:
    store = SQLiteStore(path)
    await store.open()
    await store.close()

    def alter() -> None:
        connection = sqlite3.connect(path)
        connection.execute("UPDATE jobmill_meta SET schema = 99")
        connection.commit()
        connection.close()

    await asyncio.to_thread(alter)
    with pytest.raises(SchemaMismatch, match="schema 99"):
        await store.open()


async def test_the_application_keeps_its_own_schema_number(path: Path) -> None:
    def prepare() -> None:
        connection = sqlite3.connect(path)
        connection.executescript("PRAGMA user_version = 7; CREATE TABLE jobs (id)")
        connection.close()

    def version() -> int:
        connection = sqlite3.connect(path)
        try:
            return connection.execute("PRAGMA user_version").fetchone()[0]  # type: ignore[no-any-return]
        finally:
            connection.close()

    await asyncio.to_thread(prepare)
    store = SQLiteStore(path)
    await store.open()
    await store.close()
    assert await asyncio.to_thread(version) == 7


async def test_a_locked_file_is_unavailable_after_the_deadline(path: Path) -> None:
    store = SQLiteStore(path, busy_timeout=0.1)
    await store.open()
    other = await asyncio.to_thread(
        sqlite3.connect, path, isolation_level=None, check_same_thread=False
    )
    await asyncio.to_thread(other.execute, "BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="locked by another program"):
        await store.add([a_job("j1")])
    assert (await store.counts()).due == 0
    patient = store.handle()
    patient._busy_timeout = 30.0
    await patient.open()
    waiting = asyncio.create_task(patient.add([a_job("j2")]))
    await asyncio.to_thread(other.execute, "COMMIT")
    assert (await waiting)[0].status == "added"
    await asyncio.to_thread(other.close)
    await patient.close()
    await store.close()


async def test_a_full_file_is_unavailable_and_takes_nothing(store: SQLiteStore) -> None:
    await store.add([a_job("j1")])

    def at_most(pages: int) -> Any:
        return lambda turn: turn.execute(f"PRAGMA max_page_count = {pages}").fetchone()[0]

    await store._write(at_most(1))  # no less than there are
    big = [a_job(f"big{n}", metadata={"x": "y" * 5_000}) for n in range(100)]
    with pytest.raises(StoreUnavailable, match="no space is left"):
        await store.add(big)
    page = await store.find(Query(), limit=10)
    assert [record.id for record in page.records] == ["j1"]
    await store._write(at_most(1_000_000))
    assert len(await store.add(big)) == 100
    assert (await store.counts()).due == 101


async def test_a_full_disk_is_unavailable_and_is_survived(start: Start, store: SQLiteStore) -> None:
    child = start("""
        import resource, signal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

        async def main():
            store = SQLiteStore(PATH)
            await store.open()
            size = 256 * 1024
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
            kept = 0
            try:
                while True:
                    await store.add([a_job(f"j{kept}", metadata={"x": "y" * 2_000})])
                    kept += 1
            except Exception as error:
                say(type(error).__name__)
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
            await store.add([a_job("after")])
            say((await store.counts()).due - kept)
            await store.close()

        asyncio.run(main())
    """)
    assert await asyncio.to_thread(child.lines) == ["StoreUnavailable", "1"]
    assert (await store.get(["after"]))[0] is not None


async def test_a_vanished_file_is_reported_and_not_made_anew(path: Path) -> None:
    store = SQLiteStore(path)
    await store.open()
    await store.add([a_job("j1")])
    await store.counts()
    aside = path.with_name("aside.db")
    await asyncio.to_thread(path.rename, aside)
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match=str(path)):
            await store.add([a_job("j2")])
        with pytest.raises(StoreUnavailable, match=str(path)):
            await store.counts()
    assert not path.exists()
    await asyncio.to_thread(aside.rename, path)
    assert (await store.add([a_job("j3")]))[0].status == "added"
    assert (await store.counts()).due == 2
    await store.close()


async def test_a_replaced_file_is_reported_and_not_damaged(path: Path, tmp_path: Path) -> None:
    backup = SQLiteStore(tmp_path / "backup.db")
    await backup.open()
    await backup.add([a_job("saved")])
    await backup.close()
    store = SQLiteStore(path)
    await store.open()
    await store.add([a_job("lost")])

    def replace() -> None:
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink()
        (tmp_path / "backup.db").rename(path)

    await asyncio.to_thread(replace)
    with pytest.raises(StoreUnavailable, match="removed or replaced"):
        await store.add([a_job("j2")])
    assert (await store.add([a_job("j3")]))[0].status == "added"
    page = await store.find(Query(), limit=10)
    assert [record.id for record in page.records] == ["j3", "saved"]
    await store.close()
    assert await asyncio.to_thread(integrity, path) == "ok"


def integrity(path: Path) -> str:
    connection = sqlite3.connect(path)
    try:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])
    finally:
        connection.close()


@pytest.mark.parametrize("verb", ["add", "work"])
async def test_kill_9_loses_nothing_that_was_answered(
    start: Start, store: SQLiteStore, verb: str
) -> None:
    child = start(f"""
        async def main():
            store = SQLiteStore(PATH)
            await store.open()
            for n in range(100_000):
                await store.add([a_job(f"j{{n}}")])
                if "{verb}" == "work":
                    want = Want(worker="w", token=f"t{{n}}", limit=1, lease=30.0)
                    claimed = await store.claim(want)
                    await store.move([after_success(claimed.claims[0], b"1")])
                say(f"j{{n}}")

        asyncio.run(main())
    """)
    answered = [await asyncio.to_thread(child.line) for _ in range(200)]
    child.process.kill()
    answered += await asyncio.to_thread(child.lines)
    records = await store.get(answered)
    state = "pending" if verb == "add" else "completed"
    assert {record and record.state for record in records} == {state}
    assert len(answered) >= 200
    counted = (await store.counts()).states
    assert sum(counted.values()) in {len(answered), len(answered) + 1}
    assert await asyncio.to_thread(integrity, store.path) == "ok"


async def test_two_processes_share_the_jobs_of_one_file(start: Start, store: SQLiteStore) -> None:
    text = """
        async def main():
            store = SQLiteStore(PATH)
            await store.open()
            me, n = os.getpid(), 0
            say("ready")
            sys.stdin.readline()
            for i in range(50):
                await store.add([a_job(f"{me}-{i}"), a_job(f"{me}-u{i}", unique_key=f"k{i}")])
                want = Want(worker=str(me), token=f"{me}.{i}", limit=3, lease=60.0)
                claimed = await store.claim(want)
                for claim in claimed.claims:
                    say(claim.id)
                await store.move([after_success(claim, b"1") for claim in claimed.claims])
            await store.close()

        asyncio.run(main())
    """
    children = [start(text) for _ in range(3)]
    for child in children:
        assert await asyncio.to_thread(child.line) == "ready"
    for child in children:
        child.tell("go")
    claimed = [job_id for child in children for job_id in await asyncio.to_thread(child.lines)]
    assert len(claimed) == len(set(claimed))
    rest = await store.claim(Want(worker="w", token="t", limit=1_000, lease=60.0))
    await store.move([after_success(claim, b"1") for claim in rest.claims])
    counts = await store.counts()
    assert set(counts.states) == {"completed"}
    assert counts.states["completed"] == len(claimed) + len(rest.claims)
    events = await store.events(0, 10_000)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))


async def test_time_does_not_go_back_with_another_process(start: Start, store: SQLiteStore) -> None:
    """The child's clock is an hour behind ours."""
    await store.add([a_job("ours")])
    child = start("""
        from jobmill.clock import SystemClock

        class Behind(SystemClock):
            def wall(self):
                return super().wall() - 3600.0

        async def main():
            store = SQLiteStore(PATH, clock=Behind())
            await store.open()
            await store.add([a_job("theirs")])
            say((await store.counts()).now)
            await store.close()

        asyncio.run(main())
    """)
    (said,) = await asyncio.to_thread(child.lines)
    ours, theirs = await store.get(["ours", "theirs"])
    assert ours is not None
    assert theirs is not None
    assert theirs.enqueued_at >= ours.enqueued_at
    assert float(said) >= theirs.enqueued_at
    claimed = await store.claim(Want(worker="w", token="t", limit=2, lease=60.0))
    assert [claim.id for claim in claimed.claims] == ["ours", "theirs"]


async def test_many_processes_may_create_one_file(start: Start, path: Path) -> None:
    text = """
        async def main():
            store = SQLiteStore(PATH)
            say("ready")
            sys.stdin.readline()
            await store.open()
            say((await store.add([a_job(str(os.getpid()))]))[0].status)
            await store.close()

        asyncio.run(main())
    """
    children = [start(text) for _ in range(4)]
    for child in children:
        assert await asyncio.to_thread(child.line) == "ready"
    for child in children:
        child.tell("go")
    for child in children:
        assert await asyncio.to_thread(child.lines) == ["added"]


async def test_damage_is_told(path: Path) -> None:
    store = SQLiteStore(path)
    await store.open()
    await store.add([a_job(f"j{n}") for n in range(2_000)])
    await store.close()

    def damage() -> None:
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * (path.stat().st_size - 8192))

    await asyncio.to_thread(damage)
    with pytest.raises(StoreError, match=str(path)):
        await read_all(store)
    await store.close()


async def read_all(store: SQLiteStore) -> None:
    await store.open()
    await store.find(Query(), limit=1_000)
