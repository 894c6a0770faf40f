"""What systemd is told, also where it has no time to listen."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator
from uuid import uuid4

import pytest

from jobmill.cli import systemd
from tests.waiting import PATIENCE

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is no systemd")


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A systemd that does not read, whose socket is full."""
    name = f"jobmill-{uuid4().hex}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(f"\0{name}")
        made.settimeout(PATIENCE)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as others:
            others.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    others.sendto(b"FULL", f"\0{name}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        yield made


def test_words_that_matter_wait_for_room(listener: socket.socket) -> None:
    systemd.notify("READY=1")
    systemd.notify("STOPPING=1")
    heard: list[bytes] = []
    while b"STOPPING=1" not in heard:
        heard.append(listener.recv(100))
    assert [word for word in heard if word != b"FULL"] == [b"READY=1", b"STOPPING=1"]


def test_the_watchdog_waits_for_nothing(listener: socket.socket) -> None:
    systemd.feed_watchdog()
    systemd.notify("READY=1")
    while (word := listener.recv(100)) == b"FULL":
        pass
    assert word == b"READY=1"
    systemd.feed_watchdog()
    assert listener.recv(100) == b"WATCHDOG=1"


def test_a_process_ends_where_nobody_listens_any_more(listener: socket.socket) -> None:
    script = (
        "from jobmill.cli import systemd\n"
        "systemd._PATIENCE = 0.1\n"
        "systemd.notify('READY=1')\n"
        "systemd.notify('STOPPING=1')\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=100)
