"""Who did what: documents in the store of the queue that it was done to.

They are in the space "audit". A key falls with time, so that the last ones come first, and ends
in random letters. The value is JSON, an object of `Entry`'s fields. An entry is written before
what it tells of is begun, and again when that has ended: nothing is done that is not told.
Entries are kept for KEPT seconds.
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Final

import msgspec

from jobmill.dashboard.views import AuditView
from jobmill.store import Query, Store

AUDIT: Final = "audit"
"""The space of the entries."""
KEPT: Final = 90 * 86_400.0
BEGUN: Final = "begun"
"""The outcome of what has not ended, or whose end nobody could write."""

_MICROS: Final = 1_000_000
_LAST: Final = 10**17
"""Above all instants, in microseconds, until the year 5138."""
_SWEPT: Final = 100


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What somebody did. `count`: of how many jobs. `ip`: from where."""

    who: str
    role: str
    action: str
    target: str
    ip: str = ""
    count: int = 0
    outcome: str = BEGUN


async def begin(store: Store, entry: Entry) -> str:
    """Write the entry; its key."""
    now = (await store.counts(Query(states=("processing",)))).now
    key = f"{_key(now)}-{secrets.token_hex(4)}"
    await store.write(AUDIT, key, msgspec.json.encode(entry))
    if secrets.randbelow(_SWEPT) == 0:
        await _sweep(store, now)
    return key


async def end(store: Store, key: str, entry: Entry) -> None:
    """Write how it ended."""
    await store.write(AUDIT, key, msgspec.json.encode(entry))


async def entries(label: str, after: str, limit: int, store: Store) -> list[tuple[str, AuditView]]:
    """Entries after that of a key, the last first, each with its key."""
    found: list[tuple[str, AuditView]] = []
    for doc in await store.read(AUDIT, after=after, limit=limit):
        try:
            entry = _ENTRY.decode(doc.value)
            at = datetime.fromtimestamp((_LAST - int(doc.key[:17])) / _MICROS, UTC)
        except (ValueError, OverflowError, OSError):
            continue
        view = AuditView(
            at=at,
            queue=label,
            who=entry.who,
            role=entry.role,
            ip=entry.ip,
            action=entry.action,
            target=entry.target,
            count=entry.count,
            outcome=entry.outcome,
        )
        found.append((doc.key, view))
    return found


async def _sweep(store: Store, now: float) -> None:
    """Remove some of what is older than KEPT: more than is written meanwhile."""
    for doc in await store.read(AUDIT, after=_key(now - KEPT), limit=4 * _SWEPT):
        await store.write(AUDIT, doc.key, None)


def _key(at: float) -> str:
    return f"{_LAST - round(at * _MICROS):017d}"


_ENTRY: Final = msgspec.json.Decoder(Entry)
