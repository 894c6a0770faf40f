"""`read`, `write` and `tick`: the small documents of a queue; and the lists of what happened."""

from __future__ import annotations

from collections.abc import Sequence

from jobmill.store import HEEDED, Doc, Ending, ErrorGroup, NewJob, Ticked
from jobmill.stores.sqlite.adding import add
from jobmill.stores.sqlite.figures import bucket_of
from jobmill.stores.sqlite.turn import Turn
from jobmill.tally import Bucket, minute_of

_SCHEDULES = "schedules"


def read(turn: Turn, space: str, after: str, limit: int) -> list[Doc]:
    """The documents of a space after a key, by key."""
    rows = turn.execute(turn.sql("docs")["read"], (turn.queue, space, after, limit))
    return [Doc(key=row[0], value=row[1], version=row[2], at=row[3]) for row in rows]


def write(turn: Turn, space: str, key: str, value: bytes | None, version: int | None) -> int | None:
    """Write a document, or remove it; its new version, or None where it had another."""
    sql = turn.sql("docs")
    row = turn.execute(sql["version"], (turn.queue, space, key)).fetchone()
    there = 0 if row is None else row[0]
    if version is not None and version != there:
        return None
    if value is None and not there:
        return 0
    new = turn.number("doc")
    if value is None:
        turn.execute(sql["remove"], (turn.queue, space, key))
        new = 0
    else:
        turn.execute(sql["put"], (turn.queue, space, key, value, new, turn.now))
    if space in HEEDED:
        turn.number("heed")
        turn.tell_jobs()
    return new


def tick(
    turn: Turn,
    schedule: str,
    version: int,
    value: bytes,
    *,
    entries: Sequence[tuple[str, bytes]],
    jobs: Sequence[NewJob],
    keep: int,
) -> Ticked:
    """Fire a schedule: compare-and-set its document and, with it, add its jobs."""
    sql = turn.sql("docs")
    there = turn.execute(sql["version"], (turn.queue, _SCHEDULES, schedule)).fetchone()
    if there is None or there[0] != version:
        return Ticked(version=None)
    history = f"history:{schedule}"
    for key, entry in entries:
        write(turn, history, key, entry, None)
    turn.execute(sql["keep"], (turn.queue, history, turn.queue, history, keep))
    new = write(turn, _SCHEDULES, schedule, value, version)
    return Ticked(version=new, added=tuple(add(turn, jobs, wake=True)))


def events(turn: Turn, after: int | None, limit: int) -> list[Ending]:
    """Ends and retries after the entry `after`; with None, the last one alone."""
    sql = turn.sql("docs")
    if after is None:
        rows = turn.execute(sql["last_event"], (turn.queue, min(limit, 1)))
    else:
        rows = turn.execute(sql["events"], (turn.queue, after, limit))
    return [
        Ending(seq=row[0], at=row[1], job_id=row[2], job_name=row[3], kind=row[4]) for row in rows
    ]


def errors(turn: Turn, limit: int) -> list[ErrorGroup]:
    """Error groups, last seen first."""
    return [
        ErrorGroup(
            fingerprint=row[0],
            job_name=row[1],
            count=row[2],
            first_seen=row[3],
            last_seen=row[4],
            last_job_id=row[5],
            last_error=row[6],
        )
        for row in turn.execute(turn.sql("docs")["error_groups"], (turn.queue, limit))
    ]


def metrics(turn: Turn, since: float) -> list[Bucket]:
    """The buckets of the minutes from that of the instant `since` on, by minute and name."""
    rows = turn.execute(turn.sql("docs")["metrics"], (turn.queue, minute_of(since)))
    return [bucket_of(bucket) for (bucket,) in rows]


def queues(turn: Turn) -> list[str]:
    """Names of the queues that have jobs or documents, in order."""
    return [name for (name,) in turn.execute(turn.sql("docs")["queues"])]
