"""Which server holds a key now: the one there is, the primary, or the slot's node."""

from __future__ import annotations

from typing import Any, Final, Protocol

from jobmill.errors import ConfigError, StoreUnavailable
from jobmill.stores.redis.address import Address, Place
from jobmill.stores.redis.dialing import Dialer
from jobmill.stores.redis.faults import outward
from jobmill.stores.redis.keys import slot_of
from jobmill.stores.redis.line import Line, Refusal


class Route(Protocol):
    """How to get to a key."""

    async def line(self, key: str) -> Line:
        """A new line to the server that holds the key.

        Raises: Refusal, OSError; ConfigError; StoreUnavailable.
        """
        ...

    async def place(self, key: str) -> Place | None:
        """Where the server is, if that is known without a line to it."""
        ...

    def moved(self, key: str, place: Place) -> None:
        """A server said that the key is at this place."""
        ...

    def forget(self) -> None:
        """What was known may be wrong."""
        ...


class OneServer:
    """The one server of the address."""

    def __init__(self, address: Address, dialer: Dialer) -> None:
        self._place = address.place
        self._dialer = dialer

    async def line(self, key: str) -> Line:
        """A line to the server."""
        return await self._dialer.dial(self._place)

    async def place(self, key: str) -> Place | None:
        """The place of the server."""
        return self._place

    def moved(self, key: str, place: Place) -> None:
        """Only a cluster says so.

        Raises: ConfigError.
        """
        message = f"the server {self._place} is a node of a cluster: use redis+cluster://"
        raise ConfigError(message, field="url")

    def forget(self) -> None:
        """There is only the one."""


class Sentinels:
    """The primary that the Sentinels name, asked anew for each line."""

    def __init__(self, address: Address, dialer: Dialer) -> None:
        self._address = address
        self._dialer = dialer
        self._sentinels = list(address.nodes)

    async def line(self, key: str) -> Line:
        """A line to the primary; what a Sentinel says is believed once the server agrees."""
        why: Exception | None = None
        for sentinel in list(self._sentinels):
            try:
                place = await self._ask(sentinel)
            except (Refusal, OSError) as error:
                why = error
                continue
            if place is None:
                continue
            try:
                line = await self._dialer.dial(place)
            except OSError as error:
                why = error  # another Sentinel may know better already
                continue
            if await _is_primary(line):
                # Ask first the one that knew.
                self._sentinels.remove(sentinel)
                self._sentinels.insert(0, sentinel)
                return line
            line.abort()
        if isinstance(why, Refusal):
            raise outward(why, self._address) from why
        message = (
            f"no Sentinel of {self._address} leads to a primary: see whether they run and know "
            f"{self._address.service!r}, or wait for a promotion"
        )
        raise StoreUnavailable(message) from why

    async def place(self, key: str) -> Place | None:
        """Unknown, since what was true a moment ago need not be."""
        return None

    def moved(self, key: str, place: Place) -> None:
        """Only a cluster says so.

        Raises: ConfigError.
        """
        message = f"the server {place} is a node of a cluster: use redis+cluster://"
        raise ConfigError(message, field="url")

    def forget(self) -> None:
        """Nothing is kept."""

    async def _ask(self, sentinel: Place) -> Place | None:
        line = await self._dialer.dial_sentinel(sentinel)
        try:
            service = self._address.service or ""
            answer = await line.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", service)
        finally:
            line.abort()
        return None if answer is None else Place(answer[0].decode(), int(answer[1]))


class Cluster:
    """The node that holds the key's slot, by the map that any node gives."""

    def __init__(self, address: Address, dialer: Dialer) -> None:
        self._address = address
        self._dialer = dialer
        self._nodes = list(address.nodes)
        self._ranges: list[tuple[int, int, Place]] = []
        self._exceptions: dict[int, Place] = {}

    async def line(self, key: str) -> Line:
        """A line to the node that holds the key."""
        place = await self.place(key)
        if place is None:
            message = f"no node of {self._address} holds the slot of {key}: see to the cluster"
            raise StoreUnavailable(message)
        return await self._dialer.dial(place)

    async def place(self, key: str) -> Place | None:
        """The node that holds the key; a node is asked only where nothing is known."""
        if not self._ranges:
            await self._learn()
        slot = slot_of(key)
        if slot in self._exceptions:
            return self._exceptions[slot]
        return next((place for low, high, place in self._ranges if low <= slot <= high), None)

    def moved(self, key: str, place: Place) -> None:
        """Remember it until the map is asked for again."""
        self._exceptions[slot_of(key)] = place

    def forget(self) -> None:
        """Ask for the map again."""
        self._ranges = []
        self._exceptions = {}

    async def _learn(self) -> None:
        why: Exception | None = None
        for node in list(dict.fromkeys((*self._nodes, *self._address.nodes))):
            try:
                line = await self._dialer.dial(node)
                try:
                    answer = await line.ask("CLUSTER", "SLOTS")
                finally:
                    line.abort()
            except (Refusal, OSError) as error:
                why = error
                continue
            if not answer:
                continue
            self._ranges = [(low, high, _node(first, node)) for low, high, first, *_ in answer]
            # Those that were just heard of are the likeliest to answer next time.
            self._nodes = list(dict.fromkeys(place for *_, place in self._ranges))
            return
        if isinstance(why, Refusal):
            raise outward(why, self._address) from why
        message = f"no node of {self._address} gives the map of its slots: see whether they run"
        raise StoreUnavailable(message) from why


_UNKNOWN: Final = (None, b"", b"?")


def _node(told: list[Any], asked: Place) -> Place:
    host, port = told[0], told[1]
    return Place(asked.host if host in _UNKNOWN else host.decode(), int(port))


async def _is_primary(line: Line) -> bool:
    try:
        role = await line.ask("ROLE")
    except Refusal:
        return True  # it may not say; a replica refuses the writes
    except OSError:
        return False
    return bool(role[0] == b"master")


def route_to(address: Address, dialer: Dialer) -> Route:
    """The way that the address means."""
    if address.is_cluster:
        return Cluster(address, dialer)
    if address.nodes:
        return Sentinels(address, dialer)
    return OneServer(address, dialer)
