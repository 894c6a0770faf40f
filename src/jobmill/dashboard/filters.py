"""What a search for jobs means: `job:send_email state:failed error:Timeout`, as a URL says it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import urlencode

from jobmill.errors import ConfigError
from jobmill.options import check_named, check_text
from jobmill.states import STATES, State

MOST_SEARCHED: Final = 1_000
"""Characters of a search."""

_WORD: Final = re.compile(r'(?:([a-z]+):)?(?:"([^"]*)"|(\S+))')
_ID: Final = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which jobs: all that is given holds at once. `problems` say what was not understood."""

    states: tuple[State, ...] = ()
    name: str | None = None
    queue: str | None = None
    id: str | None = None
    error: str | None = None
    unique_key: str | None = None
    problems: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The search that says the same, but for the states."""
        pairs = (
            ("job", self.name),
            ("queue", self.queue),
            ("id", self.id),
            ("error", self.error),
            ("unique", self.unique_key),
        )
        return " ".join(f"{key}:{_quoted(value)}" for key, value in pairs if value is not None)

    @property
    def query(self) -> str:
        """The query of a URL that says the same."""
        pairs = [("state", state) for state in self.states]
        return urlencode([*pairs, *([("q", self.text)] if self.text else [])])

    def on(self, queue: str) -> Filter:
        """The same, in this queue."""
        return replace(self, queue=queue)


def read_filter(q: str = "", states: tuple[str, ...] = (), queue: str | None = None) -> Filter:
    """The filter that a search, and words beside it, mean."""
    said: list[tuple[str, str]] = []
    problems: list[str] = []
    told: list[State] = []

    def state(word: str) -> None:
        if word in STATES:
            told.append(word)
        else:
            problems.append(f"{word!r} is no state; there are {', '.join(STATES)}")

    if len(q) > MOST_SEARCHED:
        problems.append(f"the search is longer than {MOST_SEARCHED} characters; it was cut")
    for key, quoted, bare in _WORD.findall(q[:MOST_SEARCHED]):
        value = quoted or bare
        if key == "state":
            state(value)
        elif key in _FIELDS:
            said.append((_FIELDS[key], value))
        elif not key:
            said.append(("id" if _ID.fullmatch(value) else "name", value))
        else:
            keys = ", ".join(f"{each}:" for each in ("state", *_FIELDS))
            problems.append(f"{key}: is nothing to search by; there are {keys}")
    for word in states:
        state(word)
    if queue:
        said.append(("queue", queue))
    found = _one_of_each(said, problems)
    _check(found, problems)
    return Filter(states=tuple(dict.fromkeys(told)), problems=tuple(problems), **found)


_FIELDS: Final[Mapping[str, str]] = {
    "job": "name",
    "queue": "queue",
    "id": "id",
    "error": "error",
    "unique": "unique_key",
}
_KEYS: Final[Mapping[str, str]] = {field: key for key, field in _FIELDS.items()}


def _one_of_each(said: list[tuple[str, str]], problems: list[str]) -> dict[str, str]:
    """What was said by field; no job is two things, and to go by one is not what was asked for."""
    found: dict[str, str] = {}
    for field, value in said:
        if found.setdefault(field, value) != value:
            problems.append(f"{_KEYS[field]}: {value!r} beside {found[field]!r}; give one of them")
    return found


def _check(found: dict[str, str], problems: list[str]) -> None:
    """Leave out what can be nothing of the kind, and say so."""
    for field in list(found):
        try:
            check_text(field, found[field])
            if field == "name":
                check_named("job", found[field])
        except ConfigError as error:
            problems.append(str(error))
            del found[field]


def _quoted(value: str) -> str:
    return f'"{value}"' if re.search(r"\s", value) or not value else value
