"""Throwaway servers, for tests of what uses a store."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from jobmill.errors import StoreUnavailable
from jobmill.stores.postgresql.address import Address

_DEBIAN: Final = Path("/usr/lib/postgresql")
_MEMORY: Final = Path("/dev/shm")  # noqa: S108  the folder inside has a name of its own
_ENOUGH: Final = 1_000_000_000
_WITHIN: Final = 30.0
_USER: Final = "postgres"
_HOST: Final = "127.0.0.1"
_GONE: Final = "ZX"
_STILL: Final = "Tt" + _GONE


class Server:
    """A server's processes, to be killed, frozen and started again; its data stay with it.

    `folder` holds its data, as `make_data` makes them. `durable`: it waits for the disk, as
    servers do; without, tests are faster. `settings` are of the form NAME=VALUE. PostgreSQL does
    not run as root: there it runs as postgres.
    """

    def __init__(self, folder: Path, *, durable: bool = True, settings: Sequence[str] = ()) -> None:
        self.folder = folder
        held, port = _held_port()
        weakref.finalize(self, held.close)
        self.address: Address = Address(
            host=_HOST, port=port, username=_USER, database=_USER, sslmode="disable"
        )
        self._settings = [
            *(f"port={self.address.port}", f"listen_addresses={_HOST}"),
            # In its own folder: what a killed server leaves goes with it.
            *(f"unix_socket_directories={folder.parent}", "dynamic_shared_memory_type=mmap"),
            *([] if durable else ["fsync=off", "full_page_writes=off"]),
            *("max_connections=200", "log_min_messages=fatal", *settings),
        ]
        self._process: subprocess.Popen[bytes] | None = None
        self._frozen: list[int] = []
        self._killed = False

    @property
    def pid(self) -> int:
        """That of the process which has started all the others."""
        return self._started().pid

    def start(self) -> None:
        """Start it, and wait until it answers.

        Raises: StoreUnavailable where there is no program, or it does not start.
        """
        programs = _programs()
        command = [str(programs / "postgres"), "-D", str(self.folder)]
        for setting in self._settings:
            command += ["-c", setting]
        self._process = subprocess.Popen(  # noqa: S603
            command,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            user=_user(),
            group=_user(),
        )
        words = [str(programs / "pg_isready"), "-q", "-h", _HOST, "-p", str(self.address.port)]
        self._killed = False
        process = self._process
        _eventually(
            lambda: process.poll() is not None or subprocess.run(words, check=False).returncode == 0  # noqa: S603
        )
        if process.poll() is not None:
            raise StoreUnavailable("the throwaway server did not start")

    def kill(self) -> None:
        """Kill all its processes with -9, as a crash does, and return when they are gone."""
        family = self._stopped()
        for pid in family:
            # When the first is gone, another buries those of them that had ended by then.
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._frozen = []
        self._killed = True
        self._started().wait()
        _eventually(lambda: all(_state(pid) in _GONE for pid in family))

    def stop(self, *, at_once: bool = False) -> None:
        """End it in order; it ends what is asked of it. `at_once`: as it is, but tidily."""
        self.thaw()
        process = self._started()
        process.send_signal(signal.SIGQUIT if at_once else signal.SIGINT)
        try:
            process.wait(_WITHIN)
        except subprocess.TimeoutExpired:
            self.kill()

    def close(self) -> None:
        """Leave nothing of it but its folder, whatever was done to it."""
        if self._process is None:
            return
        if self._killed:
            # It is to find the shared memory that it left when it was killed.
            self.start()
        if self._process.poll() is None:
            self.stop(at_once=True)

    def freeze(self) -> None:
        """Let it stand still: connections stay, nothing is answered."""
        self._frozen = self._stopped()

    def thaw(self) -> None:
        """Let a frozen server go on."""
        frozen, self._frozen = self._frozen, []
        for pid in reversed(frozen):
            os.kill(pid, signal.SIGCONT)

    def copy_to(self, folder: Path, *, port: int | None = None) -> None:
        """Make the data of a standby, which follows this server once it is started.

        `port`: where it finds this server, if not at its own.
        """
        where = ["-h", _HOST, "-p", str(port or self.address.port), "-U", _USER]
        _run("pg_basebackup", *where, "-D", str(folder), "-R", "-c", "fast", "--no-sync")

    def promote(self) -> None:
        """Let a standby take writes, and return when it does."""
        _run("pg_ctl", "promote", "-D", str(self.folder), "-w")

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise StoreUnavailable("the throwaway server was never started")
        return self._process

    def _stopped(self) -> list[int]:
        """Its processes, none of which does anything any more: the first first, which starts them.

        It buries none of them meanwhile, so that their numbers stay theirs.
        """
        pid = self.pid
        os.kill(pid, signal.SIGSTOP)
        _eventually(lambda: _state(pid) in _STILL)
        family = _family(pid)
        for each in family:
            os.kill(each, signal.SIGSTOP)
        _eventually(lambda: all(_state(each) in _STILL for each in family))
        return family


def binaries() -> Path | None:
    """The folder of initdb and postgres: that on PATH, or Debian's newest; None without one."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    versions = [path for path in _DEBIAN.glob("*/bin") if (path / "initdb").is_file()]
    return max(versions, key=lambda path: int(path.parent.name.partition(".")[0]), default=None)


@contextmanager
def room(*, in_memory: bool = False) -> Generator[Path]:
    """A folder for the data of servers, thrown away at the end.

    `in_memory`: where the system offers that, and has enough; a server that was killed looks
    through all its files at its next start, which takes seconds on a disk.
    """
    where = _MEMORY if in_memory and _has_room(_MEMORY) else None
    with tempfile.TemporaryDirectory(prefix="jobmill-postgres-", dir=where) as name:
        if os.geteuid() == 0:
            shutil.chown(name, _USER, _USER)
        yield Path(name)


def make_data(folder: Path) -> None:
    """Make the data of a new server.

    Raises: StoreUnavailable where there is no program, or it fails.
    """
    _run(
        *("initdb", "--pgdata", str(folder), "--auth", "trust", "--username", _USER),
        *("--no-sync", "--no-instructions", "--encoding", "UTF8", "--locale", "C.UTF-8"),
    )


def copy_data(folder: Path, to: Path) -> None:
    """Make the data of a server that is as another one was when it was stopped."""
    _run("cp", "-a", str(folder), str(to))


@contextmanager
def server(*, durable: bool = True, settings: Sequence[str] = ()) -> Generator[Server]:
    """A server of its own on a free port of this machine, thrown away at the end.

    Raises: StoreUnavailable where there is no program, or it does not start.
    """
    with room() as folder:
        make_data(folder / "data")
        with running(folder / "data", durable=durable, settings=settings) as one:
            yield one


@contextmanager
def running(
    folder: Path, *, durable: bool = True, settings: Sequence[str] = ()
) -> Generator[Server]:
    """A server on these data, until the block ends."""
    one = Server(folder, durable=durable, settings=settings)
    try:
        one.start()
        yield one
    finally:
        one.close()


def _has_room(folder: Path) -> bool:
    return folder.is_dir() and shutil.disk_usage(folder).free > _ENOUGH


def _programs() -> Path:
    programs = binaries()
    if programs is None:
        raise StoreUnavailable("initdb is neither on PATH nor Debian's: install postgresql")
    return programs


def pooler_binary() -> str | None:
    """PgBouncer's program; None without one."""
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@contextmanager
def pooler(address: Address) -> Generator[Address]:
    """A PgBouncer in transaction mode before a server of this module, with two connections to it.

    Raises: StoreUnavailable where there is no program, or it does not start.
    """
    program = pooler_binary()
    if program is None:
        raise StoreUnavailable("pgbouncer is not on PATH: install pgbouncer")
    held, port = _held_port()
    with held, room() as folder:
        settings = folder / "pgbouncer.ini"
        settings.write_text(
            "[databases]\n"
            f"* = host={address.host} port={address.port} user={address.username}\n"
            "[pgbouncer]\n"
            f"listen_addr = {_HOST}\nlisten_port = {port}\nunix_socket_dir =\n"
            "auth_type = any\npool_mode = transaction\ndefault_pool_size = 2\n"
            "max_client_conn = 200\n",
            "utf-8",
        )
        process = subprocess.Popen(  # noqa: S603
            [program, "--quiet", str(settings)],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            user=_user(),
            group=_user(),
        )
        try:
            _eventually(lambda: process.poll() is not None or _listens(port))
            if process.poll() is not None:
                raise StoreUnavailable("the throwaway pooler did not start")
            yield msgspec.structs.replace(
                address, host=_HOST, port=port, listen=False, statement_cache_size=0
            )
        finally:
            process.kill()
            process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((_HOST, port)) == 0


def _user() -> str | None:
    """Who runs the server: PostgreSQL refuses to run as root."""
    return _USER if os.geteuid() == 0 else None


def _run(program: str, *words: str) -> None:
    done = subprocess.run(  # noqa: S603
        [str(_programs() / program) if program != "cp" else program, *words],
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
        user=_user(),
        group=_user(),
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise StoreUnavailable(f"{program} failed: {said}")


def _held_port() -> tuple[socket.socket, int]:
    """A free port, which nobody but its server is given while the socket is open.

    The server may be slow to start, and away for a while. The socket does not listen, so that
    connections are refused, and on Linux it shares the port with a server that asks for that.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind((_HOST, 0))
    port: int = held.getsockname()[1]
    if sys.platform != "linux":
        held.close()
    return held, port


def _family(pid: int) -> list[int]:
    """The process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
    return [pid, *map(int, children)]


def _state(pid: int) -> str:
    """As Linux has it, a letter; X where the process is gone."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return "X"
    return told.rpartition(")")[2].split()[0]


def _eventually(is_so: Callable[[], bool]) -> None:
    """Return as soon as it is so.

    Raises: StoreUnavailable where it is not in time.
    """
    deadline = time.monotonic() + _WITHIN
    while not is_so():
        if time.monotonic() > deadline:
            raise StoreUnavailable("the throwaway server did not do in time what it was to do")
        time.sleep(0.01)
