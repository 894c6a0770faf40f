"""Finds a user's program by the word for it on the command line, and the queues in it."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NamedTuple

from jobmill.cli.ending import Ended, Exit
from jobmill.job import JobDefinition
from jobmill.queue import Queue
from jobmill.registry import registered
from jobmill.scheduler import Scheduler

_FORM: Final = "give a module or a file, as in app:queue or path/to/app.py"


class Found(NamedTuple):
    """A queue and what it is called in the program: `app:mails`."""

    name: str
    queue: Queue


class Program(NamedTuple):
    """A user's module, loaded, and its queues that were asked for."""

    word: str
    module: ModuleType
    queues: tuple[Found, ...]

    @property
    def schedulers(self) -> dict[str, Scheduler]:
        """Those that stand in the module, by the first name that each has there."""
        found: dict[str, Scheduler] = {}
        for name, value in list(vars(self.module).items()):
            if isinstance(value, Scheduler) and value not in found.values():
                found[name] = value
        return found


def load(word: str) -> Program:
    """The program `module`, `module:attribute` or `file.py`, as Python itself would import it.

    A file is imported by its name, with its folder on the path, or that of its package: its
    jobs are called the same, however it is started.

    Raises: Ended, which says what is wrong with the word or the program.
    """
    place, _, attribute = word.rpartition(":") if _has_attribute(word) else (word, "", "")
    module = _imported(word, _module_name(word, place))
    if attribute:
        return Program(word, module, (_queue_at(place, module, attribute),))
    found: dict[int, Found] = {}
    for name, value in list(vars(module).items()):
        if isinstance(value, Queue):
            found.setdefault(id(value), Found(f"{place}:{name}", value))
    return Program(word, module, tuple(found.values()))


def find(word: str) -> None:
    """See whether there is such a file or module, without running a line of it.

    Raises: Ended where there is none.
    """
    place = word.rpartition(":")[0] if _has_attribute(word) else word
    name = _module_name(word, place)
    package = name.partition(".")[0]
    if importlib.util.find_spec(package) is None:
        raise Ended(Exit.USAGE, _no_module(word, package))


def one_queue(program: Program, name: str | None = None, *, any_of_store: bool = False) -> Queue:
    """The queue of that name in a program that has some; else the only one.

    With `any_of_store` the first, where all are in one store.

    Raises: Ended where it has several.
    """
    named = [each.queue for each in program.queues if each.queue.name == name]
    some = named or [each.queue for each in program.queues]
    if len(some) > 1 and not (any_of_store and len({each.store.place for each in some}) == 1):
        raise Ended(
            Exit.USAGE, f"{program.word}: it has several queues; say which: {_which(program)}"
        )
    return some[0]


def _which(program: Program) -> str:
    """The words that each say one of its queues."""
    words = ", ".join(found.name for found in program.queues)
    names = [found.queue.name for found in program.queues]
    if len(set(names)) < len(names):
        return words
    return f"{words}; or by its name: {', '.join(f'--queue {name}' for name in names)}"


def job_named(word: str) -> JobDefinition[Any, Any]:
    """The job of this name; its last part will do where no other ends so.

    Raises: Ended where no program that was loaded defines it.
    """
    known = registered()
    if word in known:
        return known[word]
    alike = [name for name in known if name.endswith(f".{word}")]
    if len(alike) == 1:
        return known[alike[0]]
    close = alike or get_close_matches(word, known, n=3) or sorted(known)[:3]
    instead = f"; there is {', '.join(close)}" if close else ", nor any other"
    raise Ended(Exit.NOT_FOUND, f"no job is called {word!r}{instead}")


def _has_attribute(word: str) -> bool:
    # Not the drive of a Windows path.
    return ":" in word and not word.endswith(".py")


def _module_name(word: str, place: str) -> str:
    if place.endswith(".py") or "/" in place or "\\" in place:
        path = Path(place)
        if path.is_dir():
            path /= "__init__.py"
        if not path.is_file():
            raise Ended(Exit.USAGE, f"{word}: there is no file {path}; {_FORM}")
        return _on_the_path(path.resolve())
    if not place or not all(part.isidentifier() for part in place.split(".")):
        raise Ended(Exit.USAGE, f"{word or '(nothing)'}: it names no module; {_FORM}")
    _put_on_the_path(Path.cwd())
    return place


def _on_the_path(path: Path) -> str:
    """Put the folder on the path from which the file is imported; what it is called there."""
    names = [] if path.name == "__init__.py" else [path.stem]
    folder = path.parent
    while (folder / "__init__.py").is_file():
        names.insert(0, folder.name)
        folder = folder.parent
    _put_on_the_path(folder)
    return ".".join(names)


def _put_on_the_path(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _imported(word: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name == missing or name.startswith(f"{missing}."):
            raise Ended(Exit.USAGE, _no_module(word, missing)) from error
        raise Ended(
            Exit.USAGE, f"{word}: it imports {missing!r}, which is not installed{_at(error)}"
        ) from error
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        raise Ended(Exit.USAGE, f"{word}: it cannot be imported: {what}{_at(error)}") from error


def _no_module(word: str, name: str) -> str:
    return f"{word}: there is no module {name!r}; {_FORM}"


def _at(error: BaseException) -> str:
    """Where in the user's own code that was."""
    if isinstance(error, SyntaxError):
        return ""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<frozen ") and "/importlib/" not in frame.filename
    ]
    if len(frames) <= 1:
        return ""
    last = frames[-1]
    return f" ({last.filename}, line {last.lineno})"


def _queue_at(place: str, module: ModuleType, attribute: str) -> Found:
    value: object = module
    for step in attribute.split("."):
        if not hasattr(value, step):
            there = [name for name, each in vars(module).items() if isinstance(each, Queue)]
            raise Ended(
                Exit.USAGE,
                f"{place}:{attribute}: there is no {step!r}{_instead(attribute, there)}",
            )
        value = getattr(value, step)
    if not isinstance(value, Queue):
        kind = type(value).__name__
        raise Ended(
            Exit.USAGE,
            f"{place}:{attribute}: it is a {kind}, not a queue; make one by create_queue",
        )
    return Found(f"{place}:{attribute}", value)


def _instead(word: str, there: Sequence[str]) -> str:
    close = get_close_matches(word, there, n=1) or there
    return f"; its queues are {', '.join(close)}" if close else ", nor any queue"
