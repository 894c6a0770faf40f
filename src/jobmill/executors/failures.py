"""How a run in a child process can fail, beside what its handler raises."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Sequence

from jobmill.errors import JobsError
from jobmill.records import JobError


class ChildDied(JobsError):
    """The child process that ran the job died.

    `exitcode` is what it ended with; `signal` the name of what killed it, such as "SIGSEGV".
    """

    exitcode: int | None = None
    signal: str | None = None


class ChildFailure(JobsError):
    """What a handler raised in a child process.

    `error` is what is kept of it; `types` the qualified names of its class and all its bases;
    `place` the file and the function that raised it.
    """

    error: JobError
    types: Sequence[str]
    place: str

    def __init__(self, error: JobError, types: Sequence[str], place: str = "") -> None:
        super().__init__(f"{error.type}: {error.message}")
        self.error = error
        self.types = types
        self.place = place


def matches(error: BaseException, types: Iterable[type[BaseException]]) -> bool:
    """Whether the error is of one of the types, also where a child process raised it."""
    if isinstance(error, ChildFailure):
        return any(qualified_name(each) in error.types for each in types)
    return isinstance(error, tuple(types))


def qualified_name(cls: type[BaseException]) -> str:
    """The name of the class, the same in a script as in the child process that loads it."""
    return f"{qualified_module(cls.__module__)}.{cls.__qualname__}"


def qualified_module(module: str) -> str:
    """The name of the module; a child process knows the parent's `__main__` by another."""
    return "__main__" if module == "__mp_main__" else module


def death(exitcode: int) -> ChildDied:
    """The error that tells how the child process ended."""
    if exitcode >= 0:
        message = f"the job's child process ended by itself, with exit code {exitcode}"
        return ChildDied(message, exitcode=exitcode)
    try:
        name = signal.Signals(-exitcode).name
    except ValueError:
        name = f"signal {-exitcode}"
    hint = "; the system does that when memory runs out" if name == "SIGKILL" else ""
    message = f"the job's child process was killed by {name}{hint}"
    return ChildDied(message, exitcode=exitcode, signal=name)
