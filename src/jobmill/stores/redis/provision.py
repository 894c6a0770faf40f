"""Throwaway servers, for tests of what uses a store."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import hiredis
import msgspec

from jobmill.errors import StoreUnavailable
from jobmill.stores.redis.address import Address, Place, Tls
from jobmill.stores.redis.keys import SLOTS
from jobmill.stores.redis.line import Refusal

PROGRAM: Final = "JOBMILL_TEST_REDIS_SERVER"
"""The environment variable that names another program than the one on PATH."""
_BINARIES: Final = ("redis-server", "valkey-server")
_WITHIN: Final = 15.0
_BUS: Final = 10_000
"""A node of a cluster listens for the others on its port and this."""
_HOST: Final = "127.0.0.1"
_NODE_TIMEOUT: Final = 10_000
"""Milliseconds: a node that stands still for less does not bring the cluster down."""


def binary() -> str | None:
    """The server's program; None where there is none."""
    return os.environ.get(PROGRAM) or next(filter(None, map(shutil.which, _BINARIES)), None)


class Server:
    """A server's process, to be killed, frozen and started again; its data stay with it.

    `settings` are those of redis.conf. `password` and `tls` are also what the address asks
    by. `tls` names the server's files; clients trust its `ssl_ca_certs`.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, str] | None = None,
        *,
        password: str | None = None,
        tls: Tls | None = None,
        on_socket: bool = False,
        sentinel: bool = False,
    ) -> None:
        held, port = _held_port()
        for each in held:
            weakref.finalize(self, each.close)
        settings = {
            **({} if sentinel else {"save": "", "appendonly": "no"}),
            "bind": _HOST,
            "dir": str(folder),
            "port": str(port),
            **({"requirepass": password} if password else {}),
            **(settings or {}),
        }
        if tls is not None:
            settings |= {"port": "0", "tls-port": str(port), "tls-auth-clients": "no"}
            settings |= {"tls-ca-cert-file": tls.ssl_ca_certs or ""}
            settings |= {"tls-cert-file": tls.ssl_certfile or ""}
            settings |= {"tls-key-file": tls.ssl_keyfile or ""}
            tls = Tls(ssl_ca_certs=tls.ssl_ca_certs)
        path = str(folder / "server.sock") if on_socket else None
        if path is not None:
            settings |= {"port": "0", "unixsocket": path}
        self._file = folder / f"{port}.conf"
        self._file.write_text("".join(f"{name} {_quoted(settings[name])}\n" for name in settings))
        self._log = folder / f"{port}.log"
        self._sentinel = sentinel
        self._process: subprocess.Popen[bytes] | None = None
        self.address: Address = Address(
            host=_HOST, port=port, path=path, password=password, tls=tls
        )

    @property
    def place(self) -> Place:
        """Where it listens."""
        return self.address.place

    def start(self) -> None:
        """Start it, and wait until it answers and has loaded its data.

        Raises: StoreUnavailable where there is no program, or it does not start.
        """
        program = binary()
        if program is None:
            raise StoreUnavailable(f"none of {', '.join(_BINARIES)} is on PATH: install one")
        words = [program, str(self._file), *(["--sentinel"] if self._sentinel else [])]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            eventually(self._answers)
        except StoreUnavailable:
            self.kill()
            last = self._log.read_text(errors="replace")[-500:]
            raise StoreUnavailable(f"the throwaway server did not start: {last}") from None

    def kill(self) -> None:
        """Kill it, as a crash does; nothing is written any more."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """End it in order, with what it writes at its end."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(_WITHIN)

    def freeze(self) -> None:
        """Let it stand still: connections stay, nothing is answered."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)

    def thaw(self) -> None:
        """Let a frozen server go on."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def ask(self, *words: str | int) -> Any:
        """The answer to a command, on a connection of its own. It blocks.

        Raises: Refusal, OSError.
        """
        return ask(self.address, *words)

    def _answers(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise StoreUnavailable("the throwaway server has ended")
        try:
            ask(self.address, "PING")
        except Refusal as refusal:
            return refusal.code in {"NOAUTH", "NOPERM", "MASTERDOWN"}
        except OSError:
            return False
        return True


def ask(address: Address, *words: str | int) -> Any:
    """The answer of one server to a command, on a connection of its own. It blocks.

    Raises: Refusal, OSError.
    """
    with ExitStack() as stack:
        if address.path is not None:
            connection = stack.enter_context(socket.socket(socket.AF_UNIX))
            connection.settimeout(_WITHIN)
            connection.connect(address.path)
        else:
            place = (address.host, address.port)
            connection = stack.enter_context(socket.create_connection(place, timeout=_WITHIN))
        if address.tls is not None:
            context: ssl.SSLContext = address.tls.context()
            wrapped = context.wrap_socket(connection, server_hostname=address.host)
            connection = stack.enter_context(wrapped)
        reader = hiredis.Reader(replyError=Refusal, encoding="utf-8", errors="replace")
        asked: list[tuple[str | int, ...]] = [words]
        if address.password is not None:
            asked.insert(0, ("AUTH", address.username or "default", address.password))
        answer: Any = None
        for each in asked:
            connection.sendall(hiredis.pack_command(each))  # type: ignore[arg-type]
            while (answer := reader.gets()) is False:
                received = connection.recv(65_536)
                if not received:
                    raise ConnectionError("the server closed the connection")
                reader.feed(received)
            if isinstance(answer, Refusal):
                raise answer
        return answer


@contextmanager
def running(
    settings: Mapping[str, str] | None = None,
    *,
    password: str | None = None,
    tls: Tls | None = None,
    on_socket: bool = False,
) -> Generator[Server]:
    """A server of its own on a free port of this machine, until the block ends.

    It keeps nothing on disk unless `settings` say so, such as {"appendonly": "yes"}.

    Raises: StoreUnavailable where there is no program, or it does not start.
    """
    with _started() as start:
        yield start(settings, password=password, tls=tls, on_socket=on_socket)


@contextmanager
def server(*, databases: int = 16) -> Generator[Address]:
    """The address of a server of its own, as `running` gives."""
    with running({"databases": str(databases)}) as one:
        yield one.address


@contextmanager
def replicated(replicas: int = 1) -> Generator[list[Server]]:
    """A primary and its replicas, in step with it."""
    with _started() as start:
        # Each may be the primary one day, and is to bring the others into step at once.
        at_once = {"repl-diskless-sync-delay": "0"}
        primary = start(at_once)
        followed = f"{_HOST} {primary.place.port}"
        others = [start({"replicaof": followed, **at_once}) for _ in range(replicas)]
        eventually(lambda: all(_link_of(other) == "up" for other in others))
        yield [primary, *others]


class Watched(msgspec.Struct, frozen=True):
    """Servers that Sentinels watch: the first is the primary to begin with."""

    address: Address
    servers: list[Server]
    sentinels: list[Server]

    def primary(self) -> Place:
        """The primary that the first Sentinel knows. It blocks."""
        told = self.sentinels[0].ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "jobs")
        return Place(told[0], int(told[1]))

    def promote(self) -> None:
        """Have a replica promoted, and wait until Sentinels lead to it. It blocks."""
        before = self.primary()
        eventually(self._asked_to_promote)
        eventually(lambda: self.primary() != before)

    def _asked_to_promote(self) -> bool:
        try:
            self.sentinels[0].ask("SENTINEL", "FAILOVER", "jobs")
        except Refusal:
            return False
        return True


@contextmanager
def watched(
    replicas: int = 1, *, down_after: float = 1.0, sentinel_password: str | None = None
) -> Generator[Watched]:
    """Three Sentinels that watch a primary and its replicas under the name "jobs".

    `down_after`: seconds of silence after which they hold a server for dead.
    """
    with replicated(replicas) as servers, _started() as start:
        name = f"jobs {_HOST} {servers[0].place.port} 2"
        sentinels = [
            start(
                {
                    # Values of several words, and one option several times.
                    "sentinel monitor": name,
                    "sentinel down-after-milliseconds": f"jobs {down_after * 1_000:.0f}",
                    "sentinel failover-timeout": "jobs 3000",
                    **({"sentinel sentinel-pass": sentinel_password} if sentinel_password else {}),
                },
                password=sentinel_password,
                sentinel=True,
            )
            for _ in range(3)
        ]
        places = tuple(each.place for each in sentinels)
        eventually(lambda: all(_knows_all(each, replicas) for each in sentinels))
        yield Watched(
            Address(nodes=places, service="jobs", sentinel_password=sentinel_password),
            servers,
            sentinels,
        )


@contextmanager
def cluster(nodes: int = 3) -> Generator[list[Server]]:
    """The nodes of a cluster without replicas, which share the slots evenly."""
    with _started() as start:
        servers = [
            start(
                {
                    "cluster-enabled": "yes",
                    "cluster-node-timeout": str(_NODE_TIMEOUT),
                    "cluster-config-file": f"nodes-{number}.conf",
                }
            )
            for number in range(nodes)
        ]
        for number, each in enumerate(servers):
            slots = range(SLOTS * number // nodes, SLOTS * (number + 1) // nodes)
            each.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            each.ask("CLUSTER", "ADDSLOTS", *slots)
            servers[0].ask("CLUSTER", "MEET", *each.place)
        eventually(lambda: all(_is_whole(each, nodes) for each in servers))
        yield servers


@contextmanager
def _started() -> Generator[Callable[..., Server]]:
    """How to start servers that are killed when the block ends, also by an error."""
    with tempfile.TemporaryDirectory(prefix="jobmill-redis-") as folder, ExitStack() as stack:

        def start(settings: Mapping[str, str] | None = None, **options: Any) -> Server:
            one = Server(Path(folder), settings, **options)
            stack.callback(one.kill)
            one.start()
            return one

        yield start


def eventually(holds: Callable[[], bool]) -> None:
    """Return when it holds. It blocks.

    Raises: StoreUnavailable where it does not hold in time.
    """
    deadline = time.monotonic() + _WITHIN
    while not holds():
        if time.monotonic() > deadline:
            raise StoreUnavailable("the throwaway servers did not get ready")
        time.sleep(0.02)


def _quoted(value: str) -> str:
    # What is several words already is several arguments.
    return value if " " in value else f'"{value}"'


def _held_port() -> tuple[list[socket.socket], int]:
    """A free port, which nobody but its server is given while the sockets are open.

    The server may be slow to start, and away for a while. The sockets do not listen, so that
    connections are refused, and on Linux they share the port, and that of its bus, with a server
    that asks for that.
    """
    while True:
        held = [socket.socket(), socket.socket()]
        for each in held:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held[0].bind((_HOST, 0))
        port: int = held[0].getsockname()[1]
        try:
            held[1].bind((_HOST, port + _BUS))
        except (OSError, OverflowError):
            taken = True
        else:
            taken = False
        if taken or sys.platform != "linux":
            for each in held:
                each.close()
        if not taken:
            return held, port


def _link_of(replica: Server) -> str:
    told: str = replica.ask("INFO", "replication")
    return told.partition("master_link_status:")[2].partition("\r")[0]


def _knows_all(sentinel: Server, replicas: int) -> bool:
    told = sentinel.ask("SENTINEL", "MASTER", "jobs")
    facts = dict(zip(told[::2], told[1::2], strict=True))
    known = int(facts["num-slaves"]), int(facts["num-other-sentinels"])
    return known == (replicas, 2) and facts["flags"] == "master"


def _is_whole(node: Server, nodes: int) -> bool:
    told: str = node.ask("CLUSTER", "INFO")
    return "cluster_state:ok" in told and f"cluster_known_nodes:{nodes}\r" in told
