"""What a command prints: a table for people, JSON or bare ids for programs."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from typing import Annotated, Any, Final, Generic, TypeVar, cast

import msgspec
from cyclopts import Parameter

from jobmill.cli.ending import Ended, Exit
from jobmill.cli.text import clean, escaped, one_line
from jobmill.records import JobInfo, JobStatus

T = TypeVar("T")

STATUS_STYLES: Final[Mapping[JobStatus, str]] = {
    "pending": "cyan",
    "delayed": "blue",
    "processing": "yellow",
    "completed": "green",
    "failed": "red",
    "cancelled": "magenta",
}


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Form:
    """The words that say how a command prints what it found."""

    json: Annotated[
        bool, Parameter(negative="", show_default=False, help="Print one JSON document.")
    ] = False
    jsonl: Annotated[
        bool, Parameter(negative="", show_default=False, help="Print a line of JSON for each.")
    ] = False
    quiet: Annotated[
        bool,
        Parameter(
            name=("--quiet", "-q"), negative="", show_default=False, help="Print ids or names only."
        ),
    ] = False

    def __post_init__(self) -> None:
        if self.json + self.jsonl + self.quiet > 1:
            raise Ended(Exit.USAGE, "--json, --jsonl and --quiet exclude each other; say one")


@dataclass(frozen=True)
class Column(Generic[T]):
    """A column of a table: its head, its text for a row, and how that is styled."""

    head: str
    text: Callable[[T], object]
    style: Callable[[T], str] | str = ""
    right: bool = False
    gives: bool = False
    """Whether it is cut where the terminal is too narrow."""


def show(
    form: Form,
    name: str,
    rows: Sequence[T],
    columns: Sequence[Column[T]],
    *,
    key: Callable[[T], str],
    none: str,
    more: Mapping[str, Any] | None = None,
) -> None:
    """Print the rows as the form says.

    `name` is what they are called in the JSON document, where `more` stands beside them; `key`
    is what `--quiet` prints of each. `none` is said on stderr where there are none, to people.
    """
    if form.json:
        print_json({name: [plain(row) for row in rows], **(more or {})})
    elif form.jsonl:
        print_lines(plain(row) for row in rows)
    elif form.quiet:
        write("".join(f"{one_line(key(row))}\n" for row in rows))
    elif rows:
        table(rows, columns)
    else:
        sys.stderr.write(f"{none}\n")


def show_one(form: Form, document: Mapping[str, Any], text: str, *, key: str) -> None:
    """Print one thing as the form says."""
    if form.json or form.jsonl:
        print_json(document)
    else:
        write(f"{one_line(key)}\n" if form.quiet else f"{clean(text)}\n")


def print_json(document: Any) -> None:
    """Print one document, indented for people."""
    write(escaped(msgspec.json.format(_encoded(document), indent=2).decode()) + "\n")


def print_lines(documents: Iterable[Any]) -> None:
    """Print each document in a line of its own."""
    for document in documents:
        write(escaped(_encoded(document).decode()) + "\n")


def write(text: str) -> None:
    """Write to stdout, whatever it can encode."""
    try:
        sys.stdout.write(text)
    except UnicodeEncodeError:
        sys.stdout.write(text.encode("ascii", "backslashreplace").decode())


def table(rows: Sequence[T], columns: Sequence[Column[T]]) -> None:
    """A table, cut to the width of the terminal; where it goes elsewhere, whole and plain."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = sys.stdout.isatty()
    drawn_to = sys.stdout if shown else io.StringIO()
    console = Console(file=drawn_to, highlight=False)
    # What must not be cut runs over the edge of a terminal that is too narrow for it.
    console.width = max(console.width if shown else 0, _width(rows, columns, whole=not shown))
    drawn = Table(box=box.SIMPLE_HEAD if shown else None, pad_edge=False, show_edge=False)
    for column in columns:
        drawn.add_column(
            column.head,
            justify="right" if column.right else "left",
            no_wrap=not column.gives,
            header_style="bold" if shown else "",
        )
    for row in rows:
        cells: list[Text] = []
        for column in columns:
            style = column.style if isinstance(column.style, str) else column.style(row)
            text = _text(column, row)
            cells.append(Text(text, style=style, no_wrap=True, overflow="ellipsis"))
        drawn.add_row(*cells)
    console.print(drawn, no_wrap=True, crop=False)
    if isinstance(drawn_to, io.StringIO):
        lines = drawn_to.getvalue().splitlines()
        write("".join(f"{line.rstrip()}\n" for line in lines))


def _width(rows: Sequence[T], columns: Sequence[Column[T]], *, whole: bool) -> int:
    """The least width in which nothing is cut but what may be; `whole`: not even that."""
    from rich.cells import cell_len

    widest = [
        cell_len(column.head)
        if column.gives and not whole
        else max(cell_len(column.head), *(cell_len(_text(column, row)) for row in rows))
        for column in columns
    ]
    return sum(widest) + 2 * len(columns)


def _text(column: Column[T], row: T) -> str:
    value = column.text(row)
    return "" if value is None else one_line(str(value))


def plain(value: Any) -> Any:
    """The value as JSON says it: instants as ISO 8601 with their offset, durations in seconds."""
    match value:
        case datetime():
            return value.isoformat()
        case bytes():
            return value.hex()
        case Mapping():
            some = cast("Mapping[str, Any]", value)
            return {key: plain(each) for key, each in some.items()}
        case list() | tuple():
            return [plain(each) for each in cast("Sequence[Any]", value)]
        case _ if is_dataclass(value) and not isinstance(value, type):
            own = {field.name: plain(getattr(value, field.name)) for field in fields(value)}
            return own | ({"duration": value.duration} if isinstance(value, JobInfo) else {})
        case _:
            return value


def _encoded(document: Any) -> bytes:
    return msgspec.json.encode(document)
