"""Joins queues and stores; the only place that knows both."""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Sequence
from datetime import timedelta
from typing import Literal, TypedDict, Unpack, cast

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


class RedisQueue(Queue):
    """A queue in Redis or Valkey, for many machines; it is as durable as the server.

    `url` says all of it at once, in the place of the other arguments of the server.
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
        **options: Unpack[QueueOptions],
    ) -> None:
        from jobmill.stores.redis import Address, RedisStore

        given = {
            field: value
            for field, value in (
                *(("host", host), ("port", port), ("db", db)),
                *(("username", username), ("password", password)),
            )
            if value is not None
        }
        if url is None:
            address = msgspec.structs.replace(Address(), **given)
        else:
            parsed = StoreURL.parse(url)
            if parsed.backend != "redis":
                message = f"url: {parsed.scheme}:// is none of Redis; give redis://, or alike"
                raise ConfigError(message, field="url")
            if given:
                message = f"url: it says {', '.join(given)} already; give one of them"
                raise ConfigError(message, field="url")
            address = Address.from_url(parsed)
        seams = options.get("seams") or Seams()
        store = RedisStore(address, _name(name, queue_name), clock=seams.clock)
        super().__init__(store, **options)


def create_queue(
    url: str | None = None,
    *,
    name: str | None = None,
    queue_name: str | None = None,
    **options: Unpack[QueueOptions],
) -> Queue:
    """The queue of a store's URL: `memory://`, `sqlite:///jobs.db`, `redis://localhost`.

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
