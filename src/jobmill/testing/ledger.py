"""What each job's life must be, told by the log alone: the checker's own view of a store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from jobmill.states import ENDED, NEEDS_TOKEN, RULES, Claim, Move, Rule, State
from jobmill.store import Added, Beat, Lease, Moved, NewJob
from jobmill.testing.eventlog import Adds, Claims, Event, Moves, Renews

HAIR: Final = 1e-5
"""Seconds by which two instants may differ and still be taken for one."""

Report = Callable[[str, str | None, str], None]
"""Takes an invariant, a job's id and a sentence."""


@dataclass(slots=True)
class Grant:
    """A lease as its worker may see it.

    `until` is by the boot clock, counted from when the store gave it or held it longer: no
    worker can know that the store's own clock has jumped. `running`: handlers of it that
    have begun and not ended.
    """

    by: str
    attempt: int
    until: float
    begun: bool = False
    running: int = 0


@dataclass(slots=True, eq=False)
class Life:
    """One job, from its acceptance to its removal.

    `state` is "pending" for all that waits; `due` says since or until when. `order` is its
    place in the order of acceptance. `until` is the end of its lease by the store's clock;
    `grants` are all its leases so far, by token.
    """

    job: NewJob
    order: int
    accepted_at: float
    due: float
    state: State = "pending"
    attempts: int = 0
    lapses: int = 0
    generation: int = 1
    suspect: bool = False
    asked: bool = False
    token: str | None = None
    holder: str | None = None
    until: float = 0.0
    ended_at: float | None = None
    ended_boot: float = 0.0
    grants: dict[str, Grant] = field(default_factory=dict[str, Grant])

    @property
    def ended(self) -> bool:
        """Completed, failed or cancelled."""
        return self.state in ENDED

    @property
    def waits(self) -> bool:
        """Neither running nor ended."""
        return self.state == "pending"

    @property
    def place(self) -> tuple[int, float, int]:
        """What it is ordered by among what waits."""
        return self.job.priority, self.due, self.order

    def grant_of(self, by: str, token: str | None) -> Grant | None:
        """The lease of this token; without one, the last that the process had."""
        if token is not None:
            return self.grants.get(token)
        mine = [grant for grant in self.grants.values() if grant.by == by]
        return mine[-1] if mine else None

    def expired(self, at: float) -> bool:
        """Whether its record may be gone."""
        if self.ended_at is None:
            return False
        policy = self.job.policy
        kept = policy.keep_result if self.state == "completed" else policy.keep_failed
        return self.ended_at + kept <= at + HAIR


class Ledger:
    """The lives of all jobs, as the answers of the store tell them; it reports what cannot be.

    Covers I2, I3, I4, I5, I6, I7 and I16, as far as single answers show them.
    """

    def __init__(self, report: Report) -> None:
        self.lives: dict[str, Life] = {}
        self._report = report
        self._accepted = 0
        self._claims: dict[str, int] = {}
        self._handed: set[tuple[str, str]] = set()

    def adds(self, event: Adds) -> None:
        """Take in what an add stored."""
        if len(event.jobs) != len(event.answers):
            self._report("I6", None, f"{len(event.answers)} answers to {len(event.jobs)} jobs")
        for job, answer in zip(event.jobs, event.answers, strict=False):
            self._add(job, answer, event.at)

    def moves(self, moves: Sequence[Move], answers: Sequence[Moved], event: Event) -> None:
        """Take in what moves changed."""
        if len(moves) != len(answers):
            self._report("I4", None, f"{len(answers)} answers to {len(moves)} moves")
        for move, answer in zip(moves, answers, strict=False):
            self._move(move, answer, event)

    def moved(self, event: Moves) -> None:
        """Take in what a move call changed."""
        self.moves(event.moves, event.answers, event)

    def claims(self, event: Claims, number: int) -> None:
        """Take in what a claim handed out; `number` is the event's."""
        token = event.want.token
        handed = (*event.answer.claims, *event.answer.lapsed)
        if not handed:
            return
        if self._claims.setdefault(token, number) != number and not event.want.repeat:
            self._report("I5", handed[0].id, f"the token {token} was given to a second claim")
        for claim in event.answer.claims:
            self._take(claim, event, lapsed=False)
        for claim in event.answer.lapsed:
            self._take(claim, event, lapsed=True)

    def renews(self, event: Renews) -> None:
        """Take in which leases were held longer."""
        for lease, beat in zip(event.leases, event.beats, strict=False):
            self._renew(lease, beat, event)

    def drops(self, job_ids: Iterable[str]) -> None:
        """Take in what an operator removed."""
        for job_id in job_ids:
            life = self.lives.pop(job_id, None)
            if life is not None and life.state == "processing":
                self._report("I1", job_id, "was dropped while it ran")

    def waiting(self) -> list[Life]:
        """What waits, in no order."""
        return [life for life in self.lives.values() if life.waits]

    def holder_of(self, name: str, key: str | None) -> Life | None:
        """The unfinished job that holds a unique key."""
        if key is None:
            return None
        for life in self.lives.values():
            if life.job.unique_key == key and life.job.name == name and not life.ended:
                return life
        return None

    def _add(self, job: NewJob, answer: Added, at: float) -> None:
        there = self.lives.get(job.id)
        if there is not None and there.expired(at) and answer.status in {"added", "held"}:
            there = None
            del self.lives[job.id]
        if answer.status in {"same", "conflict"}:
            if there is None:
                self._report("I6", job.id, f"was answered {answer.status} and was not there")
            return
        if answer.status == "dropped":
            return
        holder = self.holder_of(job.name, job.unique_key)
        if answer.status == "held":
            if holder is None or holder.job.id != answer.job_id:
                found = "nobody" if holder is None else holder.job.id
                sentence = f"was refused for {answer.job_id}, but {found} holds {job.unique_key!r}"
                self._report("I7", job.id, sentence)
            return
        if there is not None:
            self._report("I6", job.id, "was stored a second time under the same id")
        if holder is not None:
            sentence = f"was stored while {holder.job.id} holds its key {job.unique_key!r}"
            self._report("I7", job.id, sentence)
        due = at + job.delay if job.delay is not None else max(at, job.run_at or at)
        self._accepted += 1
        self.lives[job.id] = Life(job=job, order=self._accepted, accepted_at=at, due=due)

    def _take(self, claim: Claim, event: Claims, *, lapsed: bool) -> None:
        life = self.lives.get(claim.id)
        if life is None:
            self._report("I6", claim.id, "was handed out, but nobody had it accepted")
            return
        if claim.token != event.want.token:
            self._report("I5", claim.id, f"was handed out with the token {claim.token} of another")
        if (claim.id, claim.token) in self._handed:
            if not event.want.repeat:
                self._report("I5", claim.id, f"was handed out twice with the token {claim.token}")
            return
        self._handed.add((claim.id, claim.token))
        if lapsed:
            self._check_takeover(life, claim, event)
        else:
            self._check_start(life, claim, event)
        if claim.lapses != life.lapses:
            sentence = f"has {claim.lapses} lapses in its claim, and {life.lapses} by the log"
            self._report("I3", claim.id, sentence)
        life.state, life.attempts = "processing", claim.attempt
        life.token, life.holder = claim.token, event.by
        life.until = event.at + event.want.lease
        life.grants[claim.token] = Grant(event.by, claim.attempt, event.boot + event.want.lease)

    def _check_takeover(self, life: Life, claim: Claim, event: Claims) -> None:
        if life.state != "processing":
            self._report("I5", claim.id, f"was taken over while it was {life.state}")
        elif life.until > event.at + HAIR:
            left = life.until - event.at
            sentence = f"was taken over {left:.6f} s before the lease of {life.holder} ran out"
            self._report("I5", claim.id, sentence)
        if claim.attempt != life.attempts:
            sentence = f"had attempt {life.attempts}, and {claim.attempt} when it was taken over"
            self._report("I3", claim.id, sentence)

    def _check_start(self, life: Life, claim: Claim, event: Claims) -> None:
        if life.state == "processing":
            sentence = f"was claimed by {event.by} while {life.holder} has its lease"
            self._report("I5", claim.id, sentence)
        elif life.ended:
            which = "I16" if life.state == "cancelled" else "I2"
            self._report(which, claim.id, f"was claimed after it was {life.state}")
        elif life.due > event.at + HAIR:
            self._report("I10", claim.id, f"was claimed {life.due - event.at:.6f} s early")
        if life.asked:
            self._report("I16", claim.id, "was claimed anew after it was asked to cancel")
        if claim.attempt != life.attempts + 1:
            sentence = f"was claimed as attempt {claim.attempt} after {life.attempts}"
            self._report("I3", claim.id, sentence)
        if claim.attempt > life.job.policy.max_attempts:
            most = life.job.policy.max_attempts
            self._report("I3", claim.id, f"was given attempt {claim.attempt} of {most}")

    def _renew(self, lease: Lease, beat: Beat, event: Renews) -> None:
        life = self.lives.get(lease.job_id)
        current = life is not None and life.state == "processing" and life.token == lease.token
        if life is None or not current or beat == "lost":
            if beat != "lost":
                self._report("I4", lease.job_id, f"was renewed under the stale token {lease.token}")
            elif current:
                self._report("I4", lease.job_id, f"lost its lease under the token {lease.token}")
            return
        if (beat == "abort") != life.asked:
            asked = "was" if life.asked else "was not"
            self._report("I16", lease.job_id, f"{asked} asked to cancel, and was told {beat!r}")
        life.until = event.at + event.lease
        if lease.token in life.grants:
            life.grants[lease.token].until = event.boot + event.lease

    def _move(  # noqa: C901, PLR0912  a branch for each answer
        self, move: Move, answer: Moved, event: Event
    ) -> None:
        life = self.lives.get(move.job_id)
        if life is None:
            if answer.status == "applied":
                self._report("I6", move.job_id, f"{move.event} was applied to no job")
            return
        fenced = move.event in NEEDS_TOKEN
        current = move.token is not None and move.token == life.token
        match answer.status:
            case "applied":
                if fenced and not current:
                    sentence = f"{move.event} of {event.by} was applied under a stale token"
                    self._report("I4", move.job_id, f"{sentence}, {move.token}")
                grant = life.grants.get(move.token or "")
                if fenced and grant is not None and grant.running:
                    sentence = f"{move.event} of {event.by} was applied while its handler ran"
                    self._report("I12", move.job_id, sentence)
                self._apply(life, move, answer.state, event)
            case "already":
                if not fenced or not current or life.state == "processing":
                    sentence = f"{move.event} of {event.by} was told it was done, which is not so"
                    self._report("I4", move.job_id, sentence)
            case "stale":
                if fenced and current:
                    sentence = f"{move.event} of {event.by} was refused under the current token"
                    self._report("I4", move.job_id, sentence)
            case "held":
                if self.holder_of(life.job.name, life.job.unique_key) is None:
                    sentence = f"{move.event} was refused for its key, which is free"
                    self._report("I7", move.job_id, sentence)
            case "missing":
                if not life.expired(event.at):
                    self._report("I1", move.job_id, f"was missing for a {move.event}")
            case "refused":
                pass

    def _apply(self, life: Life, move: Move, state: State | None, event: Event) -> None:
        rule = _rule(life, move)
        if rule is None:
            which = "I2" if life.ended else "I4"
            which = "I16" if life.state == "cancelled" else which
            self._report(which, move.job_id, f"{move.event} was applied while it was {life.state}")
            return
        after = rule.if_asked if life.asked and rule.if_asked else rule.after
        if state != after and not {state, after} <= {"pending", "delayed"}:
            which = "I16" if "cancelled" in {state, after} else "I2"
            self._report(which, move.job_id, f"is {state} after {move.event}, not {after}")
        if rule.fresh:
            self._revive(life, event)
        elif rule.asks:
            life.asked = True
        else:
            self._settle(life, move, rule, after if state is None else state, event)

    def _revive(self, life: Life, event: Event) -> None:
        holder = self.holder_of(life.job.name, life.job.unique_key)
        if holder is not None:
            sentence = f"was revived while {holder.job.id} holds its key"
            self._report("I7", life.job.id, sentence)
        life.state, life.due = "pending", event.at
        life.attempts = life.lapses = 0
        life.suspect = life.asked = False
        life.generation += 1
        life.ended_at = None

    def _settle(self, life: Life, move: Move, rule: Rule, state: State, event: Event) -> None:
        life.attempts += rule.attempt
        life.lapses += rule.lapses or int(move.lapsed)
        if life.lapses > life.job.policy.max_lapses:
            most = life.job.policy.max_lapses
            self._report("I3", life.job.id, f"has lapsed {life.lapses} times, of {most}")
        if rule.event == "lapse" and life.job.policy.on_lapse == "fail" and not life.asked:
            self._report("I3", life.job.id, "is to run again after a lapse, and must not")
        if rule.token and not move.untried:
            life.suspect = rule.suspect
        if state in ENDED:
            life.state, life.asked = state, False
            life.ended_at, life.ended_boot = event.at, event.boot
            return
        life.state = "pending"
        if rule.due == "after_delay":
            life.due = event.at + move.delay
        elif rule.due == "now":
            life.due = event.at


def _rule(life: Life, move: Move) -> Rule | None:
    """The table's row; all that waits is "pending" here, so a delayed one is tried too."""
    rule = RULES.get((move.event, life.state))
    if rule is None and life.waits:
        rule = RULES.get((move.event, "delayed"))
    return rule
