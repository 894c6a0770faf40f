"""The SQL of this release: functions that are installed in the schema, and the migrations."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from importlib import resources
from typing import Final

from jobmill.limits import SLACK
from jobmill.states import ENDED, NEEDS_TOKEN, RULES, Rule
from jobmill.store import HEEDED, KEPT_ERRORS, KEPT_LINES, MATURE_LIMIT, TAKEOVER_LIMIT
from jobmill.tally import HISTOGRAM_BOUNDS, TIMED

RATE_LOCK: Final = 0x6A6F626D
_SURVEY_LOCK: Final = 0x6A6F6273
_SLOTS: Final = 32
_STILL: Final = 1.5
"""Seconds without a claim after which the server may have stood still."""
_RENEW_FIRST: Final = 1.0
"""Seconds after that in which only what had lapsed before is taken over."""
MANY_DEAD: Final = 5_000
"""Dead entries of its indexes that a claim may pass over, at most, before they are surveyed."""
_SURVEYED_PRIORITIES: Final = 100
_SURVEY_HOLDS: Final = 6.0
"""Seconds for which a survey is believed: longer than the next one may take, which replaces it."""
_EVENTS_KEPT: Final = 3_600
_BUCKETS_KEPT: Final = 8 * 86_400
_GROUPS_KEPT: Final = 30 * 86_400
_BARS: Final = len(HISTOGRAM_BOUNDS) + 1
# Nested loops over indexes are right at every size of the tables, and need no statistics, which
# are stale in tables that fill and drain within seconds.
# Statements see to the order of the loops themselves: with `x.seq = y.seq` the planner may begin
# with all of x, where it believes that x is empty; with `x.seq = ANY (ARRAY[y.seq])`, and with
# LATERAL and OFFSET 0, x can only be looked up for each y.
_INDEXES: Final = """\
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off SET enable_sort = off SET jit = off"""
_LOCK_TIMEOUT: Final = "4s"
_WINDOW: Final = 10_000
"""Jobs between two looks at the time, in a search that no index leads."""
_GLANCE: Final = 1_000
"""The newest jobs, among which a search begins that indexes lead, but in another order."""

_HERE: Final = resources.files("jobmill.stores.postgresql")
_FILES: Final = (
    "instant",
    "figures",
    "move",
    "ready",
    "claim",
    "add",
    "join",
    "reserve",
    "docs",
    "find",
    "drop",
    "events",
    "tell",
)
_CONSTANT: Final = re.compile(r"\{\{(\w+)\}\}")
_FUNCTION: Final = re.compile(r"CREATE FUNCTION jobmill\.(\w+)\(")


def _value(value: object) -> str:
    if value is None:
        return "NULL::text"
    if isinstance(value, bool):
        return str(value).upper()
    return f"'{value}'" if isinstance(value, str) else str(value)


def _words(words: Iterable[str]) -> str:
    return f"ARRAY[{', '.join(_value(word) for word in sorted(words))}]"


def _rule(state: str, rule: Rule) -> str:
    values = (
        *(rule.event, state, rule.after, rule.token, rule.due, rule.attempt, rule.lapses),
        *(rule.if_asked, rule.asks, rule.suspect, rule.fresh),
    )
    return f"({', '.join(_value(value) for value in values)})"


_CONSTANTS: Final[dict[str, str]] = {
    "INDEXES": _INDEXES,
    "LOCK_TIMEOUT": _value(_LOCK_TIMEOUT),
    "PLANS": f"{_INDEXES} SET lock_timeout = {_value(_LOCK_TIMEOUT)}",
    "RULES": ", ".join(_rule(state, rule) for (_, state), rule in RULES.items()),
    "NEEDS_TOKEN": _words(NEEDS_TOKEN),
    "ENDED": _words(ENDED),
    "TIMED": _words(TIMED),
    "HEEDED": _words(HEEDED),
    "MATURE": _value(RULES["mature", "delayed"].after),
    "KEPT_ERRORS": str(KEPT_ERRORS),
    "KEPT_LINES": str(KEPT_LINES),
    "MATURE_LIMIT": str(MATURE_LIMIT),
    "TAKEOVER_LIMIT": str(TAKEOVER_LIMIT),
    "EVENTS_KEPT": str(_EVENTS_KEPT),
    "BUCKETS_KEPT": str(_BUCKETS_KEPT),
    "GROUPS_KEPT": str(_GROUPS_KEPT),
    "SLACK": str(SLACK),
    "SLOTS": str(_SLOTS),
    "STILL": repr(_STILL),
    "RENEW_FIRST": repr(_RENEW_FIRST),
    "RATE_LOCK": str(RATE_LOCK),
    "SURVEY_LOCK": str(_SURVEY_LOCK),
    "MANY_DEAD": str(MANY_DEAD),
    "SURVEYED_PRIORITIES": str(_SURVEYED_PRIORITIES),
    "SURVEY_HOLDS": repr(_SURVEY_HOLDS),
    "WINDOW": str(_WINDOW),
    "GLANCE": str(_GLANCE),
    "BARS": str(_BARS),
    "SUMMED_BARS": ",\n        ".join(
        f"p_bars[{bar}] + p_more[{bar}]" for bar in range(1, _BARS + 1)
    ),
    "BOUNDS_TURNED": "ARRAY["
    + ", ".join(repr(-bound) for bound in reversed(HISTOGRAM_BOUNDS))
    + "]::double precision[]",
}


def _compiled() -> str:
    """The functions of this release, with the table of states and the contract's numbers."""
    texts = [_HERE.joinpath("sql", f"{name}.sql").read_text("utf-8") for name in _FILES]
    return _CONSTANT.sub(lambda match: _CONSTANTS[match[1]], "\n".join(texts))


def _migrations() -> tuple[str, ...]:
    files = sorted(
        (file for file in _HERE.joinpath("migrations").iterdir() if file.name.endswith(".sql")),
        key=lambda file: file.name,
    )
    return tuple(file.read_text("utf-8") for file in files)


# Read at import, because reading files blocks, and the verbs run on a loop.
PROGRAM: Final = _compiled()
"""The functions of this release, of the schema jobmill, under names without a digest."""
_MIGRATIONS: Final = _migrations()
_CALLS: Final = {
    match[1]: re.compile(rf"\bjobmill\.{match[1]}\(") for match in _FUNCTION.finditer(PROGRAM)
}

DIGEST: Final = hashlib.sha256(PROGRAM.encode()).hexdigest()[:8]
"""What the names of this release's functions end with."""
LATEST: Final = len(_MIGRATIONS)
"""The number of the last migration."""


def quoted(schema: str) -> str:
    """The schema's name as SQL writes it."""
    return '"' + schema.replace('"', '""') + '"'


def program(schema: str, text: str = PROGRAM) -> str:
    """The statements that install this release's functions."""
    for name, call in _CALLS.items():
        text = call.sub(f"jobmill.{name}_{DIGEST}(", text)
    return _in(schema, text)


def migration(schema: str, number: int) -> str:
    """The statements of one migration; the first is number 1."""
    return _in(schema, _MIGRATIONS[number - 1])


def call(schema: str, name: str, arguments: int) -> str:
    """The statement that calls a function of this release."""
    marks = ", ".join(f"${place}" for place in range(1, arguments + 1))
    return f"SELECT * FROM {quoted(schema)}.{name}_{DIGEST}({marks})"  # noqa: S608  our own names


def _in(schema: str, text: str) -> str:
    name = quoted(schema)
    in_literal = name.replace("'", "''")
    return re.sub(r"('?)\bjobmill\.", lambda at: f"'{in_literal}." if at[1] else f"{name}.", text)
