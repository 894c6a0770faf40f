"""One job as the store in memory keeps it."""

from __future__ import annotations

from jobmill.options import Policy
from jobmill.states import State
from jobmill.store import KEPT_ERRORS, KEPT_LINES, Claim, NewJob, Note, Record


class Job:
    """A record that changes. `seq` is its place in the order of acceptance."""

    __slots__ = (
        "asked",
        "asked_error",
        "asked_fingerprint",
        "attempts",
        "ended_at",
        "enqueued_at",
        "errors",
        "expires_at",
        "fingerprint",
        "generation",
        "gone",
        "id",
        "lapses",
        "last_line",
        "lease_until",
        "logs",
        "memo",
        "metadata",
        "name",
        "payload",
        "policy",
        "priority",
        "progress",
        "progress_note",
        "result",
        "run_at",
        "seq",
        "started_at",
        "state",
        "suspect",
        "taken_over",
        "token",
        "unique_key",
        "worker",
    )

    def __init__(self, new: NewJob, *, seq: int, state: State, run_at: float, now: float) -> None:
        self.id: str = new.id
        self.name: str = new.name
        self.payload: bytes = new.payload
        self.policy: Policy = new.policy
        self.priority: int = new.priority
        self.unique_key: str | None = new.unique_key
        self.metadata: dict[str, str] = dict(new.metadata)
        self.seq: int = seq
        self.enqueued_at: float = now
        self.state: State = state
        self.run_at: float = run_at
        self.generation: int = 1
        self.token: str | None = None
        self.errors: tuple[bytes, ...] = ()
        self.fingerprint: str | None = None
        self.gone: bool = False
        self._never_ran()

    def _never_ran(self) -> None:
        self.attempts: int = 0
        self.lapses: int = 0
        self.suspect: bool = False
        self.asked: bool = False
        self.asked_error: bytes | None = None
        self.asked_fingerprint: str | None = None
        self.taken_over: bool = False
        self.worker: str | None = None
        self.lease_until: float | None = None
        self.started_at: float | None = None
        self.ended_at: float | None = None
        self.expires_at: float | None = None
        self.result: bytes | None = None
        self.progress: float | None = None
        self.progress_note: str | None = None
        self.logs: tuple[bytes, ...] = ()
        self.last_line: int | None = None
        self.memo: bytes | None = None

    def start_over(self) -> None:
        """Begin the next generation."""
        self._never_ran()
        self.generation += 1

    def hold(self, token: str, worker: str, lease_until: float) -> None:
        """Give the job to a worker."""
        self.token = token
        self.worker = worker
        self.lease_until = lease_until

    def ask(self, error: bytes | None, fingerprint: str | None) -> None:
        """Mark the running job as asked to cancel; the first mark stays."""
        if not self.asked:
            self.asked = True
            self.asked_error = error
            self.asked_fingerprint = fingerprint

    def fail_with(self, error: bytes, fingerprint: str | None) -> None:
        """Append an error."""
        self.errors = (*self.errors, error)[-KEPT_ERRORS:]
        self.fingerprint = fingerprint

    def take_note(self, note: Note) -> None:
        """Store what a run reports."""
        if note.progress is not None:
            self.progress = note.progress
            self.progress_note = note.progress_note
        for number, line in note.lines:
            if self.last_line is None or number > self.last_line:
                self.last_line = number
                self.logs = (*self.logs, line)[-KEPT_LINES:]

    def claim(self) -> Claim:
        """The job in the hands of its worker."""
        return Claim(
            id=self.id,
            name=self.name,
            payload=self.payload,
            policy=self.policy,
            token=self.token or "",
            attempt=self.attempts,
            lapses=self.lapses,
            priority=self.priority,
            enqueued_at=self.enqueued_at,
            run_at=self.run_at,
            started_at=self.started_at or 0.0,
            suspect=self.suspect,
            asked=self.asked,
            unique_key=self.unique_key,
            metadata=dict(self.metadata),
            memo=self.memo,
        )

    def record(self, state: State) -> Record:
        """All that is kept of the job, in this state."""
        return Record(
            id=self.id,
            name=self.name,
            state=state,
            payload=self.payload,
            policy=self.policy,
            priority=self.priority,
            run_at=self.run_at,
            enqueued_at=self.enqueued_at,
            attempts=self.attempts,
            lapses=self.lapses,
            generation=self.generation,
            suspect=self.suspect,
            asked=self.asked,
            token=self.token,
            worker=self.worker,
            lease_until=self.lease_until,
            started_at=self.started_at,
            ended_at=self.ended_at,
            expires_at=self.expires_at,
            result=self.result,
            errors=self.errors,
            fingerprint=self.fingerprint,
            progress=self.progress,
            progress_note=self.progress_note,
            logs=self.logs,
            unique_key=self.unique_key,
            metadata=dict(self.metadata),
            memo=self.memo,
        )
