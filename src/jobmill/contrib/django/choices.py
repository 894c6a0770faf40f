"""What the OPTIONS of a backend say, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, cast, get_args

from jobmill.errors import ConfigError
from jobmill.factory import QueueOptions
from jobmill.options import JobOptions

Transaction = Literal["ignore", "on_commit", "join"]

_QUEUE: Final = frozenset(QueueOptions.__annotations__) - {"default_options", "seams"}
_OWN: Final = frozenset({"url", "job", "transaction", "database", "modules"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """The OPTIONS of one backend."""

    url: str | None
    job: JobOptions
    transaction: Transaction
    database: str
    modules: tuple[str, ...]
    queue: Mapping[str, Any]

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Choices:
        """The options as they are meant; ConfigError names the one that will not do."""
        unknown = sorted(options.keys() - _OWN - _QUEUE)
        if unknown:
            known = ", ".join(sorted(_OWN | _QUEUE))
            message = f"OPTIONS: {', '.join(map(repr, unknown))} is none; there are {known}"
            raise ConfigError(message, field=unknown[0])
        transaction: Any = options.get("transaction", "ignore")
        if transaction not in get_args(Transaction):
            message = f"transaction: {transaction!r} is none of {', '.join(get_args(Transaction))}"
            raise ConfigError(message, field="transaction")
        return cls(
            url=options.get("url"),
            job=_job(options.get("job", {})),
            transaction=transaction,
            database=options.get("database", "default"),
            modules=tuple(options.get("modules", ())),
            queue={name: value for name, value in options.items() if name in _QUEUE},
        )


def _job(given: object) -> JobOptions:
    """The job options; a task that fails has failed, unless they say how often to retry it."""
    if isinstance(given, Mapping):
        fields: dict[str, Any] = {"retries": 0, **cast("Mapping[str, Any]", given)}
        try:
            given = JobOptions(**fields)
        except TypeError as error:
            message = f"job: {error}"
            raise ConfigError(message, field="job") from None
    if not isinstance(given, JobOptions):
        message = "job: give JobOptions(...) or a dict of its fields"
        raise ConfigError(message, field="job")
    if given.executor == "process":
        message = 'executor: a Django task runs in a thread; leave executor="process" out'
        raise ConfigError(message, field="executor")
    return given
