"""Layers around a job's handler: composed, and the ones that come with jobmill.

A middleware is called with the job's context and `next`, which runs all that is inside it
and gives the handler's result; it may call `next` more than once. It may carry a `gate`, an
async function of the context that the worker asks before anything of the run begins: a
positive answer puts the run off for that many seconds, unspent.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any, Final

from jobmill.backoff import retry_delay
from jobmill.context import JobContext
from jobmill.errors import ConfigError, Fail, PayloadError
from jobmill.job import JobMiddleware
from jobmill.options import BackoffName, check_duration, check_key, check_whole
from jobmill.policy import Policy
from jobmill.store import Window

Next = Callable[[], Awaitable[Any]]
Gate = Callable[[JobContext[Any]], Awaitable[float]]

_log = logging.getLogger("jobmill.job")


def gates_of(layers: Sequence[JobMiddleware]) -> tuple[Gate, ...]:
    """The gates that these layers carry, outermost first."""
    gates: list[Gate | None] = [getattr(layer, "gate", None) for layer in layers]
    return tuple(gate for gate in gates if gate is not None)


class Refused(Fail):
    """The job fails at once, and `error` is why."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class _Composed:
    def __init__(self, layers: Sequence[JobMiddleware]) -> None:
        self._layers = tuple(layers)

    async def __call__(self, ctx: JobContext[Any], next: Next) -> Any:  # noqa: A002  the public name
        return await self._from(0, ctx, next)

    async def _from(self, index: int, ctx: JobContext[Any], innermost: Next) -> Any:
        if index == len(self._layers):
            return await innermost()
        return await self._layers[index](ctx, lambda: self._from(index + 1, ctx, innermost))


class _GatedComposed(_Composed):
    def __init__(self, layers: Sequence[JobMiddleware], gates: Sequence[Gate]) -> None:
        super().__init__(layers)
        self._gates = tuple(gates)

    async def gate(self, ctx: JobContext[Any]) -> float:
        return await first_wait(self._gates, ctx)


async def first_wait(gates: Sequence[Gate], ctx: JobContext[Any]) -> float:
    """Seconds that the first gate with something to wait for asks for; 0 where none does."""
    for gate in gates:
        if (wait := await gate(ctx)) > 0:
            return wait
    return 0.0


def compose_middleware(middleware: Sequence[JobMiddleware]) -> JobMiddleware:
    """One middleware of many, the first of them the outermost.

    It carries the gates of its parts.
    """
    for layer in middleware:
        if not callable(layer):
            message = f"middleware: {layer!r} cannot be called; give functions of (ctx, next)"
            raise ConfigError(message, field="middleware")
    gates = gates_of(middleware)
    return _GatedComposed(middleware, gates) if gates else _Composed(middleware)


def create_validation_middleware(validate: Callable[[Any], Any]) -> JobMiddleware:
    """Refuse payloads: `validate(payload)` raises, or returns False, to fail the job at once.

    `validate` may be async. A job that is refused is not retried, since its payload stays as
    it is. What `validate` raises is the job's error; False is a PayloadError.
    """

    async def validation(ctx: JobContext[Any], next: Next) -> Any:  # noqa: A002  the public name
        try:
            verdict = validate(ctx.payload)
            if inspect.isawaitable(verdict):
                verdict = await verdict
        except Exception as error:
            raise Refused(error) from error
        if verdict is False:
            raise Refused(PayloadError("the payload was refused by the job's validation"))
        return await next()

    return validation


def create_logging_middleware(
    on_start: Callable[[JobContext[Any]], Any] | None = None,
    on_complete: Callable[[JobContext[Any], Any, float], Any] | None = None,
    on_error: Callable[[JobContext[Any], BaseException, float], Any] | None = None,
) -> JobMiddleware:
    """Tell of each run, to callbacks or to the log.

    `on_start(ctx)`, `on_complete(ctx, result, seconds)`, `on_error(ctx, error, seconds)`, sync
    or async. With no callback at all it writes to the logger `jobmill.job`: the job,
    its attempt and its duration, never its payload. A callback that raises is logged, and
    changes nothing.
    """
    silent = on_start is None and on_complete is None and on_error is None

    async def tell(ctx: JobContext[Any], callback: Callable[..., Any] | None, *data: Any) -> None:
        if callback is None:
            return
        try:
            answer = callback(ctx, *data)
            if inspect.isawaitable(answer):
                await answer
        except Exception:
            _log.exception("a logging callback failed", extra=_fields(ctx))

    async def logging_(ctx: JobContext[Any], next: Next) -> Any:  # noqa: A002  the public name
        began = time.perf_counter()
        if silent:
            _log.info("job started", extra=_fields(ctx))
        await tell(ctx, on_start)
        try:
            result = await next()
        except BaseException as error:
            seconds = time.perf_counter() - began
            shown = error.error if isinstance(error, Refused) else error
            if silent:
                fields = {**_fields(ctx), "duration": seconds, "error": type(shown).__name__}
                _log.warning("job ended by %s after %.3f s", fields["error"], seconds, extra=fields)
            await tell(ctx, on_error, shown, seconds)
            raise
        seconds = time.perf_counter() - began
        if silent:
            _log.info(
                "job completed in %.3f s", seconds, extra={**_fields(ctx), "duration": seconds}
            )
        await tell(ctx, on_complete, result, seconds)
        return result

    return logging_


def _fields(ctx: JobContext[Any]) -> dict[str, Any]:
    return {
        "job_id": ctx.job_id,
        "job_name": ctx.job_name,
        "queue": ctx.queue_name,
        "attempt": ctx.attempt,
    }


_TO_THE_HANDLER: Final = 0.03
"""Seconds by which a window is longer than it was asked for.

The store records a start when it is asked; the handler begins after the reply, in its turn of
the loop. Where one batch is slower there than the next one, its starts move closer to those.
"""


class _RateLimit:
    def __init__(
        self, windows: Sequence[Window], key: str | Callable[[JobContext[Any]], str] | None
    ) -> None:
        self._windows = tuple(windows)
        self._key = key

    async def __call__(self, ctx: JobContext[Any], next: Next) -> Any:  # noqa: A002  the public name
        return await next()

    async def gate(self, ctx: JobContext[Any]) -> float:
        key = self._key
        name = ctx.job_name if key is None else key if isinstance(key, str) else key(ctx)
        return await ctx.queue.reserve(ctx, check_key("key", name), self._windows)


def create_rate_limit_middleware(
    max_per_second: int | None = None,
    max_per_minute: int | None = None,
    key: str | Callable[[JobContext[Any]], str] | None = None,
) -> JobMiddleware:
    """Let no more than that many runs start in any second, or minute, over all workers.

    The limit is kept in the store under `key`, the job's name where none is given, or what
    the callable makes of the context. A run that must wait is put off to a slot of its own;
    it spends no attempt and holds no worker's slot meanwhile. A window is held 30 ms longer
    than a second, or a minute, so that the limit holds in the handlers, too.
    """
    windows: list[Window] = []
    for field, limit, seconds in (
        ("max_per_second", max_per_second, 1.0),
        ("max_per_minute", max_per_minute, 60.0),
    ):
        if limit is None:
            continue
        windows.append(Window(check_whole(field, limit, 1), seconds + _TO_THE_HANDLER))
    if not windows:
        message = "max_per_second: give it, or max_per_minute, or both"
        raise ConfigError(message, field="max_per_second")
    if key is not None and not callable(key):
        check_key("key", key)
    return _RateLimit(windows, key)


def create_retry_middleware(
    max_attempts: int = 3,
    delay: float | timedelta = 1.0,
    backoff: BackoffName = "exponential",
    retry_on: tuple[type[Exception], ...] = (Exception,),
) -> JobMiddleware:
    """Try what is inside it up to `max_attempts` times within one attempt of the job.

    Waits `delay` seconds, growing by `backoff`, between tries. The last error goes on to
    the queue's own retries. An abort ends the tries.
    """
    check_whole("max_attempts", max_attempts, 1)
    if backoff not in ("fixed", "linear", "exponential"):
        message = f"backoff: {backoff!r} is none of fixed, linear, exponential"
        raise ConfigError(message, field="backoff")
    policy = Policy(retry_delay=check_duration("delay", delay), backoff=backoff, jitter=0.0)

    async def retry(ctx: JobContext[Any], next: Next) -> Any:  # noqa: A002  the public name
        for n in range(1, max_attempts):
            try:
                return await next()
            except retry_on as error:
                if ctx.signal.aborted:
                    raise
                pause = retry_delay(policy, n, random=_no_jitter)
                _log.info(
                    "try %d of %d failed with %s; again in %.3f s",
                    n,
                    max_attempts,
                    type(error).__name__,
                    pause,
                    extra=_fields(ctx),
                )
            await asyncio.sleep(pause)
        return await next()

    return retry


def _no_jitter() -> float:
    return 0.0
