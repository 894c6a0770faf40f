"""The queues of a dashboard, each under a label of its own, and how they are asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Container, Iterator, Mapping, Sequence
from typing import Final, Generic, TypeAlias, TypeVar

from jobmill.dashboard.views import Unanswered
from jobmill.errors import ConfigError, StoreError, StoreUnavailable
from jobmill.metrics import Minutes
from jobmill.options import check_queue_name
from jobmill.queue import Queue
from jobmill.store import Store

T = TypeVar("T")

Queues: TypeAlias = Queue | Sequence[Queue] | Mapping[str, Queue]

MOST: Final = 200
"""Queues of a dashboard, at most, where it discovers them."""
_DISCOVER_EVERY: Final = 10.0
_ANSWER_WITHIN: Final = 5.0
"""Seconds after which a store that does not answer counts as one that cannot be reached."""
_FOR_EACH_MORE: Final = 0.05
"""Seconds that it has for each queue more: all are asked at once, over the same connections."""


class Watched:
    """A queue in the dashboard. `label`: its name, or what tells it from another of that name."""

    def __init__(self, label: str, queue: Queue) -> None:
        self.label: Final = label
        self.queue: Final = queue
        self.place: Final = queue.store.place
        self.kind: Final = self.place.partition(":")[0]
        self.minutes: Final[dict[float, Minutes]] = {}
        """What was read of its figures, by how far back they go."""
        self.patience: float = _ANSWER_WITHIN

    async def ask(self, verb: Callable[[Store], Awaitable[T]]) -> T:
        """What the verb gives of the queue's store.

        Raises: StoreUnavailable, also where there is no answer in time: 5 s, and somewhat more
        where the dashboard has many queues.
        """
        return await in_time(self.queue.ask(verb), self.place, self.patience)


class Answers(Generic[T]):
    """What queues said; the `silent` did not answer."""

    def __init__(self, found: list[tuple[Watched, T]], silent: tuple[Unanswered, ...]) -> None:
        self.found: Final = found
        self.silent: Final = silent


class Board:
    """All queues of a dashboard, in the order in which they were given."""

    def __init__(self, queues: Queues, *, discover: bool = False) -> None:
        self._watched = {each.label: each for each in _labelled(queues)}
        if not self._watched:
            message = "queues: there are none; give a queue at least"
            raise ConfigError(message, field="queues")
        self.given: Final = tuple(self._watched.values())
        self._left_out: dict[str, int] = {}
        self._discovers = discover
        self._share_time()
        self._looked = float("-inf")

    def __iter__(self) -> Iterator[Watched]:
        return iter(self._watched.values())

    def get(self, label: str) -> Watched | None:
        """The queue of this label."""
        return self._watched.get(label)

    async def discover(self) -> None:
        """Take in what other queues the stores have by now, where that is wanted."""
        if not self._discovers or time.monotonic() - self._looked < _DISCOVER_EVERY:
            return
        self._looked = time.monotonic()
        stores = list({each.place: each for each in self.given}.values())
        # At once: each that does not answer takes its time.
        for given, names in zip(stores, await asyncio.gather(*map(_names, stores)), strict=True):
            known = {each.queue.name for each in self if each.place == given.place}
            new = [name for name in names if name not in known]
            room = max(0, MOST - len(self.labels))
            self._left_out[given.place] = len(new[room:])
            for name in new[:room]:
                queue = Queue(given.queue.store.handle(name), lease=given.queue.lease)
                label = _free(name, self._watched)
                self._watched[label] = Watched(label, queue)
        self._share_time()

    @property
    def left_out(self) -> int:
        """Queues that the stores have and that are not here, because there are MOST already."""
        return sum(self._left_out.values())

    async def close(self) -> None:
        """Let go of the queues that were discovered; the others are their owners'."""
        for each in self:
            if each not in self.given:
                await each.queue.close()

    def _share_time(self) -> None:
        for each in self:
            each.patience = _ANSWER_WITHIN + _FOR_EACH_MORE * (len(self._watched) - 1)

    def some(self, label: str | None) -> list[Watched]:
        """The queue of this label, or all where None is given."""
        return [each for each in self if label in {None, each.label}]

    async def ask(
        self, verb: Callable[[Watched], Awaitable[T]], label: str | None = None
    ) -> Answers[T]:
        """What each queue, or that of the label, says.

        Raises: StoreError where there are some, and none answers.
        """
        some = self.some(label)
        found = await asyncio.gather(*(verb(each) for each in some), return_exceptions=True)
        answers: list[tuple[Watched, T]] = []
        silent: list[Unanswered] = []
        first: StoreError | None = None
        for each, answer in zip(some, found, strict=True):
            if isinstance(answer, StoreError):
                first = first or answer
                silent.append(Unanswered(queue=each.label, error=str(answer)))
            elif isinstance(answer, BaseException):
                raise answer
            else:
                answers.append((each, answer))
        if first is not None and not answers:
            raise first
        return Answers(answers, tuple(silent))

    @property
    def labels(self) -> tuple[str, ...]:
        """What the queues are called here."""
        return tuple(self._watched)


async def in_time(asked: Awaitable[T], place: str, within: float = _ANSWER_WITHIN) -> T:
    """The answer, or StoreUnavailable where it takes too long."""
    looking = asyncio.ensure_future(asked)
    # It is not cancelled where it takes too long: a call is never broken off half-way.
    await asyncio.wait([looking], timeout=within)
    if not looking.done():
        looking.add_done_callback(_retrieve)
        message = f"{place}: no answer within {within:g} s"
        raise StoreUnavailable(message)
    return looking.result()


async def _names(given: Watched) -> list[str]:
    try:
        return await given.ask(lambda store: store.queues())
    except (StoreError, ConfigError):
        return []


def _retrieve(future: asyncio.Future[T]) -> None:
    if not future.cancelled():
        future.exception()


def _labelled(queues: Queues) -> Iterator[Watched]:
    if isinstance(queues, Queue):
        queues = [queues]
    if isinstance(queues, Mapping):
        for label, queue in queues.items():
            yield Watched(check_queue_name(label, "queues"), _queue(queue))
        return
    seen: set[str] = set()
    for queue in queues:
        label = _free(_queue(queue).name, seen)
        seen.add(label)
        yield Watched(label, queue)


def _free(name: str, taken: Container[str]) -> str:
    """The name, or one like it that is not taken."""
    label, number = name, 2
    while label in taken:
        label = f"{name}.{number}"
        number += 1
    return label


def _queue(queue: object) -> Queue:
    if not isinstance(queue, Queue):
        message = f"queues: {type(queue).__name__} is no queue; give queues, by label or in a list"
        raise ConfigError(message, field="queues")
    return queue
