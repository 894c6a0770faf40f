"""Faults between a store and those who use it, in a simulation: loss, delay, outage, death."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Literal, Never, TypeAlias, TypeVar

from jobmill.clock import SteadyClock
from jobmill.errors import StoreUnavailable
from jobmill.store import (
    Store,
)
from jobmill.testing.eventlog import (
    Calm,
    Event,
    Fault,
    Killed,
)
from jobmill.testing.loop import current_process
from jobmill.testing.sim import Sim, SimError

_T = TypeVar("_T")
_Fate: TypeAlias = Literal["pass", "lose request", "lose reply", "crash before", "crash after"]


class Crashed(BaseException):
    """The process of this store's user is dead; what is left of it unwinds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Odds:
    """How often what goes wrong, of 1; and delays, in seconds.

    `slow` of the calls (where given, of `slow_verbs`) wait up to `slow_delay` each way, others
    up to `delay`. `crash`: the caller's process is killed just before or just after the store
    did what it asked.
    `deaf`: a `wait` hears nothing, or returns for nothing.
    """

    lose_request: float = 0.02
    lose_reply: float = 0.02
    crash: float = 0.0
    delay: float = 0.02
    slow: float = 0.02
    slow_delay: float = 2.0
    slow_verbs: tuple[str, ...] | None = None
    deaf: float = 0.1


class Faults:
    """What stands between a store and all who use it, and the log of what the store did.

    The store must answer at once, without waiting for anything: each call of it is one
    instant. What comes between two calls is decided here, by the simulation's seed.
    """

    def __init__(self, sim: Sim, odds: Odds | None = None) -> None:
        self.sim = sim
        self.log: list[Event] = []
        self.quiet: bool = False
        self._odds = Odds() if odds is None else odds
        self._dice = sim.dice("faults")
        # For what no store is asked about, such as the begin of a run.
        self._clock = SteadyClock(sim.clock)
        self._outage_until = 0.0
        self._opened: list[Store] = []

    def calm(self, within: float) -> None:
        """No more faults; each job is to end within so many seconds, or of its coming due."""
        self.quiet = True
        self._outage_until = 0.0
        self.log.append(Calm(**self.stamp(), within=within))

    def outage(self, seconds: float) -> None:
        """Nobody reaches the store for so long."""
        if not self.quiet:
            self._outage_until = self.sim.clock.boot() + seconds

    def kill(self, name: str) -> None:
        """Kill the processes of this name."""
        for process in self.sim.processes:
            if process.name == name and process.alive:
                process.kill()
                self.log.append(Killed(**self.stamp(by=name)))

    async def close(self) -> None:
        """Close what was opened, also by those who are dead."""
        while self._opened:
            await self._opened.pop().close()

    def stamp(self, *, by: str | None = None, at: float | None = None) -> Any:
        """The fields that each event has: now, and by whom."""
        process = current_process()
        now = self._clock.now()
        return {
            "at": now if at is None else at,
            "boot": self.sim.clock.boot(),
            "by": by or ("outside" if process is None else process.name),
        }

    async def pass_on(
        self,
        verb: str,
        ask: Callable[[], Coroutine[Any, Any, _T]],
        tell: Callable[[_T], None] | None = None,
    ) -> _T:
        """Carry a call to the store and its answer back, or lose one of them.

        `tell` gets the answer, also where it is lost on its way.
        """
        if self.sim.over:
            raise Crashed(verb)
        fate = self._draw()
        await self._delay(verb)
        if fate == "crash before":
            await self._die(verb, fate)
        if fate == "lose request" or self._out():
            self._fail(verb, "lose request")
        answer = self._ask(verb, ask)
        if tell is not None:
            tell(answer)
        if fate == "crash after":
            await self._die(verb, fate)
        await self._delay(verb)
        if fate == "lose reply" or self._out():
            self._fail(verb, "lose reply")
        return answer

    def instant(self, store: Store) -> float:
        """The store's; one that knows it without asking a server has an `instant` of its own."""
        known: Callable[[], float] | None = getattr(store, "instant", None)
        if known is not None:
            return known()
        return self._ask("counts", store.counts).now

    def _ask(self, verb: str, ask: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """The store's answer; where it is away by itself, the run fails in the end.

        Nobody knows whether such a call was done, so the log would not be complete.
        """
        try:
            return _at_once(verb, ask)
        except StoreUnavailable as error:
            told = {"message": f"the simulated store itself failed at {verb}", "exception": error}
            self.sim.loop.call_exception_handler(told)
            raise

    def keep(self, store: Store) -> None:
        """Remember an open store, to close it in the end."""
        self._opened.append(store)

    def deaf(self) -> bool:
        """Whether this `wait` goes wrong."""
        return not self.quiet and self._dice.random() < self._odds.deaf

    def moment(self, longest: float) -> float:
        """Some of so many seconds."""
        return self._dice.uniform(0.0, longest)

    def _draw(self) -> _Fate:
        if self.quiet:
            return "pass"
        odds, roll = self._odds, self._dice.random()
        if roll < odds.lose_request:
            return "lose request"
        roll -= odds.lose_request
        if roll < odds.lose_reply:
            return "lose reply"
        roll -= odds.lose_reply
        if roll < odds.crash and current_process() is not None:
            return "crash before" if roll < odds.crash / 2 else "crash after"
        return "pass"

    async def _delay(self, verb: str) -> None:
        verbs = self._odds.slow_verbs
        slow = not self.quiet and self._dice.random() < self._odds.slow
        slow = slow and (verbs is None or verb in verbs)
        longest = self._odds.slow_delay if slow else self._odds.delay
        # One in four takes no time, so that ties are seen too.
        await asyncio.sleep(0.0 if self._dice.random() < 0.25 else self.moment(longest))

    def _out(self) -> bool:
        return self.sim.clock.boot() < self._outage_until

    def _fail(self, verb: str, what: str) -> Never:
        self.log.append(Fault(**self.stamp(), verb=verb, what=what))
        raise StoreUnavailable(f"simulated: {what} of {verb}")

    async def _die(self, verb: str, what: str) -> Never:
        process = current_process()
        if process is None:
            raise SimError("only a process can crash")
        self.log.append(Fault(**self.stamp(), verb=verb, what=what))
        self.kill(process.name)
        await self.sim.loop.create_future()
        raise Crashed(verb)


def _at_once(verb: str, ask: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
    """Let the store do it, in this instant."""
    coro = ask()
    try:
        coro.send(None)
    except StopIteration as done:
        answer: _T = done.value
        return answer
    coro.close()
    raise SimError(f"a store under simulation answers at once, and {verb} waited")
