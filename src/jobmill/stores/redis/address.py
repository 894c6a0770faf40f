"""Where a Redis server is, and how to log in; its password is never shown."""

from __future__ import annotations

from typing import Any, Final, Self
from urllib.parse import unquote, urlsplit

import msgspec

from jobmill.errors import ConfigError
from jobmill.urls import StoreURL

_SCHEMES: Final = frozenset({"redis", "rediss", "unix"})
_TLS: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_LAST_PORT: Final = 65_535


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """A server, a database on it, and who asks.

    `path` is that of a Unix socket, in the place of host and port. `allow_eviction`: use the
    server also where it may throw jobs away when its memory is full.
    """

    host: str = "localhost"
    port: int = 6379
    path: str | None = None
    db: int = 0
    username: str | None = None
    password: str | None = None
    tls: bool = False
    tls_files: dict[str, str] = {}
    allow_eviction: bool = False

    def __post_init__(self) -> None:
        for field, kind in (("host", str), ("port", int), ("db", int)):
            value: object = getattr(self, field)
            if not isinstance(value, kind) or isinstance(value, bool):
                raise ConfigError(f"{field}: {value!r} is no {kind.__name__}", field=field)
        for field in ("username", "password"):
            if not isinstance(getattr(self, field), str | None):
                raise ConfigError(f"{field}: give text, or None", field=field)
        if not self.host:
            raise ConfigError("host: give a name or an address", field="host")
        if not 0 < self.port <= _LAST_PORT:
            raise ConfigError(f"port: {self.port} is none; give 1 to {_LAST_PORT}", field="port")
        if self.db < 0:
            raise ConfigError(f"db: {self.db} is below 0", field="db")

    def __repr__(self) -> str:
        return f"Address({str(self)!r})"

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix://{self.path}?db={self.db}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"redis{'s' if self.tls else ''}://{host}:{self.port}/{self.db}"

    @classmethod
    def from_url(cls, url: StoreURL) -> Self:
        """The address in a URL.

        Raises: ConfigError, without the password, where the URL says what is none.
        """
        if url.scheme not in _SCHEMES:
            message = f"url: {url.scheme}:// is none; there are redis://, rediss:// and unix://"
            raise ConfigError(message, field="url")
        tls = url.scheme == "rediss"
        url.refuse_settings_but("db", "allow_eviction", *(_TLS if tls else ()))
        try:
            parts = urlsplit(f"//{url.place}")
            port = parts.port
        except ValueError:
            raise ConfigError("url: its host or port cannot be read", field="url") from None
        fields: dict[str, Any] = {
            "username": unquote(parts.username) if parts.username else None,
            "password": unquote(parts.password) if parts.password else None,
            "tls": tls,
            "tls_files": {name: url.settings[name] for name in _TLS if name in url.settings},
            "allow_eviction": _switch(url, "allow_eviction"),
        }
        if url.scheme == "unix":
            if parts.hostname or not url.path:
                message = "url: a socket takes three slashes, as in unix:///run/redis.sock"
                raise ConfigError(message, field="url")
            return cls(path=f"/{url.path}", db=_database(url.settings.get("db", "")), **fields)
        if url.path and "db" in url.settings:
            raise ConfigError("url: the database is given twice", field="url")
        return cls(
            host=parts.hostname or "localhost",
            port=6379 if port is None else port,
            db=_database(url.path or url.settings.get("db", "")),
            **fields,
        )

    def options(self) -> dict[str, Any]:
        """The address as the keywords of redis-py's client."""
        place = (
            {"host": self.host, "port": self.port}
            if self.path is None
            else {"unix_socket_path": self.path}
        )
        return {
            **place,
            "db": self.db,
            "username": self.username,
            "password": self.password,
            **({"ssl": True, **self.tls_files} if self.tls else {}),
        }


def _database(text: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdigit()):
        raise ConfigError(f"url: {text!r} is no number of a database", field="url")
    return int(text)


def _switch(url: StoreURL, setting: str) -> bool:
    text = url.settings.get(setting, "false")
    if text not in {"true", "false"}:
        raise ConfigError(f"url: {setting}={text} is neither true nor false", field="url")
    return text == "true"
