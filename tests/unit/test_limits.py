"""The arithmetic of rate limits: no window is overfull, and no more room is wasted than needed."""

from __future__ import annotations

from typing import Any

from hypothesis import given, strategies as st

from jobmill.limits import SLACK, Window, earliest, from_end, longest, most, slot_for

_windows = st.lists(
    st.builds(Window, st.integers(1, 4), st.sampled_from([0.5, 1.0, 7.5, 60.0])),
    min_size=1,
    max_size=3,
)
_instants = st.lists(st.floats(0, 100, allow_nan=False), max_size=12).map(sorted)


def kept(starts: list[float], windows: list[Window]) -> bool:
    starts = sorted(starts)
    return all(
        beyond - first >= window.seconds - 1e-9
        for window in windows
        for first, beyond in zip(starts, starts[window.limit :], strict=False)
    )


def test_room_is_room() -> None:
    windows = [Window(2, 10.0)]
    assert earliest([], [], windows, 5.0) == 5.0
    assert earliest([1.0], [], windows, 5.0) == 5.0
    assert earliest([1.0, 2.0], [], windows, 5.0) == 11.0
    assert earliest([1.0], [2.0], windows, 5.0) == 11.0
    assert earliest([1.0, 2.0], [11.0, 12.0], windows, 5.0) == 21.0
    assert earliest([1.0, 2.0], [], windows, 11.0) == 11.0


def test_every_window_counts() -> None:
    windows = [Window(1, 1.0), Window(3, 60.0)]
    assert earliest([0.0, 1.0, 2.0], [], windows, 2.5) == 60.0
    assert earliest([1.0, 2.0], [], windows, 2.5) == 3.0
    assert (longest(windows), most(windows)) == (60.0, 3)
    assert (longest([]), most([])) == (0.0, 0)


def test_a_slot_has_slack_and_a_start_has_none() -> None:
    windows = [Window(1, 10.0)]
    assert slot_for([0.0], [], None, windows, 4.0) == 10.0 + SLACK
    assert slot_for([0.0], [], None, windows, 10.0) is None


def test_a_newcomer_robs_no_slot_but_its_owner_comes_late_as_it_likes() -> None:
    windows = [Window(1, 10.0)]
    assert slot_for([0.0], [10.2], None, windows, 10.5) == 10.2 + 10.0 + SLACK
    assert slot_for([0.0], [], 10.2, windows, 10.5) is None
    assert slot_for([0.0], [11.0], 10.2, windows, 10.5) is None


def test_a_slot_that_was_missed_gives_no_right_to_start() -> None:
    windows = [Window(1, 10.0)]
    slot = slot_for([95.0], [10.2], 20.4, windows, 100.0)
    assert slot == 95.0 + 10.0 + SLACK


def test_who_asks_before_its_slot_keeps_it() -> None:
    windows = [Window(1, 10.0)]
    assert slot_for([0.0], [20.4, 30.6], 10.2, windows, 3.0) == 10.2


@given(_windows, _instants, _instants, st.floats(0, 100, allow_nan=False))
def test_one_start_more_at_the_earliest_keeps_every_window(
    windows: list[Window], starts: list[float], slots: list[float], now: float
) -> None:
    taken: list[float] = []
    for instant in (*starts, *slots):
        if kept([*taken, instant], windows):
            taken.append(instant)
    starts = sorted(instant for instant in taken if instant in starts)
    slots = sorted(instant for instant in taken if instant not in starts)
    at = earliest(starts, slots, windows, now)
    assert at >= now
    assert kept([*starts, *slots, at], windows)
    # Only the last of each matter.
    last = most(windows)
    assert earliest(starts[-last:], slots[-last:], windows, now) == at


@given(_instants, _instants, st.integers(1, 26))
def test_a_place_from_the_end_is_that_of_both_together(
    starts: list[float], slots: list[float], place: int
) -> None:
    both = sorted((*starts, *slots), reverse=True)
    assert from_end(starts, slots, place) == (both[place - 1] if place <= len(both) else None)


def test_to_find_a_place_few_are_looked_at() -> None:
    looks = 0

    class Counted(list[float]):
        def __getitem__(self, place: Any) -> Any:
            nonlocal looks
            looks += 1
            return super().__getitem__(place)

    starts = Counted(map(float, range(0, 200_000, 2)))
    slots = Counted(map(float, range(1, 200_001, 2)))
    assert from_end(starts, slots, 50_000) == 150_000.0
    assert from_end(starts, (), 50_000) == 100_000.0
    assert looks < 50


class Limit:
    """A key as a store keeps it: starts by (job, token), and slots by job."""

    def __init__(self, windows: list[Window]) -> None:
        self.windows = windows
        self.starts: list[float] = []
        self.slots: dict[str, float] = {}

    def ask(self, job: str, now: float) -> float | None:
        old = now - longest(self.windows)
        starts = [at for at in self.starts if at > old]
        slots = {other: at for other, at in self.slots.items() if at > old}
        own = slots.pop(job, None)
        slot = slot_for(sorted(starts), sorted(slots.values()), own, self.windows, now)
        self.slots.pop(job, None)
        if slot is None:
            self.starts.append(now)
        else:
            assert slot > now
            self.slots[job] = slot
        return slot


@given(_windows, st.data())
def test_no_window_is_ever_overfull(windows: list[Window], data: st.DataObject) -> None:
    """Late comers, early ones, outages, and jobs that never come back."""
    limit = Limit(windows)
    now = 0.0
    for step in range(data.draw(st.integers(1, 60))):
        now += data.draw(st.sampled_from([0.0, 0.0, 0.1, 0.5, 3.0, 200.0]))
        waiting = sorted(limit.slots)
        job = data.draw(st.sampled_from([f"new{step}", *waiting]))
        limit.ask(job, now)
        assert kept(limit.starts, windows)


@given(st.lists(st.sampled_from([0.0, 0.001, 0.01]), min_size=1, max_size=40))
def test_who_comes_a_little_late_is_not_put_off_again(late: list[float]) -> None:
    """Slots have slack, so that jobs are moved once and not polled."""
    limit = Limit([Window(2, 1.0)])
    waits = [(limit.ask(f"j{number}", 0.0), f"j{number}") for number in range(len(late))]
    slots = sorted((slot, job) for slot, job in waits if slot is not None)
    for (slot, job), lateness in zip(slots, late, strict=False):
        assert limit.ask(job, slot + lateness) is None
