"""Clocks that are wrong, for processes: by libfaketime, which Debian has as `faketime`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.servers import missing


class WrongClock:
    """A clock that goes `ahead` seconds before the machine's, until it is set.

    Processes that are started in its `environment` see it; their monotonic clocks are right, as
    those of a machine whose time was set are.
    """

    def __init__(self, file: Path, ahead: float) -> None:
        self._file = file
        self.ahead = ahead
        self.set(ahead)

    def set(self, ahead: float) -> None:
        """Let it jump."""
        self.ahead = ahead
        new = self._file.with_suffix(".new")
        new.write_text(f"{ahead:+.0f}\n")
        # Whole, whenever it is looked at.
        new.rename(self._file)

    @property
    def environment(self) -> Mapping[str, str]:
        """What the processes have to see."""
        found = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
        if not found:
            missing("faketime is not installed; apt-get install faketime")
        return {
            "LD_PRELOAD": str(found[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
