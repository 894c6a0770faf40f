"""Every event in every state, with a good, a stale and no token: the table decides."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal, TypeAlias, get_args

import msgspec
import pytest

from jobmill.states import ENDED, NEEDS_TOKEN, RULES, STATES, UNFINISHED, Event, Move, State
from jobmill.store import Moved, Record, Store
from jobmill.testing.contract.case import T0, StillClock, a_job, claim
from tests.stores.conftest import Opener

Token: TypeAlias = Literal["good", "stale", "none"]

EVENTS: Final[tuple[Event, ...]] = get_args(Event)
DELAY: Final = 60.0
CASES: Final = [
    (event, state, token, asked)
    for event in EVENTS
    for state in STATES
    for token in get_args(Token)
    for asked in (False, True)
    if not asked or state == "processing"
]


async def bring(store: Store, state: State, asked: bool) -> None:
    """The job j1 in this state, last claimed by the token t2, and before that by t1."""
    await store.add([a_job(unique_key="k")], now=T0)
    await claim(store, "t1")
    await apply(store, Move(event="release", job_id="j1", token="t1"))
    await claim(store, "t2")
    if asked:
        await apply(store, Move(event="cancel", job_id="j1", error=b'"why"', fingerprint="c"))
    settle: dict[State, Event] = {
        "delayed": "retry",
        "pending": "release",
        "completed": "succeed",
        "failed": "fail",
        "cancelled": "abort",
    }
    if state in settle:
        await apply(store, Move(event=settle[state], job_id="j1", token="t2", delay=DELAY))


async def apply(store: Store, move: Move) -> Moved:
    (moved,) = await store.move([move], now=T0)
    return moved


async def look(store: Store) -> Record:
    (record,) = await store.get(["j1"], now=T0)
    assert record is not None
    return record


def expected(before: Record, move: Move) -> tuple[Moved, Record]:
    """What the table says of a move, by the words of its rows alone."""
    nothing = before
    if move.event in NEEDS_TOKEN:
        if move.token != before.token:
            return Moved("stale", "j1"), nothing
        if before.state != "processing":
            return Moved("already", "j1", before.state), nothing
    rule = RULES.get((move.event, before.state))
    if rule is None or move.event == "mature":
        return Moved("refused", "j1", before.state), nothing
    if rule.asks:
        return (
            Moved("applied", "j1", before.state),
            msgspec.structs.replace(before, asked=True),
        )
    diverted = before.asked and rule.if_asked is not None
    after = rule.if_asked if before.asked and rule.if_asked else rule.after
    errors: list[tuple[bytes, str | None]] = []
    if move.error is not None and not (diverted and rule.if_asked == rule.after):
        errors.append((move.error, move.fingerprint))
    if diverted:
        errors.append((b'"why"', "c"))
    due = {"stays": before.run_at, "now": T0, "after_delay": T0 + move.delay}
    wanted = msgspec.structs.replace(
        before,
        state=after,
        run_at=before.run_at if diverted else due[rule.due],
        attempts=before.attempts + rule.attempt,
        lapses=before.lapses + rule.lapses,
        asked=False,
        lease_until=None,
        errors=(*before.errors, *[error for error, _ in errors]),
        fingerprint=errors[-1][1] if errors else before.fingerprint,
    )
    if rule.token:
        wanted = msgspec.structs.replace(
            wanted, suspect=rule.suspect, result=move.result, memo=move.memo
        )
    if after in ENDED:
        kept = before.policy.keep_result if after == "completed" else before.policy.keep_failed
        wanted = msgspec.structs.replace(wanted, ended_at=T0, expires_at=T0 + kept)
    if rule.fresh:
        wanted = msgspec.structs.replace(
            wanted,
            attempts=0,
            lapses=0,
            generation=before.generation + 1,
            suspect=False,
            worker=None,
            started_at=None,
            ended_at=None,
            expires_at=None,
            result=None,
            memo=None,
        )
    return Moved("applied", "j1", after), wanted


@pytest.mark.parametrize(("event", "state", "token", "asked"), CASES)
async def test_the_table_decides(
    opener: Opener, tmp_path: Path, event: Event, state: State, token: Token, asked: bool
) -> None:
    store = await opener(tmp_path, StillClock())
    try:
        await bring(store, state, asked)
        before = await look(store)
        assert (before.state, before.asked) == (state, asked)
        move = Move(
            event=event,
            job_id="j1",
            token={"good": "t2", "stale": "t1", "none": None}[token],
            delay=DELAY,
            result=b'"result"',
            error=b'"own"',
            fingerprint="o",
            memo=b'"memo"',
        )
        events = await store.events(0, 99)
        answer, wanted = expected(before, move)
        assert await apply(store, move) == answer
        assert await look(store) == wanted

        # What hangs on the state moved with it: the key, the event list, the queue's order.
        (added,) = await store.add([a_job("j2", unique_key="k")], now=T0)
        assert added.status == ("held" if wanted.state in UNFINISHED else "added")
        told = [each.kind for each in (await store.events(0, 99))[len(events) :]]
        ended = [wanted.state] if answer.status == "applied" and wanted.state in ENDED else []
        retried = ["retried"] if answer.status == "applied" and event == "retry" else []
        assert told == (ended or retried)
        later = await claim(store, "t9", names=("a",), room="alone", now=T0 + DELAY)
        due = [run.id for run in (*later.claims, *later.lapsed)]
        assert ("j1" in due) is (wanted.state in UNFINISHED)
    finally:
        await store.close()


def test_every_case_is_there() -> None:
    assert len(CASES) == len(EVENTS) * (len(STATES) + 1) * 3
