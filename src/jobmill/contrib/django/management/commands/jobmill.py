"""`manage.py jobmill …`: the whole command line, on the queues of TASKS."""

from __future__ import annotations

import os
import sys
from argparse import REMAINDER, ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import django
from django.core.management.base import BaseCommand, CommandError

_NO_APP: Final = frozenset({"demo", "completion", "bench", "run", "init", "--version"})
_GROUPS: Final = frozenset({"jobs", "queues", "schedules", "migrate"})
"""What is followed by a command, which alone takes a program."""
_OPTIONS: Final = ("--app", "--store")


class Command(BaseCommand):
    """Runs a command of jobmill with this project as its program."""

    help = "Run jobmill on the queues of TASKS: manage.py jobmill worker, … jobs list, … top."
    requires_system_checks: Any = ()

    def run_from_argv(self, argv: list[str]) -> None:
        """Leave every word to jobmill: its options are none of Django's."""
        try:
            self.execute(words=argv[2:], **_QUIET)
        except CommandError as error:
            self.stderr.write(str(error))
            sys.exit(error.returncode)

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take the words, for `call_command`."""
        parser.add_argument("words", nargs=REMAINDER)

    def handle(self, *_: Any, words: Sequence[str], **__: Any) -> None:
        """Run the words; ends the process with their exit code, where that is not 0."""
        if django.VERSION < (6, 0):
            message = f"it needs Django 6.0, which has TASKS; this is {django.get_version()}"
            raise CommandError(message)
        self.check()
        from jobmill.cli import main

        # Processes of their own are started by these words, and import from here.
        sys.argv = ["jobmill", *_with_program(words)]
        here = str(Path(sys.path[0] or ".").resolve())
        os.environ["PYTHONPATH"] = os.pathsep.join(
            filter(None, (here, os.environ.get("PYTHONPATH")))
        )
        main()


_QUIET: Final[dict[str, Any]] = {
    "force_color": False,
    "no_color": False,
    "stdout": None,
    "stderr": None,
    "skip_checks": True,
}


def _with_program(words: Sequence[str]) -> list[str]:
    """The words, with this project as their program where they name none."""
    from jobmill.contrib.django.serving import PROGRAM

    if not words or words[0] in _NO_APP or words[0].startswith("-"):
        return list(words)
    if words[0] in _GROUPS and (not words[1:] or words[1].startswith("-")):
        return list(words)
    if words[0] in ("worker", "dashboard"):
        return [words[0], PROGRAM, *words[1:]]
    if any(word.split("=")[0] in _OPTIONS for word in words):
        return list(words)
    return [*words, "--app", PROGRAM]
