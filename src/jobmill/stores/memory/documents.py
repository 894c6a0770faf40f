"""The small documents of a queue."""

from __future__ import annotations

from jobmill.store import HEEDED, Doc


class Documents:
    """Documents by space and key.

    `changes` counts their writes and removals, `heeded` those that workers act on.
    """

    def __init__(self) -> None:
        self._spaces: dict[str, dict[str, Doc]] = {}
        self.changes: int = 0
        self.heeded: int = 0

    def __len__(self) -> int:
        return sum(len(docs) for docs in self._spaces.values())

    def keys(self, space: str) -> frozenset[str]:
        """The keys of a space."""
        return frozenset(self._spaces.get(space, ()))

    def version(self, space: str, key: str) -> int:
        """The version of a document, 0 where there is none."""
        doc = self._spaces.get(space, {}).get(key)
        return 0 if doc is None else doc.version

    def read(self, space: str, after: str, limit: int) -> list[Doc]:
        """The documents of a space after a key, by key."""
        docs = self._spaces.get(space, {})
        return [docs[key] for key in sorted(docs) if key > after][:limit]

    def put(self, space: str, key: str, value: bytes, now: float) -> int:
        """Write a document; its version."""
        self._changed(space)
        doc = Doc(key=key, value=value, version=self.changes, at=now)
        self._spaces.setdefault(space, {})[key] = doc
        return doc.version

    def remove(self, space: str, key: str) -> None:
        """Remove a document, if it is there."""
        docs = self._spaces.get(space, {})
        if docs.pop(key, None) is not None:
            self._changed(space)
        if not docs:
            self._spaces.pop(space, None)

    def keep_last(self, space: str, keep: int) -> None:
        """Remove all documents of a space but those of the greatest keys."""
        for key in sorted(self.keys(space), reverse=True)[keep:]:
            self.remove(space, key)

    def _changed(self, space: str) -> None:
        self.changes += 1
        self.heeded += space in HEEDED
