"""`jobmill migrate …`: the schema of a store, and how it is brought up to date."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Final, Protocol, TypeVar

from jobmill.cli.asking import Asked, ask
from jobmill.cli.command import part
from jobmill.cli.ending import Exit, say, while_opening
from jobmill.cli.output import Form, print_json, write
from jobmill.queue import Queue
from jobmill.store import Store

T = TypeVar("T")

app: Final = part("migrate", "Bring a store's schema up to date.")


class Status(Protocol):
    """What a schema holds, and what this release needs."""

    @property
    def schema(self) -> str: ...  # noqa: D102
    @property
    def applied(self) -> int: ...  # noqa: D102
    @property
    def latest(self) -> int: ...  # noqa: D102
    @property
    def current(self) -> bool: ...  # noqa: D102


class Migrations(Protocol):
    """What a store offers whose schema an operator looks after."""

    async def status(self) -> Status: ...  # noqa: D102
    async def up(self) -> Status: ...  # noqa: D102
    async def sql(self) -> str: ...  # noqa: D102


@app.command
def status(
    *,
    asked: Asked = Asked(),  # noqa: B008  it is frozen
    form: Form = Form(),  # noqa: B008  it is frozen
) -> int:
    """Tell whether the schema is the one of this release; exit code 1 where it is not."""
    queue = asked.made(any_of_store=True)
    migrations = _migrations_of(queue.store)
    if migrations is None:
        return _told_by_itself(queue, form)
    found = _answer(queue, migrations.status)
    _tell(queue, form, found)
    return Exit.DONE if found.current else Exit.FAILED


@app.command
def up(
    *,
    asked: Asked = Asked(),  # noqa: B008  it is frozen
    form: Form = Form(),  # noqa: B008  it is frozen
) -> int:
    """Bring the schema up to date, in one transaction; nothing where it is."""
    queue = asked.made(any_of_store=True)
    migrations = _migrations_of(queue.store)
    if migrations is None:
        ask(queue, _opened, makes=True)
        return _told_by_itself(queue, form)
    _tell(queue, form, _answer(queue, migrations.up))
    return Exit.DONE


@app.command
def sql(
    *,
    asked: Asked = Asked(),  # noqa: B008  it is frozen
) -> None:
    """Print the statements that `up` would run, for whoever may run them; none where it is done."""
    queue = asked.made(any_of_store=True)
    migrations = _migrations_of(queue.store)
    text = "" if migrations is None else _answer(queue, migrations.sql)
    write(text)
    if not text:
        say(f"{queue.store.place}: there is nothing to do")


def _migrations_of(store: Store) -> Migrations | None:
    """What the store's backend offers; None where it needs nobody to look after its schema."""
    backend = import_module(type(store).__module__.rpartition(".")[0])
    hook: Callable[[Store], Migrations] | None = getattr(backend, "migrations_of", None)
    return None if hook is None else hook(store)


def _answer(queue: Queue, verb: Callable[[], Awaitable[T]]) -> T:
    async def answer() -> T:
        with while_opening(queue.store.place):
            return await verb()

    return asyncio.run(answer())


async def _opened(_: Queue) -> None:
    """Only open the store."""


def _told_by_itself(queue: Queue, form: Form) -> int:
    place = queue.store.place
    if form.json or form.jsonl:
        unknown = {"schema": None, "applied": None, "latest": None}
        print_json({"store": place, **unknown, "current": True})
    elif not form.quiet:
        write(f"{place}: it is brought up to date whenever it is opened\n")
    return Exit.DONE


def _tell(queue: Queue, form: Form, found: Status) -> None:
    place = queue.store.place
    if form.json or form.jsonl:
        numbers = {"schema": found.schema, "applied": found.applied, "latest": found.latest}
        print_json({"store": place, **numbers, "current": found.current})
    elif not form.quiet:
        state = "up to date" if found.current else "behind; run jobmill migrate up"
        at = f"{found.applied} of {found.latest}"
        write(f"{place}: schema {found.schema} is at {at}: {state}\n")
