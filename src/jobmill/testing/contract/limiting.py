"""What `reserve` promises."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest

from jobmill.limits import slot_for
from jobmill.store import Store, Window
from jobmill.testing.contract.case import T0, StoreCase, on_a_store

_TINY = 1e-6


def assert_kept(starts: Sequence[float], windows: Sequence[Window]) -> None:
    """In no window [t, t + seconds) are there more starts than its limit."""
    starts = sorted(starts)
    for window in windows:
        for first, beyond in zip(starts, starts[window.limit :], strict=False):
            assert beyond - first >= window.seconds - _TINY, (window, first, beyond)


class LimitContract(StoreCase):
    """No window ever holds more starts than its limit."""

    @on_a_store
    async def test_starts_up_to_the_limit_then_a_slot(self, store: Store) -> None:
        windows = [Window(2, 10.0)]
        assert await store.reserve("k", "j1", "t1", windows, now=T0) == 0
        assert await store.reserve("k", "j2", "t2", windows, now=T0 + 1) == 0
        wait = await store.reserve("k", "j3", "t3", windows, now=T0 + 2)
        assert 8.0 <= wait <= 8.5
        # What comes at its slot starts.
        assert await store.reserve("k", "j3", "t4", windows, now=T0 + 2 + wait) == 0

    @on_a_store
    async def test_a_window_is_over_at_its_end(self, store: Store) -> None:
        windows = [Window(1, 10.0)]
        await store.reserve("k", "j1", "t1", windows, now=T0)
        assert await store.reserve("k", "j2", "t2", windows, now=T0 + 10) == 0

    @on_a_store
    async def test_the_same_token_again_starts_once(self, store: Store) -> None:
        windows = [Window(2, 10.0)]
        for _ in range(3):
            assert await store.reserve("k", "j1", "t1", windows, now=T0) == 0
        assert await store.reserve("k", "j2", "t1", windows, now=T0) == 0
        assert await store.reserve("k", "j3", "t1", windows, now=T0) > 0

    @on_a_store
    async def test_a_start_that_is_given_back_never_was(self, store: Store) -> None:
        windows = [Window(2, 10.0)]
        assert await store.reserve("k", "j1", "t1", windows, now=T0) == 0
        assert await store.reserve("k", "j2", "t2", windows, now=T0) == 0
        for key, job_id, token in (("l", "j1", "t1"), ("k", "j2", "t1"), ("k", "j1", "t2")):
            assert await store.reserve(key, job_id, token, (), now=T0 + 1) == 0
        assert await store.reserve("k", "j3", "t3", windows, now=T0 + 1) > 0
        for _ in range(2):
            assert await store.reserve("k", "j1", "t1", (), now=T0 + 2) == 0
        assert await store.reserve("k", "j3", "t4", windows, now=T0 + 2) == 0
        assert await store.reserve("k", "j4", "t5", windows, now=T0 + 2) > 0
        # The token may start again, and is a start then.
        assert await store.reserve("m", "j1", "t1", windows, now=T0) == 0
        assert await store.reserve("m", "j1", "t1", (), now=T0) == 0
        for n in range(2):
            assert await store.reserve("m", "j1", f"t{n}", windows, now=T0) == 0
        assert await store.reserve("m", "j1", "t2", windows, now=T0) > 0

    @on_a_store
    async def test_the_next_run_of_a_job_is_a_start_of_its_own(self, store: Store) -> None:
        windows = [Window(1, 10.0)]
        assert await store.reserve("k", "j1", "t1", windows, now=T0) == 0
        assert await store.reserve("k", "j1", "t2", windows, now=T0) > 0

    @on_a_store
    async def test_each_job_has_a_slot_of_its_own(self, store: Store) -> None:
        windows = [Window(2, 10.0)]
        waits = [await store.reserve("k", f"j{n}", f"t{n}", windows, now=T0) for n in range(8)]
        assert_kept([T0 + wait for wait in waits], windows)
        assert waits == sorted(waits)
        assert waits[-1] <= 31.5

    @on_a_store
    async def test_asking_again_keeps_the_slot(self, store: Store) -> None:
        windows = [Window(1, 10.0)]
        for n in range(4):
            await store.reserve("k", f"j{n}", f"t{n}", windows, now=T0)
        first = await store.reserve("k", "j2", "t5", windows, now=T0 + 1)
        again = await store.reserve("k", "j2", "t6", windows, now=T0 + 2)
        assert first - again == pytest.approx(1.0, abs=1e-3)

    @on_a_store
    async def test_keys_do_not_share(self, store: Store) -> None:
        windows = [Window(1, 10.0)]
        assert await store.reserve("k", "j1", "t1", windows, now=T0) == 0
        assert await store.reserve("l", "j2", "t2", windows, now=T0) == 0

    @on_a_store
    async def test_every_window_holds(self, store: Store) -> None:
        windows = [Window(1, 1.0), Window(3, 60.0)]
        now = T0
        starts: list[float] = []
        for n in range(3):
            while wait := await store.reserve("k", f"j{n}", f"t{n}", windows, now=now):
                now += wait
            starts.append(now)
        wait = await store.reserve("k", "j9", "t9", windows, now=now)
        assert now + wait >= starts[0] + 60

    @on_a_store
    async def test_a_newcomer_robs_no_slot(self, store: Store) -> None:
        windows = [Window(1, 10.0)]
        await store.reserve("k", "j1", "t1", windows, now=T0)
        wait = await store.reserve("k", "j2", "t2", windows, now=T0)
        at = T0 + wait
        assert await store.reserve("k", "new", "t3", windows, now=at) > 0
        assert await store.reserve("k", "j2", "t4", windows, now=at) == 0

    @on_a_store
    async def test_slots_missed_in_an_outage_do_not_start_together(self, store: Store) -> None:
        windows = [Window(2, 10.0)]
        for n in range(12):
            await store.reserve("k", f"j{n}", f"t{n}", windows, now=T0)
        back = T0 + 600
        answers = [
            await store.reserve("k", f"j{n}", f"u{n}", windows, now=back) for n in range(2, 12)
        ]
        assert answers.count(0) == 2
        assert_kept([back + wait for wait in answers], windows)

    @on_a_store
    async def test_slots_of_jobs_that_never_come_back_are_forgotten(self, store: Store) -> None:
        windows = [Window(1, 10.0)]
        for n in range(5):
            await store.reserve("k", f"j{n}", f"t{n}", windows, now=T0)
        assert await store.reserve("k", "new", "u", windows, now=T0 + 100) == 0

    @on_a_store
    async def test_pruning_forgets_no_start_too_early(self, store: Store) -> None:
        windows = [Window(1, 86_400.0)]
        assert await store.reserve("k", "j1", "t1", windows, now=T0) == 0
        await store.prune(10, now=T0 + 86_399)
        assert await store.reserve("k", "j2", "t2", windows, now=T0 + 86_399) > 0
        await store.prune(10, now=T0 + 4 * 86_400)
        assert await store.reserve("k", "j3", "t3", windows, now=T0 + 4 * 86_400) == 0

    @on_a_store
    async def test_a_rush_starts_no_more_than_the_limit(self, store: Store) -> None:
        windows = [Window(3, 10.0)]
        answers = await asyncio.gather(
            *[store.reserve("k", f"j{n}", f"t{n}", windows, now=T0) for n in range(20)]
        )
        assert answers.count(0) == 3
        assert_kept([T0 + wait for wait in answers], windows)

    @on_a_store
    async def test_answers_are_those_of_the_rule(self, store: Store) -> None:
        """Many starts and slots within moments, against a list of them all."""
        rng = random.Random(1)
        windows = [Window(20, 2.0), Window(50, 9.0)]
        starts: list[float] = []
        slots: dict[str, float] = {}
        now = T0
        for step in range(400):
            now += rng.choice([0.0, 0.0, 0.003, 0.02, 0.3])
            late = [job for job, at in slots.items() if at <= now]
            job = rng.choice([f"j{step}", *late, *list(slots)[:1]])
            starts = [at for at in starts if at + 9.0 > now]
            slots = {job: at for job, at in slots.items() if at + 9.0 > now}
            own = slots.pop(job, None)
            slot = slot_for(starts, sorted(slots.values()), own, windows, now)
            wait = await store.reserve("k", job, f"t{step}", windows, now=now)
            if slot is None:
                starts.append(now)
                assert wait == 0
            else:
                slots[job] = slot
                assert wait == pytest.approx(slot - now, abs=1e-3)

    @pytest.mark.parametrize("seed", range(12))
    @on_a_store
    async def test_no_window_is_ever_overfull(self, store: Store, seed: int) -> None:
        """Late comers, outages, jobs that never come back, and repeats, at random."""
        rng = random.Random(seed)
        windows = [Window(rng.randint(1, 4), rng.choice([1.0, 7.5]))]
        if rng.random() < 0.5:
            windows.append(Window(rng.randint(2, 9), 30.0))
        now, jobs = T0, 0
        starts: list[float] = []
        due: list[tuple[float, str]] = []
        for step in range(250):
            if rng.random() < 0.03:
                now += rng.choice([40.0, 3.0])  # an outage: many slots are missed
            if due and (rng.random() < 0.7 or jobs > 80):
                due.sort()
                at, job = due.pop(0)
                if rng.random() < 0.1:
                    continue  # it was cancelled
                now = max(now, at + rng.choice([0.0, 0.0, 0.01, 2.0]))
            else:
                jobs += 1
                job = f"j{jobs}"
            wait = await store.reserve("k", job, f"t{step}", windows, now=now)
            if wait == 0:
                starts.append(now)
                if rng.random() < 0.2:
                    assert await store.reserve("k", job, f"t{step}", windows, now=now) == 0
            else:
                assert wait > 0
                due.append((now + wait, job))
        assert len(starts) > 10
        assert_kept(starts, windows)
