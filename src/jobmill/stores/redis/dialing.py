"""Opening lines: the network, TLS, the login and the database."""

from __future__ import annotations

import asyncio
import ssl

from jobmill.errors import ConfigError
from jobmill.stores.redis.address import Address, Place
from jobmill.stores.redis.line import PATIENCE, Line, Refusal


class Dialer:
    """Opens lines to the servers of an address."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._context: ssl.SSLContext | None = None

    async def dial(self, place: Place) -> Line:
        """A line to a server that keeps jobs.

        Raises: Refusal, OSError; ConfigError where the TLS settings will not do.
        """
        address = self._address
        login = _login(address.username, address.password)
        return await self._open(place, login, address.db)

    async def dial_sentinel(self, place: Place) -> Line:
        """A line to a Sentinel; raises as `dial` does."""
        address = self._address
        return await self._open(
            place, _login(address.sentinel_username, address.sentinel_password), 0
        )

    async def _open(self, place: Place, login: tuple[str, ...], db: int) -> Line:
        if self._address.tls is not None and self._context is None:
            # It reads files.
            self._context = await asyncio.to_thread(self._address.tls.context)
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._greeted(place, login, db)
        except ConnectionError as error:
            # An alert that says so is often overtaken by the end of the connection.
            if self._address.tls is None or self._address.tls.ssl_certfile:
                raise
            message = f"{error}; where it asks for a certificate, give ssl_certfile"
            raise ConnectionError(message) from error
        except TimeoutError as error:
            doubt = "no answer" if self._address.tls is None else "no answer; does it speak TLS?"
            raise TimeoutError(doubt) from error

    async def _greeted(self, place: Place, login: tuple[str, ...], db: int) -> Line:
        line = await self._connect(place)
        try:
            if login:
                await self._log_in(line, login)
            if db:
                await line.ask("SELECT", db)
            if self._context is not None and not login:
                await line.send("PING")  # a certificate is refused after the handshake only
        except BaseException:
            line.abort()
            raise
        return line

    async def _connect(self, place: Place) -> Line:
        loop = asyncio.get_running_loop()
        if not place.port:
            return (await loop.create_unix_connection(lambda: Line(place), place.host))[1]
        context = self._context
        connecting = loop.create_connection(
            lambda: Line(place), place.host, place.port, ssl=context
        )
        return (await connecting)[1]

    async def _log_in(self, line: Line, login: tuple[str, ...]) -> None:
        try:
            await line.ask("AUTH", *login)
        except Refusal as error:
            # A server that does not know the command repeats what it was told.
            shown = str(error)
            for secret in self._address.secrets:
                shown = shown.replace(secret, "***")
            message = f"the server {line.place} refused the login: see to user and password"
            raise ConfigError(f"{message} ({shown})", field="password") from None


def _login(username: str | None, password: str | None) -> tuple[str, ...]:
    if username is not None:
        return (username, password or "")
    return () if password is None else (password,)
