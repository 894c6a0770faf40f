"""asyncio in virtual time: one thread, no waiting, the same run for the same program."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import threading
import weakref
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Executor
from typing import Any, Final, Never, TypeVar, TypeVarTuple, Unpack

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")

_START: Final = 1_767_225_600.0
"""2026-01-01 00:00:00 UTC."""
_BOOT: Final = 1_000.0
"""No machine is asked in its first instant, and 0.0 would pass for nothing."""


class SimError(Exception):
    """The simulation cannot go on."""


class SimDeadlock(SimError):
    """Something is waited for, and nothing is left that could bring it."""


class SimOverrun(SimError):
    """The run took more steps, or more virtual time, than it may."""


class SimClock:
    """Virtual time: it stands still until somebody moves it.

    Satisfies jobmill.clock.Clock.
    """

    def __init__(self, wall: float = _START) -> None:
        self._boot = _BOOT
        self._offset = wall - _BOOT

    def wall(self) -> float:
        """Unix seconds, virtual."""
        return self._offset + self._boot

    def boot(self) -> float:
        """Seconds since an arbitrary start; never goes back."""
        return self._boot

    def jump(self, seconds: float) -> None:
        """Set the wall clock forward, or back where `seconds` is negative; nothing else."""
        self._offset += seconds

    def freeze(self, seconds: float) -> None:
        """Let time go by while nothing runs, as a suspended machine does.

        Timers that fell due meanwhile run afterwards, in their order.
        """
        self._boot += seconds


_home: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


class Process:
    """What stands for an operating system's process: some coroutines that live and die together.

    All that a coroutine of it starts belongs to it too: its tasks, timers and callbacks, also
    those in a fresh context. Made by Sim.process.
    """

    def __init__(self, loop: SimLoop, name: str) -> None:
        self.name = name
        self.alive: bool = True
        self._frozen = False
        self._loop = loop
        self._held: list[_Step] = []
        self._tasks: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()
        self._remains: list[asyncio.Task[Any]] = []
        self._dying = loop.create_future()

    @property
    def runs(self) -> bool:
        """Neither frozen nor dead."""
        return self.alive and not self._frozen

    def start(self, coro: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Run it as part of this process."""
        context = contextvars.copy_context()
        context.run(_home.set, self)
        return self._loop.create_task(coro, name=self.name, context=context)

    def freeze(self) -> None:
        """Stop all that runs in it, as SIGSTOP does, at the next point where it waits."""
        self._frozen = True

    def thaw(self) -> None:
        """Go on where it stopped, as SIGCONT does: what fell due meanwhile runs in its order."""
        self._frozen = False
        if self.alive:
            self._let_go()

    def kill(self) -> None:
        """End it, as SIGKILL does: no line of it runs again, not even a `finally`.

        Where it kills itself, its running coroutine goes on until it next waits.
        """
        self.alive = False
        # asyncio knows its tasks weakly: nothing else may hold those of the dead.
        self._remains = sorted(self._tasks, key=hash)
        if not self._dying.done():
            self._dying.set_result(None)

    async def died(self) -> None:
        """Return once it was killed."""
        await asyncio.shield(self._dying)

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """Know a task as one of this process."""
        self._tasks.add(task)

    def hold(self, step: _Step) -> None:
        """Keep a step for later, because the process does not run."""
        self._held.append(step)

    def unwind(self) -> None:
        """Let its coroutines run again, to end them: the simulation is over."""
        self.alive = True
        self._frozen = False
        self._let_go()

    def _let_go(self) -> None:
        held, self._held = self._held, []
        for step in held:
            step.again()


def current_process() -> Process | None:
    """The process that the running coroutine belongs to, None outside of all."""
    return _home.get()


class _Step:
    """A callback of the loop that waits while its process does not run."""

    __slots__ = ("_args", "_callback", "_context", "_loop", "handle")

    handle: asyncio.Handle

    def __init__(
        self,
        loop: SimLoop,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: contextvars.Context,
    ) -> None:
        self._loop = loop
        self._callback = callback
        self._args = args
        self._context = context

    def __call__(self) -> None:
        process = _home.get()
        if process is not None and not process.runs:
            process.hold(self)
        # Cancelled while it was held: the handle that its owner has is the first one.
        elif not self.handle.cancelled():
            self._callback(*self._args)

    def __repr__(self) -> str:
        return f"<step {self._callback!r}>"

    def again(self) -> None:
        """Into the ready queue, once more."""
        self._loop.requeue(self, self._context)


class SimFuture(asyncio.Future[_T]):
    """A future whose hash, and so its place in a set, is the same in each run."""

    def __init__(self, serial: int, *, loop: asyncio.AbstractEventLoop) -> None:
        self._serial = serial
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self._serial


class SimTask(asyncio.Task[_T]):
    """A task whose hash, and so its place in a set, is the same in each run."""

    def __init__(
        self,
        serial: int,
        coro: Coroutine[Any, Any, _T] | Generator[Any, None, _T],
        **keywords: Any,
    ) -> None:
        # First, because asyncio puts a task into a set while it is made.
        self._serial = serial
        super().__init__(coro, **keywords)

    def __hash__(self) -> int:
        return self._serial


class _Waiting:
    """In the place of a selector: waits by moving the clock."""

    def __init__(self, turn: Callable[[float | None], None]) -> None:
        self._turn = turn

    def select(self, timeout: float | None) -> list[Never]:
        self._turn(timeout)
        return []


class SimLoop(asyncio.BaseEventLoop):
    """An event loop in virtual time: where nothing is ready, it is the next timer's time at once.

    Order: that of asyncio. Ready callbacks run first in, first out, as asyncio promises and
    its own locks and queues rely on; what differs from seed to seed has to come from random
    delays, of the stores (FaultyStore) and of Sim.checkpoint, a delay of zero included.
    One thread: executors, sockets, child processes and calls from other threads are refused.
    A run that waits for nothing is a SimDeadlock that names its tasks; one that never ends a
    SimOverrun, after `max_steps` turns of the loop or `max_seconds` of virtual time.
    """

    def __init__(
        self,
        clock: SimClock | None = None,
        *,
        max_steps: int = 5_000_000,
        max_seconds: float = 30 * 86_400.0,
    ) -> None:
        super().__init__()
        self.clock: SimClock = SimClock() if clock is None else clock
        self._selector = _Waiting(self._turn)
        self._thread = threading.get_ident()
        self._serials = itertools.count(1)
        self._steps = self._max_steps = max_steps
        self._deadline = self.clock.boot() + max_seconds
        self.set_task_factory(self._make_task)

    def time(self) -> float:
        """The virtual time: SimClock.boot."""
        return self.clock.boot()

    def __hash__(self) -> int:
        # One for all: a set of pairs of loop and future has the same order in each run, too.
        return 1

    def allow(self, *, steps: int) -> None:
        """Begin to count anew: so many turns more."""
        self._steps = self._max_steps = steps

    def call_soon(
        self,
        callback: Callable[[Unpack[_Ts]], object],
        *args: *_Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        """As asyncio's, but it waits while the process that it belongs to does not run."""
        home = self._at_home(context)
        step = _Step(self, callback, args, home)
        step.handle = super().call_soon(step, context=home)
        return step.handle

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[_Ts]], object],
        *args: *_Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """As asyncio's, but it waits while the process that it belongs to does not run."""
        home = self._at_home(context)
        step = _Step(self, callback, args, home)
        handle = super().call_at(when, step, context=home)
        step.handle = handle
        return handle

    def requeue(self, step: _Step, context: contextvars.Context) -> None:
        """Run a step that was held."""
        super().call_soon(step, context=context)

    def call_soon_threadsafe(
        self,
        callback: Callable[[Unpack[_Ts]], object],
        *args: *_Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        """As call_soon, from the loop's own thread only."""
        if threading.get_ident() != self._thread:
            raise SimError("a simulation has one thread: call_soon_threadsafe came from another")
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(
        self,
        executor: Executor | None,  # noqa: ARG002  asyncio's name
        func: Callable[[Unpack[_Ts]], _T],
        *args: *_Ts,  # noqa: ARG002  asyncio's name
    ) -> asyncio.Future[_T]:
        """Refused: a simulation has one thread."""
        raise SimError(f"a simulation has one thread: run_in_executor({func!r})")

    def create_future(self) -> asyncio.Future[Any]:
        """A SimFuture."""
        return SimFuture[Any](next(self._serials), loop=self)

    def leftovers(self) -> list[asyncio.Task[Any]]:
        """The tasks that have not ended, oldest first."""
        return sorted(asyncio.all_tasks(self), key=hash)

    def _make_task(
        self,
        loop: asyncio.AbstractEventLoop,
        coro: Coroutine[Any, Any, _T] | Generator[Any, None, _T],
        *,
        context: contextvars.Context | None = None,
        **rest: Any,
    ) -> asyncio.Future[_T]:
        home = self._at_home(context)
        task = SimTask(next(self._serials), coro, loop=loop, context=home, **rest)
        process = home.get(_home)
        if process is not None:
            process.adopt(task)
        return task

    def _at_home(self, context: contextvars.Context | None) -> contextvars.Context:
        """The context, marked with the process that runs: a fresh one knows none."""
        home = contextvars.copy_context() if context is None else context
        if _home not in home:
            # None too, lest a callback of nobody's be taken for that of whoever triggers it.
            home.run(_home.set, _home.get())
        return home

    def _turn(self, timeout: float | None) -> None:
        """Once before the ready callbacks of each turn run; None: there will be none ever."""
        if timeout is None:
            raise SimDeadlock(f"nothing is left to run, and still waiting:\n{self._waiting()}")
        self._steps -= 1
        if self._steps < 0:
            raise SimOverrun(f"after {self._max_steps} steps still running:\n{self._waiting()}")
        if timeout > 0:
            self.clock.freeze(timeout)
            if self.clock.boot() > self._deadline:
                raise SimOverrun(f"virtual time is up, and still waiting:\n{self._waiting()}")

    def _waiting(self) -> str:
        return "\n".join(f"  {task.get_name()}: {_where(task)}" for task in self.leftovers())

    # What asyncio.BaseEventLoop asks of its children.

    def _process_events(self, event_list: list[Never]) -> None:
        """Nothing comes from outside."""

    def _write_to_self(self) -> None:
        """Nobody waits in a selector."""


def _where(task: asyncio.Task[Any]) -> str:
    """The chain of coroutines down to the one that waits."""
    places: list[str] = []
    inner: Any = task.get_coro()
    while (frame := getattr(inner, "cr_frame", None)) is not None:
        code = frame.f_code
        places.append(f"{code.co_qualname}:{frame.f_lineno}")
        inner = inner.cr_await
    return " > ".join(places) or "not started"
