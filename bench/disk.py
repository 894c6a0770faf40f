"""What a server had made safe on its disk, and a disk that is slow, by way of strace.

Whether the disk itself keeps its word is not seen here, nor what the system writes of its own
accord before anybody waits for it.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

_CALL = re.compile(r"(?P<who>\d+) +(?P<call>write|fdatasync|fsync)\(\d+<(?P<path>[^>]*)>")
_RESUMED = re.compile(r"(?P<who>\d+) +<\.\.\. (?:write|fdatasync|fsync) resumed>")
_ANSWER = re.compile(r"\) += (?P<answer>-?\d+)")
_SYNC = "fsync,fdatasync"


class Trace:
    """What a process wrote and waited for, call by call."""

    def __init__(self, report: Path) -> None:
        self._report = report

    def cut(self, journal: Path, length: int) -> int:
        """Take from the journal all that no fsync had covered; how many bytes that were.

        `length`: what was in it, and safe, when the trace began.
        """
        safe, written = length, length
        begun: dict[str, tuple[str, int]] = {}
        for line in self._report.read_text(errors="replace").splitlines():
            call = _CALL.match(line)
            if call is not None and call["path"] == str(journal):
                begun[call["who"]] = (call["call"], written)
            resumed = call or _RESUMED.match(line)
            answer = _ANSWER.search(line)
            if resumed is None or answer is None or resumed["who"] not in begun:
                continue
            what, before = begun.pop(resumed["who"])
            if what == "write":
                written += max(0, int(answer["answer"]))
            elif answer["answer"] == "0":
                # Only what was there when it began is covered.
                safe = max(safe, before)
        there = journal.stat().st_size
        assert written == there, f"{written} bytes were seen of {there}"
        with journal.open("r+b") as file:
            file.truncate(safe)
        return there - safe


@contextmanager
def traced(pid: int, folder: Path) -> Generator[Trace]:
    """Follow the writes of a process, until it ends or the block does."""
    report = folder / "trace"
    with _strace(pid, "-y", "-s", "0", "-e", f"trace=write,{_SYNC}", "-o", str(report)):
        yield Trace(report)


@contextmanager
def slowed(pid: int, seconds: float) -> Generator[None]:
    """Let each fsync of a process take so much longer, until it ends or the block does."""
    delay = f"inject={_SYNC}:delay_enter={seconds * 1_000_000:.0f}"
    with _strace(pid, "-e", f"trace={_SYNC}", "-e", delay, "-o", "/dev/null"):
        yield


@contextmanager
def _strace(pid: int, *words: str) -> Generator[None]:
    command = ["strace", "-f", "-qq", *words, "-p", str(pid)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)  # noqa: S603
    try:
        deadline = time.monotonic() + 10
        while not _is_traced(pid):
            assert process.poll() is None, "strace ended; is it installed, and allowed?"
            assert time.monotonic() < deadline, "strace does not attach"
            time.sleep(0.01)
        yield
        process.wait(10)
    finally:
        process.terminate()
        process.wait()


def _is_traced(pid: int) -> bool:
    threads = Path(f"/proc/{pid}/task").glob("*/status")
    return all("\nTracerPid:\t0\n" not in each.read_text() for each in threads)
