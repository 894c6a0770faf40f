from __future__ import annotations

from typing import Any, cast

from jobmill.run import Run
from jobmill.slots import Grant, Slots

LEASE = 30.0


class FakeRun:
    """A run, as slots see it."""

    def __init__(self, *, suspect: bool = False) -> None:
        self.claim = cast("Any", type("Claim", (), {"suspect": suspect}))


def a_run(*, suspect: bool = False) -> Run:
    return cast("Run", FakeRun(suspect=suspect))


def ask(slots: Slots[str], feed: str, *, feeds: int = 1, now: float = 0.0) -> Grant:
    return slots.grant(feed, feeds, lease=LEASE, now=now)


def test_an_idle_worker_asks_for_all_and_reserves_all() -> None:
    slots: Slots[str] = Slots(4)
    assert ask(slots, "a", feeds=2) == Grant(2, "idle")
    assert ask(slots, "b", feeds=2) == Grant(0, "busy")
    assert "b" in slots.line
    assert slots.give_back("a")
    assert ask(slots, "b", feeds=2) == Grant(2, "idle")
    assert "b" not in slots.line
    # Nobody waits any more, so nobody is to be woken.
    assert not slots.give_back("b")


def test_a_busy_worker_asks_for_what_is_free() -> None:
    slots: Slots[str] = Slots(3)
    slots.begin(a_run(), "a")
    assert ask(slots, "a") == Grant(2, "busy")
    slots.begin(a_run(), "a")
    slots.begin(a_run(), "a")
    slots.give_back("a")
    assert ask(slots, "a") == Grant(0, "busy")


def test_who_waited_longest_is_first() -> None:
    slots: Slots[str] = Slots(1)
    run = a_run()
    slots.begin(run, "a")
    for feed in ("b", "c", "a"):
        assert ask(slots, feed, feeds=3).limit == 0
        slots.give_back(feed)
    slots.end(run)
    assert ask(slots, "a", feeds=3).limit == 0
    assert ask(slots, "c", feeds=3).limit == 0
    assert ask(slots, "b", feeds=3).limit == 1
    assert slots.give_back("b")
    slots.give_back("a")
    slots.give_back("c")
    assert ask(slots, "a", feeds=3).limit == 0
    assert ask(slots, "c", feeds=3).limit == 1


def test_who_cannot_reach_its_store_keeps_nobody_waiting() -> None:
    slots: Slots[str] = Slots(4)
    assert ask(slots, "a", feeds=2) == Grant(2, "idle")
    assert ask(slots, "b", feeds=2).limit == 0
    slots.suspect_waits("a", 0.0, waits=True)
    slots.step_aside("a")
    # What its lost claim may have got stays reserved.
    assert ask(slots, "b", feeds=2, now=100.0) == Grant(1, "busy")
    slots.give_back("b")
    slots.begin(a_run(), "a")
    slots.begin(a_run(), "a")
    assert ask(slots, "b", feeds=2, now=100.0).limit == 0
    slots.step_aside("b")
    assert "b" not in slots.line


def test_nothing_runs_beside_a_suspect() -> None:
    slots: Slots[str] = Slots(4)
    suspect = a_run(suspect=True)
    slots.begin(suspect, "a")
    assert ask(slots, "a", feeds=2) == Grant(0, "busy")
    assert ask(slots, "b", feeds=2) == Grant(0, "busy")
    slots.end(suspect)
    slots.give_back("a")
    slots.give_back("b")
    assert ask(slots, "b", feeds=2).limit > 0


def test_a_suspect_that_waited_a_lease_comes_first() -> None:
    slots: Slots[str] = Slots(4)
    run = a_run()
    slots.begin(run, "a")
    slots.suspect_waits("a", 0.0, waits=True)
    slots.suspect_waits("a", 20.0, waits=True)
    assert ask(slots, "a", feeds=2, now=LEASE).limit > 0
    slots.give_back("a")
    late = LEASE + 1
    assert ask(slots, "a", feeds=2, now=late) == Grant(0, "busy")
    assert ask(slots, "b", feeds=2, now=late) == Grant(0, "busy")
    slots.give_back("a")
    slots.give_back("b")
    slots.end(run)
    assert ask(slots, "b", feeds=2, now=late) == Grant(0, "busy")
    assert ask(slots, "a", feeds=2, now=late) == Grant(1, "alone")
    slots.give_back("a")
    slots.suspect_waits("a", late, waits=False)
    slots.give_back("b")
    assert ask(slots, "b", feeds=2, now=late).limit == 2


def test_a_quiet_worker_is_granted_nothing() -> None:
    slots: Slots[str] = Slots(4)
    slots.quiet = True
    assert ask(slots, "a") == Grant(0, "busy")


def test_it_is_idle_while_nothing_runs() -> None:
    slots: Slots[str] = Slots(2)
    first, second = a_run(), a_run()
    assert slots.idle.is_set()
    slots.begin(first, "a")
    slots.begin(second, "a")
    slots.end(first)
    assert not slots.idle.is_set()
    slots.end(second)
    assert slots.idle.is_set()


def test_no_more_runs_are_granted_than_the_budget_has() -> None:
    slots: Slots[str] = Slots(4, budget=3)
    assert ask(slots, "a") == Grant(3, "idle")
    runs = [a_run(), a_run()]
    for run in runs:
        slots.begin(run, "a")
    slots.give_back("a")
    assert ask(slots, "a") == Grant(1, "busy")
    # What another feed may get is spent already.
    assert ask(slots, "b").limit == 0
    slots.give_back("b")
    slots.begin(a_run(), "a")
    slots.give_back("a")
    for run in runs:
        slots.end(run)
    assert slots.started == 3
    assert ask(slots, "a") == Grant(0, "busy")
