"""`move`: apply events to jobs by the table, with all that goes with them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from jobmill.kept import policy_of
from jobmill.states import ENDED, NEEDS_TOKEN, RULES, Move, Note, Rule, State
from jobmill.store import KEPT_ERRORS, KEPT_LINES, Moved
from jobmill.stores.sqlite.adding import holder_of
from jobmill.stores.sqlite.figures import Figures
from jobmill.stores.sqlite.turn import Turn


class Job:
    """The part of a job's row that decides a move."""

    __slots__ = (
        "asked",
        "asked_error",
        "asked_fingerprint",
        "attempts",
        "fingerprint",
        "id",
        "lapses",
        "last_line",
        "name",
        "policy",
        "run_at",
        "seq",
        "started_at",
        "state",
        "suspect",
        "token",
        "unique_key",
    )

    seq: int
    id: str
    name: str
    state: State
    run_at: float
    suspect: int
    asked: int
    attempts: int
    lapses: int
    token: str | None
    started_at: float | None
    unique_key: str | None
    fingerprint: str | None
    last_line: int | None
    policy: bytes
    asked_error: bytes | None
    asked_fingerprint: str | None

    def __init__(self, row: tuple[Any, ...]) -> None:
        (
            self.seq,
            self.id,
            self.name,
            self.state,
            self.run_at,
            self.suspect,
            self.asked,
            self.attempts,
            self.lapses,
            self.token,
            self.started_at,
            self.unique_key,
            self.fingerprint,
            self.last_line,
            self.policy,
            self.asked_error,
            self.asked_fingerprint,
        ) = row

    def start_over(self) -> None:
        """Forget what the runs so far have left, as the statement of this name does."""
        self.attempts = 0
        self.lapses = 0
        self.suspect = 0
        self.asked = 0
        self.started_at = None
        self.last_line = None
        self.asked_error = None
        self.asked_fingerprint = None

    def state_at(self, now: float) -> State:
        """The state as every answer tells it."""
        return "pending" if self.state == "delayed" and self.run_at <= now else self.state


def move(turn: Turn, moves: Sequence[Move]) -> list[Moved]:
    """Apply events to their jobs, in order; one answer for each."""
    sql = turn.sql("move")
    ids = list({move.job_id for move in moves})
    jobs = {row[1]: Job(row) for row in turn.among(sql["jobs"], (turn.queue,), ids)}
    changes = _Changes(turn)
    answers = [_apply(turn, changes, jobs.get(move.job_id), move) for move in moves]
    changes.finish()
    return answers


def take_notes(turn: Turn, notes: Iterable[tuple[int, int | None, Note]]) -> None:
    """Store what runs report: pairs of the job and its last line's number, and the note."""
    sql = turn.sql("move")
    progress: list[tuple[float, str | None, int]] = []
    lines: list[tuple[int, bytes]] = []
    last_lines: dict[int, int] = {}
    for seq, stored, note in notes:
        last = stored
        if note.progress is not None:
            progress.append((note.progress, note.progress_note, seq))
        for number, line in note.lines:
            if last is None or number > last:
                last = last_lines[seq] = number
                lines.append((seq, line))
    if progress:
        turn.executemany(sql["progress"], progress)
    if lines:
        turn.executemany(sql["line"], lines)
        turn.executemany(sql["trim_lines"], [(seq, KEPT_LINES) for seq in last_lines])
        turn.executemany(sql["last_line"], [(n, seq) for seq, n in last_lines.items()])


def _apply(turn: Turn, changes: _Changes, job: Job | None, move: Move) -> Moved:
    if job is None:
        return Moved("missing", move.job_id)
    state = job.state_at(turn.now)
    if move.event in NEEDS_TOKEN:
        if move.token is None or move.token != job.token:
            return Moved("stale", job.id)
        if state != "processing":
            return Moved("already", job.id, state)
    rule = RULES.get((move.event, state))
    if rule is None or move.event == "mature":
        return Moved("refused", job.id, state)
    changes.settle_before(job)
    if state in ENDED and job.unique_key is not None:
        # The holder may be a job that this call has moved.
        changes.write()
        holder = holder_of(turn, job.name, job.unique_key)
        if holder is not None:
            return Moved("held", holder)
    if rule.asks:
        changes.ask(job, move)
    else:
        changes.change(job, rule, move)
    return Moved("applied", job.id, job.state_at(turn.now))


class _Changes:
    """What moves change, gathered by statement. A job is in it once at most."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._figures = Figures(turn)
        self._jobs: set[int] = set()
        self._rows: dict[str, list[tuple[Any, ...]]] = {}
        self._notes: list[tuple[int, int | None, Note]] = []
        self._errors: list[tuple[int, bytes]] = []
        self._ended: list[str] = []

    def settle_before(self, job: Job) -> None:
        """See that what was changed before comes before what is changed now."""
        if job.seq in self._jobs:
            self.write()

    def ask(self, job: Job, move: Move) -> None:
        """Mark a running job as asked to cancel; the first mark stays."""
        if not job.asked:
            job.asked = 1
            job.asked_error, job.asked_fingerprint = move.error, move.fingerprint
            self._put("ask", job, (move.error, move.fingerprint, job.seq))
        self._turn.tell_jobs()

    def change(self, job: Job, rule: Rule, move: Move) -> None:
        """Take a job to its next state, by the rule."""
        turn = self._turn
        diverted = bool(job.asked) and rule.if_asked is not None
        after = rule.if_asked if job.asked and rule.if_asked else rule.after
        ends = after in ENDED
        if ends or rule.token:
            self._figures.count(move, after, job.name, job.run_at, job.started_at)
        if ends or move.event == "retry":
            self._figures.event(job.id, job.name, after if ends else "retried")
            turn.tell_events()
        turn.count(job.name, job.state, -1)
        turn.count(job.name, after, 1)
        if rule.due == "now":
            job.run_at = turn.now
        elif rule.due == "after_delay" and not diverted:
            job.run_at = turn.now + move.delay
        if move.error is not None or job.asked:
            self._take_errors(job, rule, move)
        job.state = after
        if rule.fresh:
            job.start_over()
            self._put("start_over", job, (after, job.run_at, job.fingerprint, job.seq))
            self._put("forget_lines", job, (job.seq,))
        else:
            self._set(job, rule, move)
        if ends:
            self._ended.append(job.id)
        elif job.state_at(turn.now) == "pending":
            turn.tell_jobs()

    def _set(self, job: Job, rule: Rule, move: Move) -> None:
        now = self._turn.now
        ended_at = expires_at = None
        if job.state in ENDED:
            job.asked = 0
            policy = policy_of(job.policy)
            ended_at = now
            completed = job.state == "completed"
            expires_at = now + (policy.keep_result if completed else policy.keep_failed)
        ends = job.fingerprint, ended_at, expires_at
        if not rule.token:
            self._put("change", job, (job.state, job.run_at, *ends, job.seq))
            return
        job.suspect = rule.suspect or (job.suspect and move.untried)
        job.attempts += rule.attempt
        job.lapses += max(rule.lapses, int(move.lapsed))
        counts = job.suspect, job.asked, job.attempts, job.lapses
        self._put(
            "settle",
            job,
            (job.state, job.run_at, *counts, *ends, move.result, move.memo, job.seq),
        )
        if move.note is not None:
            self._notes.append((job.seq, job.last_line, move.note))

    def _take_errors(self, job: Job, rule: Rule, move: Move) -> None:
        ends_by_ask = job.asked and rule.if_asked is not None
        replaced = ends_by_ask and rule.after == rule.if_asked and job.asked_error is not None
        if move.error is not None and not replaced:
            self._take_error(job, move.error, move.fingerprint)
        if ends_by_ask and job.asked_error is not None:
            self._take_error(job, job.asked_error, job.asked_fingerprint)

    def _take_error(self, job: Job, error: bytes, fingerprint: str | None) -> None:
        job.fingerprint = fingerprint
        self._errors.append((job.seq, error))
        if fingerprint is not None:
            self._figures.error(job.id, job.name, error, fingerprint)

    def _put(self, statement: str, job: Job, row: tuple[Any, ...]) -> None:
        self._jobs.add(job.seq)
        self._rows.setdefault(statement, []).append(row)

    def write(self) -> None:
        """Write the jobs that were changed so far."""
        turn = self._turn
        sql = turn.sql("move")
        for statement, rows in self._rows.items():
            turn.executemany(sql[statement], rows)
        if self._errors:
            turn.executemany(sql["error"], self._errors)
            failed = {seq for seq, _ in self._errors}
            turn.executemany(sql["trim_errors"], [(seq, KEPT_ERRORS) for seq in failed])
        if self._notes:
            take_notes(turn, self._notes)
        self._jobs.clear()
        self._rows.clear()
        self._errors.clear()
        self._notes.clear()

    def finish(self) -> None:
        """Write all, and the figures that go with it."""
        self.write()
        self._figures.write()
        self._turn.tell_ends(self._ended)
