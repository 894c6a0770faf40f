"""The life of a job: its states, the table of what may change them, and what follows a run.

`TABLE` is the one source: every store compiles it into its own language and holds no rule
of its own; `docs/states.md` is printed from it.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from jobmill.policy import Policy

State = Literal["delayed", "pending", "processing", "completed", "failed", "cancelled"]
STATES: Final[tuple[State, ...]] = (
    "delayed",
    "pending",
    "processing",
    "completed",
    "failed",
    "cancelled",
)
UNFINISHED: Final[frozenset[State]] = frozenset({"delayed", "pending", "processing"})
ENDED: Final[frozenset[State]] = frozenset({"completed", "failed", "cancelled"})

Event = Literal[
    "succeed",
    "retry",
    "fail",
    "snooze",
    "release",
    "lapse",
    "abort",
    "cancel",
    "revive",
    "hasten",
    "mature",
]
"""What may happen to a job; `mature` happens inside a claim, all others are moves."""


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table: in one of the states `before`, `event` leads to `after`.

    `token`: the move must carry the job's current token.
    `due`: what becomes of the instant at which the job is due: it stays, is now, or is now
    plus the move's delay.
    `attempt`: the change of the attempt count; `lapses`: that of the lapse count.
    `if_asked`: the state after instead, where the job was asked to cancel; the error that
    the cancel carried is then the job's.
    `asks`: the job is asked to cancel and otherwise stays as it is.
    `suspect`: the job runs alone from now on; a settle of any other event clears that.
    `fresh`: attempts, lapses and what the last run left are reset; the errors stay.
    """

    event: Event
    before: tuple[State, ...]
    after: State
    token: bool = False
    due: Literal["stays", "now", "after_delay"] = "stays"
    attempt: int = 0
    lapses: int = 0
    if_asked: State | None = None
    asks: bool = False
    suspect: bool = False
    fresh: bool = False


_RUN: Final[tuple[State, ...]] = ("processing",)

TABLE: Final[tuple[Rule, ...]] = (
    Rule(event="succeed", token=True, before=_RUN, after="completed"),
    Rule(
        event="retry",
        token=True,
        before=_RUN,
        after="delayed",
        due="after_delay",
        if_asked="cancelled",
    ),
    Rule(event="fail", token=True, before=_RUN, after="failed"),
    Rule(
        event="snooze",
        token=True,
        before=_RUN,
        after="delayed",
        due="after_delay",
        attempt=-1,
        if_asked="cancelled",
    ),
    Rule(
        event="release",
        token=True,
        before=_RUN,
        after="pending",
        attempt=-1,
        if_asked="cancelled",
    ),
    Rule(
        event="lapse",
        token=True,
        before=_RUN,
        after="pending",
        attempt=-1,
        lapses=1,
        if_asked="cancelled",
        suspect=True,
    ),
    Rule(event="abort", token=True, before=_RUN, after="cancelled", if_asked="cancelled"),
    Rule(event="cancel", before=("delayed", "pending"), after="cancelled"),
    Rule(event="cancel", before=_RUN, after="processing", asks=True),
    Rule(
        event="revive",
        before=("completed", "failed", "cancelled"),
        after="pending",
        due="now",
        fresh=True,
    ),
    Rule(event="hasten", before=("delayed",), after="pending", due="now"),
    Rule(event="mature", before=("delayed",), after="pending"),
)

RULES: Final[dict[tuple[Event, State], Rule]] = {
    (rule.event, state): rule for rule in TABLE for state in rule.before
}
NEEDS_TOKEN: Final[frozenset[Event]] = frozenset(rule.event for rule in TABLE if rule.token)


class Claim(msgspec.Struct, frozen=True, gc=False):
    """A job in the hands of a worker: what it needs to run it, and the token to settle it.

    One is made for each run, so a store may give its fields by their places, which takes a fifth
    of the time.

    `attempt` counts this run (1 on the first). `memo` is what the last settle left for this
    run. `asked` says that the job was asked to cancel. Instants are the store's, in Unix
    seconds.
    """

    id: str
    name: str
    payload: bytes
    policy: Policy
    token: str
    attempt: int
    lapses: int
    priority: int
    enqueued_at: float
    run_at: float
    started_at: float
    suspect: bool = False
    asked: bool = False
    unique_key: str | None = None
    metadata: dict[str, str] = {}
    memo: bytes | None = None


class Note(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a run reports while it goes on: its progress and new log lines.

    `lines` are pairs of a number, rising through the life of the run, and a JSON document;
    a line whose number is already stored is passed over, so that repeating is harmless.
    """

    progress: float | None = None
    progress_note: str | None = None
    lines: tuple[tuple[int, bytes], ...] = ()


class Move(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One event for one job, as a store applies it.

    `delay`: seconds, for events that are due after one. `result` and `error` are JSON.
    `fingerprint` groups equal errors. `lapsed`: the run's worker died, count it.
    `untried`: the handler was not reached, so a suspect stays one.
    `memo`: kept for the next run of the job and replaced by each settle.
    """

    event: Event
    job_id: str
    token: str | None = None
    delay: float = 0.0
    result: bytes | None = None
    error: bytes | None = None
    fingerprint: str | None = None
    lapsed: bool = False
    untried: bool = False
    memo: bytes | None = None
    note: Note | None = None


class Failure(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a store keeps of an error: the JSON of a JobError, and the group it belongs to."""

    error: bytes
    fingerprint: str | None = None


def after_success(claim: Claim, result: bytes | None, note: Note | None = None) -> Move:
    """The handler returned: the job is completed."""
    return Move(event="succeed", job_id=claim.id, token=claim.token, result=result, note=note)


def after_failure(
    claim: Claim,
    failure: Failure,
    *,
    retryable: bool,
    delay: float,
    note: Note | None = None,
) -> Move:
    """The attempt failed: try again after `delay` seconds while attempts are left."""
    again = retryable and claim.attempt < claim.policy.max_attempts
    return Move(
        event="retry" if again else "fail",
        job_id=claim.id,
        token=claim.token,
        delay=delay if again else 0.0,
        error=failure.error,
        fingerprint=failure.fingerprint,
        note=note,
    )


def after_timeout(
    claim: Claim,
    failure: Failure,
    *,
    retryable: bool,
    delay: float,
    note: Note | None = None,
) -> Move:
    """The attempt ran too long: it failed, whatever its handler did after that."""
    return after_failure(claim, failure, retryable=retryable, delay=delay, note=note)


def after_cancel(claim: Claim, failure: Failure, note: Note | None = None) -> Move:
    """The run was cancelled, or cancelled itself: the job ends cancelled."""
    return Move(
        event="abort",
        job_id=claim.id,
        token=claim.token,
        error=failure.error,
        fingerprint=failure.fingerprint,
        note=note,
    )


def after_lapse(claim: Claim, failure: Failure) -> Move:
    """The worker died: run the job again, alone, until it has lapsed too often."""
    policy = claim.policy
    last = policy.on_lapse == "fail" or claim.lapses + 1 >= policy.max_lapses
    if last and not claim.asked:
        return Move(
            event="fail",
            job_id=claim.id,
            token=claim.token,
            error=failure.error,
            fingerprint=failure.fingerprint,
            lapsed=True,
        )
    return Move(event="lapse", job_id=claim.id, token=claim.token, memo=claim.memo)


def after_snooze(
    claim: Claim,
    delay: float,
    *,
    untried: bool = False,
    memo: bytes | None = None,
    note: Note | None = None,
) -> Move:
    """The run asked to go on later: the attempt is given back."""
    return Move(
        event="snooze",
        job_id=claim.id,
        token=claim.token,
        delay=delay,
        untried=untried,
        memo=memo,
        note=note,
    )


def after_stop(claim: Claim, *, untried: bool = False, note: Note | None = None) -> Move:
    """The worker stops: hand the job back, its attempt unspent."""
    return Move(
        event="release",
        job_id=claim.id,
        token=claim.token,
        untried=untried,
        memo=claim.memo,
        note=note,
    )


_PAGE_HEAD = """\
# States

A job is in one of six states: {states}. Only the events below change it; `claim` is the only
other writer of a state: pending → processing, with a new token and one attempt more.

| event | needs the token | state now | state after | attempt | due | where it was asked to cancel |
|---|---|---|---|---|---|---|
"""

_PAGE_FOOT = """
- An event for a state that has no row here is refused; a stale token writes nothing.
- A lapse also adds one to the job's lapses and makes it a suspect: it runs alone in its
  process until its next settle.
- `cancel` of a running job asks it to cancel; the run ends it, or outpaces it by succeeding.
- `revive` starts over: attempts and lapses are 0, the errors stay.
- `mature` happens inside a claim, to at most 1,000 jobs a call.

This page is printed from the table in `jobmill/states.py`.
"""


def page() -> str:
    """The table as a page of Markdown."""
    rows = "".join(
        f"| {rule.event} | {'yes' if rule.token else 'no'} | {', '.join(rule.before)} "
        f"| {rule.after} | {_attempt(rule)} | {rule.due.replace('_', ' ')} "
        f"| {'it is asked' if rule.asks else rule.if_asked or 'the same'} |\n"
        for rule in TABLE
    )
    return _PAGE_HEAD.format(states=", ".join(STATES)) + rows + _PAGE_FOOT


def _attempt(rule: Rule) -> str:
    if rule.fresh:
        return "back to 0"
    return "given back" if rule.attempt else "as it is"
