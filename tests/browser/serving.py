"""A dashboard that is served, in a thread with a loop of its own, for a browser to look at."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import uvicorn

from jobmill import Queue
from jobmill.dashboard import create_app
from tests.waiting import eventually_sync

T = TypeVar("T")
START = 30.0


class Site:
    """A dashboard under its address. `do` runs something on its loop."""

    def __init__(self, base: str, loop: asyncio.AbstractEventLoop, queues: Sequence[Queue]) -> None:
        self.base = base
        self.queues = queues
        self._loop = loop

    @property
    def queue(self) -> Queue:
        return self.queues[0]

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """What the coroutine gives, run where the queues are at home."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)


@contextmanager
def served(
    make: Callable[[], Awaitable[Sequence[Queue]]], *, mount: str = "", **options: Any
) -> Iterator[Site]:
    """The dashboard of the queues that `make` gives, on a free port of this machine."""
    place = socket.socket()
    place.bind(("127.0.0.1", 0))
    port = place.getsockname()[1]
    ready: list[tuple[asyncio.AbstractEventLoop, Sequence[Queue]]] = []
    broken: list[BaseException] = []
    stop = threading.Event()
    servers: list[uvicorn.Server] = []

    async def serve() -> None:
        queues = await make()
        app: Any = create_app(list(queues), **options)
        if mount:
            from starlette.applications import Starlette
            from starlette.routing import Mount

            app = Starlette(routes=[Mount(mount, app)])
        config = uvicorn.Config(app, log_level="error", lifespan="off", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        servers.append(server)
        ready.append((asyncio.get_running_loop(), queues))
        try:
            await server.serve(sockets=[place])
        finally:
            for queue in queues:
                await queue.close()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            broken.append(error)
        finally:
            stop.set()

    thread = threading.Thread(target=run, name="dashboard", daemon=True)
    thread.start()
    try:
        eventually_sync(lambda: stop.is_set() or (servers and servers[0].started), START)
        if broken:
            raise broken[0]
        loop, queues = ready[0]
        yield Site(f"http://127.0.0.1:{port}{mount}", loop, queues)
    finally:
        for server in servers:
            server.should_exit = True
            server.force_exit = True
        thread.join(START)
        place.close()
