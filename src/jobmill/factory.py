"""Joins queues and stores; the only place that knows both."""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Literal, TypedDict, Unpack, cast

import msgspec

from jobmill import stores
from jobmill.errors import ConfigError
from jobmill.job import JobMiddleware
from jobmill.options import JobOptions, check_queue_name, check_text
from jobmill.queue import Lifespan, Queue
from jobmill.seams import Seams
from jobmill.store import Store
from jobmill.urls import StoreURL

ENVIRONMENT_URL = "JOBMILL_URL"
_DEFAULT_NAME = "default"
# Listed at import, because a queue may be made on a loop, where reading a folder blocks.
_BACKENDS = frozenset(each.name for each in pkgutil.iter_modules(stores.__path__))


class QueueOptions(TypedDict, total=False):
    """The keywords that every queue takes, whatever its store; see Queue."""

    concurrency: int
    poll_interval: float | timedelta
    lease: float | timedelta
    middleware: JobMiddleware | Sequence[JobMiddleware]
    default_options: JobOptions | None
    max_payload_bytes: int
    lifespan: Lifespan | None
    seams: Seams | None


class InMemoryQueue(Queue):
    """A queue in this process's memory; it ends with the process.

    `memory`: a name shares it with the other queues of that name in the process.
    """

    def __init__(
        self,
        *,
        name: str | None = None,
        queue_name: str | None = None,
        memory: str | None = None,
        **options: Unpack[QueueOptions],
    ) -> None:
        from jobmill.stores.memory import MemoryStore

        if memory is not None and not check_text("memory", memory):
            message = "memory: give a name, or None for a memory of its own"
            raise ConfigError(message, field="memory")
        seams = options.get("seams") or Seams()
        store = MemoryStore(memory, _name(name, queue_name), clock=seams.clock)
        super().__init__(store, **options)


class SQLiteQueue(Queue):
    """A queue in a file, for one machine; it survives a restart.

    `synchronous`: "full" makes every accepted job survive a power cut; "normal" is faster
    and may lose the last ones then, though never when only the process dies.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] = "jobs.db",
        *,
        name: str | None = None,
        queue_name: str | None = None,
        synchronous: Literal["full", "normal"] = "full",
        **options: Unpack[QueueOptions],
    ) -> None:
        from jobmill.stores.sqlite import SQLiteStore

        if not isinstance(cast("object", path), str | os.PathLike):
            message = f"path: {type(path).__name__} is no path; give one such as jobs.db"
            raise ConfigError(message, field="path")
        seams = options.get("seams") or Seams()
        store = SQLiteStore(
            path, _name(name, queue_name), synchronous=synchronous, clock=seams.clock
        )
        super().__init__(store, **options)


class RedisOptions(QueueOptions, total=False):
    """What a queue in Redis takes beside; see its docs. `ssl_…` as redis-py has them."""

    ssl: bool
    ssl_ca_certs: str | None
    ssl_certfile: str | None
    ssl_keyfile: str | None
    ssl_cert_reqs: Literal["required", "optional", "none"]
    ssl_check_hostname: bool
    wait_replicas: int
    allow_eviction: bool


class RedisQueue(Queue):
    """A queue in Redis or Valkey, for many machines; it is as durable as the server.

    `url` says all of it at once, in the place of the other arguments of the server; Sentinel,
    Cluster and Unix sockets go by URL only. `wait_replicas` and `allow_eviction` may
    stand beside it.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        name: str | None = None,
        queue_name: str | None = None,
        host: str | None = None,
        port: int | None = None,
        username: str | None = None,
        password: str | None = None,
        db: int | None = None,
        **options: Unpack[RedisOptions],
    ) -> None:
        from jobmill.stores.redis import RedisStore, address_of

        server = {"host": host, "port": port, "username": username, "password": password, "db": db}
        given: dict[str, object] = {
            key: value for key, value in server.items() if value is not None
        }
        own = RedisOptions.__annotations__.keys() - QueueOptions.__annotations__.keys()
        rest: dict[str, Any] = {}
        for option, value in options.items():
            (given if option in own else rest)[option] = value
        seams = options.get("seams") or Seams()
        address = address_of(None if url is None else StoreURL.parse(url), given)
        store = RedisStore(address, _name(name, queue_name), clock=seams.clock)
        super().__init__(store, **rest)


class PostgresOptions(QueueOptions, total=False):
    """What a queue in PostgreSQL takes beside; each is also a setting of the URL."""

    schema: str
    listen: bool
    auto_migrate: bool
    statement_cache_size: int
    sslmode: Literal["disable", "prefer", "require", "verify-ca", "verify-full"]
    sslrootcert: str | None


class PostgresQueue(Queue):
    """A queue in PostgreSQL, for many machines; an accepted job is as durable as a commit.

    `dsn` says all of it at once, in the place of the other arguments of the server. `schema`
    keeps all that is jobmill's. `listen`: be told of new jobs over a connection of its own.
    `auto_migrate`: bring an older schema up to date, in the place of `jobmill migrate up`.
    """

    def __init__(
        self,
        dsn: str | None = None,
        *,
        name: str | None = None,
        queue_name: str | None = None,
        host: str | None = None,
        port: int | None = None,
        username: str | None = None,
        password: str | None = None,
        database: str | None = None,
        **options: Unpack[PostgresOptions],
    ) -> None:
        from jobmill.stores.postgresql import Address, PostgresStore

        server = (
            *(("host", host), ("port", port), ("database", database)),
            *(("username", username), ("password", password)),
        )
        given = {field: value for field, value in server if value is not None}
        own = PostgresOptions.__annotations__.keys() - QueueOptions.__annotations__.keys()
        settings: dict[str, Any] = {}
        rest: dict[str, Any] = {}
        for option, value in options.items():
            (settings if option in own else rest)[option] = value
        if dsn is None:
            address = Address()
        else:
            parsed = StoreURL.parse(dsn)
            if parsed.backend != "postgresql":
                message = f"dsn: {parsed.scheme}:// is none of PostgreSQL; give postgresql://"
                raise ConfigError(message, field="dsn")
            twice = [*given, *(field for field in settings if field in parsed.settings)]
            if twice:
                message = f"dsn: it says {', '.join(twice)} already; give one of them"
                raise ConfigError(message, field="dsn")
            address = Address.from_url(parsed)
        address = msgspec.structs.replace(address, **given, **settings)
        seams = options.get("seams") or Seams()
        store = PostgresStore(address, _name(name, queue_name), clock=seams.clock)
        super().__init__(store, **rest)


def create_queue(
    url: str | None = None,
    *,
    name: str | None = None,
    queue_name: str | None = None,
    **options: Unpack[QueueOptions],
) -> Queue:
    """The queue of a store's URL.

    `memory://`, `sqlite:///jobs.db`, `redis://localhost`, `postgresql://localhost/app`.

    Without a URL: that of the environment variable JOBMILL_URL where it is set, else a
    private queue in memory.

    Raises: ConfigError for a URL that names no store, or says what its store does not know.
    """
    if url is None:
        url = os.environ.get(ENVIRONMENT_URL) or "memory://"
    parsed = StoreURL.parse(url)
    if parsed.backend not in _BACKENDS:
        known = ", ".join(f"{each}://" for each in sorted(_BACKENDS))
        message = f"url: {parsed.scheme}:// names no store; there are {known}"
        raise ConfigError(message, field="url")
    backend = importlib.import_module(f"{stores.__name__}.{parsed.backend}")
    seams = options.get("seams") or Seams()
    store: Store = backend.from_url(parsed, _name(name, queue_name), seams.clock)
    return Queue(store, **options)


def _name(name: str | None, queue_name: str | None) -> str:
    if name is not None and queue_name is not None and name != queue_name:
        message = "name: it is the same as queue_name; give one of them"
        raise ConfigError(message, field="name")
    if name is None and queue_name is not None:
        return check_queue_name(queue_name, "queue_name")
    return check_queue_name(_DEFAULT_NAME if name is None else name)
