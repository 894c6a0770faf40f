"""What a job is: its name, its handler and its options; and one call of it, not yet queued."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    ParamSpec,
    Protocol,
    TypeAlias,
    TypeVar,
    Union,
    Unpack,
    cast,
    overload,
)

from jobmill.context import JobContext
from jobmill.errors import ConfigError, DefinitionError, PayloadError
from jobmill.options import (
    JobOptions,
    OptionFields,
    Unique,
    check_job_name,
    check_key,
    refuse_unknown,
)
from jobmill.registry import described, register
from jobmill.signature import (
    arguments_type,
    check_takes_context,
    check_takes_no_context,
    default_name,
    is_async,
    payload_type,
    result_type,
    signature_of,
)

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from jobmill.codec import Codec

P = TypeVar("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
A = ParamSpec("A")

AsyncHandler: TypeAlias = Callable[[JobContext[P]], Awaitable[R]]
SyncHandler: TypeAlias = Callable[[JobContext[P]], R]
JobHandler: TypeAlias = Union[AsyncHandler[P, R], SyncHandler[P, R]]  # noqa: UP007 - generic at run time
JobMiddleware: TypeAlias = Callable[[JobContext[Any], Callable[[], Awaitable[Any]]], Awaitable[Any]]


@dataclass(frozen=True, kw_only=True)
class JobHooks:
    """Functions called around each run; sync or async, each bounded to 10 s."""

    before_run: Callable[[JobContext[Any]], object] | None = None
    after_run: Callable[[JobContext[Any], Any], object] | None = None
    on_error: Callable[[JobContext[Any], BaseException], object] | None = None
    on_retry: Callable[[JobContext[Any], int], object] | None = None
    on_progress: Callable[[JobContext[Any], float], object] | None = None
    on_finally: Callable[[JobContext[Any]], object] | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            hook = getattr(self, field.name)
            if hook is not None and not callable(hook):
                message = f"{field.name}: {type(hook).__name__} is no function"
                raise ConfigError(message, field=field.name)


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Call(Generic[R_co]):
    """A job with its payload, not queued."""

    job: JobDefinition[Any, R_co]
    payload: Any

    def __repr__(self) -> str:
        return f"Call({self.job.name!r})"


class JobDefinition(Generic[P, R_co]):
    """A job that can be enqueued: a handler under a name, with P its payload and R its result."""

    takes_context = True

    def __init__(
        self,
        name: str,
        handler: Callable[..., Any],
        *,
        options: JobOptions,
        hooks: JobHooks,
        middleware: tuple[JobMiddleware, ...],
    ) -> None:
        self.signature: inspect.Signature = signature_of(handler)
        self.name: str = check_job_name(name)
        self.handler = handler
        self.options = options
        self.hooks = hooks
        self.middleware = middleware
        self.is_async: bool = is_async(handler)
        if self.is_async and options.executor != "auto":
            message = (
                f"{described(handler)} is async and runs on the event loop; "
                f'executor="{options.executor}" is for a plain def'
            )
            raise DefinitionError(message)
        self._check_signature()
        functools.update_wrapper(self, handler, updated=())

    def __call__(self, ctx: JobContext[P], /) -> Any:
        """Call the handler, as a plain function; nothing is queued."""
        return self.handler(ctx)

    @overload
    def call(self: JobDefinition[None, R], /) -> Call[R]: ...
    @overload
    def call(self, payload: P, /) -> Call[R_co]: ...
    def call(self, payload: Any = None, /) -> Call[Any]:
        """This job with this payload, not queued."""
        return Call(self, payload)

    def invoke(self, ctx: JobContext[Any]) -> Any:
        """Call the handler for one run; what it returns is the result, or an awaitable of it."""
        return self.handler(ctx)

    def encode_payload(self, payload: object, *, limit: int | None = None) -> bytes:
        """The payload as JSON; PayloadError names the part that does not fit the job."""
        return self.payload_codec.encode(payload, limit=limit)

    def decode_payload(self, data: bytes, *, limit: int | None = None) -> P:
        """The payload that the JSON tells; PayloadError names the part that does not fit."""
        return cast("P", self.payload_codec.decode(data, limit=limit))

    def encode_result(self, result: object, *, limit: int | None = None) -> bytes:
        """The result as JSON; PayloadError names the part that does not fit the job."""
        return self.result_codec.encode(result, limit=limit)

    def decode_result(self, data: bytes) -> R_co:
        """The result that the JSON tells; PayloadError names the part that does not fit."""
        return cast("R_co", self.result_codec.decode(data))

    def unique_key_for(
        self, payload: object, data: bytes, unique: Unique | None = None
    ) -> str | None:
        """The unique key that `unique`, or the job's own option, gives this payload.

        `data` is the payload's JSON.

        Raises: PayloadError where a function gives no key.
        """
        unique = self.options.unique if unique is None else unique
        if unique is None:
            return None
        if not callable(unique):
            from hashlib import sha256

            return sha256(data).hexdigest()
        try:
            key: Any = unique(payload)
        except Exception as error:
            message = f"$: the job's unique function refused it: {type(error).__name__}: {error}"
            raise PayloadError(message, path="$") from error
        if not isinstance(key, str):
            message = f"$: the job's unique function gave {type(key).__name__}, not a string"
            raise PayloadError(message, path="$")
        try:
            return check_key("unique", key)
        except ConfigError as error:
            message = f"$: the job's unique function gave no key: {error}"
            raise PayloadError(message, path="$") from error

    @cached_property
    def payload_codec(self) -> Codec:
        """The codec of P; made at first use, so that P may be defined after the job."""
        from jobmill.codec import Codec

        return Codec(self._payload_type())

    @cached_property
    def result_codec(self) -> Codec:
        """The codec of R; made at first use."""
        from jobmill.codec import Codec

        return Codec(result_type(self.handler, self.signature))

    def _check_signature(self) -> None:
        check_takes_context(self.handler, self.signature)

    def _payload_type(self) -> Any:
        return payload_type(self.handler, self.signature)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"


_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class FunctionJob(JobDefinition[Mapping[str, Any], R_co], Generic[A, R_co]):
    """A job whose handler is a function of plain arguments; its payload is their mapping."""

    takes_context = False

    def __call__(self, *args: A.args, **kwargs: A.kwargs) -> R_co:  # type: ignore[override]
        """Call the function, as if it were no job; nothing is queued."""
        return cast("R_co", self.handler(*args, **kwargs))

    def call(self, *args: A.args, **kwargs: A.kwargs) -> Call[R_co]:  # type: ignore[override]
        """This job with these arguments, not queued; TypeError where they do not fit."""
        names, needed = self._plain
        if not kwargs and needed <= len(args) <= len(names):
            return Call(self, dict(zip(names, args, strict=False)))
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            message = f"{self.name}: {error}"
            raise TypeError(message) from None
        return Call(self, dict(bound.arguments))

    def invoke(self, ctx: JobContext[Any]) -> Any:
        """Call the function with the arguments that the payload holds."""
        if self._by_name:
            return self.handler(**ctx.payload)
        return self._bound(ctx)()

    def _bound(self, ctx: JobContext[Any]) -> Callable[[], Any]:
        # No frame that is on the stack while the function runs has them as its own locals, which
        # reports of errors show: who reports scrubs a password by its name, and not in here.
        bound = inspect.BoundArguments(self.signature, ctx.payload)
        return functools.partial(self.handler, *bound.args, **bound.kwargs)

    def encode_payload(self, payload: object, *, limit: int | None = None) -> bytes:
        """The arguments as JSON; None stands for no arguments."""
        return self.payload_codec.encode({} if payload is None else payload, limit=limit)

    def decode_payload(self, data: bytes, *, limit: int | None = None) -> Mapping[str, Any]:
        """The arguments; null, too, stands for none: other languages know no definition."""
        arguments = self.payload_codec.decode(b"{}" if data == b"null" else data, limit=limit)
        return cast("Mapping[str, Any]", arguments)

    @cached_property
    def _by_name(self) -> bool:
        """Whether each argument may be given by its name, which takes no binding."""
        parameters = self.signature.parameters.values()
        return all(each.kind in _BY_NAME for each in parameters)

    @cached_property
    def _plain(self) -> tuple[tuple[str, ...], int]:
        """The names that arguments alone fill, and how many of them have to be; the rest binds."""
        parameters = self.signature.parameters.values()
        if any(each.kind is not each.POSITIONAL_OR_KEYWORD for each in parameters):
            return (), 1
        needed = [each for each in parameters if each.default is each.empty]
        return tuple(each.name for each in parameters), len(needed)

    def _check_signature(self) -> None:
        check_takes_no_context(self.handler, self.signature)

    def _payload_type(self) -> Any:
        return arguments_type(self.handler, self.signature)


class AsyncFunctionJob(FunctionJob[A, R_co]):
    """A FunctionJob whose handler is an async def."""

    if TYPE_CHECKING:

        def __call__(self, *args: A.args, **kwargs: A.kwargs) -> Coroutine[Any, Any, R_co]:  # type: ignore[override]
            """Call the async function, as if it were no job; nothing is queued."""
            ...


class _HandlerDecorator(Protocol):
    @overload
    def __call__(self, handler: AsyncHandler[P, R], /) -> JobDefinition[P, R]: ...
    @overload
    def __call__(self, handler: SyncHandler[P, R], /) -> JobDefinition[P, R]: ...


class _FunctionDecorator(Protocol):
    @overload
    def __call__(
        self, function: Callable[A, Coroutine[Any, Any, R]], /
    ) -> AsyncFunctionJob[A, R]: ...
    @overload
    def __call__(self, function: Callable[A, R], /) -> FunctionJob[A, R]: ...


_Middleware: TypeAlias = JobMiddleware | Sequence[JobMiddleware]


@overload
def define_job(
    handler: AsyncHandler[P, R],
    *,
    name: str | None = None,
    options: JobOptions | None = None,
    hooks: JobHooks | None = None,
    middleware: _Middleware = (),
    **fields: Unpack[OptionFields],
) -> JobDefinition[P, R]: ...
@overload
def define_job(
    handler: SyncHandler[P, R],
    *,
    name: str | None = None,
    options: JobOptions | None = None,
    hooks: JobHooks | None = None,
    middleware: _Middleware = (),
    **fields: Unpack[OptionFields],
) -> JobDefinition[P, R]: ...
@overload
def define_job(
    *,
    name: str | None = None,
    options: JobOptions | None = None,
    hooks: JobHooks | None = None,
    middleware: _Middleware = (),
    **fields: Unpack[OptionFields],
) -> _HandlerDecorator: ...
def define_job(handler: Callable[..., Any] | None = None, **chosen: Any) -> Any:
    """Define a job whose handler takes one JobContext; as a function or as a decorator.

    Raises: DefinitionError for a name that is taken or malformed and for a handler that takes
    anything else; ConfigError for a wrong option.
    """
    return _define("define_job", JobDefinition, JobDefinition, handler, chosen)


@overload
def job(function: Callable[A, Coroutine[Any, Any, R]], /) -> AsyncFunctionJob[A, R]: ...
@overload
def job(function: Callable[A, R], /) -> FunctionJob[A, R]: ...
@overload
def job(
    *,
    name: str | None = None,
    options: JobOptions | None = None,
    hooks: JobHooks | None = None,
    middleware: _Middleware = (),
    **fields: Unpack[OptionFields],
) -> _FunctionDecorator: ...
def job(function: Callable[..., Any] | None = None, /, **chosen: Any) -> Any:
    """Define a job out of a function of plain arguments; bare or with options.

    Raises: as define_job.
    """
    return _define("job", FunctionJob, AsyncFunctionJob, function, chosen)


def _define(
    called: str,
    plain: type[JobDefinition[Any, Any]],
    coroutine: type[JobDefinition[Any, Any]],
    handler: Callable[..., Any] | None,
    chosen: Mapping[str, Any],
) -> Any:
    refuse_unknown(called, chosen, _KEYWORDS)
    options = _options(chosen)
    hooks = chosen.get("hooks")
    if hooks is None:
        hooks = JobHooks()
    if not isinstance(hooks, JobHooks):
        message = f"hooks: {type(hooks).__name__} will not do; give JobHooks(...)"
        raise ConfigError(message, field="hooks")
    middleware = as_middleware(chosen.get("middleware", ()))

    def decorate(handler: Callable[..., Any]) -> JobDefinition[Any, Any]:
        signature_of(handler)
        name = chosen.get("name")
        definition = (coroutine if is_async(handler) else plain)(
            default_name(handler) if name is None else name,
            handler,
            options=options,
            hooks=hooks,
            middleware=middleware,
        )
        register(definition)
        return definition

    return decorate if handler is None else decorate(handler)


def _options(chosen: Mapping[str, Any]) -> JobOptions:
    options: object = chosen.get("options")
    if options is not None and not isinstance(options, JobOptions):
        message = f"options: {type(options).__name__} will not do; give JobOptions(...)"
        raise ConfigError(message, field="options")
    own = {name: value for name, value in chosen.items() if name in OptionFields.__annotations__}
    return JobOptions(**cast("OptionFields", own)).over(options)


_KEYWORDS = frozenset({"name", "options", "hooks", "middleware", *OptionFields.__annotations__})


def as_middleware(middleware: object) -> tuple[JobMiddleware, ...]:
    """One middleware or a sequence of them, as a tuple; ConfigError for anything else."""
    given: Sequence[object] = (middleware,)
    if middleware is None:
        given = ()
    elif isinstance(middleware, Sequence):
        given = cast("Sequence[object]", middleware)
    for each in given:
        if not callable(each):
            message = f"middleware: {type(each).__name__} is no function"
            raise ConfigError(message, field="middleware")
    return cast("tuple[JobMiddleware, ...]", tuple(given))
