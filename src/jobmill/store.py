"""The seam between the engines and the backends: one protocol, its value types, its contract.

A store decides nothing. It keeps jobs and a few small documents, applies the table in
`jobmill.states`, and fences every write of a worker by its token. All that a job's outcome
means is decided above, in `jobmill.states`.

Every verb acts on the one queue that the store was opened for, is atomic as a whole, and
costs one round trip. Any verb may raise StoreUnavailable: it was then done, or was not, and
repeating it is safe. No driver's exception leaves a store. Instants are Unix seconds by the
store's own clock, which never goes back; `now` overrules it in tests and simulation only.

A delayed job that is due is pending to every verb and in every answer, whether or not a
claim made it so yet.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping, Sequence
from typing import Final, Literal, Protocol, runtime_checkable

import msgspec

from jobmill.limits import Window
from jobmill.policy import Policy
from jobmill.states import Claim, Event, Failure, Move, Note, State
from jobmill.tally import HISTOGRAM_BOUNDS, Bucket

__all__ = [
    "ENDS",
    "HEEDED",
    "HISTOGRAM_BOUNDS",
    "JOBS",
    "KEPT_ERRORS",
    "KEPT_LINES",
    "MATURE_LIMIT",
    "TAKEOVER_LIMIT",
    "Added",
    "Beat",
    "Bucket",
    "Claim",
    "Claimed",
    "Counts",
    "Doc",
    "Ending",
    "ErrorGroup",
    "Event",
    "Examined",
    "Failure",
    "Features",
    "Finding",
    "Lease",
    "Move",
    "Moved",
    "NewJob",
    "Note",
    "Page",
    "Policy",
    "Query",
    "Record",
    "State",
    "Store",
    "Ticked",
    "Want",
    "Window",
    "topic_of_job",
]

KEPT_LINES: Final = 100
"""Log lines kept of a job: the last ones."""
KEPT_ERRORS: Final = 20
"""Errors kept of a job: the last ones."""
MATURE_LIMIT: Final = 1_000
"""Delayed jobs that one claim makes pending, at most."""
TAKEOVER_LIMIT: Final = 100
"""Lapsed leases that one claim takes over, at most."""

HEEDED: Final[frozenset[str]] = frozenset({"pauses", "schedules"})
"""The spaces whose documents workers act on: a change of one wakes them. No other does, so that
a worker that tells how it is, say, costs the others nothing."""

JOBS: Final = "jobs"
"""The topic that is told when jobs came, or came due, or a running one was asked to cancel."""

ENDS: Final = "ends"
"""The topic that is told when a job ended, or is to be retried: when `events` has more."""


def topic_of_job(job_id: str) -> str:
    """The topic that is told when this job ends."""
    return f"job:{job_id}"


class Features(enum.Flag):
    """What a store can do beyond the contract."""

    NONE = 0
    TRANSACTIONS = enum.auto()
    """`add_with` and `add_with_sync` work."""
    DURABLE = enum.auto()
    """What it accepted survives the end of the process."""
    SHARED = enum.auto()
    """More than one process may use it at once."""
    PUSH = enum.auto()
    """`wait` wakes at once."""


class NewJob(msgspec.Struct, frozen=True, gc=False):
    """A job to be added.

    `payload` is JSON. It is due `delay` seconds from the store's now, or at the instant
    `run_at`, or, with neither, now; an instant that is past means now.
    """

    id: str
    name: str
    payload: bytes
    policy: Policy
    priority: int = 0
    delay: float | None = None
    run_at: float | None = None
    unique_key: str | None = None
    metadata: dict[str, str] = {}


class Added(msgspec.Struct, frozen=True, gc=False):
    """What became of one job of an `add`.

    "added": it is stored. "same": its id is there already, with this name and payload.
    "held": its unique key is held by the unfinished job `job_id`; nothing was stored.
    "conflict": its id is there with another name or payload; nothing was stored.
    "dropped": it would have been stored, or depended on one that would have been, but a
    job of this `whole` add was a conflict. `job_id` is the id asked for, except in "held".
    """

    status: Literal["added", "same", "held", "conflict", "dropped"]
    job_id: str


class Want(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker asks of a claim.

    `worker` is the worker's id, and its name for people. `token` fences every job that this
    claim hands out; it is made of the worker's random start id and a counter, and never
    used for a second claim. `limit` is how many jobs it can start at once; 0 still takes
    over lapsed leases. `names` restricts it to these jobs. `room` says what it has beside
    them: "busy", other jobs run, so suspects are left; "idle", a suspect is taken alone
    when it is the first in order, and otherwise left; "alone", a suspect goes first.
    `repeat`: an earlier call with this token may have been done, so only collect what it
    claimed.
    """

    worker: str
    token: str
    limit: int
    lease: float
    names: tuple[str, ...] | None = None
    room: Literal["busy", "idle", "alone"] = "idle"
    repeat: bool = False


class Lease(msgspec.Struct, frozen=True, gc=False):
    """A claim that is held: the job and the token that fences it."""

    job_id: str
    token: str


MoveStatus = Literal["applied", "already", "stale", "refused", "held", "missing"]


class Moved(msgspec.Struct, frozen=True, gc=False):
    """What became of one move.

    "applied": done. "already": this token settled this job before. "stale": the token is not
    the job's last, or there is none; nothing was written. "refused": the table has no row
    for the event in the job's state. "held": a revive whose unique key is held by the
    unfinished job `job_id`. "missing": there is no such job.
    `job_id` is otherwise the job's. `state` is the job's state now where the move was
    applied, already done or refused, and None otherwise.
    """

    status: MoveStatus
    job_id: str
    state: State | None = None


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a claim.

    `claims` are to be started, in this order. `lapsed` were taken over from workers that
    died and are to be settled through `after_lapse`, the first to lapse first. `moved` answers
    `settle`, one by one. `next_due` is the instant at which the next delayed job of the queue
    comes due, or came due where MATURE_LIMIT left it. `suspect_waits`: a suspect is due that
    this call left, and neither `names` nor a pause passed over. `asked` are the leases of this
    worker whose jobs were asked to cancel, in no order. `docs` changes whenever a document of
    a space in HEEDED does, and with no other.
    """

    now: float
    claims: tuple[Claim, ...] = ()
    lapsed: tuple[Claim, ...] = ()
    moved: tuple[Moved, ...] = ()
    next_due: float | None = None
    suspect_waits: bool = False
    asked: tuple[Lease, ...] = ()
    docs: int = 0


Beat = Literal["ok", "lost", "abort"]
"""The answer to a renewal: go on; the job is another's now; the job was asked to cancel."""


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """Which jobs: all conditions that are given hold at once.

    `fingerprint` is that of a job's last error.
    """

    states: tuple[State, ...] | None = None
    name: str | None = None
    unique_key: str | None = None
    fingerprint: str | None = None


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """All that the store keeps of a job.

    `errors` are JSON, oldest first, at most KEPT_ERRORS; `logs` likewise, KEPT_LINES.
    `generation` rises with each revive. `token`, `worker` and `started_at` are those of the
    last run, also after it, `lease_until` that of a run that goes on. `ended_at` is the instant
    of its end, `expires_at` the one from which `prune` may remove it.
    """

    id: str
    name: str
    state: State
    payload: bytes
    policy: Policy
    priority: int
    run_at: float
    enqueued_at: float
    attempts: int = 0
    lapses: int = 0
    generation: int = 1
    suspect: bool = False
    asked: bool = False
    token: str | None = None
    worker: str | None = None
    lease_until: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    expires_at: float | None = None
    result: bytes | None = None
    errors: tuple[bytes, ...] = ()
    fingerprint: str | None = None
    progress: float | None = None
    progress_note: str | None = None
    logs: tuple[bytes, ...] = ()
    unique_key: str | None = None
    metadata: dict[str, str] = {}
    memo: bytes | None = None


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Some records, newest first; `cursor` goes on after them, None at the end."""

    records: tuple[Record, ...]
    cursor: str | None = None


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """How many records there are now, by state, and by name and state; no zeros.

    `due` of them are pending; `oldest_due` is the instant since when the oldest of it is due.
    """

    states: Mapping[State, int]
    by_name: Mapping[str, Mapping[State, int]]
    due: int = 0
    oldest_due: float | None = None
    now: float = 0.0


class Ending(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One entry of the event list: a job ended, or was put off to be retried."""

    seq: int
    at: float
    job_id: str
    job_name: str
    kind: Literal["completed", "failed", "cancelled", "retried"]


class ErrorGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Errors with one fingerprint: how many there were, when, and the last of them.

    `job_name`, too, is that of the last.
    """

    fingerprint: str
    job_name: str
    count: int
    first_seen: float
    last_seen: float
    last_job_id: str
    last_error: bytes


class Doc(msgspec.Struct, frozen=True, kw_only=True):
    """A small document: `version` changes with each write and is never used again.

    `at` is the instant of its last write.
    """

    key: str
    value: bytes
    version: int
    at: float


class Ticked(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a tick: the schedule's new version, or None where it had changed."""

    version: int | None
    added: tuple[Added, ...] = ()


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at for an operator, and what to do where it is not "ok".

    "bad" is what loses jobs or keeps them from running; "note" is what an operator should know.
    `code` is the same in every release, `text` and `advice` are for people.
    """

    code: str
    level: Literal["ok", "note", "bad"]
    text: str
    advice: str = ""
    about: str = "store"


@runtime_checkable
class Examined(Protocol):
    """What a store may offer beside the contract: it looks at itself, for `jobmill doctor`."""

    async def examine(self) -> list[Finding]:
        """What there is to say of the server or the file, and of how it is set up.

        Raises: StoreUnavailable.
        """
        ...


@runtime_checkable
class Store(Protocol):
    """One queue of a backend, as the engines see it."""

    @property
    def features(self) -> Features:
        """What this store can do beyond the contract."""
        ...

    @property
    def queue(self) -> str:
        """The queue that this store acts on."""
        ...

    @property
    def place(self) -> str:
        """Where it is, as a URL without its secrets: one place, one set of data.

        Where nothing stands behind its `://`, the data are those of this store and its handles.
        """
        ...

    def handle(self, queue: str | None = None) -> Store:
        """Another, unopened store on the same data: for another loop, or another queue.

        Where None is given it acts on the same queue. Each handle is opened and closed by
        its user, and is used from the one loop that opened it.
        """
        ...

    async def open(self) -> None:
        """Connect, and create what the store needs.

        Repeating it does nothing.

        Raises: SchemaMismatch; StoreUnavailable; ConfigError where the target is unusable.
        """
        ...

    async def close(self) -> None:
        """Let go of every connection and thread; open jobs stay as they are."""
        ...

    async def queues(self) -> list[str]:
        """Names of the queues that have jobs or documents, in order."""
        ...

    async def add(
        self,
        jobs: Sequence[NewJob],
        *,
        wake: bool = True,
        whole: bool = False,
        now: float | None = None,
    ) -> list[Added]:
        """Store jobs; one answer for each, in order.

        A job is pending when it is due and delayed otherwise. An id that is there is "same"
        or "conflict", before its unique key is looked at; a unique key belongs to a pair of
        queue and job name and is held by the one unfinished job that has it. Jobs of one call
        count among themselves.

        Atomic: all or nothing; with `whole`, nothing where one of them is a conflict.
        Durable when it returns.
        Wakes workers unless `wake` is false.
        Cost: one round trip for each thousand.
        """
        ...

    async def add_with(
        self, tx: object, jobs: Sequence[NewJob], *, wake: bool = False
    ) -> list[Added]:
        """As `add`, on the caller's own async connection: there when its transaction commits.

        Raises: Unsupported, where the store or the connection's kind cannot do this;
        ConfigError, where the connection leads to another database.
        """
        ...

    def add_with_sync(
        self, tx: object, jobs: Sequence[NewJob], *, wake: bool = False
    ) -> list[Added]:
        """As `add_with`, on a sync connection, in the caller's thread."""
        ...

    async def claim(
        self, want: Want, settle: Sequence[Move] = (), *, now: float | None = None
    ) -> Claimed:
        """Hand out jobs to run, after applying the moves in `settle`.

        In this order: applies `settle`; makes due delayed jobs pending (MATURE_LIMIT at
        most); takes over lapsed leases (TAKEOVER_LIMIT at most), whatever `names`, `limit`
        and pauses say: each gets the token and a new lease, and keeps its attempt; claims.

        A claimed job is processing, has the token, one attempt more, and the lease.
        Order: priority, then the instant at which it came due, then acceptance.
        Passed over: names outside `want.names`, and, while the document of space "pauses" and
        key "*" is there, everything; of key "job:NAME", that name. Suspects: see
        `Want.room`; a suspect is never handed out together with another job.

        The earliest due are made pending first. A lease has lapsed at its last instant.
        `repeat` collects: it answers with the jobs that hold `want.token`, `claims` and
        `lapsed` apart as at first, their leases as they are, and claims and takes over
        nothing new; it applies `settle` as ever.
        """
        ...

    async def renew(
        self,
        leases: Sequence[Lease],
        lease: float,
        notes: Mapping[str, Note] | None = None,
        *,
        now: float | None = None,
    ) -> list[Beat]:
        """Hold leases for `lease` seconds from now; one answer for each, in order.

        A lease that ran out and was not taken over is held again, and so is that of a job
        that was asked to cancel. `notes`, by job id, are stored with those leases that are not
        lost: a note with a progress replaces progress and progress_note together; a line whose
        number is not above the last one of this token is passed over.
        """
        ...

    async def move(self, moves: Sequence[Move], *, now: float | None = None) -> list[Moved]:
        """Apply events to jobs by the table; one answer for each, in order.

        For an event that needs the token it is checked before anything else of a job that
        exists: another than the job's last, or none, is "stale"; the job's last, where the
        job is not processing, "already". Other events pay no heed to a token; one that has no
        row for the job's state is "refused", and so is always `mature`. Moves of one call are
        applied in order.

        An applied move writes state, due instant, attempts, lapses, suspicion, appends its
        error, stores its note, frees the unique key when the job ends, and moves the
        metrics, the error groups (where it has a fingerprint) and the event list with it;
        one that carries the token also replaces result and memo. Where the job was asked to
        cancel and the rule says so, it ends cancelled, stays due as it was, and has the error
        that the `cancel` carried, if any, as its last: in the place of the move's own where
        the rule leads there anyway, after it otherwise. With its end the mark is gone.
        An end keeps the record for the policy's `keep_result` (completed) or `keep_failed`
        seconds. A cancel of a running job only marks it, and the first mark stays.
        A revive (`fresh`) leaves what is the job's own, its errors and fingerprint, its place
        in the order of acceptance and its last token; the rest is as it was when it was added.
        Wakes workers when jobs came due or a running job was asked to cancel, and whoever
        waits for a job that ended.
        """
        ...

    async def drop(
        self,
        query: Query,
        *,
        ids: Sequence[str] | None = None,
        limit: int,
        now: float | None = None,
    ) -> int:
        """Remove jobs for good, at most `limit`, never one that is processing; how many.

        With `ids`, of these only. The first accepted go first. Frees their unique keys. There may
        be more where it is fewer than `limit`, but not where it is none.
        """
        ...

    async def get(self, ids: Sequence[str], *, now: float | None = None) -> list[Record | None]:
        """The records of these jobs, None where there is none, in order."""
        ...

    async def find(
        self,
        query: Query,
        *,
        limit: int,
        cursor: str | None = None,
        within: float | None = None,
        now: float | None = None,
    ) -> Page:
        """Records, newest (last accepted) first; goes on after `cursor`.

        What is added meanwhile is never seen twice, and nothing is passed over. A store that has
        to look at very many jobs may, after `within` seconds, give those that it has found, fewer
        than `limit` or none, with a cursor.

        Raises: ConfigError (field "cursor") where the cursor is none of this store's.
        """
        ...

    async def counts(self, query: Query | None = None, *, now: float | None = None) -> Counts:
        """How many records there are now."""
        ...

    async def events(self, after: int | None, limit: int) -> list[Ending]:
        """Ends and retries in commit order, after the entry `after`.

        None gives the last entry alone, or nothing: where a new listener starts. `seq` is
        above 0 and rises. Entries are kept for an hour at least.
        """
        ...

    async def errors(self, limit: int) -> list[ErrorGroup]:
        """Error groups, last seen first."""
        ...

    async def metrics(self, since: float) -> list[Bucket]:
        """The buckets of the minutes from that of the instant `since` on, by minute and name."""
        ...

    async def reserve(
        self,
        key: str,
        job_id: str,
        token: str,
        windows: Sequence[Window],
        *,
        now: float | None = None,
    ) -> float:
        """Ask for a start under the rate limit `key`.

        0: the job may start, and its start is recorded at this instant; asking again with
        the same token gives 0 again and records nothing. Otherwise the seconds until the
        slot that is reserved for this job: the earliest beside all starts and slots that
        keeps every window (see `jobmill.limits.slot_for`); asking again never makes it later.
        In no window [t, t + seconds) are there more recorded starts than its limit, also when
        slots were missed: a job that comes late gets a start only where the starts so far
        leave room. A start or slot is kept for the longest of its `windows`.

        Without `windows` nothing is asked for: a start recorded for this job and token never
        happened, and counts no more; 0.
        """
        ...

    async def read(self, space: str, *, after: str = "", limit: int = 1_000) -> list[Doc]:
        """The documents of a space whose key is greater than `after`, by key."""
        ...

    async def write(
        self,
        space: str,
        key: str,
        value: bytes | None,
        *,
        version: int | None = None,
        now: float | None = None,
    ) -> int | None:
        """Write a document, or remove it where `value` is None; its new version.

        `version` None writes in any case; 0 only where there is none; another number only
        where that is the version now. The answer is 0 where there is no document now, and None
        where nothing was done because the version is another.
        Wakes workers where the space is in HEEDED.
        """
        ...

    async def tick(
        self,
        schedule: str,
        version: int,
        value: bytes,
        entries: Sequence[tuple[str, bytes]],
        jobs: Sequence[NewJob],
        *,
        keep: int = 1_000,
        now: float | None = None,
    ) -> Ticked:
        """Fire a schedule: compare-and-set its document and, with it, add its jobs.

        Where the document `schedule` of space "schedules" has `version`: write `value`,
        the history `entries` (pairs of key and value) into the space "history:" and the
        schedule's name, of which the `keep` greatest keys stay, and add `jobs` as `add` does,
        atomically. Otherwise, and where there is no such document, nothing is written.
        """
        ...

    async def prune(self, limit: int, *, now: float | None = None) -> int:
        """Remove at most `limit` records whose time has come, the first due first; how many.

        Old events, metric buckets (kept 8 days), error groups (kept 30 days) and rate
        windows go with them.
        """
        ...

    async def wait(self, topics: Collection[str], timeout: float) -> None:
        """Return when one of the topics was told since the last wait, or after `timeout`.

        A hint only: it may return early for nothing, and a wake-up may be lost. JOBS is
        told by `add`, moves and documents, as they say, not by the mere passing of time;
        ENDS and `topic_of_job` by an end, where somebody waits for it: only by what comes after
        the wait began.
        """
        ...
