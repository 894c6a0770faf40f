"""Follows the list of what ended in a queue, and tells listeners of each entry."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec

from jobmill.deadlines import happens
from jobmill.documents import read_one
from jobmill.errors import StoreError, StoreUnavailable
from jobmill.infos import info_of
from jobmill.listeners import JOB_EVENTS, Listeners
from jobmill.records import JobError, JobInfo, JobStatus
from jobmill.store import ENDS, Ending, Features, Record, Store
from jobmill.troubles import Trouble

log: Final = logging.getLogger("jobmill.monitor")

MONITORS: Final = "monitors"
"""The space of the documents that say how far a named monitor has come."""

_GATHER: Final = 0.05
"""Seconds between two looks at least, so that what ends at about the same time is read together."""
_PUSHED: Final = 5
"""Times `poll_interval` between two looks where the store tells at once that there is more."""
_AT_ONCE: Final = 100
"""Entries that are read, and told, between two writes of the cursor: what a monitor that is
killed tells again, at most."""
_LAST: Final = 5.0
"""Seconds for which a stop tells what ended before it, at most."""
_FIRST_PAUSE: Final = 0.05
_KEPT_FOR: Final = 3_600.0
"""Seconds for which a store keeps the list, at least."""
_IDLE_LOOKS: Final = 60
"""Looks in vain after which it is seen whether the list itself began anew."""
_MAX_PAUSE: Final = 5.0

_STATUS: Final[dict[str, JobStatus]] = {
    "completed": "completed",
    "failed": "failed",
    "cancelled": "cancelled",
    "retried": "delayed",
}


class _Cursor(msgspec.Struct, frozen=True):
    """The last entry that was told, and which follower wrote that."""

    after: int
    by: str | None = None


_CURSOR: Final = msgspec.json.Decoder(_Cursor)


class Follower:
    """Tells of each entry once, in commit order, as long as it runs.

    With a `name` it goes on where that name left off: after `stop` each entry is told once,
    after a crash the last ones (100 at most) may be told again. Without, it starts now, and
    `stop` first tells what has ended by then.

    Cost: while nothing happens, a look in each `poll_interval`, or in five of them where the
    store wakes by itself; while much does, two statements, and with a name a third, for each
    100 entries, or 20 times a second.
    """

    def __init__(
        self, store: Store, listeners: Listeners, *, name: str | None, poll_interval: float
    ) -> None:
        self._store = store
        self._listeners = listeners
        self._name = name
        self._id = secrets.token_hex(8)
        pushes = Features.PUSH in store.features
        self._patience = poll_interval * (_PUSHED if pushes else 1)
        self._sign: asyncio.Task[None] | None = None
        self._after: int | None = None
        self._saved: int | None = None
        self._version = 0
        self._in_vain = 0
        self._stopping = asyncio.Event()
        self._wanted = asyncio.Event()
        self._trouble = Trouble(
            f"following {store.queue}", first_pause=_FIRST_PAUSE, max_pause=_MAX_PAUSE
        )

    async def begin(self) -> None:
        """Find the place from which to follow."""
        if self._after is not None:
            return
        if self._name is not None and await self._resume(self._name):
            return
        self._after = await self._last()
        await self._save()

    def wanted(self) -> None:
        """Somebody listens who did not before."""
        self._wanted.set()

    async def run(self) -> None:
        """Follow until `stop`; a store that cannot be reached is waited for."""
        try:
            await self._run()
        finally:
            if self._sign is not None:
                self._sign.cancel()
                await asyncio.wait([self._sign])

    async def _run(self) -> None:
        pause = _FIRST_PAUSE
        idle = self._after is not None and not self._listens()
        while not self._stopping.is_set():
            try:
                await self.begin()
                if idle:
                    idle = await self._wait_for_listeners()
                    continue
                sign = await self._listen()
                told = await self._turn()
                if told < _AT_ONCE:
                    await self._wait_for(sign)
            except StoreUnavailable as error:
                log.debug("the store of %s cannot be reached: %s", self._store.queue, error)
                await happens(self._stopping, min(pause, self._patience))
                pause = min(pause * 2, _MAX_PAUSE)
                continue
            except StoreError as error:
                await happens(self._stopping, self._trouble.say(error))
                continue
            except Exception:
                log.exception("following %s failed", self._store.queue)
                await happens(self._stopping, _MAX_PAUSE)
                continue
            self._trouble.over()
            idle = not self._listens()
            pause = _FIRST_PAUSE
        try:
            await self._finish()
        except StoreError as error:
            log.warning("the last events of %s could not be told: %s", self._store.queue, error)

    async def _finish(self) -> None:
        """With a name, write how far it has come; without, tell what ended before the stop."""
        if self._name is not None:
            await self._save()
            return
        loop = asyncio.get_running_loop()
        until = loop.time() + _LAST
        while self._after is not None and self._listens():
            there = await self._turn(until=until)
            if loop.time() >= until:
                text = "what ended in %s before the stop may be told in part: it took over %g s"
                log.warning(text, self._store.queue, _LAST)
                return
            if there < _AT_ONCE:
                return

    def stop(self) -> None:
        """Tell what is being told, and then no more."""
        self._stopping.set()
        self._wanted.set()

    async def _listen(self) -> asyncio.Task[None]:
        """Begin to wait for more, before the look, so that what ends in between gives its sign."""
        if self._sign is None or self._sign.done():
            waiting = self._store.wait([ENDS], self._patience)
            self._sign = asyncio.get_running_loop().create_task(waiting)
            self._sign.add_done_callback(_retrieve)
            await asyncio.sleep(0)
        return self._sign

    async def _wait_for(self, sign: asyncio.Task[None]) -> None:
        """Wait until there may be more, or for the stop; a moment at least, for others to come."""
        if await happens(self._stopping, _GATHER):
            return
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait([sign, stopping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
        if sign.done() and (error := sign.exception()) is not None:
            raise error

    def _listens(self) -> bool:
        return self._name is not None or self._listeners.any_of(JOB_EVENTS)

    async def _wait_for_listeners(self) -> bool:
        """Wait for one; whether to wait on."""
        await self._wanted.wait()
        self._wanted.clear()
        if not self._listens():
            return True
        # What came before is not for it: `begin` finds the place, once the store says it.
        self._after = None
        return False

    async def _last(self) -> int:
        last = await self._store.events(None, 1)
        return last[-1].seq if last else 0

    async def _resume(self, name: str) -> bool:
        doc = await read_one(self._store, MONITORS, name)
        if doc is None:
            return False
        self._version = doc.version
        try:
            cursor = _CURSOR.decode(doc.value)
        except msgspec.MsgspecError:
            log.warning("how far the monitor %s had come cannot be read; it starts now", name)
            return False
        self._after = self._saved = cursor.after
        first = await self._store.events(cursor.after, 1)
        if first and first[0].at - doc.at > _KEPT_FOR:
            log.warning(
                "the monitor %s was away for over an hour: what happened until %s may be gone",
                name,
                datetime.fromtimestamp(first[0].at, UTC).isoformat(timespec="seconds"),
            )
        return True

    async def _turn(self, *, until: float | None = None) -> int:
        """Tell the next entries; how many there were.

        It breaks off when told to stop, or, where `until` is given, at that instant instead.
        """
        time = asyncio.get_running_loop().time
        entries = await self._store.events(self._after, _AT_ONCE)
        if not entries:
            await self._see_whether_anew()
            return 0
        self._in_vain = 0
        heard = [each for each in entries if self._listeners.any_of((_event(each),))]
        records: list[Record | None] = []
        if heard:
            records = await self._store.get([each.job_id for each in heard])
        by_seq = dict(zip([each.seq for each in heard], records, strict=True))
        for entry in entries:
            if self._stopping.is_set() if until is None else time() >= until:
                break
            if entry.seq in by_seq:
                await self._tell(entry, by_seq[entry.seq])
            self._after = entry.seq
        await self._save()
        return len(entries)

    async def _tell(self, entry: Ending, record: Record | None) -> None:
        info = _info(entry, record, self._store.queue)
        event = _event(entry)
        if entry.kind in ("failed", "retried"):
            await self._listeners.tell(event, info, _error(entry, info.errors))
        else:
            await self._listeners.tell(event, info)

    async def _save(self) -> None:
        """Write how far it has come, where it has a name."""
        if self._name is None or self._after is None or self._after == self._saved:
            return
        value = msgspec.json.encode(_Cursor(self._after, self._id))
        written = await self._store.write(MONITORS, self._name, value, version=self._version)
        if written is None:
            if await self._has_rival(self._name):
                log.warning(
                    "another monitor of the name %s runs: what happens is told to either of them, "
                    "or to both; give each a name of its own",
                    self._name,
                )
            written = await self._store.write(MONITORS, self._name, value)
        self._version, self._saved = written or 0, self._after

    async def _has_rival(self, name: str) -> bool:
        """Whether another wrote last: it may have been this one, whose reply was lost."""
        doc = await read_one(self._store, MONITORS, name)
        if doc is None:
            return False
        try:
            return _CURSOR.decode(doc.value).by != self._id
        except msgspec.MsgspecError:
            return True

    async def _see_whether_anew(self) -> None:
        """An emptied store may number its list from the start again.

        A list that is merely empty says nothing: old entries go by themselves.
        """
        self._in_vain += 1
        if self._in_vain % _IDLE_LOOKS:
            return
        last = await self._last()
        if self._after is not None and 0 < last < self._after:
            log.warning("the list of what ended in %s began anew", self._store.queue)
            self._after = 0


def _retrieve(sign: asyncio.Task[None]) -> None:
    """Have its exception looked at, also where nobody waits any more."""
    if not sign.cancelled():
        sign.exception()


def _event(entry: Ending) -> str:
    return f"job_{entry.kind}"


def _info(entry: Ending, record: Record | None, queue: str) -> JobInfo:
    """The job as it is now; where its record is gone, what the entry tells of it."""
    if record is not None:
        return info_of(record, queue)
    at = datetime.fromtimestamp(entry.at, UTC)
    return JobInfo(
        id=entry.job_id,
        name=entry.job_name,
        queue=queue,
        status=_STATUS[entry.kind],
        enqueued_at=at,
        run_at=at,
        completed_at=None if entry.kind == "retried" else at,
    )


def _error(entry: Ending, errors: Sequence[JobError]) -> JobError:
    """Of a job's errors, that of the attempt which the entry tells of: the nearest in time."""
    at = datetime.fromtimestamp(entry.at, UTC)
    if not errors:
        return JobError("JobFailed", "jobmill.errors", "its record is gone", "", 0, at)
    return min(errors, key=lambda error: abs((error.at - at).total_seconds()))
