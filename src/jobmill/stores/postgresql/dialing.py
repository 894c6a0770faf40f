"""How connections to a database are made."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from jobmill.errors import ConfigError
from jobmill.stores.postgresql.driver import connect
from jobmill.stores.postgresql.patience import PATIENCE, limited

if TYPE_CHECKING:
    import ssl

    from jobmill.stores.postgresql.address import Address

_READ_COMMITTED: Final = "read committed"
_LISTS: Final = ("text", "bytea", "bigint", "integer", "boolean", "double precision")
"""Of what arguments are lists. The driver asks about their types, in four round trips, once in a
process: when it connects, and not with a call that waits for its answer."""
_LEVEL: Final = "SELECT current_setting('default_transaction_isolation') AS level, " + ", ".join(
    [f"${number}::{name}[]" for number, name in enumerate(_LISTS, 1)]
)
_LEARNING: Final = 3 * PATIENCE
"""Seconds for these six round trips."""


class Dialer:
    """Makes connections to one database."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._tls: ssl.SSLContext | None = None
        self._plain = False
        self._ready = False

    async def connect(self) -> Any:
        """A new connection. Raises what the driver raises; TimeoutError in time."""
        if not self._ready:
            self._tls = await asyncio.to_thread(self._address.tls)
            self._ready = True
        if self._tls is None or self._plain:
            return await self._connect(None)
        try:
            return await self._connect(self._tls)
        except ConnectionError as error:
            # With "prefer", a server that has no TLS is spoken to without.
            if self._address.sslmode != "prefer" or "rejected SSL" not in str(error):
                raise
        self._plain = True
        return await self._connect(None)

    async def _connect(self, tls: ssl.SSLContext | None) -> Any:
        async with limited():
            connection = await connect(
                **self._address.options(),
                ssl=False if tls is None else tls,
                timeout=None,
                server_settings={"application_name": "jobmill"},
            )
        try:
            async with limited(_LEARNING):
                await self._isolate(connection)
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def _isolate(self, connection: Any) -> None:
        """Have every statement of a call see what was committed before it, as the calls need."""
        level = (await connection.fetchrow(_LEVEL, *[None for _ in _LISTS]))["level"]
        if level == _READ_COMMITTED:
            return
        if not self._address.statement_cache_size:
            # Behind a pooler a setting would be left to whoever gets the connection next.
            raise ConfigError(
                f"default_transaction_isolation is {level} for the user of {self._address}: ALTER "
                f"ROLE ... SET default_transaction_isolation = '{_READ_COMMITTED}'",
                field="url",
            )
        await connection.execute("SET default_transaction_isolation = 'read committed'")
