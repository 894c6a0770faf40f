"""The simulation's loop: asyncio as it is, in virtual time."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import Any

import pytest

from jobmill.clock import SteadyClock
from jobmill.testing.sim import (
    Sim,
    SimClock,
    SimDeadlock,
    SimError,
    SimLoop,
    SimOverrun,
    current_process,
    simulate,
)


def test_timers_run_in_order_at_their_time_and_at_once() -> None:
    async def main(sim: Sim) -> list[tuple[str, float]]:
        start, told = sim.loop.time(), list[tuple[str, float]]()

        def tell(name: str) -> None:
            told.append((name, sim.loop.time() - start))

        sim.loop.call_later(3600, tell, "late")
        sim.loop.call_later(2, tell, "second")
        sim.loop.call_later(1, tell, "first")
        sim.loop.call_later(1.5, tell, "never").cancel()
        sim.loop.call_soon(tell, "now")
        await asyncio.sleep(10_000)
        return told

    told = simulate(main, 0)
    assert [name for name, _ in told] == ["now", "first", "second", "late"]
    assert [at for _, at in told] == pytest.approx([0, 1, 2, 3600])


def test_wall_and_boot_advance_together_and_jump_moves_the_wall_only() -> None:
    async def main(sim: Sim) -> None:
        wall, boot = sim.clock.wall(), sim.clock.boot()
        await asyncio.sleep(5)
        assert sim.clock.wall() - wall == pytest.approx(5)
        assert sim.clock.boot() - boot == pytest.approx(5)
        sim.clock.jump(-3600)
        assert sim.clock.wall() - wall == pytest.approx(-3595)
        assert sim.clock.boot() - boot == pytest.approx(5)
        steady = SteadyClock(sim.clock)
        sim.clock.jump(-60)
        before = steady.now()
        await asyncio.sleep(10)
        assert steady.now() - before == pytest.approx(5)

    simulate(main, 0)


def test_a_frozen_machine_runs_what_fell_due_afterwards_in_order() -> None:
    async def main(sim: Sim) -> list[tuple[str, float]]:
        start, told = sim.loop.time(), list[tuple[str, float]]()
        for delay in (3, 1, 2):
            sim.loop.call_later(
                delay, lambda name: told.append((name, sim.loop.time() - start)), str(delay)
            )
        sim.clock.freeze(100)
        await asyncio.sleep(0)
        return told

    assert simulate(main, 0) == [("1", 100.0), ("2", 100.0), ("3", 100.0)]


def test_a_timeout_strikes_at_its_virtual_time() -> None:
    async def main(sim: Sim) -> float:
        start = sim.loop.time()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(7):
                await asyncio.sleep(1000)
        return sim.loop.time() - start

    assert simulate(main, 0) == pytest.approx(7)


def test_a_task_group_ends_its_tasks_when_one_fails() -> None:
    ended: list[int] = []

    async def wait(number: int) -> None:
        try:
            await asyncio.sleep(100)
        finally:
            ended.append(number)

    async def fail() -> None:
        await asyncio.sleep(1)
        raise LookupError

    async def main(_sim: Sim) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(20):
                group.create_task(wait(number))
            group.create_task(fail())

    with pytest.raises(ExceptionGroup):
        simulate(main, 0)
    first, ended = ended, []
    with pytest.raises(ExceptionGroup):
        simulate(main, 0)
    # The group keeps its tasks in a set: their order is the same in each run all the same.
    assert first == ended
    assert sorted(first) == list(range(20))


def test_queue_event_and_lock_work_as_ever() -> None:
    async def main(_sim: Sim) -> list[int]:
        queue: asyncio.Queue[int] = asyncio.Queue(2)
        ready, lock, got = asyncio.Event(), asyncio.Lock(), list[int]()

        async def produce() -> None:
            await ready.wait()
            for number in range(10):
                await queue.put(number)

        async def consume() -> None:
            while len(got) < 10:
                async with lock:
                    if len(got) < 10:
                        got.append(await queue.get())

        async with asyncio.TaskGroup() as group:
            group.create_task(produce())
            for _ in range(3):
                group.create_task(consume())
            await asyncio.sleep(1)
            ready.set()
        return got

    assert simulate(main, 0) == list(range(10))


async def _race(sim: Sim) -> list[tuple[int, float]]:
    told: list[tuple[int, float]] = []

    async def walk(number: int) -> None:
        for _ in range(5):
            await sim.checkpoint()
            told.append((number, sim.loop.time()))

    async with asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(walk(number))
    return told


def test_one_seed_is_one_run_and_another_seed_is_another() -> None:
    assert simulate(_race, 7) == simulate(_race, 7)
    runs = {tuple(simulate(_race, seed)) for seed in range(20)}
    assert len(runs) == 20


def test_ids_and_dice_follow_from_the_seed_and_the_name() -> None:
    async def main(sim: Sim) -> tuple[list[str], float, float]:
        ids = sim.ids("a")
        return [ids() for _ in range(3)], sim.dice("x").random(), sim.dice("y").random()

    assert simulate(main, 1) == simulate(main, 1)
    assert simulate(main, 1)[0] != simulate(main, 2)[0]
    _, x, y = simulate(main, 1)
    assert x != y


def test_a_deadlock_names_what_waits_and_where() -> None:
    async def stuck_for_good() -> None:
        await asyncio.Event().wait()

    async def main(_sim: Sim) -> None:
        await asyncio.create_task(stuck_for_good(), name="the stuck one")

    with pytest.raises(SimDeadlock, match=r"the stuck one: .*stuck_for_good") as caught:
        simulate(main, 3)
    assert "JOBMILL_SEED=3 pytest" in caught.value.__notes__[0]
    assert "test_a_deadlock_names_what_waits_and_where" in caught.value.__notes__[0]


def test_a_livelock_is_an_overrun() -> None:
    async def spin(_sim: Sim) -> None:
        while True:
            await asyncio.sleep(0)

    async def linger(_sim: Sim) -> None:
        while True:
            await asyncio.sleep(3600)

    with pytest.raises(SimOverrun, match="after 1000 steps"):
        simulate(spin, 0, max_steps=1000)
    with pytest.raises(SimOverrun, match="virtual time is up"):
        simulate(linger, 0, max_seconds=86_400)


def test_threads_are_refused() -> None:
    async def main(sim: Sim) -> None:
        with pytest.raises(SimError, match="one thread: run_in_executor"):
            await asyncio.to_thread(int)
        caught: list[BaseException] = []

        def call() -> None:
            try:
                sim.loop.call_soon_threadsafe(int)
            except SimError as error:
                caught.append(error)

        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
        assert len(caught) == 1
        done = asyncio.Event()
        sim.loop.call_soon_threadsafe(done.set)
        await done.wait()

    simulate(main, 0)


def test_what_goes_wrong_unseen_fails_the_run() -> None:
    def fail() -> None:
        raise LookupError("hidden")

    async def main(sim: Sim) -> None:
        sim.loop.call_soon(fail)
        await asyncio.sleep(1)

    with pytest.raises(SimError, match="went wrong unseen") as caught:
        simulate(main, 0)
    assert isinstance(caught.value.__cause__, LookupError)


def test_leftovers_are_cancelled_and_the_loop_is_closed() -> None:
    ended: list[str] = []
    loops: list[SimLoop] = []

    async def linger() -> None:
        try:
            await asyncio.sleep(1e6)
        finally:
            await asyncio.sleep(1)
            ended.append("linger")

    async def refuse() -> None:
        while True:
            try:
                await asyncio.sleep(1e6)
            except asyncio.CancelledError:
                ended.append("refused")

    keep: list[Any] = []

    async def main(sim: Sim) -> None:
        loops.append(sim.loop)
        keep.append(asyncio.create_task(linger()))
        keep.append(asyncio.create_task(refuse()))
        await asyncio.sleep(1)

    simulate(main, 0)
    assert "linger" in ended
    assert "refused" in ended
    assert loops[0].is_closed()


async def _ticks(told: list[tuple[str, float]], sim: Sim, name: str) -> None:
    while True:
        await asyncio.sleep(1)
        told.append((name, sim.loop.time()))


def test_a_frozen_process_stands_still_while_others_go_on() -> None:
    async def main(sim: Sim) -> None:
        told: list[tuple[str, float]] = []
        one, two = sim.process("one"), sim.process("two")
        one.start(_ticks(told, sim, "one"))
        two.start(_ticks(told, sim, "two"))
        await asyncio.sleep(2.5)
        one.freeze()
        await asyncio.sleep(10)
        assert sum(name == "one" for name, _ in told) == 2
        assert sum(name == "two" for name, _ in told) == 12
        thawed = sim.loop.time()
        one.thaw()
        await asyncio.sleep(0.1)
        assert [at for name, at in told if name == "one"][2:] == [thawed]
        await asyncio.sleep(2)
        assert sum(name == "one" for name, _ in told) == 5

    simulate(main, 0)


def test_a_timer_cancelled_after_the_thaw_does_not_strike() -> None:
    async def main(sim: Sim) -> None:
        told: list[str] = []

        async def run() -> None:
            later = sim.loop.call_later(3, told.append, "struck")
            sim.loop.call_later(2, later.cancel)

        process = sim.process("p")
        process.start(run())
        await asyncio.sleep(1)
        process.freeze()
        await asyncio.sleep(10)
        process.thaw()
        await asyncio.sleep(10)
        assert told == []

    simulate(main, 0)


def test_a_killed_process_runs_no_line_more_until_the_simulation_is_over() -> None:
    told: list[str] = []
    over: list[bool] = []

    async def main(sim: Sim) -> None:
        async def run() -> None:
            try:
                await asyncio.sleep(2)
                told.append("went on")
            finally:
                over.append(sim.over)

        process = sim.process("p")
        process.start(run())
        await asyncio.sleep(1)
        process.kill()
        await process.died()
        assert not process.alive
        await asyncio.sleep(100)
        assert told == []
        assert over == []

    simulate(main, 0)
    assert told == []
    assert over == [True]


def test_all_that_a_process_starts_belongs_to_it() -> None:
    async def main(sim: Sim) -> None:
        told: list[str] = []

        def soon(name: str) -> None:
            told.append(name)

        async def child(name: str) -> None:
            assert current_process() is process
            await asyncio.sleep(5)
            told.append(name)

        async def run() -> None:
            empty: Callable[[], contextvars.Context] = contextvars.Context
            keep = [
                asyncio.create_task(child("plain")),
                asyncio.create_task(child("fresh"), context=empty()),
            ]
            sim.loop.call_later(5, soon, "timer")
            sim.loop.call_later(5, soon, "fresh timer", context=empty())
            await asyncio.wait(keep)

        process = sim.process("p")
        process.start(run())
        await asyncio.sleep(1)
        assert current_process() is None
        process.freeze()
        await asyncio.sleep(10)
        assert told == []
        process.thaw()
        await asyncio.sleep(1)
        assert sorted(told) == ["fresh", "fresh timer", "plain", "timer"]

    simulate(main, 0)


def test_a_clock_can_be_shared_with_a_loop_of_its_own() -> None:
    clock = SimClock(wall=100.0)
    loop = SimLoop(clock)
    try:
        loop.run_until_complete(asyncio.sleep(50))
    finally:
        loop.close()
    assert clock.wall() == pytest.approx(150.0)
