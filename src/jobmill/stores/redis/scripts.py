"""The Lua scripts of the verbs, out of the files beside this module."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from importlib import resources
from typing import Final

import msgspec

from jobmill.limits import SLACK
from jobmill.states import ENDED, NEEDS_TOKEN, RULES, UNFINISHED, Rule
from jobmill.store import HEEDED, KEPT_ERRORS, KEPT_LINES, MATURE_LIMIT, TAKEOVER_LIMIT
from jobmill.stores.redis.head import FORMAT, NEVER, PLACES
from jobmill.tally import HISTOGRAM_BOUNDS, TIMED

SCAN_LIMIT: Final = 2_000
"""Jobs that one call looks at, at most, where no index leads to them."""
LAYOUT: Final = "2"
"""Which keys and fields a queue has; a queue of another layout is refused."""
_EVENTS_KEPT: Final = 3_600
_BUCKETS_KEPT: Final = 8 * 86_400
_GROUPS_KEPT: Final = 30 * 86_400
_WITH: Final = re.compile(r"-- with: (.*)\n")
_HERE: Final = re.compile(r" *-- here: (.*)\n")
_WORD: Final = re.compile(r"\w+")


class Script(msgspec.Struct, frozen=True):
    """A script, and the name under which the server keeps it."""

    text: str
    sha: str


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"'{value}'" if isinstance(value, str) else repr(value)


def _table(pairs: Iterable[tuple[str, str]]) -> str:
    return "{" + ", ".join(f"['{key}'] = {value}" for key, value in pairs) + "}"


def _set(words: Iterable[str]) -> str:
    return _table((word, "true") for word in sorted(words))


def _rule(rule: Rule) -> str:
    fields = msgspec.structs.asdict(rule)
    del fields["before"], fields["event"]
    return _table((key, _value(value)) for key, value in fields.items() if value is not None)


def _rules() -> str:
    """The table of states as a function, so that a call makes only the rows that it needs."""
    rows = "".join(
        f"  if row == '{event}:{state}' then return {_rule(rule)} end\n"
        for (event, state), rule in RULES.items()
        if event != "mature"  # `ripen` is its row
    )
    return f"function(row)\n{rows}end"


def _tables() -> dict[str, str]:
    """The table of states and sets of the contract, in Lua, by name."""
    return {
        "new_rule": _rules(),
        "NEEDS_TOKEN": _set(NEEDS_TOKEN),
        "UNFINISHED": _set(UNFINISHED),
        "ENDED": _set(ENDED),
        "TIMED": _set(TIMED),
        "HEEDED": _set(HEEDED),
    }


_LITERALS: Final[dict[str, object]] = {
    **PLACES,
    "HEAD": FORMAT,
    "HEAD_FIELDS": len(PLACES),
    "NEVER": NEVER,
    "LAYOUT": LAYOUT,
    "KEPT_ERRORS": KEPT_ERRORS,
    "KEPT_LINES": KEPT_LINES,
    # They go to the server alone, which takes longer to write a number than to run the command.
    "MATURE_LIMIT": f"{MATURE_LIMIT}",
    "TAKEOVER_LIMIT": f"{TAKEOVER_LIMIT}",
    "SCAN_LIMIT": SCAN_LIMIT,
    "EVENTS_KEPT": _EVENTS_KEPT,
    "BUCKETS_KEPT": _BUCKETS_KEPT,
    "GROUPS_KEPT": _GROUPS_KEPT,
    "SLACK": SLACK,
    "BOUNDS": len(HISTOGRAM_BOUNDS),
    "BOUNDS_FROM": HISTOGRAM_BOUNDS[0],
}
"""The numbers of the contract: they stand in the scripts as they are, because each local that a
function reaches out for makes every call slower."""


def spelled(text: str) -> str:
    """A piece of a script as the server gets it: numbers in the place of their names."""
    return _WORD.sub(_literal, text)


def _literal(word: re.Match[str]) -> str:
    text = word[0]
    return _value(_LITERALS[text]) if text in _LITERALS else text


def _all() -> dict[str, Script]:
    folder = resources.files("jobmill.stores.redis") / "lua"
    texts = {
        file.name.removesuffix(".lua"): file.read_text("utf-8")
        for file in folder.iterdir()
        if file.name.endswith(".lua")
    }
    tables = _tables()
    scripts: dict[str, Script] = {}
    for name, text in texts.items():
        parts = _WITH.match(text)
        if parts is None:
            continue
        body = "".join(texts[part] for part in parts[1].split()) + text
        body = _HERE.sub(lambda found: "".join(texts[part] for part in found[1].split()), body)
        # What a script does not use is left out, since every call would make it anew.
        used = set(_WORD.findall(body))
        whole = "".join(
            f"local {word} = {value}\n" for word, value in tables.items() if word in used
        )
        whole += spelled(body)
        # The name is the protocol's own; it guards nothing.
        sha = hashlib.sha1(whole.encode(), usedforsecurity=False).hexdigest()
        scripts[name] = Script(whole, sha)
    return scripts


# Read at import, because reading files blocks, and the verbs run on a loop.
SCRIPTS: Final = _all()
