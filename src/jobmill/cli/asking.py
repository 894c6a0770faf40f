"""Which store, and which queue of it, a command asks."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Final, TypeVar

from cyclopts import Parameter

from jobmill.cli.ending import Ended, Exit, while_opening
from jobmill.factory import ENVIRONMENT_URL, create_queue
from jobmill.options import check_queue_name
from jobmill.queue import Queue
from jobmill.store import Features, Store

T = TypeVar("T")

TRIAL: Final = "sqlite:///jobs.db"
"""Where the jobs of a program without a queue of its own are kept, by `run` and who asks for it."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Asked:
    """The words that say which store a command asks, the same for all of them."""

    store: Annotated[
        str | None,
        Parameter(
            help=f"URL of the store, as sqlite:///jobs.db; else that of --app or {ENVIRONMENT_URL}."
        ),
    ] = None
    app: Annotated[
        str | None,
        Parameter(
            help="The program whose queue it is: module:queue, module or file.py. "
            "One without a queue has sqlite:///jobs.db."
        ),
    ] = None
    queue: Annotated[
        str | None,
        Parameter(help="Name of the queue; else that of --app, or default."),
    ] = None

    def made(self, *, any_of_store: bool = False) -> Queue:
        """The queue, not yet opened; `any_of_store`: where a program has several, any will do.

        Raises: Ended and ConfigError where the words name none.
        """
        if self.app is not None:
            from jobmill.cli.loading import load, one_queue

            program = load(self.app)
            # With --store it is loaded for its jobs only, and its own queue is not asked.
            if self.store is None and program.queues:
                found = one_queue(program, self.queue, any_of_store=any_of_store)
                return found if self.queue is None else beside(found, self.queue)
        url = self.store or os.environ.get(ENVIRONMENT_URL) or (self.app and TRIAL)
        if not url:
            raise Ended(
                Exit.USAGE,
                "which store? Say --store URL, as in --store sqlite:///jobs.db, or --app "
                f"module:queue, or set {ENVIRONMENT_URL}",
            )
        return create_queue(url, name=self.queue)

    def all_made(self) -> list[Queue]:
        """Every queue of a program that has some, where the words name none of them; else the one.

        Raises: Ended and ConfigError where the words name none at all.
        """
        if self.app is not None and self.store is None and self.queue is None:
            from jobmill.cli.loading import load

            if found := load(self.app).queues:
                return [each.queue for each in found]
        return [self.made()]


@asynccontextmanager
async def opened(queue: Queue, *, makes: bool) -> AsyncGenerator[None]:
    """Open the store of the queue, and let go of it at the end."""
    if Features.SHARED not in queue.store.features:
        raise Ended(
            Exit.USAGE,
            f"{queue.store.place}: a queue in memory lives in the program that made it, and no "
            "other can ask it; take --store sqlite:///jobs.db, or another",
        )
    path = getattr(queue.store, "path", None)
    if not makes and path is not None and not path.exists():
        raise Ended(
            Exit.UNREACHABLE,
            f"cannot connect to {queue.store.place}: there is no such file; enqueue to it, or "
            "run a worker, and it is made",
        )
    try:
        with while_opening(queue.store.place):
            await queue.ask(_nothing)
        yield
    finally:
        await queue.close()


def beside(queue: Queue, name: str) -> Queue:
    """The queue of that name in the same store, with the same settings."""
    if name == queue.name:
        return queue
    return Queue(
        queue.store.handle(check_queue_name(name, "queue")),
        concurrency=queue.concurrency,
        poll_interval=queue.poll_interval,
        lease=queue.lease,
        middleware=queue.middleware,
        default_options=queue.default_options,
        max_payload_bytes=queue.max_payload_bytes,
        lifespan=queue.lifespan,
    )


def ask(asked: Asked | Queue, verb: Callable[[Queue], Awaitable[T]], *, makes: bool = False) -> T:
    """What the verb gives of the queue, in a loop of its own; `makes`: also a file, where needed.

    Raises: Ended where the store cannot be used.
    """
    queue = asked.made() if isinstance(asked, Asked) else asked

    async def answer() -> T:
        async with opened(queue, makes=makes):
            return await verb(queue)

    return asyncio.run(answer())


async def _nothing(store: Store) -> None:
    """Only open the store."""
