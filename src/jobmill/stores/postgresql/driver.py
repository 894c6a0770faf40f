"""asyncpg, which tells no types, behind names that have some."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Awaitable, Callable, Iterable
from types import SimpleNamespace
from typing import Any, Final

_asyncpg: Any = importlib.import_module("asyncpg")
_FIRST_OF_USERS: Final = 10_000
"""Types with a lower number are PostgreSQL's own, the same in every database."""
_types: Final[dict[frozenset[int], Any]] = {}


class _Connection(_asyncpg.Connection):  # type: ignore[misc]
    """Asks what arrays of PostgreSQL's own types are once in a process.

    asyncpg asks on each new connection, by 8 kB of SQL in three round trips.
    """

    async def _introspect_types(self, typeoids: Iterable[int], timeout: float | None) -> Any:
        numbers = frozenset(typeoids)
        if max(numbers, default=_FIRST_OF_USERS) >= _FIRST_OF_USERS:
            return await self._ask(typeoids, timeout)
        if numbers not in _types:
            _types[numbers] = (await self._ask(typeoids, timeout))[0]
        # A statement with a name: nothing was asked, so that no other has to be asked again.
        return _types[numbers], SimpleNamespace(name="known")

    _ask: Any = _asyncpg.Connection._introspect_types


connect: Final[Callable[..., Awaitable[Any]]] = functools.partial(
    _asyncpg.connect, connection_class=_Connection
)
PostgresError: Final[type[Exception]] = _asyncpg.PostgresError
"""What the server says; `sqlstate` has its code."""
InterfaceError: Final[type[Exception]] = _asyncpg.InterfaceError
"""The connection cannot be used, or, as a DataError, a value cannot be sent."""
DataError: Final[type[Exception]] = _asyncpg.exceptions.DataError
ClientError: Final[type[Exception]] = _asyncpg.InternalClientError
