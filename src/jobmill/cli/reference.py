"""Prints the page of all commands: docs/cli.md, from the commands themselves."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, Final, Literal, get_args, get_origin

from cyclopts import App
from cyclopts.argument import Argument

from jobmill.cli.asking import Asked
from jobmill.cli.bulk import Sure
from jobmill.cli.commands import GROUPS, Command
from jobmill.cli.ending import Exit
from jobmill.cli.output import Form

_HEAD: Final = """\
# The command line

<!-- Printed by `make docs` from src/jobmill/cli; edit it there. -->

`pip install jobmill` brings the command `jobmill`; `python -m jobmill` is the same.

What a command prints is a table for people. Piped, a table is plain and never cut; `NO_COLOR` takes the colours from a
terminal, too. What comes out of a job is printed without control characters. A bare `-` in the place of ids or of a
payload reads stdin. `JOBMILL_TRACEBACK=1` shows where an error comes from.

| exit code | meaning |
|---|---|
"""
_CODES: Final = {
    Exit.DONE: "done",
    Exit.FAILED: "failed: a job that was waited for, a change that was not wanted after all",
    Exit.USAGE: "the words of the command line, or what they name, will not do",
    Exit.NOT_FOUND: "there is no such job, schedule or queue",
    Exit.UNREACHABLE: "the store cannot be connected to, or cannot be used",
    Exit.CONFLICT: "another job has this id or this unique key; a file is there already",
    Exit.UNHEALTHY: "it works, and is not well",
    Exit.INTERRUPTED: "Ctrl-C",
}


def _asked(*, asked: Asked = Asked()) -> None:  # noqa: B008  it is frozen
    """Take the words that say which store."""


def _formed(*, form: Form = Form()) -> None:  # noqa: B008  it is frozen
    """Take the words that say how it is printed."""


def _sure(*, sure: Sure = Sure()) -> None:  # noqa: B008  it is frozen
    """Take the words that say whether it is meant."""


_COMMON: Final[dict[str, Callable[..., None]]] = {
    "Commands that ask a store take": _asked,
    "Commands that print data take": _formed,
    "Changes of many jobs, and those that cannot be undone, take": _sure,
}


def page() -> str:
    """The page."""
    parts = [_HEAD, *(f"| {code.value} | {text} |\n" for code, text in _CODES.items())]
    for said, words in _COMMON.items():
        rows = [_row(argument) for argument in _arguments(App(default_command=words))]
        parts.append(f"\n{said}\n\n| word | meaning |\n|---|---|\n{''.join(rows)}")
    for group in GROUPS:
        parts.append(f"\n## {group.title}\n")
        for command in group.commands:
            parts += _sections(command)
    return "".join(parts)


def _sections(command: Command) -> Iterator[str]:
    module, _, attribute = command.part.partition(":")
    part: Any = getattr(import_module(f"jobmill.cli.{module}"), attribute)
    if not isinstance(part, App):
        yield _section(command.name, App(default_command=part))
        return
    for name in part:
        if not name.startswith("-"):
            yield _section(f"{command.name} {name}", part[name])


def _section(words: str, app: App) -> str:
    text = inspect.getdoc(app.default_command) or ""
    arguments = _arguments(app)
    usage = " ".join(["jobmill", words, *filter(None, map(_place, arguments))])
    common = {
        argument.name
        for function in _COMMON.values()
        for argument in _arguments(App(default_command=function))
        if any(argument.parameter.help == own.parameter.help for own in arguments)
    }
    rows = [_row(argument) for argument in arguments if argument.name not in common]
    table = f"\n| word | meaning |\n|---|---|\n{''.join(rows)}" if rows else ""
    also = f"\nAlso {', '.join(f'`{name}`' for name in sorted(common))}.\n" if common else ""
    return f"\n### `{usage}`\n\n{text}\n{table}{also}"


def _arguments(app: App) -> list[Argument]:
    return [each for each in app.assemble_argument_collection() if each.parse and each.show]


def _place(argument: Argument) -> str:
    """What stands for it in a usage line; nothing for an option."""
    field = argument.field_info
    if field.kind is field.KEYWORD_ONLY:
        return ""
    name = argument.name.lstrip("-").upper()
    if field.kind is field.VAR_POSITIONAL:
        return f"{name} …"
    return name if argument.required else f"[{name}]"


def _row(argument: Argument) -> str:
    name = _place(argument).strip("[] …")
    names = f"`{name}`" if name else ", ".join(f"`{each}`" for each in argument.names)
    choices = ", ".join(f"`{each}`" for each in _choices(argument.hint))
    told = f" One of {choices}." if choices else ""
    default = argument.field_info.default
    if isinstance(default, int | float | str) and not isinstance(default, bool) and default != "":
        told += f" Default: {default}."
    return f"| {names} | {argument.parameter.help or ''}{told} |\n"


def _choices(hint: Any) -> list[str]:
    """The words of a Literal, also of one that may be None."""
    if get_origin(hint) is Literal:
        return [str(each) for each in get_args(hint)]
    return [word for each in get_args(hint) for word in _choices(each)]
