from __future__ import annotations

import asyncio
from contextvars import Context, ContextVar

import pytest
from hypothesis import given, strategies as st

from jobmill.deadlines import Deadlines


class Loop:
    """A loop's clock and timers, by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[Timer] = []
        self.contexts: list[Context] = []

    def time(self) -> float:
        return self.now

    def call_at(self, at: float, callback: object, *, context: Context) -> Timer:
        self.contexts.append(context)
        timer = Timer(at, callback)
        self.timers.append(timer)
        return timer

    def go_to(self, now: float) -> None:
        self.now = now
        while due := [timer for timer in self.timers if timer.live and timer.at <= now]:
            first = min(due, key=lambda timer: timer.at)
            first.live = False
            first.callback()  # type: ignore[operator]

    @property
    def armed(self) -> list[float]:
        return [timer.at for timer in self.timers if timer.live]


class Timer:
    def __init__(self, at: float, callback: object) -> None:
        self.at = at
        self.callback = callback
        self.live = True

    def cancel(self) -> None:
        self.live = False


def make() -> tuple[Loop, Deadlines]:
    loop = Loop()
    return loop, Deadlines(loop)  # type: ignore[arg-type]


def test_callbacks_come_in_the_order_of_their_instants_behind_one_timer() -> None:
    loop, deadlines = make()
    log: list[str] = []
    for at, name in ((3.0, "c"), (1.0, "a"), (2.0, "b"), (2.0, "b again")):
        deadlines.add(at, lambda name=name: log.append(name))  # type: ignore[misc]
        assert len(loop.armed) == 1
    loop.go_to(0.5)
    assert log == []
    loop.go_to(2.0)
    assert log == ["a", "b", "b again"]
    assert loop.armed == [3.0]
    loop.go_to(9.0)
    assert log == ["a", "b", "b again", "c"]
    assert loop.armed == []


def test_a_lifted_deadline_never_comes_and_lifting_it_again_does_nothing() -> None:
    loop, deadlines = make()
    log: list[str] = []
    first = deadlines.add(1.0, lambda: log.append("first"))
    second = deadlines.add(2.0, lambda: log.append("second"))
    first.lift()
    first.lift()
    loop.go_to(3.0)
    second.lift()
    assert log == ["second"]
    assert deadlines._dead == 0


def test_a_callback_may_add_and_lift() -> None:
    loop, deadlines = make()
    log: list[str] = []
    later = deadlines.add(5.0, lambda: log.append("later"))

    def first() -> None:
        log.append("first")
        later.lift()
        deadlines.add(2.0, lambda: log.append("at once"))
        deadlines.add(7.0, lambda: log.append("new"))

    deadlines.add(1.0, first)
    loop.go_to(3.0)
    assert log == ["first", "at once"]
    loop.go_to(8.0)
    assert log == ["first", "at once", "new"]


def test_the_lifted_are_dropped_when_they_are_most() -> None:
    loop, deadlines = make()
    log: list[int] = []
    kept = [deadlines.add(2.0 + n, lambda n=n: log.append(n)) for n in range(3)]  # type: ignore[misc]
    for _ in range(10_000):
        deadlines.add(1_000.0, lambda: log.append(-1)).lift()
        assert len(deadlines._heap) <= 140
    loop.go_to(2_000.0)
    assert log == [0, 1, 2]
    assert len(kept) == 3
    assert deadlines._heap == []
    assert deadlines._dead == 0


def test_a_timer_does_not_keep_the_context_of_who_set_it() -> None:
    loop, deadlines = make()
    var: ContextVar[str] = ContextVar("var")
    var.set("of a run")
    deadlines.add(1.0, lambda: None)
    assert [var in context for context in loop.contexts] == [False]


def test_closing_forgets_all() -> None:
    loop, deadlines = make()
    deadlines.add(1.0, lambda: pytest.fail("called"))
    deadlines.close()
    assert loop.armed == []
    loop.go_to(2.0)


@given(
    st.lists(st.tuples(st.floats(0, 100), st.booleans()), max_size=300),
    st.lists(st.floats(0, 100), max_size=5),
)
def test_every_deadline_that_is_not_lifted_comes_once_when_it_is_due(
    adds: list[tuple[float, bool]], steps: list[float]
) -> None:
    loop, deadlines = make()
    log: list[int] = []
    made = [
        deadlines.add(at, lambda n=n: log.append(n))  # type: ignore[misc]
        for n, (at, _) in enumerate(adds)
    ]
    for deadline, (_, lift) in zip(made, adds, strict=True):
        if lift:
            deadline.lift()
    for now in sorted(steps):
        loop.go_to(now)
        due = {n for n, (at, lift) in enumerate(adds) if at <= now and not lift}
        assert set(log) == due
    loop.go_to(101.0)
    assert sorted(log) == [n for n, (_, lift) in enumerate(adds) if not lift]
    assert [adds[n][0] for n in log] == sorted(adds[n][0] for n in log)


async def test_it_works_on_a_real_loop() -> None:
    loop = asyncio.get_running_loop()
    deadlines = Deadlines(loop)
    done = asyncio.Event()
    began = loop.time()
    deadlines.add(began + 0.02, done.set)
    await asyncio.wait_for(done.wait(), 30)
    assert loop.time() - began >= 0.019
