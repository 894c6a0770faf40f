"""Child processes for handlers that compute: spawned when needed, reused, killed for real."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextvars import Context
from functools import partial
from typing import Any, Final, assert_never

from jobmill.context import AbortSignal
from jobmill.errors import (
    Cancel,
    ControlFlow,
    DefinitionError,
    Fail,
    PayloadError,
    PayloadTooLarge,
    Retry,
    Snooze,
)
from jobmill.executors.failures import ChildFailure, death
from jobmill.executors.origin import Origin, handler_name, origin_of, refuse_while_loading
from jobmill.executors.spawned import Child, launch, outlive
from jobmill.executors.threads import ThreadExecutor
from jobmill.executors.wire import (
    Abort,
    Answer,
    Began,
    ContextFields,
    Logged,
    Progressed,
    Raised,
    Refused,
    Returned,
    Start,
    Steered,
    Unfit,
)
from jobmill.job import JobDefinition

log: Final = logging.getLogger("jobmill.worker")

OnProgress = Callable[[float, str | None], Awaitable[None]]
OnLog = Callable[[str, dict[str, Any]], None]

JOBS_PER_CHILD: Final = 1_000
"""Jobs after which a child is replaced, so that what its handlers leak has an end."""
LAST_WORDS: Final = 1.0
"""How long is waited for what a dead child said before, or for the end of one that fell silent."""

_OBEYED: Final = frozenset(
    {"jobmill.errors.JobTimeout", "jobmill.errors.LeaseLost", "jobmill.errors.JobCancelled"}
)
"""What AbortSignal.raise_if_aborted raises."""


class ProcessExecutor:
    """Runs handlers in child processes, at most `slots` at once, each child one job at a time.

    A child is a new interpreter in a session of its own, with this process's sys.path,
    environment and working directory. It loads the module that defines the job, so a script's
    own work belongs under `if __name__ == "__main__":`. What its handlers print goes to this
    process's stderr.
    """

    def __init__(self, slots: int) -> None:
        refuse_while_loading()
        self._slots = asyncio.Semaphore(slots)
        self._idle: list[Child] = []
        self._retiring: set[asyncio.Task[None]] = set()
        self._origins: dict[JobDefinition[Any, Any], Origin] = {}
        self._threads = ThreadExecutor()
        self._closed = False

    async def run(
        self,
        definition: JobDefinition[Any, Any],
        payload: bytes,
        fields: ContextFields,
        signal: AbortSignal,
        grace: float,
        *,
        on_progress: OnProgress,
        on_log: OnLog,
        result_limit: int | None = None,
    ) -> bytes:
        """Run the job's handler in a child: its result as JSON, or what it raised.

        When `signal` aborts, or this coroutine is cancelled, the child's signal aborts too;
        `grace` seconds later the child is killed, with all that it started. Nothing of it runs
        any more when this returns or raises.

        Raises: ChildFailure where the handler raised; Retry, Snooze, Cancel, Fail and
        KeyboardInterrupt as they are; ChildDied; JobTimeout, JobCancelled or LeaseLost where
        the run ended because it was aborted; PayloadError where the payload does not decode in
        the child or the result does not encode; DefinitionError where no child can load the
        job. After the last two, running it again does not help.
        """
        origin = self._origin(definition)
        async with self._slots:
            signal.raise_if_aborted()
            while True:
                child = await self._take()
                if signal.aborted:
                    self._give_back(child, fit=True)
                    signal.raise_if_aborted()
                start = Start(
                    number=child.jobs,
                    origin=origin,
                    name=definition.name,
                    handler=handler_name(definition),
                    payload=payload,
                    fields=fields,
                    limit=result_limit,
                )
                conversation = _Conversation(child, start, on_progress, on_log)
                cancelled = await conversation.hold(signal, grace)
                answer = conversation.answer
                self._give_back(child, fit=not isinstance(answer, Unfit))
                if cancelled and not signal.aborted:
                    raise asyncio.CancelledError
                if answer is not None:
                    return _result(answer, signal)
                signal.raise_if_aborted()
                # One that was reused may have died before it heard of this job: nothing ran.
                if child.jobs == 1 or conversation.began:
                    raise death(child.ended.result())

    async def close(self) -> None:
        """End all idle children, and the others after their job."""
        self._closed = True
        while self._idle:
            self._retire(self._idle.pop())
        while self._retiring:
            await asyncio.wait(self._retiring)
        self._threads.close()

    def _origin(self, definition: JobDefinition[Any, Any]) -> Origin:
        origin = self._origins.get(definition)
        if origin is None:
            origin = self._origins[definition] = origin_of(definition)
        return origin

    async def _take(self) -> Child:
        """A child that waits for a job, or a new one."""
        if self._closed:
            message = "this executor is closed"
            raise RuntimeError(message)
        child: Child | None = None
        while child is None and self._idle:
            child = self._idle.pop()
            if child.ended.done():
                child.forget()
                child = None
        if child is None:
            # A context of its own, which is not kept alive by the child as the job's would be.
            spawning = asyncio.get_running_loop().create_task(self._spawn(), context=Context())
            if await _wait(spawning):
                if spawning.exception() is None:
                    self._give_back(spawning.result(), fit=True)
                raise asyncio.CancelledError
            child = spawning.result()
        child.jobs += 1
        return child

    async def _spawn(self) -> Child:
        process, end = await self._threads.start(launch)
        ended = self._threads.start(partial(outlive, process))
        return Child(process, ended, *await asyncio.open_unix_connection(sock=end))

    def _give_back(self, child: Child, *, fit: bool) -> None:
        if child.ended.done():
            child.forget()
        elif fit and not self._closed and child.jobs < JOBS_PER_CHILD:
            self._idle.append(child)
        else:
            self._retire(child)

    def _retire(self, child: Child) -> None:
        retiring = asyncio.create_task(child.let_go())
        self._retiring.add(retiring)
        retiring.add_done_callback(self._retiring.discard)


class _Conversation:
    """One job in one child."""

    def __init__(self, child: Child, start: Start, on_progress: OnProgress, on_log: OnLog) -> None:
        self._child = child
        self._start = start
        self._on_progress = on_progress
        self._on_log = on_log
        self.began = False
        self.answer: Answer | None = None
        """How the job ended; None where the child died before it said so."""

    async def hold(self, signal: AbortSignal, grace: float) -> bool:
        """Run the job until it has ended or its child is dead; whether this was cancelled."""
        child = self._child
        child.tell(self._start)
        listening = asyncio.create_task(self._listen())
        aborting = asyncio.create_task(signal.wait())
        cancelled = False
        try:
            await self._first(listening, aborting)
        except asyncio.CancelledError:
            cancelled = True
        aborting.cancel()
        if not listening.done() and not child.ended.done():
            child.tell(Abort(self._start.number, signal.reason or "cancelled"))
            cancelled |= await _wait(listening, child.ended, timeout=grace)
            if not listening.done():
                child.kill()
                cancelled |= await _wait(child.ended)
        if not listening.done():
            cancelled |= await _wait(listening, timeout=LAST_WORDS)
            listening.cancel()
        if self.answer is None:
            # Its exit code tells why, if it is about to end by itself.
            cancelled |= await _wait(child.ended, timeout=LAST_WORDS)
            child.kill()
            cancelled |= await _wait(child.ended)
        return cancelled

    async def _first(self, *some: asyncio.Future[None]) -> None:
        watched: set[asyncio.Future[Any]] = {*some, self._child.ended}
        await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)

    async def _listen(self) -> None:
        while (message := await self._child.hear()) is not None:
            match message:
                case Began():
                    self.began = True
                case Progressed() | Logged():
                    await self._pass_on(message)
                case _:
                    self.answer = message
                    return

    async def _pass_on(self, message: Progressed | Logged) -> None:
        try:
            match message:
                case Progressed():
                    await self._on_progress(message.value, message.note)
                case Logged():
                    self._on_log(message.message, dict(message.fields))
                case _:
                    assert_never(message)
        except Exception:
            # The handler has gone on: what becomes of its words changes nothing for it.
            fields = self._start.fields
            extra = {
                "job_id": fields.job_id,
                "job_name": fields.job_name,
                "attempt": fields.attempt,
                "queue": fields.queue_name,
            }
            text = "what the job %s says could not be kept"
            log.exception(text, fields.job_id, extra=extra)


async def _wait(*some: asyncio.Future[Any], timeout: float | None = None) -> bool:
    """Wait for the first of them, come what may; whether the waiting was cancelled."""
    loop = asyncio.get_running_loop()
    end = None if timeout is None else loop.time() + timeout
    cancelled = False
    while not any(each.done() for each in some):
        left = None if end is None else end - loop.time()
        if left is not None and left <= 0:
            break
        try:
            await asyncio.wait(some, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            cancelled = True
    return cancelled


def _result(answer: Answer, signal: AbortSignal) -> bytes:
    match answer:
        case Returned():
            return answer.result
        case Raised():
            if not _OBEYED.isdisjoint(answer.types):
                signal.raise_if_aborted()
            raise ChildFailure(answer.error, answer.types, answer.place)
        case Steered():
            raise _steering(answer)
        case Refused():
            if answer.size is None or answer.limit is None:
                raise PayloadError(answer.message, path=answer.path)
            data = {"path": answer.path, "size": answer.size, "limit": answer.limit}
            raise PayloadTooLarge(answer.message, **data)
        case Unfit():
            raise DefinitionError(answer.message)
        case _:
            assert_never(answer)


def _steering(answer: Steered) -> ControlFlow | KeyboardInterrupt:
    match answer.end:
        case "retry":
            return Retry(answer.delay, answer.reason)
        case "snooze":
            return Snooze(answer.delay or 0.0, answer.reason)
        case "cancel":
            return Cancel(answer.reason)
        case "fail":
            return Fail(answer.reason)
        case "interrupt":
            return KeyboardInterrupt()
        case _:
            assert_never(answer.end)
