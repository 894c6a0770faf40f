"""How a command ends: its exit code, and one line of what went wrong."""

from __future__ import annotations

import enum
import os
import sys
import traceback
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from jobmill.cli.text import one_line
from jobmill.errors import (
    ConfigError,
    DefinitionError,
    DuplicateJob,
    JobNotFound,
    JobsError,
    PayloadError,
    StoreUnavailable,
    UnknownJob,
)

SHOW_TRACEBACK: Final = "JOBMILL_TRACEBACK"
"""An environment variable: where it is set, an error is shown with all its frames."""


class Exit(enum.IntEnum):
    """The exit codes of every command."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    UNREACHABLE = 4
    CONFLICT = 5
    UNHEALTHY = 6
    INTERRUPTED = 130
    """By Ctrl-C; what shells say of a program that SIGINT ended."""


class Ended(Exception):
    """The command ends here, with this code and this line."""

    def __init__(self, code: Exit, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


_CODES: Final[tuple[tuple[type[BaseException], Exit], ...]] = (
    (StoreUnavailable, Exit.UNREACHABLE),
    (JobNotFound, Exit.NOT_FOUND),
    (UnknownJob, Exit.NOT_FOUND),
    (DuplicateJob, Exit.CONFLICT),
    (ConfigError, Exit.USAGE),
    (PayloadError, Exit.USAGE),
    (DefinitionError, Exit.USAGE),
    (TimeoutError, Exit.FAILED),
    (JobsError, Exit.FAILED),
)


def ended_by(error: BaseException) -> Ended:
    """How a command ends that this error came out of."""
    if isinstance(error, Ended):
        return error
    for kind, code in _CODES:
        if isinstance(error, kind):
            return Ended(code, str(error))
    what = f"{type(error).__name__}: {error}"
    return Ended(
        Exit.FAILED, f"this is a defect of jobmill; {SHOW_TRACEBACK}=1 shows where it is: {what}"
    )


def say(message: str) -> None:
    """Tell people something, in a line that is no output."""
    sys.stderr.write(f"jobmill: {one_line(message)}\n")
    sys.stderr.flush()


def tell(error: BaseException) -> Exit:
    """Say in one line what went wrong; the exit code."""
    if os.environ.get(SHOW_TRACEBACK):
        traceback.print_exception(error)
    ended = ended_by(error)
    say(ended.message)
    return ended.code


@contextmanager
def while_opening(place: str) -> Generator[None]:
    """Whatever a store says while it is opened, it cannot be connected to."""
    try:
        yield
    except JobsError as error:
        said = str(error)
        message = (
            f"cannot connect: {said}" if place in said else f"cannot connect to {place}: {said}"
        )
        raise Ended(Exit.UNREACHABLE, message) from error
