"""Reads one document of a space by its key."""

from __future__ import annotations

from typing import Final

from jobmill.store import Doc, Store

_GREATEST: Final = "\U0010ffff"
_SURROGATES: Final = range(0xD800, 0xE000)


async def read_one(store: Store, space: str, key: str) -> Doc | None:
    """The document of this key, without reading the whole space.

    Cost: one statement, and another for each key that looks as if made to lie right before.
    """
    after = _before(key)
    while docs := await store.read(space, after=after, limit=1):
        if docs[0].key >= key:
            return docs[0] if docs[0].key == key else None
        after = docs[0].key
    return None


def _before(key: str) -> str:
    """A text less than the key, with hardly a key in between."""
    last = ord(key[-1]) - 1
    if last < ord(" ") or last in _SURROGATES:
        return key[:-1]
    return f"{key[:-1]}{chr(last)}{_GREATEST}"
