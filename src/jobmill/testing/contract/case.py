"""What the contract's tests are made of: a new store for each, and short ways to fill it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from jobmill.clock import Clock
from jobmill.policy import Policy
from jobmill.states import Claim, Event, Move, Note, State
from jobmill.store import Claimed, Moved, NewJob, Record, Store, Want

T0 = 1_700_000_040.0
"""The instant at which most tests begin: the first of a minute."""


_LEADS_TO: Final[dict[State, Event]] = {
    "pending": "release",
    "completed": "succeed",
    "failed": "fail",
    "cancelled": "abort",
}


class StillClock:
    """A clock that stands still until a test sets it."""

    def __init__(self, wall: float = T0) -> None:
        self.at = wall

    def wall(self) -> float:
        """Unix seconds."""
        return self.at

    def boot(self) -> float:
        """Seconds from an arbitrary start."""
        return self.at


class StoreCase:
    """Tests of a store; a subclass says how one is opened."""

    async def open_store(self, clock: Clock) -> Store:
        """A new, empty, opened store that keeps the time of `clock`, if it keeps its own.

        The test closes it. What it leaves on disk or on a server is the author's to remove,
        in a fixture.
        """
        raise NotImplementedError


_Case = TypeVar("_Case", bound=StoreCase)
_Args = ParamSpec("_Args")


def on_a_store(
    test: Callable[Concatenate[_Case, Store, _Args], Awaitable[None]],
) -> Callable[Concatenate[_Case, _Args], Coroutine[Any, Any, None]]:
    """Give the test a store of its own, and close it afterwards."""

    async def run(case: _Case, /, *args: _Args.args, **kwargs: _Args.kwargs) -> None:
        store = await case.open_store(StillClock())
        try:
            await test(case, store, *args, **kwargs)
        finally:
            await store.close()

    functools.update_wrapper(run, test)
    # pytest would take `store` for a fixture.
    signature = inspect.signature(test)
    parameters = [each for name, each in signature.parameters.items() if name != "store"]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return run


def a_job(id_: str = "j1", name: str = "a", **fields: Any) -> NewJob:
    """A job to be added."""
    return NewJob(
        id=id_,
        name=name,
        payload=fields.pop("payload", b"{}"),
        policy=fields.pop("policy", Policy()),
        **fields,
    )


def some_jobs(count: int, name: str = "a", **fields: Any) -> list[NewJob]:
    """Jobs j1, j2 and so on."""
    return [a_job(f"j{number}", name, **fields) for number in range(1, count + 1)]


def a_want(token: str = "t1", **fields: Any) -> Want:  # noqa: S107
    """What the worker w1 asks for: up to 10 jobs, for 30 seconds."""
    fields = {"worker": "w1", "limit": 10, "lease": 30.0, **fields}
    return Want(token=token, **fields)


def ids(claims: tuple[Claim, ...]) -> list[str]:
    """The ids of claims, in order."""
    return [claim.id for claim in claims]


async def claim(store: Store, token: str = "t1", *, now: float = T0, **fields: Any) -> Claimed:  # noqa: S107
    """Claim for the worker w1."""
    return await store.claim(a_want(token, **fields), now=now)


async def running(store: Store, id_: str = "j1", *, now: float = T0, **fields: Any) -> Claim:
    """A job that is added and claimed, alone: j1 by the token t1, any other by t-ID."""
    await store.add([a_job(id_, **fields)], now=now)
    claimed = await claim(store, "t1" if id_ == "j1" else f"t-{id_}", now=now, limit=1)
    assert ids(claimed.claims) == [id_]
    return claimed.claims[0]


async def move(
    store: Store,
    event: Event,
    id_: str = "j1",
    token: str | None = None,
    *,
    now: float | None = T0,
    **fields: Any,
) -> Moved:
    """Apply one event to one job."""
    (moved,) = await store.move([Move(event=event, job_id=id_, token=token, **fields)], now=now)
    return moved


async def record(store: Store, id_: str = "j1", *, now: float = T0) -> Record:
    """The record of a job that is there."""
    (found,) = await store.get([id_], now=now)
    assert found is not None, f"there is no record of {id_}"
    return found


async def state(store: Store, id_: str = "j1", *, now: float = T0) -> State:
    """The state of a job that is there."""
    return (await record(store, id_, now=now)).state


async def in_state(store: Store, wanted: State, id_: str = "j1", **fields: Any) -> str | None:
    """A job that came into this state at T0; the token it was last claimed by.

    Only delayed jobs have never run; they are due an hour later.
    """
    if wanted == "delayed":
        await store.add([a_job(id_, delay=3_600.0, **fields)], now=T0)
        return None
    run = await running(store, id_, **fields)
    if wanted != "processing":
        moved = await move(store, _LEADS_TO[wanted], id_, run.token)
        assert (moved.status, moved.state) == ("applied", wanted)
    return run.token


def a_note(progress: float | None = None, text: str | None = None, *lines: int) -> Note:
    """A note with log lines of these numbers."""
    return Note(
        progress=progress,
        progress_note=text,
        lines=tuple((number, b'{"line":%d}' % number) for number in lines),
    )
