"""What the doctor is told of a server: what a crash loses, and what makes the tables grow."""

from __future__ import annotations

from typing import Any

import pytest

from jobmill.store import Examined, Finding
from jobmill.stores.postgresql import PostgresStore, examining
from jobmill.stores.postgresql.migrating import Status
from jobmill.stores.postgresql.programs import LATEST, quoted

pytestmark = pytest.mark.store("postgresql")

WELL: dict[str, Any] = {
    "version": "17.1",
    "synchronous_commit": "on",
    "fsync": True,
    "autovacuum": True,
    "connections": 10,
    "connections_allowed": 100,
    "unvacuumed": [],
    "dead": 99_000,
    "live": 5,
    "bytes": 1_000_000,
    "prepared": 0,
    "pid": None,
    "who": None,
    "state": None,
    "seconds": None,
}
SCHEMA = Status(schema="jobmill", applied=LATEST, latest=LATEST, programs=True)


async def found(store: PostgresStore) -> dict[str, Finding]:
    assert isinstance(store, Examined)
    findings = await store.examine()
    assert all(each.advice for each in findings if each.level != "ok")
    return {each.code: each for each in findings}


async def test_a_server_is_seen_as_it_is_set_up(
    store: PostgresStore, plain: Any, other: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = await plain.fetchval("SHOW server_version")
    seen = await found(store)
    assert version in seen["version"].text
    assert f"at {LATEST}" in seen["schema"].text
    assert seen["fsync"].level == "bad", "throwaway servers do not wait for the disk"
    setting = await plain.fetchval("SHOW synchronous_commit")
    assert setting in seen["synchronous_commit"].text
    assert (seen["autovacuum"].level, seen["long_transaction"].level) == ("ok", "ok")

    table = f"{quoted(store.address.schema)}.jobs"
    await plain.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = false)")
    try:
        seen = await found(store)
        assert (seen["autovacuum"].level, "jobs" in seen["autovacuum"].text) == ("bad", True)
    finally:
        await plain.execute(f"ALTER TABLE {table} RESET (autovacuum_enabled)")

    monkeypatch.setattr(examining, "_LONG", 0.0)
    async with other.transaction(isolation="repeatable_read"):
        await other.execute("SELECT 1")
        pid = other.get_server_pid()
        seen = await found(store)
        assert seen["long_transaction"].level == "note"
        assert f"pid {pid}, idle in transaction" in seen["long_transaction"].text
        monkeypatch.setattr(examining, "_TOO_LONG", 0.0)
        assert (await found(store))["long_transaction"].level == "bad"
        assert f"pg_terminate_backend({pid})" in (await found(store))["long_transaction"].advice


def test_a_server_that_is_well_has_no_advice() -> None:
    seen = examining.findings(WELL, SCHEMA)
    assert {(each.level, each.advice) for each in seen} == {("ok", "")}


@pytest.mark.parametrize(
    ("row", "code", "level"),
    [
        ({"fsync": False}, "fsync", "bad"),
        ({"synchronous_commit": "off"}, "synchronous_commit", "note"),
        ({"autovacuum": False}, "autovacuum", "bad"),
        ({"dead": 100_001}, "dead_rows", "note"),
        ({"prepared": 1}, "prepared_transactions", "bad"),
        ({"seconds": 61.0, "pid": 7, "who": "psql"}, "long_transaction", "note"),
        ({"seconds": 601.0, "pid": 7, "who": "psql"}, "long_transaction", "bad"),
        ({"connections": 90}, "connections", "note"),
    ],
)
def test_each_ill_is_told_by_itself(row: dict[str, Any], code: str, level: str) -> None:
    ills = [each for each in examining.findings({**WELL, **row}, SCHEMA) if each.level != "ok"]
    assert [(each.code, each.level, bool(each.advice)) for each in ills] == [(code, level, True)]


def test_a_newer_schema_is_told() -> None:
    newer = Status(schema="jobmill", applied=LATEST + 1, latest=LATEST, programs=True)
    (ill,) = [each for each in examining.findings(WELL, newer) if each.level != "ok"]
    assert (ill.code, ill.level) == ("schema", "note")
