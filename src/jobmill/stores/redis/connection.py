"""Commands to the server that holds a queue: each call bounded, none cut off half-way."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final

from jobmill.errors import StoreUnavailable
from jobmill.sharing import Shared
from jobmill.store import Finding
from jobmill.stores.redis import examining, fitness
from jobmill.stores.redis.address import Address, Place
from jobmill.stores.redis.dialing import Dialer
from jobmill.stores.redis.faults import outward
from jobmill.stores.redis.line import Line, Refusal
from jobmill.stores.redis.routes import route_to
from jobmill.stores.redis.scripts import SCRIPTS

COPIES_WITHIN: Final = 2.0
"""Seconds within which the replicas have to have what was written."""
_REDIRECTIONS: Final = 5
_ELSEWHERE: Final = frozenset({"READONLY", "MASTERDOWN", "CLUSTERDOWN", "LOADING"})
"""Refusals after which another server may be the right one."""


class Connection:
    """The commands of all stores of one address, on one event loop.

    They share one line to a server, so that none waits for another's turn; those that wait
    for replicas have a second one, because the server holds up what comes behind them. A
    lost line is opened anew by the next command.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._dialer = Dialer(address)
        self._route = route_to(address, self._dialer)
        self._spread = address.is_cluster
        self._chosen: dict[tuple[str, bool], Line] = {}
        self._lines: dict[tuple[Place, bool], Line] = {}
        self._opening: dict[tuple[str, bool], asyncio.Task[Line]] = {}
        self._lent: set[Line] = set()
        self._keeper: asyncio.Task[None] = asyncio.create_task(self._keep())

    async def check(self, key: str) -> None:
        """See that the server which holds the key is one that keeps what it is given.

        Raises: ConfigError where it may throw keys away, or is not what the address says;
        SchemaMismatch where it is too old; StoreUnavailable.
        """
        line = await self._line(key, copied=False)
        try:
            await fitness.check(line, self._address)
        except (Refusal, OSError) as error:
            raise outward(error, line.place) from error

    async def examine(self, key: str) -> list[Finding]:
        """What the server that holds the key says of itself.

        Raises: StoreUnavailable.
        """
        line = await self._line(key, copied=False)
        try:
            return await examining.examine(line, self._address)
        except (Refusal, OSError) as error:
            raise outward(error, line.place) from error

    async def run(self, name: str, tag: str, arguments: bytes, *, copied: bool = False) -> Any:
        """The answer of a script on the keys of one queue.

        `copied`: as many replicas have what it wrote as the address wants. Only what accepts
        a job asks for it: losing a claim, a renewal or a settle in a promotion runs a job again,
        which is promised anyway, and is not worth a replica's round trip for each.
        """
        copied = copied and self._address.wait_replicas > 0
        script = SCRIPTS[name]
        rest = (1, tag, arguments)
        words: tuple[str | bytes | int, ...] = ("EVALSHA", script.sha, *rest)
        for _ in range(_REDIRECTIONS):
            line = await self._line(tag, copied=copied)
            try:
                answer = await (
                    _copied(line, words, self._address) if copied else line.send(*words)
                )
            except OSError as error:
                self._lost(line)
                raise outward(error, line.place) from error
            if not isinstance(answer, Refusal):
                return answer
            if answer.code == "NOSCRIPT":
                words = ("EVAL", script.text, *rest)
            else:
                self._turn_away(line, tag, answer)
        raise StoreUnavailable(f"{self._address} passes {tag} around: see to the cluster, or wait")

    async def command(self, *words: str) -> Any:
        """The answer to one command, whose second word is a key."""
        for _ in range(_REDIRECTIONS):
            line = await self._line(words[1], copied=False)
            try:
                answer = await line.send(*words)
            except OSError as error:
                self._lost(line)
                raise outward(error, line.place) from error
            if not isinstance(answer, Refusal):
                return answer
            self._turn_away(line, words[1], answer)
        message = f"{self._address} passes {words[1]} around: see to the cluster, or wait"
        raise StoreUnavailable(message)

    async def another(self, key: str) -> Line:
        """A line of the caller's own to the server that holds the key.

        Raises: as a command does.
        """
        try:
            line = await self._route.line(key)
        except (Refusal, OSError) as error:
            self._route.forget()
            raise outward(error, self._address) from error
        self._lent.add(line)
        line.gone.add_done_callback(lambda _: self._lent.discard(line))
        return line

    async def settled(self) -> None:
        """Return when all that was asked is answered, or lost."""
        if self._opening:
            await asyncio.wait(self._opening.values())
        for line in list(self._lines.values()):
            with contextlib.suppress(OSError):
                await line.send("PING")  # its answer comes after all others

    async def close(self) -> None:
        """Let go of all lines, after what is under way."""
        if self._opening:
            await asyncio.wait(self._opening.values())
        for line in list(self._lines.values()):
            await line.close()
        for line in list(self._lent):
            line.abort()
        self._keeper.cancel()
        await asyncio.wait({self._keeper})

    async def _keep(self) -> None:
        """Hold the lines until `close`, or until the loop ends and cancels its tasks."""
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            CONNECTIONS.forget(self)
            for line in (*self._lines.values(), *self._lent):
                line.abort()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)  # a connection is closed by the loop's next turn
            raise

    async def _line(self, key: str, *, copied: bool) -> Line:
        """A line that is up; all who need one at this moment wait for the same."""
        wanted = (key if self._spread else "", copied)
        line = self._chosen.get(wanted)
        if line is not None and line.up:
            return line
        opening = self._opening.get(wanted)
        if opening is None:
            opening = asyncio.create_task(self._open(key, copied, wanted))
            self._opening[wanted] = opening
            opening.add_done_callback(lambda task: self._opened(wanted, task))
        return await asyncio.shield(opening)

    async def _open(self, key: str, copied: bool, wanted: tuple[str, bool]) -> Line:
        try:
            place = await self._route.place(key)
            line = None if place is None else self._lines.get((place, copied))
            if line is None or not line.up:
                line = await self._route.line(key)
        except (Refusal, OSError) as error:
            self._route.forget()
            raise outward(error, self._address) from error
        there = self._lines.setdefault((line.place, copied), line)
        if there is not line and there.up:
            line.abort()  # another key led to the same server meanwhile
            line = there
        self._lines[line.place, copied] = line
        self._chosen[wanted] = line
        return line

    def _lost(self, line: Line) -> None:
        """Nothing else holds on to a server that fell silent, or is elsewhere now."""
        self._route.forget()
        for other in (*self._lines.values(), *self._lent):
            if other.place == line.place:
                other.abort()

    def _opened(self, wanted: tuple[str, bool], task: asyncio.Task[Line]) -> None:
        del self._opening[wanted]
        if not task.cancelled():
            task.exception()  # its callers may be gone

    def _turn_away(self, line: Line, key: str, refusal: Refusal) -> None:
        """Return where the key is elsewhere, so that asking again leads there.

        Raises: what the refusal means, otherwise.
        """
        if refusal.code == "MOVED":
            self._route.moved(key, _place_in(refusal, line.place))
        if refusal.code == "MOVED" or refusal.code in _ELSEWHERE:
            for copied in (False, True):
                self._chosen.pop((key if self._spread else "", copied), None)
        if refusal.code == "MOVED":
            return
        if refusal.code in _ELSEWHERE:
            self._route.forget()
            if self._address.service is not None:
                self._lost(line)
        raise outward(refusal, line.place) from refusal


CONNECTIONS: Final = Shared(Connection)
"""Those of this process."""


def _place_in(moved: Refusal, asked: Place) -> Place:
    host, _, port = str(moved).rpartition(" ")[2].rpartition(":")
    if not port.isdigit():
        raise outward(moved, asked) from moved
    # A node that does not know the other's name leaves it out; it is the one asked by.
    return Place(asked.host if host in {"", "?"} else host, int(port))


async def _copied(line: Line, words: tuple[str | bytes | int, ...], address: Address) -> Any:
    """The answer to a command, once enough replicas have what it wrote."""
    wanted = address.wait_replicas
    within = round(COPIES_WITHIN * 1_000)
    answer, copies = await asyncio.gather(line.send(*words), line.send("WAIT", wanted, within))
    for refused in (answer, copies):
        if isinstance(refused, Refusal):
            return refused
    if copies < wanted:
        raise StoreUnavailable(
            f"stored by {line.place}, but only {copies} of {wanted} replicas had it within "
            f"{COPIES_WITHIN:g} s: see to the replicas; sending it again is harmless"
        )
    return answer
