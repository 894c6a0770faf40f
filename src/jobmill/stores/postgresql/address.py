"""Where a PostgreSQL database is, and how to log in; its password is never shown."""

from __future__ import annotations

import os
import re
import ssl
from typing import Any, Final, Self
from urllib.parse import quote, unquote, urlencode, urlsplit

import msgspec

from jobmill.errors import ConfigError
from jobmill.urls import StoreURL

_SCHEMES: Final = frozenset({"postgresql", "postgres"})
_MODES: Final = ("disable", "prefer", "require", "verify-ca", "verify-full")
_LAST_PORT: Final = 65_535
_CACHED: Final = 100
_USUAL_SCHEMA: Final = "jobmill"
_SCHEMA: Final = re.compile(r"[^\x00-\x1f\x7f]+")
_LONGEST: Final = 63


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """A database, a schema in it, and who asks.

    `host` that begins with a slash is the folder of a Unix socket. `listen`: keep a connection
    that is told of new jobs; without, workers look every poll_interval. `statement_cache_size`:
    prepared statements kept by a connection; 0 for PgBouncer in transaction mode, which also
    takes `listen` false. `auto_migrate`: bring an older schema up to date when it is opened.
    """

    host: str = "localhost"
    port: int = 5432
    database: str | None = None
    username: str | None = None
    password: str | None = None
    sslmode: str = "prefer"
    sslrootcert: str | None = None
    schema: str = _USUAL_SCHEMA
    listen: bool = True
    statement_cache_size: int = _CACHED
    auto_migrate: bool = False

    def __post_init__(self) -> None:
        for field, kind in (
            *(("host", str), ("port", int), ("schema", str), ("sslmode", str)),
            *(("statement_cache_size", int), ("listen", bool), ("auto_migrate", bool)),
        ):
            value: object = getattr(self, field)
            if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
                raise ConfigError(f"{field}: {value!r} is no {kind.__name__}", field=field)
        for field in ("database", "username", "password", "sslrootcert"):
            if not isinstance(getattr(self, field), str | None):
                raise ConfigError(f"{field}: give text, or None", field=field)
        if not self.host:
            raise ConfigError("host: give a name or an address", field="host")
        if not 0 < self.port <= _LAST_PORT:
            raise ConfigError(f"port: {self.port} is none; give 1 to {_LAST_PORT}", field="port")
        if not _SCHEMA.fullmatch(self.schema) or len(self.schema.encode()) > _LONGEST:
            message = f"schema: {self.schema!r} is no name of a schema, of 63 bytes at most"
            raise ConfigError(message, field="schema")
        if self.sslmode not in _MODES:
            message = f"sslmode: {self.sslmode!r} is none of {', '.join(_MODES)}"
            raise ConfigError(message, field="sslmode")
        if self.statement_cache_size < 0:
            message = f"statement_cache_size: {self.statement_cache_size} is below 0"
            raise ConfigError(message, field="statement_cache_size")

    def __repr__(self) -> str:
        return f"Address({str(self)!r})"

    def __str__(self) -> str:
        host, settings = self.host, dict[str, str]()
        if host.startswith("/"):
            host, settings["host"] = "", host
        elif ":" in host:
            host = f"[{host}]"
        if self.schema != _USUAL_SCHEMA:
            settings["schema"] = self.schema
        rest = f"?{urlencode(settings, safe='/', quote_via=quote)}" if settings else ""
        return f"postgresql://{host}:{self.port}/{self.database or ''}{rest}"

    @classmethod
    def from_url(cls, url: StoreURL) -> Self:
        """The address in a URL.

        Raises: ConfigError, without the password, where the URL says what is none.
        """
        if url.scheme not in _SCHEMES:
            message = f"url: {url.scheme}:// is none; there are postgresql:// and postgres://"
            raise ConfigError(message, field="url")
        url.refuse_settings_but(
            *("host", "sslmode", "sslrootcert", "schema", "listen", "statement_cache_size"),
            "auto_migrate",
        )
        try:
            parts = urlsplit(f"//{url.place}")
            port = parts.port
        except ValueError:
            raise ConfigError("url: its host or port cannot be read", field="url") from None
        if parts.hostname and "host" in url.settings:
            raise ConfigError("url: the host is given twice", field="url")
        names = ("sslmode", "sslrootcert", "schema")
        return cls(
            host=url.settings.get("host") or parts.hostname or "localhost",
            port=5432 if port is None else port,
            database=url.path or None,
            username=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
            listen=_switch(url, "listen", default=True),
            auto_migrate=_switch(url, "auto_migrate", default=False),
            statement_cache_size=_number(url, "statement_cache_size", _CACHED),
            **{name: url.settings[name] for name in names if name in url.settings},
        )

    def options(self) -> dict[str, Any]:
        """The address as the keywords of asyncpg, but for TLS.

        A password is always given, so that the driver looks for no file on the loop.
        """
        password = self.password
        if password is None:
            password = os.environ.get("PGPASSWORD", "")
        return {
            "host": self.host,
            "port": self.port,
            "user": self.username,
            "password": password,
            "database": self.database,
            "statement_cache_size": self.statement_cache_size,
        }

    def tls(self) -> ssl.SSLContext | None:
        """How the connection is encrypted; it reads files."""
        if self.sslmode == "disable" or self.host.startswith("/"):
            return None
        context = ssl.create_default_context()
        if self.sslrootcert is not None:
            try:
                context.load_verify_locations(self.sslrootcert)
            except OSError as error:
                message = f"sslrootcert: {self.sslrootcert} cannot be read ({error.strerror})"
                raise ConfigError(message, field="sslrootcert") from error
        context.check_hostname = self.sslmode == "verify-full"
        if not self.sslmode.startswith("verify"):
            context.verify_mode = ssl.CERT_NONE
        return context


def _switch(url: StoreURL, setting: str, *, default: bool) -> bool:
    text = url.settings.get(setting, str(default).lower())
    if text not in {"true", "false"}:
        raise ConfigError(f"url: {setting}={text} is neither true nor false", field="url")
    return text == "true"


def _number(url: StoreURL, setting: str, default: int) -> int:
    text = url.settings.get(setting, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 9):  # noqa: PLR2004  enough
        raise ConfigError(f"url: {setting}={text} is no number", field="url")
    return int(text)
