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
from jobmill.tally import HISTOGRAM_BOUNDS, TIMED

SCAN_LIMIT: Final = 2_000
"""Jobs that one call looks at, at most, where no index leads to them."""
_EVENTS_KEPT: Final = 3_600
_BUCKETS_KEPT: Final = 8 * 86_400
_GROUPS_KEPT: Final = 30 * 86_400
_WITH: Final = re.compile(r"-- with: (.*)\n")


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


def _constants() -> str:
    """The table of states and the numbers of the contract, in Lua."""
    rules = _table((f"{event}:{state}", _rule(rule)) for (event, state), rule in RULES.items())
    values = {
        "RULES": rules,
        "NEEDS_TOKEN": _set(NEEDS_TOKEN),
        "UNFINISHED": _set(UNFINISHED),
        "ENDED": _set(ENDED),
        "TIMED": _set(TIMED),
        "HEEDED": _set(HEEDED),
        "KEPT_ERRORS": KEPT_ERRORS,
        "KEPT_LINES": KEPT_LINES,
        "MATURE_LIMIT": MATURE_LIMIT,
        "TAKEOVER_LIMIT": TAKEOVER_LIMIT,
        "SCAN_LIMIT": SCAN_LIMIT,
        "EVENTS_KEPT": _EVENTS_KEPT,
        "BUCKETS_KEPT": _BUCKETS_KEPT,
        "GROUPS_KEPT": _GROUPS_KEPT,
        "SLACK": SLACK,
        "BOUNDS": len(HISTOGRAM_BOUNDS),
        "BOUNDS_FROM": HISTOGRAM_BOUNDS[0],
    }
    return "".join(f"local {name} = {value}\n" for name, value in values.items())


def _all() -> dict[str, Script]:
    folder = resources.files("jobmill.stores.redis") / "lua"
    texts = {
        file.name.removesuffix(".lua"): file.read_text("utf-8")
        for file in folder.iterdir()
        if file.name.endswith(".lua")
    }
    constants = _constants()
    scripts: dict[str, Script] = {}
    for name, text in texts.items():
        parts = _WITH.match(text)
        if parts is None:
            continue
        whole = constants + "".join(texts[part] for part in parts[1].split()) + text
        # The name is the protocol's own; it guards nothing.
        sha = hashlib.sha1(whole.encode(), usedforsecurity=False).hexdigest()
        scripts[name] = Script(whole, sha)
    return scripts


# Read at import, because reading files blocks, and the verbs run on a loop.
SCRIPTS: Final = _all()
