"""One job as the store in memory keeps it."""

from __future__ import annotations

from typing import Final

import msgspec

from jobmill.policy import Policy
from jobmill.states import State
from jobmill.store import KEPT_ERRORS, KEPT_LINES, Claim, NewJob, Note, Record


class Job(msgspec.Struct, eq=False, gc=False):
    """A record that changes. `seq` is its place in the order of acceptance.

    It is part of no cycle, so the garbage collector need not walk through all jobs there are.
    """

    id: str
    name: str
    payload: bytes
    policy: Policy
    priority: int
    unique_key: str | None
    metadata: dict[str, str] | None
    seq: int
    enqueued_at: float
    state: State
    run_at: float
    generation: int = 1
    token: str | None = None
    errors: tuple[bytes, ...] = ()
    fingerprint: str | None = None
    gone: bool = False
    place: int = 0
    """The number of the entry by which it stands in a heap."""
    # What a run leaves behind:
    attempts: int = 0
    lapses: int = 0
    suspect: bool = False
    asked: bool = False
    asked_error: bytes | None = None
    asked_fingerprint: str | None = None
    taken_over: bool = False
    worker: str | None = None
    lease_until: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    expires_at: float | None = None
    result: bytes | None = None
    progress: float | None = None
    progress_note: str | None = None
    logs: tuple[bytes, ...] = ()
    last_line: int | None = None
    memo: bytes | None = None

    @classmethod
    def of(cls, new: NewJob, *, seq: int, state: State, run_at: float, now: float) -> Job:
        """The record of a job that is accepted now."""
        # By place, as in `claim`: many keywords take several times as long.
        return cls(
            new.id,
            new.name,
            new.payload,
            new.policy,
            new.priority,
            new.unique_key,
            dict(new.metadata) if new.metadata else None,
            seq,
            now,
            state,
            run_at,
        )

    def start_over(self) -> None:
        """Begin the next generation."""
        for name, value in _NEVER_RAN.items():
            setattr(self, name, value)
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
            self.id,
            self.name,
            self.payload,
            self.policy,
            self.token or "",
            self.attempts,
            self.lapses,
            self.priority,
            self.enqueued_at,
            self.run_at,
            self.started_at or 0.0,
            self.suspect,
            self.asked,
            self.unique_key,
            dict(self.metadata) if self.metadata else {},
            self.memo,
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
            metadata=dict(self.metadata or ()),
            memo=self.memo,
        )


_FIRST_OF_A_RUN: Final = Job.__struct_fields__.index("attempts")
_NEVER_RAN: Final = {
    field.name: field.default for field in msgspec.structs.fields(Job)[_FIRST_OF_A_RUN:]
}
