"""Does what a page says, to the letter, as a new user would in an empty folder.

    python -m tests.integrations.following BIN PAGE …

BIN is the folder of the venv that the user has. A block of Python that the page calls "as
`NAME.py`" is saved under that name; one that it also says to run is run. A block of sh is run, line
by line; a worker without --burst goes on beside the rest. What follows such a block as text is what
its last line prints.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_FENCE: Final = re.compile(r"^```(\w+)\n(.*?)^```\n", re.DOTALL | re.MULTILINE)
_SAVE: Final = re.compile(r"as `(\w+\.py)`")
_RUN: Final = re.compile(r"run `(python \w+\.py)`")
_FOREVER: Final = re.compile(r"jobmill (?:run|worker)\b(?!.*--burst)")
_INSTALLED: Final = ("pip install", "make ")
"""What a line begins with that whoever follows has done already."""
_PATIENCE: Final = 120


class Follower:
    """A user with a folder, an environment, and the servers that a page may name."""

    def __init__(self, folder: Path, bin_: Path, servers: Mapping[str, str]) -> None:
        self.folder = folder
        self.env = {key: value for key, value in os.environ.items() if key != "JOBMILL_URL"}
        self.env["PATH"] = f"{bin_.resolve()}{os.pathsep}{self.env['PATH']}"
        self.servers = servers
        self.ran: list[str] = []
        self.left_out: list[str] = []
        self._beside: list[subprocess.Popen[bytes]] = []
        self._away = False

    def follow(self, page: str) -> None:
        """Do all that the page says.

        Raises: AssertionError where something fails, or prints what the page does not say.
        """
        try:
            end = 0
            printed: str | None = None
            for block in _FENCE.finditer(page):
                prose, (language, text) = page[end : block.start()], block.groups()
                end = block.end()
                if language == "text":
                    if printed is not None and not prose.strip():
                        assert printed == text, f"{self.ran[-1]} prints {printed!r}, not {text!r}"
                    printed = None
                    continue
                printed = self._do(language, prose, text)
        finally:
            self._end()

    def _do(self, language: str, prose: str, text: str) -> str | None:
        """Do one block; what it printed, where it was run."""
        if language == "sh":
            printed = None
            for line in text.splitlines():
                printed = self._line(line.partition("  #")[0].strip())
            return printed
        names = _SAVE.findall(prose)
        if language == "python" and names:
            (self.folder / names[-1]).write_text(text)
            if runs := _RUN.findall(prose):
                return self._line(runs[-1])
        return None

    def _line(self, line: str) -> str | None:
        if not line or line.startswith(_INSTALLED):
            return None
        exported = re.fullmatch(r"export (\w+)=(\S+)", line)
        if exported:
            self._export(exported[1], exported[2])
            return None
        if self._away:
            self.left_out.append(line)
            return None
        self.ran.append(line)
        if _FOREVER.search(line):
            self._beside.append(subprocess.Popen(line.split(), cwd=self.folder, env=self.env))
            return None
        ran = subprocess.run(
            ["bash", "-c", line],
            capture_output=True,
            check=False,
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=_PATIENCE,
        )
        assert ran.returncode == 0, f"{line}: {ran.stdout}{ran.stderr}"
        return ran.stdout

    def _export(self, name: str, value: str) -> None:
        """Set it; a server that the page names is the one that was given, if any was."""
        scheme = value.partition(":")[0]
        self._away = scheme not in ("sqlite", *self.servers)
        self.env[name] = self.servers.get(scheme, value)

    def _end(self) -> None:
        for process in self._beside:
            process.send_signal(signal.SIGTERM)
        for process in self._beside:
            process.wait(_PATIENCE)


def main(bin_: str, *pages: str) -> int:
    """Follow each page in a folder of its own; what was left out for want of a server is said."""
    for page in pages:
        with tempfile.TemporaryDirectory() as folder:
            follower = Follower(Path(folder), Path(bin_), {})
            follower.follow(Path(page).read_text())
        print(f"{page}: {len(follower.ran)} commands did what it says")
        for line in follower.left_out:
            print(f"  left out, for want of its server: {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
