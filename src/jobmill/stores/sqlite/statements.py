"""The SQL of each verb, out of the files beside this module."""

from __future__ import annotations

import re
import sqlite3
from functools import lru_cache
from importlib import resources
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)
_MANY = "?*"
_HERE = resources.files("jobmill.stores.sqlite")


@lru_cache
def statements(verb: str, schema: str = "main") -> Mapping[str, str]:
    """The named statements of `sql/VERB.sql`, for the tables of one attached schema.

    The files are written for the schema main, and are valid SQL as they stand but for `?*`,
    see `many`.
    """
    text = _HERE.joinpath("sql", f"{verb}.sql").read_text("utf-8")
    parts = _NAME.split(_qualified(text, schema))[1:]
    return MappingProxyType(
        {name: body.strip() for name, body in zip(parts[::2], parts[1::2], strict=True)}
    )


@lru_cache
def migrations(schema: str = "main") -> tuple[tuple[str, ...], ...]:
    """The statements of each migration, in order."""
    folder = _HERE.joinpath("migrations")
    files = sorted(
        (file for file in folder.iterdir() if file.name.endswith(".sql")),
        key=lambda file: file.name,
    )
    return tuple(tuple(_parts(_qualified(file.read_text("utf-8"), schema))) for file in files)


def _parts(text: str) -> Iterator[str]:
    """The statements of a script; that of a trigger holds others."""
    statement = ""
    for line in text.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement.strip()
            statement = ""


@lru_cache(maxsize=512)
def many(sql: str, count: int) -> tuple[str, int]:
    """The statement with marks for at least `count` values in the place of `?*`, and how many.

    Numbers of marks are powers of two, so that few statements are ever prepared; the rest
    is filled with None, which equals nothing.
    """
    marks = 1 << (count - 1).bit_length() if count else 1
    return sql.replace(_MANY, ",".join("?" * marks)), marks


def _qualified(text: str, schema: str) -> str:
    return (
        text
        if schema == "main"
        else text.replace("main.", f'"{schema.replace(chr(34), chr(34) * 2)}".')
    )
