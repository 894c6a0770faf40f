"""Runs one claim: from its payload's bytes to the move that settles it."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from jobmill.backoff import chosen_delay, retry_delay
from jobmill.context import CURRENT, AbortReason, JobContext
from jobmill.errors import (
    Cancel,
    ConfigError,
    DefinitionError,
    JobCancelled,
    JobTimeout,
    LeaseLost,
    PayloadError,
    Retry,
    Snooze,
    StoreUnavailable,
)
from jobmill.executors import (
    ChildDied,
    ContextFields,
    ProcessExecutor,
    ThreadExecutor,
)
from jobmill.failures import failure_at, failure_of, is_retryable, log_failure
from jobmill.job import JobDefinition, JobMiddleware
from jobmill.logs import job_fields
from jobmill.middleware import Gate, Refused, compose_middleware, first_wait, gates_of
from jobmill.options import check_duration
from jobmill.registry import lookup
from jobmill.run import Abandoned, Run, Telling
from jobmill.states import (
    Claim,
    Move,
    after_cancel,
    after_failure,
    after_lapse,
    after_snooze,
    after_stop,
    after_success,
    after_timeout,
)
from jobmill.unknown import put_off

if TYPE_CHECKING:
    from jobmill.deadlines import Deadline, Deadlines
    from jobmill.options import JobOptions
    from jobmill.queue import Queue

log: Final = logging.getLogger("jobmill.worker")

CheckLease = Callable[[Run], Awaitable[None]]

MAX_RESULT_BYTES: Final = 1 << 20
HOOK_TIMEOUT: Final = 10.0
"""Seconds that a hook may take."""
GATE_RETRY: Final = 1.0
"""Seconds until a run is tried again whose gate could not reach the store."""


class _Plan:
    """A definition as one queue runs it: options merged, middleware composed."""

    __slots__ = ("chain", "definition", "gates", "hooks", "options", "plain", "tells")

    def __init__(
        self,
        definition: JobDefinition[Any, Any],
        middleware: Sequence[JobMiddleware],
        defaults: JobOptions | None,
    ) -> None:
        layers = (*middleware, *definition.middleware)
        self.definition = definition
        self.hooks = definition.hooks
        self.options = definition.options.over(defaults)
        self.chain = compose_middleware(layers) if layers else None
        self.gates: tuple[Gate, ...] = gates_of(layers)
        self.plain: bool = not layers and definition.is_async and self.hooks.before_run is None
        """Whether nothing but the handler runs under the deadline, and that on the loop."""
        self.tells: bool = self.hooks.after_run is None and self.hooks.on_finally is None
        """Whether nobody is called between a result and its settling."""


class Runner:
    """Runs the claims of one queue in one worker."""

    def __init__(
        self,
        queue: Queue,
        *,
        deadlines: Deadlines,
        threads: ThreadExecutor,
        processes: ProcessExecutor,
        abort: Callable[[Run, AbortReason], None],
        interrupt: Callable[[], None],
        stopping: Callable[[], bool],
    ) -> None:
        self._queue = queue
        self._deadlines = deadlines
        self._threads = threads
        self._processes = processes
        self._abort = abort
        self._interrupt = interrupt
        self._stopping = stopping
        self._plans: dict[str, _Plan] = {}
        self.state: Any = None
        """What the queue's lifespan gave."""
        self.faults: Counter[str] = Counter()
        """Failures that changed no outcome, by what failed."""
        self.unknown: Counter[str] = Counter()
        """Jobs that were put off because nothing of their name is defined here, by name."""

    async def run(self, run: Run, check_lease: CheckLease) -> Move | None:
        """Run the claim; the move that settles it, or None where the lease was lost.

        `check_lease` aborts the run where a freeze has cost its lease.
        """
        claim = run.claim
        plan = self._plan(claim.name)
        if plan is None:
            self.unknown[claim.name] += 1
            return put_off(claim, self._queue.name)
        try:
            payload = plan.definition.decode_payload(claim.payload)
        except PayloadError as problem:
            return after_failure(claim, failure_of(run, problem), retryable=False, delay=0.0)
        ctx = self._context(run, plan, payload)
        token = CURRENT.set(ctx)
        try:
            result: Any = None
            error: BaseException | None = None
            if plan.gates:
                wait, error = await self._ask_gates(run, plan, ctx, check_lease)
                if wait > 0:
                    return after_snooze(claim, wait, untried=True, memo=claim.memo)
            if error is None:
                result, error = await self._attempt(run, plan, ctx)
            if error is None and plan.tells and not run.telling and run.signal.reason is None:
                try:
                    encoded = plan.definition.encode_result(result, limit=MAX_RESULT_BYTES)
                except Exception as problem:  # noqa: BLE001  classes of the user's take part
                    error = Refused(problem)
                else:
                    return after_success(claim, encoded, run.note())
            return await self._conclude(run, plan, ctx, result, error)
        finally:
            CURRENT.reset(token)

    def settle_lapse(self, claim: Claim) -> Move:
        """The move for a claim that was taken over from a worker that died."""
        times = claim.lapses + 1
        error = LeaseLost(f"the worker that ran this job died; that happened {times} times to it")
        return after_lapse(claim, failure_at(claim, error, claim.started_at))

    async def _conclude(
        self,
        run: Run,
        plan: _Plan,
        ctx: JobContext[Any],
        result: Any,
        error: BaseException | None,
    ) -> Move | None:
        """Decide what follows the attempt, and call the hooks."""
        for telling in tuple(run.telling):
            await asyncio.wait([asyncio.wrap_future(telling)])
        try:
            if run.signal.reason is not None:
                return await self._after_abort(run, plan, ctx, result, error)
            if error is not None:
                return await self._after_error(run, plan, ctx, error)
            return await self._after_result(run, plan, ctx, result)
        finally:
            if (hook := plan.hooks.on_finally) is not None:
                await self._hook(ctx, "on_finally", hook)

    async def _ask_gates(
        self, run: Run, plan: _Plan, ctx: JobContext[Any], check_lease: CheckLease
    ) -> tuple[float, BaseException | None]:
        """Seconds that the run has to wait, or what a gate raised."""
        error: BaseException | None = None
        try:
            wait = await first_wait(plan.gates, ctx)
            if wait > 0:
                # What other limits have granted is no start.
                await self._queue.give_back(ctx)
            await check_lease(run)
        except StoreUnavailable:
            wait = GATE_RETRY
        except BaseException as problem:
            if isinstance(problem, asyncio.CancelledError) and run.signal.aborted:
                # Told to stop before anything of it began.
                raise
            self._look_at(run, problem)
            wait, error = 0.0, problem
        return wait, error

    async def _attempt(
        self, run: Run, plan: _Plan, ctx: JobContext[Any]
    ) -> tuple[Any, BaseException | None]:
        """Run `before_run`, middleware and handler under the timeout: a result or an error."""
        timeout = run.claim.policy.timeout
        deadline: Deadline | None = None
        if timeout is not None:
            abort = partial(self._abort, run, "timeout")
            deadline = self._deadlines.add(asyncio.get_running_loop().time() + timeout, abort)
        run.begun = run.cuttable = True
        try:
            if run.signal.reason is not None:
                return None, asyncio.CancelledError()
            if plan.plain:
                return await plan.definition.invoke(ctx), None
            if (before := plan.hooks.before_run) is not None:
                await self._bounded(before, ctx)
            if plan.chain is None:
                return await self._handle(run, plan, ctx), None
            return await plan.chain(ctx, partial(self._handle, run, plan, ctx)), None
        except Abandoned:
            raise
        except BaseException as error:  # noqa: BLE001  whatever a handler raises is an outcome
            self._look_at(run, error)
            return None, error
        finally:
            run.cuttable = False
            if deadline is not None:
                deadline.lift()

    def _look_at(self, run: Run, error: BaseException) -> None:
        """Stop where an error means that, and end a cancellation here."""
        if isinstance(error, KeyboardInterrupt):
            run.signal.abort("shutdown")
            self._interrupt()
        current = asyncio.current_task()
        while current is not None and current.cancelling():
            if self._stopping():
                # The loop is being closed under the run, which did nothing wrong.
                run.signal.abort("shutdown")
            current.uncancel()

    async def _handle(self, run: Run, plan: _Plan, ctx: JobContext[Any]) -> Any:
        definition = plan.definition
        if definition.is_async:
            return await definition.invoke(ctx)
        if plan.options.executor == "process":
            fields = ContextFields.of(ctx)
            try:
                encoded = await self._processes.run(
                    definition,
                    run.claim.payload,
                    fields,
                    run.signal,
                    run.claim.policy.abort_grace,
                    on_progress=ctx.update_progress,
                    on_log=run.add_line,
                    result_limit=MAX_RESULT_BYTES,
                )
            except (DefinitionError, PayloadError) as error:
                raise Refused(error) from error
            return definition.decode_result(encoded)
        result = await self._in_thread(run, partial(definition.invoke, ctx))
        return await result if inspect.isawaitable(result) else result

    async def _in_thread(self, run: Run, call: Callable[[], Any]) -> Any:
        """Run the call in a thread, and return only when the thread has ended.

        No thread can be cancelled, and a second run must not start beside it: so a
        cancellation waits for the thread, unless the run was abandoned.
        """
        future = self._threads.start(call)
        cancelled = False
        while not future.done():
            try:
                await asyncio.wait([future])
            except asyncio.CancelledError:
                if run.abandoned:
                    raise Abandoned from None
                cancelled = True
        if cancelled and not run.signal.aborted and not self._stopping():
            raise asyncio.CancelledError
        return future.result()

    async def _after_abort(
        self,
        run: Run,
        plan: _Plan,
        ctx: JobContext[Any],
        result: Any,
        error: BaseException | None,
    ) -> Move | None:
        """What follows where the run was told to stop: the reason decides, not the handler."""
        claim = run.claim
        if run.signal.reason == "lease_lost":
            return None
        if run.signal.reason == "cancelled":
            cancelled = JobCancelled("the job was cancelled while it ran")
            return after_cancel(claim, failure_of(run, cancelled), run.note())
        if run.signal.reason == "timeout":
            error = JobTimeout(f"the attempt ran longer than {claim.policy.timeout:g} s")
        if error is not None:
            return await self._after_error(run, plan, ctx, error)
        # At a shutdown there may be a real outcome.
        return await self._after_result(run, plan, ctx, result)

    async def _after_result(self, run: Run, plan: _Plan, ctx: JobContext[Any], result: Any) -> Move:
        try:
            encoded = plan.definition.encode_result(result, limit=MAX_RESULT_BYTES)
        except Exception as error:  # noqa: BLE001  classes of the user's take part
            return await self._after_error(run, plan, ctx, Refused(error))
        if (hook := plan.hooks.after_run) is not None:
            await self._hook(ctx, "after_run", hook, result)
        return after_success(run.claim, encoded, run.note())

    async def _after_error(
        self,
        run: Run,
        plan: _Plan,
        ctx: JobContext[Any],
        error: BaseException,
    ) -> Move:
        claim = run.claim
        delay: float | None = None
        if isinstance(error, Retry | Snooze) and error.delay is not None:
            try:
                delay = _seconds(error.delay)
            except ConfigError as wrong:
                error = wrong
        if isinstance(error, Snooze):
            if error.reason:
                run.add_line(f"snoozed: {error.reason}", {})
            return after_snooze(claim, delay or 0.0, note=run.note())
        if isinstance(error, Cancel):
            cancelled = JobCancelled(error.reason or None, reason=error.reason)
            return after_cancel(claim, failure_of(run, cancelled), run.note())
        if run.signal.reason == "shutdown" and isinstance(error, _HANDED_BACK):
            return after_stop(claim, note=run.note())

        shown = error.error if isinstance(error, Refused) else error
        if (hook := plan.hooks.on_error) is not None:
            await self._hook(ctx, "on_error", hook, shown)
        retryable = is_retryable(error, plan.options)
        decide = after_timeout if run.signal.reason == "timeout" else after_failure
        if delay is None:
            delay = self._retry_delay(claim, plan, error) if retryable else 0.0
        move = decide(
            claim,
            failure_of(run, shown),
            retryable=retryable,
            delay=delay,
            note=run.note(),
        )
        if move.event == "retry" and (on_retry := plan.hooks.on_retry) is not None:
            await self._hook(ctx, "on_retry", on_retry, claim.attempt)
        return move

    def _retry_delay(self, claim: Claim, plan: _Plan, error: BaseException) -> float:
        chosen = plan.options.backoff
        random = self._queue.seams.random.random
        if not callable(chosen):
            return retry_delay(claim.policy, claim.attempt, random=random)
        delay, problem = chosen_delay(chosen, claim.policy, claim.attempt, error, random=random)
        if problem is not None:
            self.faults["backoff"] += 1
            text = "the backoff of %s failed; exponential it is"
            extra = job_fields(claim, self._queue.name)
            log.error(text, claim.name, exc_info=problem, extra=extra)
        return delay

    async def _hook(
        self, ctx: JobContext[Any], name: str, hook: Callable[..., Any], *args: Any
    ) -> None:
        """Call a hook whose failure changes nothing: it is logged and counted."""
        try:
            await self._bounded(hook, ctx, *args)
        except BaseException as error:  # noqa: BLE001  it changes nothing, whatever it is
            # Also an exit, a cancellation or a Retry: only the handler decides.
            if isinstance(error, KeyboardInterrupt):
                self._interrupt()
            self.faults[name] += 1
            extra = {
                "job_id": ctx.job_id,
                "job_name": ctx.job_name,
                "attempt": ctx.attempt,
                "queue": ctx.queue_name,
            }
            log_failure(log, error, "the hook %s of %s failed", name, ctx.job_name, **extra)

    async def _bounded(self, hook: Callable[..., Any], *args: Any) -> None:
        async with asyncio.timeout(HOOK_TIMEOUT):
            if inspect.iscoroutinefunction(hook):
                await hook(*args)
                return
            answer = await self._threads.start(partial(hook, *args))
            if inspect.isawaitable(answer):
                await answer

    def _plan(self, name: str) -> _Plan | None:
        plan = self._plans.get(name)
        definition = lookup(name)
        if definition is None:
            return None
        if plan is None or plan.definition is not definition:
            layers = (*self._queue.tracing.layers, *self._queue.middleware)
            plan = _Plan(definition, layers, self._queue.default_options)
            self._plans[name] = plan
        return plan

    def _context(self, run: Run, plan: _Plan, payload: Any) -> JobContext[Any]:
        ctx = JobContext.of(run.claim, payload, self._queue, self.state, run)
        if (hook := plan.hooks.on_progress) is not None:
            ctx.tell_progress_to(Telling(run, partial(self._hook, ctx, "on_progress", hook)))
        return ctx


_HANDED_BACK: Final = (asyncio.CancelledError, ChildDied, JobCancelled, KeyboardInterrupt)
"""What a run ends with because its worker stops, and not by itself."""


def _seconds(delay: float | timedelta) -> float:
    """The delay of a Retry or a Snooze; an instant that is past means now."""
    seconds = cast("object", delay.total_seconds() if isinstance(delay, timedelta) else delay)
    return check_duration("delay", max(seconds, 0) if isinstance(seconds, int | float) else seconds)
