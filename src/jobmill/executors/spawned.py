"""One child process, as its worker sees it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from typing import Final

import msgspec

from jobmill.errors import Unsupported
from jobmill.executors.wire import (
    HEAD,
    TO_PARENT,
    ToChild,
    ToParent,
    frame,
)

log: Final = logging.getLogger("jobmill.worker")

EXIT_SECONDS: Final = 1.0
"""How long a child that was let go may take to end before it is killed."""

_BOOT: Final = (
    "import sys; fd, *sys.path = sys.argv[1:]; del sys.argv[1:]; "
    "from jobmill.executors.child import main; main(int(fd))"
)


class Child:
    """One child process. `ended` holds its exit code when it, and its group, are gone."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        ended: asyncio.Future[int],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self.ended = ended
        self.jobs = 0

    def tell(self, message: ToChild) -> None:
        """Send the message, if the connection is still there."""
        if not self._writer.is_closing():
            self._writer.write(frame(message))

    async def hear(self) -> ToParent | None:
        """The next message; None where there will be no more."""
        try:
            head = await self._reader.readexactly(HEAD)
            return TO_PARENT.decode(await self._reader.readexactly(int.from_bytes(head, "big")))
        except (EOFError, OSError):
            return None
        except msgspec.MsgspecError:
            log.exception("child process %d speaks in riddles", self._process.pid)
            return None

    def kill(self) -> None:
        """Kill the child and all that it started; `ended` tells when that is done."""
        if self._process.returncode is None:
            _kill_group(self._process.pid)

    async def let_go(self) -> None:
        """End the child: it goes by itself when the connection is closed, or is killed."""
        self.forget()
        await asyncio.wait([self.ended], timeout=EXIT_SECONDS)
        self.kill()
        await asyncio.wait([self.ended])

    def forget(self) -> None:
        """Close the connection."""
        self._writer.close()


def launch() -> tuple[subprocess.Popen[bytes], socket.socket]:
    """A new child process, and this end of the connection to it. Cost: blocks for milliseconds."""
    if sys.platform == "win32":
        message = 'executor="process" needs sockets between processes, which Windows has not'
        raise Unsupported(message)
    ours, theirs = socket.socketpair()
    with theirs:
        fd = theirs.fileno()
        # Over -c, because sys.path has to be there before jobmill can be found.
        command = [sys.executable, "-c", _BOOT, str(fd), *map(os.fspath, sys.path)]
        try:
            process = subprocess.Popen(  # noqa: S603 - this interpreter, with our own text
                command,
                stdin=subprocess.DEVNULL,
                stdout=2,
                pass_fds=(fd,),
                # Out of reach of the terminal's Ctrl-C, and killed with all that it started.
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
    ours.setblocking(False)
    return process, ours


def outlive(process: subprocess.Popen[bytes]) -> int:
    """Wait for the process to end, kill what it left behind, and tell its exit code."""
    if hasattr(os, "waitid"):
        # Until it is reaped, its id cannot come to mean other processes.
        with suppress(ChildProcessError):
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    else:
        process.wait()
    _kill_group(process.pid)
    return process.wait()


def _kill_group(pid: int) -> None:
    # macOS answers EPERM where none is left but a zombie.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
