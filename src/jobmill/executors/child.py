"""The child's side: a process that runs one job after another, until its worker is gone."""

from __future__ import annotations

import asyncio
import atexit
import inspect
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Awaitable
from contextlib import suppress
from contextvars import copy_context
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, TextIO, cast

from jobmill.context import CURRENT, AbortSignal, JobContext, Told
from jobmill.errors import (
    Cancel,
    DefinitionError,
    Fail,
    JobsError,
    PayloadError,
    PayloadTooLarge,
    Retry,
    Snooze,
)
from jobmill.executors.failures import qualified_module, qualified_name
from jobmill.executors.origin import load
from jobmill.executors.wire import (
    HEAD,
    TO_CHILD,
    Abort,
    Answer,
    Began,
    Logged,
    Progressed,
    Raised,
    Refused,
    Returned,
    Start,
    Steered,
    ToChild,
    ToParent,
    Unfit,
    frame,
)
from jobmill.job import JobDefinition
from jobmill.records import JobError

if TYPE_CHECKING:
    from jobmill.queue import Queue

_STOPS: Final = (signal.SIGINT, signal.SIGTERM)
EXIT_SECONDS: Final = 1.0
"""How long an idle child may take to end after its worker let it go."""


def main(fd: int) -> None:
    """Run the jobs that come over the socket, until its other end is closed."""
    channel = _Channel(socket.socket(fileno=fd))
    _keep_to_itself(channel)
    inbox: _Inbox = SimpleQueue()
    threading.Thread(target=_listen, args=(channel, inbox), name="jobmill", daemon=True).start()
    while (work := inbox.get()) is not None:
        start, abort = work
        channel.send(Began())
        answer = copy_context().run(_run, start, abort, channel)
        channel.busy = False
        channel.send(answer)


class ChildContext(JobContext[Any]):
    """A JobContext in a child process, where neither the queue nor its state can be."""

    __slots__ = ()

    def __init__(self, start: Start, payload: Any, abort: AbortSignal, channel: _Channel) -> None:
        fields = start.fields
        super().__init__(
            job_id=fields.job_id,
            job_name=fields.job_name,
            queue_name=fields.queue_name,
            payload=payload,
            attempt=fields.attempt,
            max_attempts=fields.max_attempts,
            enqueued_at=fields.enqueued_at,
            started_at=fields.started_at,
            signal=abort,
            metadata=fields.metadata,
            queue=cast("Queue", None),
            state=None,
            progress_sink=channel.progress,
            log_sink=channel.log,
        )
        # Now both are looked for in vain, and __getattr__ says why.
        del self.queue, self.state

    def __getattr__(self, name: str) -> Any:
        """Say why what is looked for is not there."""
        if name in {"queue", "state"}:
            message = (
                f'ctx.{name} is not there in a child process; a job with executor="process" '
                "opens for itself what it needs, or returns what another job goes on with"
            )
            raise JobsError(message)
        raise AttributeError(name, name=name, obj=self)


class _Channel:
    """The child's end of the socket."""

    def __init__(self, end: socket.socket) -> None:
        end.set_inheritable(False)
        end.setblocking(True)
        self._end = end
        self._lock = threading.Lock()
        self.busy = False
        """Whether a job runs, so that there is something to kill."""

    def send(self, message: ToParent) -> None:
        data = frame(message)
        try:
            with self._lock:
                self._end.sendall(data)
        except OSError:
            # Nobody is left for whom to go on.
            _die()

    def progress(self, value: float, note: str | None) -> Awaitable[None]:
        self.send(Progressed(value, note))
        return Told()

    def log(self, message: str, fields: dict[str, Any]) -> None:
        told = {_text(name): _plain(value) for name, value in fields.items()}
        self.send(Logged(_text(message), told))

    def receive(self) -> ToChild | None:
        """The next message; None where there will be no more."""
        head = self._read(HEAD)
        body = head and self._read(int.from_bytes(head, "big"))
        return TO_CHILD.decode(body) if body else None

    def close(self) -> None:
        self._end.close()

    def _read(self, size: int) -> bytes | None:
        data = bytearray()
        while len(data) < size:
            try:
                some = self._end.recv(size - len(data))
            except OSError:
                return None
            if not some:
                return None
            data += some
        return bytes(data)


_Inbox = SimpleQueue[tuple[Start, AbortSignal] | None]


def _keep_to_itself(channel: _Channel) -> None:
    """Part what belongs to the child from what its handlers do."""
    # A stop may be sent to every process there is, but only the worker decides what ends.
    for each in _STOPS:
        signal.signal(each, _unmoved)
    atexit.register(_die)
    # What a handler forks is neither the worker's child nor deaf to signals, from the start.
    os.register_at_fork(
        before=lambda: _hold_back(signal.SIG_BLOCK),
        after_in_parent=lambda: _hold_back(signal.SIG_UNBLOCK),
        after_in_child=lambda: _let_go(channel),
    )
    if sys.stdout is not None:  # pyright: ignore[reportUnnecessaryComparison] - under pythonw it is
        cast("Any", sys.stdout).reconfigure(line_buffering=True)


def _unmoved(_number: int, _frame: object) -> None:
    pass


def _hold_back(how: int) -> None:
    signal.pthread_sigmask(how, _STOPS)


def _let_go(channel: _Channel) -> None:
    atexit.unregister(_die)
    channel.close()
    # What forks need not be the main thread, but it is the only one that the fork has.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _hold_back(signal.SIG_UNBLOCK)


def _die() -> None:
    """End at once, and what the handlers started with it."""
    for stream in cast("tuple[TextIO | None, ...]", (sys.stdout, sys.stderr)):
        with suppress(Exception):
            if stream is not None:
                stream.flush()
    with suppress(OSError):
        if os.getpgid(0) == os.getpid():
            os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _listen(channel: _Channel, inbox: _Inbox) -> None:
    """Hand on what the worker says; end the process when the worker has gone."""
    number, abort = 0, AbortSignal()
    while (message := channel.receive()) is not None:
        match message:
            case Start():
                # Made here, so that an abort right behind it finds its signal.
                number, abort = message.number, AbortSignal()
                channel.busy = True
                inbox.put((message, abort))
            case Abort():
                # One that comes too late is not meant for the next job.
                if message.number == number:
                    abort.abort(message.reason)
    if not channel.busy:
        inbox.put(None)
        time.sleep(EXIT_SECONDS)
    _die()


def _run(start: Start, abort: AbortSignal, channel: _Channel) -> Answer:
    try:
        definition = load(start.origin, start.name, start.handler)
        # Made now, so that a result type that is no type is found before anything runs.
        _ = definition.result_codec
        payload = definition.decode_payload(start.payload)
    except DefinitionError as error:
        return Unfit(_text(error))
    except PayloadError as error:
        return _refused(error)
    ctx = ChildContext(start, payload, abort, channel)
    CURRENT.set(ctx)
    try:
        result = _call(definition, ctx)
    except BaseException as error:  # noqa: BLE001 - whatever it raises is the worker's to judge
        return _ending(error, start.fields.attempt)
    try:
        return Returned(definition.encode_result(result, limit=start.limit))
    except PayloadError as error:
        return _refused(error)
    except Exception as error:  # noqa: BLE001 - classes of the user's take part; they may raise anything
        return _raised(error, start.fields.attempt)


def _call(definition: JobDefinition[Any, Any], ctx: JobContext[Any]) -> Any:
    answer = definition.invoke(ctx)
    if inspect.isawaitable(answer):
        # An async handler has a loop of its own here, for this one run.
        return asyncio.run(_awaited(answer))
    return answer


async def _awaited(answer: Awaitable[Any]) -> Any:
    return await answer


def _ending(error: BaseException, attempt: int) -> Answer:
    try:
        match error:
            case Retry() | Snooze():
                return Steered(
                    "retry" if isinstance(error, Retry) else "snooze",
                    _text(error.reason),
                    _seconds(error.delay),
                )
            case Cancel() | Fail():
                return Steered(
                    "cancel" if isinstance(error, Cancel) else "fail", _text(error.reason)
                )
            case KeyboardInterrupt():
                return Steered("interrupt")
            case _:
                return _raised(error, attempt)
    except Exception as wrong:  # noqa: BLE001 - what they carry is the user's; it may be anything
        return _raised(wrong, attempt)


def _raised(error: BaseException, attempt: int) -> Raised:
    kept = JobError.from_exception(error, attempt, datetime.now(UTC))
    types = tuple(qualified_name(each) for each in type(error).__mro__)
    return Raised(replace(kept, module=qualified_module(kept.module)), types, _place(error))


def _place(error: BaseException) -> str:
    frames = error.__traceback__
    if frames is None:
        return ""
    while frames.tb_next is not None:
        frames = frames.tb_next
    code = frames.tb_frame.f_code
    return _text(f"{code.co_filename}:{code.co_qualname}")


def _refused(error: PayloadError) -> Refused:
    if isinstance(error, PayloadTooLarge):
        return Refused(_text(error), error.path, error.size, error.limit)
    return Refused(_text(error), error.path)


def _seconds(delay: float | timedelta | None) -> float | None:
    if delay is None:
        return None
    seconds = delay.total_seconds() if isinstance(delay, timedelta) else float(delay)
    if not math.isfinite(seconds):
        message = f"delay: {seconds} is no number of seconds"
        raise ValueError(message)
    return seconds


def _plain(value: object) -> bool | int | float | str | None:
    # Exactly these: what derives from them, the encoder does not take.
    if value is None or type(value) in {bool, float}:
        return cast("bool | float | None", value)
    if type(value) is int and value.bit_length() < 64:  # noqa: PLR2004 - bits that JSON readers take
        return value
    return _text(value)


def _text(value: object) -> str:
    return str(value).encode(errors="replace").decode()
