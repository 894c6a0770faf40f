"""One document is found by its key, whatever keys are about it."""

from __future__ import annotations

import asyncio

from hypothesis import example, given, strategies as st

from jobmill.documents import read_one
from jobmill.stores.memory import MemoryStore

KEYS = st.text(
    st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from("ab\x7f\ue000\U0010ffff")),
    min_size=1,
    max_size=4,
)


@given(st.sets(KEYS, max_size=12), KEYS)
@example({"a\U0010ffff", "a\U0010ffff!", "b"}, "b")
@example({"a", "\x01", "\x02"}, "\x02")
@example({"\ud7ff", "\ue000", "\U00010000"}, "\ue000")
def test_the_document_of_a_key_is_found_or_there_is_none(keys: set[str], key: str) -> None:
    async def look() -> None:
        store = MemoryStore()
        for each in keys:
            await store.write("some", each, each.encode())
        for each in {*keys, key}:
            doc = await read_one(store, "some", each)
            assert (None if doc is None else doc.value) == (each.encode() if each in keys else None)

    asyncio.run(look())
