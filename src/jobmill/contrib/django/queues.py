"""The jobmill queues of Django's task backends: one for each backend and queue name."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Final
from weakref import WeakKeyDictionary

from jobmill.contrib.django.choices import Choices
from jobmill.factory import create_queue
from jobmill.queue import Queue

_lock: Final = threading.Lock()
_queues: Final[dict[tuple[str, str], tuple[Mapping[str, Any], Queue]]] = {}
_aliases: Final[WeakKeyDictionary[Queue, str]] = WeakKeyDictionary()


def queue_of(alias: str, name: str, options: Mapping[str, Any]) -> Queue:
    """The queue of that name; the same in all threads, each of which has a backend of its own.

    Raises: ConfigError where the options make none.
    """
    with _lock:
        known = _queues.get((alias, name))
        if known is not None and known[0] == options:
            return known[1]
        choices = Choices.of(options)
        queue = create_queue(choices.url, name=name, default_options=choices.job, **choices.queue)
        _queues[alias, name] = (dict(options), queue)
        _aliases[queue] = alias
        return queue


def alias_of(queue: Queue) -> str | None:
    """Which backend the queue was made for; None where it was made elsewhere."""
    return _aliases.get(queue)
