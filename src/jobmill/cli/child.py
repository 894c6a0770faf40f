"""One worker process, as its supervisor sees it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from typing import Final, Self

from jobmill.cli.line import Order, environment

_CHUNK: Final = 4_096


class Child:
    """A process and the line to it. Made by `start`."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        orders: int,
        news: int,
        heard: Callable[[Child], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        self.pid: Final = process.pid
        self.loaded: bool = False
        self.ready: Final = asyncio.Event()
        """Set while it claims: not before its start is over, nor while its store is away."""
        self.wants: Final = asyncio.Event()
        """Set while it wants to be replaced, for this `reason`."""
        self.reason: str = ""
        self.ended: Final = loop.create_task(self._end())
        """Done when it has ended, with its exit code; minus the signal where one ended it."""
        self._process = process
        self._orders = orders
        self._news = news
        self._heard = heard
        self._born = loop.time()
        self._rest = ""
        loop.add_reader(news, self._hear)

    @classmethod
    async def start(
        cls, words: Sequence[str], *, first: bool, heard: Callable[[Child], None]
    ) -> Self:
        """Start a process; `heard` is called whenever it says something.

        Raises: OSError where the machine gives none.
        """
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            their_orders, orders = os.pipe()
            theirs.callback(os.close, their_orders)
            ours.callback(os.close, orders)
            news, their_news = os.pipe()
            theirs.callback(os.close, their_news)
            ours.callback(os.close, news)
            process = await asyncio.create_subprocess_exec(
                *words,
                stdin=subprocess.DEVNULL,
                env=environment(their_orders, their_news, first=first),
                pass_fds=(their_orders, their_news),
                # So that a Ctrl-C at the terminal reaches it once, by its supervisor.
                start_new_session=True,
            )
            ours.pop_all()
        # A process that hears no more must not hold the others up.
        os.set_blocking(orders, False)
        os.set_blocking(news, False)
        return cls(process, orders, news, heard)

    @property
    def age(self) -> float:
        """Seconds since it was started."""
        return asyncio.get_running_loop().time() - self._born

    def order(self, order: Order) -> None:
        """Send an order, where it still lives."""
        with contextlib.suppress(OSError):
            os.write(self._orders, f"{order}\n".encode())

    def want(self, reason: str) -> None:
        """Let it be replaced."""
        self.reason = reason
        self.wants.set()

    def kill(self) -> None:
        """End it at once."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def until_ended_or(
        self, *events: asyncio.Event | None, within: float | None = None
    ) -> None:
        """Return when it has ended, or one of that has happened, or the time is over."""
        waits = [asyncio.ensure_future(each.wait()) for each in events if each is not None]
        await asyncio.wait(
            [self.ended, *waits], timeout=within, return_when=asyncio.FIRST_COMPLETED
        )
        for each in waits:
            each.cancel()

    def told_end(self, code: int) -> str:
        """How it ended, in words."""
        if code >= 0:
            return f"process {self.pid} ended with exit code {code}"
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return f"process {self.pid} was ended by {name}"

    async def _end(self) -> int:
        code = await self._process.wait()
        asyncio.get_running_loop().remove_reader(self._news)
        os.close(self._news)
        os.close(self._orders)
        self._orders = -1
        return code

    def _hear(self) -> None:
        data = os.read(self._news, _CHUNK)
        if not data:
            asyncio.get_running_loop().remove_reader(self._news)
            return
        *lines, self._rest = (self._rest + data.decode(errors="replace")).split("\n")
        for line in lines:
            word, _, reason = line.partition(" ")
            match word:
                case "loaded":
                    self.loaded = True
                case "ready":
                    self.ready.set()
                case "away":
                    self.ready.clear()
                case "recycle":
                    self.want(reason)
                case _:
                    continue
            self._heard(self)
