"""The jobs that are defined in this process, by name."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from jobmill.errors import DefinitionError

if TYPE_CHECKING:
    from jobmill.job import JobDefinition

_definitions: dict[str, JobDefinition[Any, Any]] = {}


def register(definition: JobDefinition[Any, Any]) -> None:
    """Make the job known by its name; DefinitionError where the name is taken."""
    known = _definitions.setdefault(definition.name, definition)
    if known is not definition:
        message = (
            f"a job named {definition.name!r} is defined already, by {described(known.handler)}; "
            f"give {described(definition.handler)} another name"
        )
        raise DefinitionError(message)


def lookup(name: str) -> JobDefinition[Any, Any] | None:
    """The job of this name; None where this process defines none."""
    return _definitions.get(name)


def registered() -> Mapping[str, JobDefinition[Any, Any]]:
    """Every job that this process defines, by name, as a view that follows new definitions."""
    return MappingProxyType(_definitions)


@contextmanager
def isolated(*, empty: bool = True) -> Generator[None]:
    """Forget, at the end, what was defined inside; `empty` also hides what was there before."""
    before = dict(_definitions)
    if empty:
        _definitions.clear()
    try:
        yield
    finally:
        _definitions.clear()
        _definitions.update(before)


def described(handler: object) -> str:
    """Where the function is from, for messages."""
    module = getattr(handler, "__module__", None) or "?"
    return f"{module}.{getattr(handler, '__qualname__', None) or type(handler).__name__}"
