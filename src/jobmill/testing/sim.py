"""A simulation: one seed, one loop in virtual time, and processes that can freeze and die."""

from __future__ import annotations

import asyncio
import os
import random
import shlex
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from jobmill.ids import JobIds
from jobmill.testing.loop import (
    Process,
    SimClock,
    SimDeadlock,
    SimError,
    SimLoop,
    SimOverrun,
    current_process,
)

__all__ = [
    "Process",
    "Sim",
    "SimClock",
    "SimDeadlock",
    "SimError",
    "SimLoop",
    "SimOverrun",
    "current_process",
    "simulate",
]

_T = TypeVar("_T")

SEED: Final = "JOBMILL_SEED"
"""The environment variable that replays one seed."""

_SOAK: Final = 25
_BURIAL_STEPS: Final = 100_000
_BURIAL_ROUNDS: Final = 10


class Sim:
    """What the code under simulation is given: time, randomness, ids and processes.

    Everything follows from `seed`. Whatever goes wrong unseen, such as an exception in a
    callback or a task that nobody awaits, fails the run at its end.
    """

    def __init__(
        self, seed: int, *, max_steps: int = 5_000_000, max_seconds: float = 30 * 86_400.0
    ) -> None:
        self.seed = seed
        self.clock: SimClock = SimClock()
        self.loop: SimLoop = SimLoop(self.clock, max_steps=max_steps, max_seconds=max_seconds)
        self.random: random.Random = self.dice("main")
        self.processes: list[Process] = []
        self.over: bool = False
        self._unseen: list[dict[str, Any]] = []
        self.loop.set_exception_handler(self._note)

    def dice(self, name: str) -> random.Random:
        """Randomness of its own for the part `name`: drawing more in one moves no other."""
        return random.Random(f"{self.seed}:{name}")

    def ids(self, name: str) -> JobIds:
        """A source of ids for the part `name`."""
        return JobIds(self.clock.wall, self.dice(f"ids of {name}").getrandbits)

    def process(self, name: str) -> Process:
        """A process, alive and empty."""
        process = Process(self.loop, name)
        self.processes.append(process)
        return process

    async def checkpoint(self, longest: float = 0.01) -> None:
        """A place where others may come between: a delay of up to `longest` seconds, or none."""
        await asyncio.sleep(self.random.choice((0.0, self.random.uniform(0.0, longest))))

    def run(self, main: Callable[[Sim], Awaitable[_T]]) -> _T:
        """Run `main` to its end; what is left then is cancelled."""

        async def whole() -> _T:
            return await main(self)

        try:
            answer = self.loop.run_until_complete(whole())
        finally:
            self._bury()
        if self._unseen:
            first = self._unseen[0]
            told = "\n".join(f"  {context.get('message')}" for context in self._unseen)
            raise SimError(f"went wrong unseen:\n{told}") from first.get("exception")
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.loop.close()

    def _note(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not self.over:
            self._unseen.append(context)

    def _bury(self) -> None:
        """Cancel all that is left, until nothing is: also what a process left that was killed."""
        self.over = True
        self.loop.allow(steps=_BURIAL_STEPS)
        for process in self.processes:
            process.unwind()
        for _ in range(_BURIAL_ROUNDS):
            tasks = self.loop.leftovers()
            if not tasks:
                break
            for task in tasks:
                task.cancel()
            self.loop.run_until_complete(asyncio.wait(tasks, timeout=60.0))
        for task in self.loop.leftovers():
            _abandon(task)
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())


def _abandon(task: asyncio.Task[Any]) -> None:
    """Close the coroutine of a task that swallows every cancellation."""
    coro = task.get_coro()
    if isinstance(coro, Coroutine):
        try:
            coro.close()
        except (RuntimeError, ValueError) as error:
            raise SimError(f"{task.get_name()} cannot be ended") from error
    # asyncio would complain that it is still pending, which is so on purpose.
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001


def simulate(
    main: Callable[[Sim], Awaitable[_T]],
    seed: int,
    *,
    max_steps: int = 5_000_000,
    max_seconds: float = 30 * 86_400.0,
) -> _T:
    """Run `main` in virtual time; the same seed gives the same run.

    Raises: what `main` raises, with a note that names the seed and the command that replays
    it; SimDeadlock; SimOverrun; SimError for what went wrong unseen.
    """
    try:
        with Sim(seed, max_steps=max_steps, max_seconds=max_seconds) as sim:
            return sim.run(main)
    except BaseException as error:
        error.add_note(f"seed {seed}; to replay it: {_replay(seed)}")
        raise


def seeds(count: int) -> list[int]:
    """The seeds to run: `count` of them, 25 times that in a soak (JOBMILL_SOAK=1).

    JOBMILL_SEEDS says another number; JOBMILL_SEED the one seed to replay.
    """
    if (one := os.environ.get(SEED)) is not None:
        return [int(one)]
    if os.environ.get("JOBMILL_SOAK") == "1":
        count *= _SOAK
    return list(range(int(os.environ.get("JOBMILL_SEEDS", count))))


def _replay(seed: int) -> str:
    # Sets of strings are ordered by a hash that Python salts anew for each process.
    salt = os.environ.get("PYTHONHASHSEED")
    words = [f"{SEED}={seed}"] if salt is None else [f"PYTHONHASHSEED={salt}", f"{SEED}={seed}"]
    test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" (")[0]
    return " ".join([*words, "pytest", shlex.quote(test)] if test else words)
