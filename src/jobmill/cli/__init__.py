"""The command `jobmill`; what it can do is in `jobmill.cli.commands`."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Do what the command line says, and end the process with the code of its outcome."""
    words = sys.argv[1:]
    if words in ([], ["--help"], ["-h"]):
        # By hand: loading what reads command lines takes longer than anyone wants to wait for this.
        from jobmill.cli.commands import page

        sys.stdout.write(page())
        return
    from jobmill.cli.command import run

    sys.exit(run(words))
