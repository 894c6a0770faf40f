"""What an operator should know of a server, of how it is set up, and of the tables."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from jobmill.store import Finding

if TYPE_CHECKING:
    from jobmill.stores.postgresql.migrating import Status

EXAMINE: Final = (
    resources.files("jobmill.stores.postgresql").joinpath("sql", "examine.sql").read_text("utf-8")
)
_LONG: Final = 60.0
_TOO_LONG: Final = 600.0
_MANY_DEAD: Final = 100_000
_NEARLY_ALL: Final = 0.9


def findings(row: Any, schema: Status) -> list[Finding]:
    """What the answer to EXAMINE, and what the schema holds, mean."""
    return [
        Finding(code="version", level="ok", text=f"PostgreSQL {row['version']}, supported"),
        _schema(schema),
        *_disk(row),
        *_vacuum(row),
        *_pinned(row),
        _connections(row),
    ]


def _schema(found: Status) -> Finding:
    text = f"schema {found.schema} is at {found.applied}; this release needs {found.latest}"
    if found.applied <= found.latest:
        return Finding(code="schema", level="ok", text=text)
    return Finding(
        code="schema",
        level="note",
        text=f"{text}: a newer release works here, too",
        advice="update jobmill in this program when you can",
    )


def _disk(row: Any) -> Iterator[Finding]:
    """What a crash of the server would lose."""
    if not row["fsync"]:
        yield Finding(
            code="fsync",
            level="bad",
            text="fsync is off: a crash of the machine may destroy the database",
            advice="set fsync = on, and restart the server",
        )
    if row["synchronous_commit"] == "off":
        yield Finding(
            code="synchronous_commit",
            level="note",
            text="synchronous_commit is off: a crash may lose jobs of the last second",
            advice="set synchronous_commit = on, for the server or this user",
        )
    else:
        text = f"synchronous_commit is {row['synchronous_commit']}: a crash loses no job"
        yield Finding(code="synchronous_commit", level="ok", text=text)


def _vacuum(row: Any) -> Iterator[Finding]:
    if not row["autovacuum"]:
        yield Finding(
            code="autovacuum",
            level="bad",
            text="autovacuum is off: the tables grow, and claims get slower, without end",
            advice="set autovacuum = on and track_counts = on",
        )
    elif row["unvacuumed"]:
        tables = ", ".join(row["unvacuumed"])
        yield Finding(
            code="autovacuum",
            level="bad",
            text=f"autovacuum is off for {tables}",
            advice="ALTER TABLE ... RESET (autovacuum_enabled)",
        )
    else:
        yield Finding(code="autovacuum", level="ok", text="autovacuum is on")
    dead, live = row["dead"], row["live"]
    text = f"{row['bytes'] / 1_000_000:,.1f} MB; {live:,} rows, and {dead:,} dead ones"
    if dead > max(_MANY_DEAD, live):
        yield Finding(
            code="dead_rows",
            level="note",
            text=text,
            advice="see what keeps autovacuum from removing them: long transactions, replication "
            "slots, or too few autovacuum_max_workers",
        )
    else:
        yield Finding(code="dead_rows", level="ok", text=text)


def _pinned(row: Any) -> Iterator[Finding]:
    """What keeps dead rows from being removed."""
    if row["prepared"]:
        yield Finding(
            code="prepared_transactions",
            level="bad",
            text=f"{row['prepared']} prepared transactions are older than a minute, and pin "
            "dead rows",
            advice="see pg_prepared_xacts; COMMIT PREPARED or ROLLBACK PREPARED",
        )
    seconds = row["seconds"]
    if seconds is None or seconds < _LONG:
        text = "no transaction has been open for a minute"
        yield Finding(code="long_transaction", level="ok", text=text)
        return
    yield Finding(
        code="long_transaction",
        level="bad" if seconds >= _TOO_LONG else "note",
        text=f"a transaction of {row['who']} (pid {row['pid']}, {row['state']}) has been open for "
        f"{seconds:,.0f} s, and pins dead rows",
        advice=f"end it where it should not be: SELECT pg_terminate_backend({row['pid']}); "
        "idle_in_transaction_session_timeout ends such ones by itself",
    )


def _connections(row: Any) -> Finding:
    there, allowed = row["connections"], row["connections_allowed"]
    text = f"{there} of {allowed} connections are in use"
    if there < _NEARLY_ALL * allowed:
        return Finding(code="connections", level="ok", text=text)
    advice = "raise max_connections, or put PgBouncer in between, with ?listen=false"
    return Finding(code="connections", level="note", text=text, advice=advice)
