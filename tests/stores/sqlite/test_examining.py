"""What the doctor is told of a file: its journal, its durability, its disk."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from jobmill.store import Examined, Finding
from jobmill.stores.sqlite import SQLiteStore, examining

pytestmark = pytest.mark.store("sqlite")


async def found(path: Path, **settings: object) -> dict[str, Finding]:
    store = SQLiteStore(path, **settings)  # type: ignore[arg-type]
    assert isinstance(store, Examined)
    await store.open()
    try:
        findings = await store.examine()
    finally:
        await store.close()
    assert all(each.advice for each in findings if each.level != "ok")
    return {each.code: each for each in findings}


async def test_a_file_that_is_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2_000_000_000))
    seen = await found(tmp_path / "jobs.db")
    assert list(seen) == ["version", "journal_mode", "synchronous", "size", "disk"]
    assert {each.level for each in seen.values()} == {"ok"}
    assert "2,000.0 MB are free" in seen["disk"].text


async def test_what_a_power_cut_may_lose_and_a_long_wal_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examining, "_LONG_WAL", 1)
    seen = await found(tmp_path / "jobs.db", synchronous="normal")
    assert (seen["synchronous"].level, seen["size"].level) == ("note", "note")


@pytest.mark.parametrize(("free", "level"), [(99_999_999, "bad"), (999_999_999, "note")])
async def test_a_full_disk_is_told_before_it_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, level: str
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    assert (await found(tmp_path / "jobs.db"))["disk"].level == level


def test_another_journal_is_told() -> None:
    assert examining._journal("delete").level == "bad"
