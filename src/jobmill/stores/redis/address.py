"""Where Redis is, and how to log in; its passwords are never shown."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Self
from urllib.parse import unquote, urlsplit

import msgspec

from jobmill.errors import ConfigError
from jobmill.urls import StoreURL

_TLS_FILES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_TLS: Final = (*_TLS_FILES, "ssl_cert_reqs", "ssl_check_hostname")
_COMMON: Final = ("allow_eviction", "wait_replicas")
_SENTINEL: Final = ("sentinel_username", "sentinel_password")
_PORT: Final = 6_379
_SENTINEL_PORT: Final = 26_379
_LAST_PORT: Final = 65_535
_CERT_REQS: Final = {
    "required": ssl.CERT_REQUIRED,
    "optional": ssl.CERT_OPTIONAL,
    "none": ssl.CERT_NONE,
}


class Place(NamedTuple):
    """One server: host and port, or the path of a Unix socket and port 0."""

    host: str
    port: int

    def __str__(self) -> str:
        if not self.port:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Tls(msgspec.Struct, frozen=True, kw_only=True):
    """How a TLS connection is proven; the names and meanings are those of redis-py."""

    ssl_ca_certs: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    ssl_cert_reqs: str = "required"
    ssl_check_hostname: bool = True

    def __post_init__(self) -> None:
        for field in _TLS_FILES:
            if not isinstance(getattr(self, field), str | None):
                raise ConfigError(f"{field}: give the path of a file, or None", field=field)
        if self.ssl_cert_reqs not in _CERT_REQS:
            known = ", ".join(_CERT_REQS)
            message = f"ssl_cert_reqs: {self.ssl_cert_reqs!r} is none of {known}"
            raise ConfigError(message, field="ssl_cert_reqs")
        _check_switch("ssl_check_hostname", self.ssl_check_hostname)
        if self.ssl_keyfile and not self.ssl_certfile:
            message = "ssl_keyfile: it belongs to a certificate; give ssl_certfile too"
            raise ConfigError(message, field="ssl_keyfile")

    def context(self) -> ssl.SSLContext:
        """The settings as Python takes them; it reads files.

        Raises: ConfigError, naming the setting whose file will not do.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        needs = _CERT_REQS[self.ssl_cert_reqs]
        context.check_hostname = self.ssl_check_hostname and needs != ssl.CERT_NONE
        context.verify_mode = needs
        field = "ssl_ca_certs"
        try:
            if self.ssl_ca_certs is None:
                context.load_default_certs()
            else:
                context.load_verify_locations(self.ssl_ca_certs)
            field = "ssl_certfile"
            if self.ssl_certfile is not None:
                context.load_cert_chain(self.ssl_certfile, self.ssl_keyfile, password="")
        except (OSError, ValueError) as error:
            message = f"{field}: {getattr(self, field)} cannot be loaded: give PEM files ({error})"
            raise ConfigError(message, field=field) from error
        return context


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """A server, or several that act as one; a database; and who asks.

    `path` is that of a Unix socket, in the place of host and port. `nodes` are some nodes of
    a cluster or, with `service`, Sentinels that know the primary under this name.
    `allow_eviction`: use the server also where it may throw jobs away when its memory is
    full. `wait_replicas`: how many replicas must have a new job before it counts as accepted.
    """

    host: str = "localhost"
    port: int = _PORT
    path: str | None = None
    nodes: tuple[Place, ...] = ()
    service: str | None = None
    db: int = 0
    username: str | None = None
    password: str | None = None
    sentinel_username: str | None = None
    sentinel_password: str | None = None
    tls: Tls | None = None
    allow_eviction: bool = False
    wait_replicas: int = 0

    def __post_init__(self) -> None:
        for field in ("port", "db", "wait_replicas"):
            value: object = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool):
                raise ConfigError(f"{field}: {value!r} is no int", field=field)
            if value < 0:
                raise ConfigError(f"{field}: {value} is below 0", field=field)
        for field in ("username", "password", *_SENTINEL):
            _check_secret(field, getattr(self, field))
        _check_switch("allow_eviction", self.allow_eviction)
        for place in self.nodes or (Place(self.host, self.port),):
            _check_place(place)
        if self.is_cluster and self.db:
            message = f"db: {self.db} is not there: a cluster has only the database 0"
            raise ConfigError(message, field="db")

    def __repr__(self) -> str:
        return f"Address({str(self)!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        # The one that msgspec gives would show the passwords.
        return [("", str(self))]

    def __str__(self) -> str:
        scheme = "redis" if self.tls is None else "rediss"
        if self.path is not None:
            return f"unix://{self.path}?db={self.db}"
        if not self.nodes:
            return f"{scheme}://{Place(self.host, self.port)}/{self.db}"
        places = ",".join(map(str, self.nodes))
        if self.service is None:
            return f"{scheme}+cluster://{places}"
        return f"{scheme}+sentinel://{places}/{self.service}/{self.db}"

    @property
    def is_cluster(self) -> bool:
        """Whether `nodes` are those of a cluster."""
        return bool(self.nodes) and self.service is None

    @property
    def place(self) -> Place:
        """The one server, where it is one."""
        return Place(self.host, self.port) if self.path is None else Place(self.path, 0)

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must never be shown."""
        return tuple(filter(None, (self.password, self.sentinel_password)))

    @classmethod
    def from_url(cls, url: StoreURL) -> Self:
        """The address in a URL.

        Raises: ConfigError, without the password, where the URL says what is none.
        """
        if "@" in url.path:
            # It may be the rest of a password, so nothing of it is shown.
            message = "url: there is an @ after the first /; in a password write / as %2F"
            raise ConfigError(message, field="url")
        base, _, kind = url.scheme.partition("+")
        read = _READERS.get(kind) if base != "unix" else _socket if not kind else None
        if read is None:
            message = (
                f"url: {url.scheme}:// is none; there are redis://, redis+sentinel:// and "
                "redis+cluster://, with rediss for TLS, and unix://"
            )
            raise ConfigError(message, field="url")
        settings = [*_COMMON, *(_SENTINEL if kind == "sentinel" else ())]
        settings += [*(("db",) if not kind else ()), *(_TLS if base == "rediss" else ())]
        url.refuse_settings_but(*settings)
        who, _, hosts = url.place.rpartition("@")
        username, _, password = who.partition(":")
        fields = read(url, hosts)
        fields.update({name: url.settings[name] for name in _SENTINEL if name in url.settings})
        return cls(
            username=unquote(username) or None,
            password=unquote(password) or None,
            tls=_tls(url) if base == "rediss" else None,
            allow_eviction=_switch(url, "allow_eviction", default=False),
            wait_replicas=_number(url.settings.get("wait_replicas", ""), "wait_replicas"),
            **fields,
        )

    def options(self) -> dict[str, Any]:
        """The one server as the keywords of redis-py's client, for tests and comparisons."""
        place = (
            {"host": self.host, "port": self.port}
            if self.path is None
            else {"unix_socket_path": self.path}
        )
        tls = {} if self.tls is None else {"ssl": True, **msgspec.structs.asdict(self.tls)}
        return {
            **place,
            "db": self.db,
            "username": self.username,
            "password": self.password,
            **tls,
        }


def address_of(url: StoreURL | None, given: Mapping[str, object]) -> Address:
    """The address that a URL, or arguments, or both say.

    `given` are fields of Address and Tls, and `ssl`, which switches TLS on.

    Raises: ConfigError, naming the field.
    """
    fields: dict[str, Any] = dict(given)
    beside = {name: fields.pop(name) for name in _COMMON if name in fields}
    if url is not None:
        if url.backend != "redis":
            message = f"url: {url.scheme}:// is none of Redis; give redis://, or alike"
            raise ConfigError(message, field="url")
        twice = [*fields, *(name for name in beside if name in url.settings)]
        if twice:
            message = f"url: it says {', '.join(twice)} already; give one of them"
            raise ConfigError(message, field="url")
        return msgspec.structs.replace(Address.from_url(url), **beside)
    ssl_fields = {name: fields.pop(name) for name in _TLS if name in fields}
    switch = fields.pop("ssl", False)
    _check_switch("ssl", switch)
    if ssl_fields and not switch:
        field = next(iter(ssl_fields))
        raise ConfigError(f"{field}: it needs TLS; give ssl=True too", field=field)
    return Address(tls=Tls(**ssl_fields) if switch else None, **fields, **beside)


def _server(url: StoreURL, hosts: str) -> dict[str, Any]:
    if "," in hosts:
        message = "url: several hosts go with redis+sentinel:// or redis+cluster://"
        raise ConfigError(message, field="url")
    if url.path and "db" in url.settings:
        raise ConfigError("url: the database is given twice", field="url")
    place = _place(hosts, _PORT) if hosts else Place("localhost", _PORT)
    db = _number(url.path or url.settings.get("db", ""), "the database")
    return {"host": place.host, "port": place.port, "db": db}


def _socket(url: StoreURL, hosts: str) -> dict[str, Any]:
    if hosts or not url.path:
        message = "url: a socket takes three slashes, as in unix:///run/redis.sock"
        raise ConfigError(message, field="url")
    return {"path": f"/{url.path}", "db": _number(url.settings.get("db", ""), "the database")}


def _sentinel(url: StoreURL, hosts: str) -> dict[str, Any]:
    service, _, db = url.path.partition("/")
    if not hosts or not service:
        message = "url: give Sentinels and a name, as in redis+sentinel://host1,host2/mymaster"
        raise ConfigError(message, field="url")
    nodes = tuple(_place(host, _SENTINEL_PORT) for host in hosts.split(","))
    return {"nodes": nodes, "service": service, "db": _number(db, "the database")}


def _cluster(url: StoreURL, hosts: str) -> dict[str, Any]:
    if not hosts:
        message = "url: give some nodes, as in redis+cluster://host1:6379,host2:6379"
        raise ConfigError(message, field="url")
    nodes = tuple(_place(host, _PORT) for host in hosts.split(","))
    return {"nodes": nodes, "db": _number(url.path, "the database")}


_READERS: Final = {"": _server, "sentinel": _sentinel, "cluster": _cluster}


def _place(text: str, port: int) -> Place:
    try:
        parts = urlsplit(f"//{text}")
        given = parts.port
    except ValueError:
        # Python's own message would show what may be a password.
        raise ConfigError("url: its host or port cannot be read", field="url") from None
    return Place(parts.hostname or "", port if given is None else given)


def _tls(url: StoreURL) -> Tls:
    fields: dict[str, Any] = {name: url.settings[name] for name in _TLS if name in url.settings}
    fields["ssl_check_hostname"] = _switch(url, "ssl_check_hostname", default=True)
    return Tls(**fields)


def _check_place(place: Place) -> None:
    try:
        # The resolver's own failure would be no error of a store.
        known = bool(place.host) and bool(place.host.encode("idna"))
    except (UnicodeError, AttributeError):
        known = False
    if not known:
        raise ConfigError("host: give a name or an address", field="host")
    if not 0 < place.port <= _LAST_PORT:
        raise ConfigError(f"port: {place.port} is none; give 1 to {_LAST_PORT}", field="port")


def _check_secret(field: str, value: object) -> None:
    try:
        fits = value is None or (isinstance(value, str) and bool(value.encode() or True))
    except UnicodeError:
        fits = False
    if not fits:
        raise ConfigError(f"{field}: give text, or None", field=field)


def _check_switch(field: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigError(f"{field}: {value!r} is neither True nor False", field=field)


def _number(text: str, what: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) < len(str(_LAST_PORT)) * 2):
        raise ConfigError(f"url: {what} is a number, not {text!r}", field="url")
    return int(text)


def _switch(url: StoreURL, setting: str, *, default: bool) -> bool:
    text = url.settings.get(setting, str(default).lower())
    if text not in {"true", "false"}:
        raise ConfigError(f"url: {setting}={text} is neither true nor false", field="url")
    return text == "true"
