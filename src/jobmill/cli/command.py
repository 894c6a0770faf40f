"""Reads a command line, does what it says, and says how it ended."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, TextIO

from jobmill.cli.commands import GROUPS
from jobmill.cli.ending import Exit, say, tell

if TYPE_CHECKING:
    from cyclopts import App


STDIN: Final = "\0stdin"
"""What commands get for a bare dash: no word of a command line can have a NUL."""


def run(words: Sequence[str]) -> int:
    """Do what the words say; the exit code."""
    from cyclopts import CycloptsError

    # cyclopts takes a bare dash for an option that nobody has.
    words = [STDIN if word == "-" else word for word in words]
    on_terminal = sys.stdout.isatty()
    try:
        called, bound, _ = command_line().parse_args(words, exit_on_error=False, print_error=False)
        code = called(*bound.args, **bound.kwargs)
        sys.stdout.flush()
        return int(code) if isinstance(code, int) else Exit.DONE
    except CycloptsError as error:
        chain = " ".join(("jobmill", *(error.command_chain or ())))
        say(f"{error} Try: {chain} --help")
        return Exit.USAGE
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except OSError as error:
        if isinstance(error, BrokenPipeError) or (on_terminal and not sys.stdout.isatty()):
            # Whoever read the output has seen enough, or the terminal was closed.
            return Exit.DONE
        return tell(error)
    except Exception as error:  # noqa: BLE001  whatever it is, it is told in one line
        return tell(error)
    finally:
        for stream in (sys.stdout, sys.stderr):
            _let_go(stream)


def _let_go(stream: TextIO) -> None:
    """Drop what nobody is there to read any more: Python would complain at its exit."""
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def command_line() -> App:
    """The whole command line; a command's own module is loaded when it is asked for."""
    from cyclopts import App

    root = App(
        name="jobmill",
        help="Background jobs: put into a queue by your program, run by a worker.",
        version=version,
        help_format="plaintext",
        help_formatter="plain",
        version_format="plaintext",
    )
    for group in GROUPS:
        for command in group.commands:
            module, _, attribute = command.part.partition(":")
            root.command(
                f"jobmill.cli.{module}:{attribute}",
                name=command.name,
                help=command.summary,
                group=group.title,
            )
    return root


def version() -> str:
    """The release."""
    from importlib.metadata import version as of

    return of("jobmill")


def part(name: str, help: str) -> App:  # noqa: A002  as cyclopts calls it
    """A group of commands, as each module of one makes it."""
    from cyclopts import App

    return App(name=name, help=help, help_format="plaintext", help_formatter="plain")
