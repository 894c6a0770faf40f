"""`get`, `find`, `counts` and `drop`: which jobs there are."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from heapq import merge
from itertools import islice
from typing import Any, Final, NamedTuple

from jobmill.errors import ConfigError
from jobmill.kept import metadata_of, policy_of
from jobmill.states import STATES, State
from jobmill.store import Counts, Page, Query, Record
from jobmill.stores.sqlite.turn import Turn

_LAST: Final = 2**63 - 1
_ANY: Final = Query()


def get(turn: Turn, ids: Sequence[str]) -> list[Record | None]:
    """The records of these jobs, None where there is none, in order."""
    rows = list(turn.among(turn.sql("find")["by_id"], (turn.queue,), ids))
    records = {record.id: record for record in _records(turn, rows)}
    return [records.get(job_id) for job_id in ids]


def find(turn: Turn, query: Query, limit: int, cursor: str | None) -> Page:
    """Records, newest first; goes on after the cursor."""
    bounds = {"before": _before(cursor), "limit": limit + 1}
    found = _among(turn, query, "SELECT seq", "AND seq < :before ORDER BY seq DESC", bounds)
    # One more than asked for tells whether there is a next page.
    seqs = [seq for (seq,) in islice(merge(*found, reverse=True), limit + 1)]
    rows = turn.execute(turn.sql("find")["by_seq"], (json.dumps(seqs[:limit]),)).fetchall()
    rows.sort(reverse=True)
    more = 0 < limit < len(seqs)
    return Page(records=tuple(_records(turn, rows)), cursor=str(seqs[limit - 1]) if more else None)


def drop(turn: Turn, query: Query, ids: Sequence[str] | None, limit: int) -> int:
    """Remove jobs, the first accepted first, never one that is processing; how many."""
    if ids is None:
        rest = "AND state <> 'processing' ORDER BY seq"
        found = _among(turn, query, "SELECT seq", rest, {"limit": limit})
        seqs = [seq for (seq,) in islice(merge(*found), limit)]
    else:
        rows = turn.among(turn.sql("drop")["these"], (turn.queue,), ids)
        fitting = {row[0] for row in rows if _fits(query, turn.now, row)}
        seqs = sorted(fitting)[:limit]
    return remove(turn, seqs)


def remove(turn: Turn, seqs: Sequence[int]) -> int:
    """Remove these jobs with all that is theirs; how many."""
    if not seqs:
        return 0
    sql = turn.sql("drop")
    these = (json.dumps(seqs),)
    gone: list[tuple[str, State]] = turn.execute(sql["jobs"], these).fetchall()
    for name, state in gone:
        turn.count(name, state, -1)
    turn.execute(sql["errors"], these)
    turn.execute(sql["lines"], these)
    return len(gone)


def counts(turn: Turn, query: Query | None) -> Counts:
    """How many records there are now."""
    query = query or _ANY
    if query.unique_key is None and query.fingerprint is None:
        groups = _counted(turn, query)
    else:
        select = (
            "SELECT name, iif(state = 'delayed' AND run_at <= :now, 'pending', state), 1, run_at"
        )
        groups = (row for part in _among(turn, query, select, "", {"limit": -1}) for row in part)
    states: defaultdict[State, int] = defaultdict(int)
    by_name: defaultdict[str, defaultdict[State, int]] = defaultdict(lambda: defaultdict(int))
    oldest: float | None = None
    for name, state, n, run_at in groups:
        states[state] += n
        by_name[name][state] += n
        if state == "pending" and run_at is not None:
            oldest = run_at if oldest is None else min(oldest, run_at)
    return Counts(
        states=dict(states),
        by_name={name: dict(group) for name, group in by_name.items()},
        due=states.get("pending", 0),
        oldest_due=oldest,
        now=turn.now,
    )


def _counted(turn: Turn, query: Query) -> Iterator[tuple[str, State, int, float | None]]:
    """Groups of name, state and number, and the oldest due instant where it is in the group."""
    sql = turn.sql("counts")
    values = {"queue": turn.queue, "name": query.name, "now": turn.now}
    wanted = STATES if query.states is None else query.states
    ripe: dict[str, tuple[int, float]] = {
        name: (n, run_at) for name, n, run_at in turn.execute(sql["ripe"], values)
    }
    for name, state, n in turn.execute(sql["stored"], values):
        left = n - ripe[name][0] if state == "delayed" and name in ripe else n
        if left and state in wanted:
            yield name, state, left, None
    if "pending" not in wanted:
        return
    for name, (n, run_at) in ripe.items():
        yield name, "pending", n, run_at
    oldest = turn.execute(sql["oldest" if query.name is None else "oldest_of_name"], values)
    for name, run_at in oldest:
        yield name, "pending", 0, run_at


class _Part(NamedTuple):
    head: str
    values: dict[str, Any]


def _among(
    turn: Turn, query: Query, select: str, rest: str, bounds: dict[str, int]
) -> list[Iterable[Any]]:
    """The rows that fit the query, from each index that leads to some of them.

    What comes of each index is in the order and within the bounds that `rest` says.
    """
    return [
        turn.execute(f"{select}\n{part.head}\n{rest} LIMIT :limit", part.values | bounds)
        for part in _parts(turn, query)
    ]


def _parts(turn: Turn, query: Query) -> Iterator[_Part]:
    sql = turn.sql("which")
    values: dict[str, Any] = {
        "queue": turn.queue,
        "now": turn.now,
        "name": query.name,
        "unique_key": query.unique_key,
        "fingerprint": query.fingerprint,
        "states": json.dumps(STATES if query.states is None else query.states),
    }
    if query.fingerprint is not None:
        yield _Part(sql["of_fingerprint"], values)
    elif query.unique_key is not None:
        yield _Part(sql["of_unique_key"], values)
    elif query.states is not None and not _name_is_rarer(turn, query.name, values):
        for state in dict.fromkeys(query.states):
            yield _Part(sql["of_state"], values | {"state": state})
            if state == "pending":
                yield _Part(sql["ripe"], values)
    elif query.name is not None:
        yield _Part(sql["of_name"], values)
    else:
        yield _Part(sql["all"], values)


def _name_is_rarer(turn: Turn, name: str | None, values: dict[str, Any]) -> bool:
    """Whether fewer jobs have the name than one of the states."""
    if name is None:
        return False
    of_name, of_states = turn.execute(turn.sql("which")["sizes"], values).fetchone()
    return bool(of_name < of_states)


def _fits(query: Query, now: float, row: tuple[Any, ...]) -> bool:
    """Whether a row of the statement `these` is one that may be dropped."""
    _, name, state, run_at, unique_key, fingerprint = row
    told: State = "pending" if state == "delayed" and run_at <= now else state
    return (
        state != "processing"
        and (query.states is None or told in query.states)
        and query.name in {None, name}
        and query.unique_key in {None, unique_key}
        and query.fingerprint in {None, fingerprint}
    )


def _before(cursor: str | None) -> int:
    if cursor is None:
        return _LAST
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < len(str(_LAST))):
        raise ConfigError(
            "this cursor is not one that a list of this queue gave: begin without one",
            field="cursor",
        )
    return int(cursor)


def _records(turn: Turn, rows: Sequence[tuple[Any, ...]]) -> list[Record]:
    sql = turn.sql("find")
    seqs = (json.dumps([row[0] for row in rows]),)
    errors: defaultdict[int, list[bytes]] = defaultdict(list)
    for seq, error in turn.execute(sql["errors"], seqs):
        errors[seq].append(error)
    lines: defaultdict[int, list[bytes]] = defaultdict(list)
    for seq, line in turn.execute(sql["lines"], seqs):
        lines[seq].append(line)
    return [
        _record(turn.now, row, tuple(errors.get(row[0], ())), tuple(lines.get(row[0], ())))
        for row in rows
    ]


def _record(
    now: float, row: tuple[Any, ...], errors: tuple[bytes, ...], logs: tuple[bytes, ...]
) -> Record:
    state, run_at = row[3], row[5]
    return Record(
        id=row[1],
        name=row[2],
        state="pending" if state == "delayed" and run_at <= now else state,
        priority=row[4],
        run_at=run_at,
        suspect=bool(row[6]),
        asked=bool(row[7]),
        attempts=row[8],
        lapses=row[9],
        generation=row[10],
        token=row[11],
        worker=row[12],
        lease_until=row[13],
        enqueued_at=row[14],
        started_at=row[15],
        ended_at=row[16],
        expires_at=row[17],
        unique_key=row[18],
        fingerprint=row[19],
        progress=row[20],
        progress_note=row[21],
        policy=policy_of(row[22]),
        metadata=metadata_of(row[23]),
        memo=row[24],
        payload=row[25],
        result=row[26],
        errors=errors,
        logs=logs,
    )
